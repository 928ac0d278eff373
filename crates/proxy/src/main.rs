//! outrigger-proxy.
fn main() {}
