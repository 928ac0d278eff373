//! `outrigger inject`: what the webhook would do, to a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use outrigger::injection::{Injector, Request};
use outrigger::manifest::Pod;
use outrigger::settings::Settings;

use super::manifests::ManifestFlags;
use super::report::{Outcome, Report};
use super::rewrite::{self, FormatFlag, Verdict};
use super::settings::SettingsFlags;

/// Inject the sidecar into manifests: what the webhook would do, to a file.
///
/// Every workload is decided upon, injected or left, in the order of the input. What is no workload passes through
/// as it came. Data goes to standard output, the report to standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger inject -f app.yaml | kubectl apply -f -
  outrigger inject -f manifests/ -o injected.yaml
  helm template shop ./chart | outrigger inject -f - --namespace shop | kubectl apply -f -

Exit status: 0 done; 1 something failed, and is reported and not in the output; 2 usage.")]
pub(crate) struct Inject {
    #[command(flatten)]
    manifests: ManifestFlags,
    /// Where the manifests go: a file, or - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", help_heading = "Output")]
    output: PathBuf,
    /// Format of all documents [default: each as it came]
    #[arg(long, value_enum, help_heading = "Output")]
    format: Option<FormatFlag>,
    #[command(flatten)]
    settings: SettingsFlags,
}

impl Inject {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        rewrite::reported(|report| {
            let injector = injector(&self.settings, report)?;
            rewrite::write(
                &self.manifests,
                &self.output,
                self.format,
                "injected",
                report,
                |_, pod, request| inject(&injector, pod, request),
            )
        })
    }
}

/// The injector that the flags ask for; what is odd about its settings is reported.
pub(crate) fn injector(flags: &SettingsFlags, report: &mut Report) -> Result<Injector, String> {
    injector_of(flags, flags.settings()?, None, report)
}

/// The injector of settings that `flags` had a part in, over those of a `place`; what is odd about them is reported.
pub(crate) fn injector_of(
    flags: &SettingsFlags,
    settings: Settings,
    place: Option<&str>,
    report: &mut Report,
) -> Result<Injector, String> {
    let injector = flags.injector(settings, place)?;
    injector.warnings().into_iter().for_each(|warning| report.warning(warning));
    Ok(injector)
}

/// One pod, injected or left.
pub(crate) fn inject(injector: &Injector, pod: &Pod, request: &Request) -> Result<Verdict, String> {
    let injection = injector.inject(pod.value, request).map_err(|e| e.to_string())?;
    let decision = &injection.decision;
    let (outcome, word, detail) = match &injection.pod {
        Some(_) => (Outcome::Done, "injected", format!("({})", decision.reason.code())),
        None if decision.inject() => (Outcome::Left, "already injected", String::new()),
        None => {
            (Outcome::Left, "not injected", format!("({}): {}", decision.reason.code(), decision.because))
        }
    };
    let warnings = decision.remarks();
    Ok(Verdict { outcome, word, detail, warnings, pod: injection.pod })
}
