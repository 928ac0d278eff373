//! One file a command, thin: each reads its options, calls the library, prints.

pub(crate) mod certs;
pub(crate) mod serve;
mod trial;
