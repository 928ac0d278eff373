//! `outrigger uninject`: the way back.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use outrigger::uninject::uninject;

use super::manifests::ManifestFlags;
use super::report::Outcome;
use super::rewrite::{self, FormatFlag, Verdict};

/// Take the sidecar out of manifests: what injection added goes, what its author wrote stays.
///
/// Works on what `outrigger inject`, the webhook, and Istio's own injector made. Data goes to standard output, the
/// report to standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger uninject -f injected.yaml | kubectl apply -f -
  kubectl get deployment web -o yaml | outrigger uninject -f - | kubectl apply -f -

Exit status: 0 done; 1 something failed, and is reported and not in the output; 2 usage.")]
pub(crate) struct Uninject {
    #[command(flatten)]
    manifests: ManifestFlags,
    /// Where the manifests go: a file, or - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", help_heading = "Output")]
    output: PathBuf,
    /// Format of all documents [default: each as it came]
    #[arg(long, value_enum, help_heading = "Output")]
    format: Option<FormatFlag>,
}

impl Uninject {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        rewrite::reported(|report| {
            rewrite::write(&self.manifests, &self.output, self.format, "uninjected", report, |_, pod, _| {
                let pod = uninject(pod.value);
                let (outcome, word) = match &pod {
                    Some(_) => (Outcome::Done, "uninjected"),
                    None => (Outcome::Left, "carries no injection"),
                };
                Ok(Verdict { outcome, word, detail: String::new(), warnings: Vec::new(), pod })
            })
        })
    }
}
