//! `istio-iptables`: capture, done by `outrigger-init`, which the image holds beside this program. Istio's image does both,
//! so that a pod names one image.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::Failure;

/// Becomes `outrigger-init` with the arguments `args`; returns only if it cannot.
pub(super) fn run(args: &[String]) -> Result<(), Failure> {
    let init = std::env::current_exe().map(|own| own.with_file_name("outrigger-init"));
    let failed =
        |error: &dyn std::fmt::Display| Failure::Failed(format!("cannot run outrigger-init: {error}"));
    let init = init.map_err(|error| failed(&error))?;
    let error = Command::new(&init).arg("istio-iptables").args(args).exec();
    Err(failed(&format!("{}: {error}", init.display())))
}
