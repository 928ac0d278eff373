//! The `outrigger-proxy` program. It also answers to the name `pilot-agent`, so that a manifest written for
//! Istio's sidecar image needs only another image.

use std::process::ExitCode;

/// The C library's allocator keeps what is cut into pieces by small things that live long: under HTTP/2 nearly as much again
/// as is in use.
#[cfg(target_env = "gnu")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    outrigger_proxy::run(std::env::args().collect())
}
