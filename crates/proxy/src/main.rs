//! The `outrigger-proxy` program. It also answers to the name `pilot-agent`, so that a manifest written for
//! Istio's sidecar image needs only another image.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger_proxy::commands::run(std::env::args().collect())
}
