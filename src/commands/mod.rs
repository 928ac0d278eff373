//! One file a command, thin: each reads its options, calls the library, prints.
