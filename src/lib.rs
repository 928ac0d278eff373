//! The library of the injector.
