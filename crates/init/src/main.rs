//! outrigger-init.
fn main() {}
