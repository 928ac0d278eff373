//! `outrigger repair`: pods without a sidecar, or with an old one, and the restart of what makes them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use outrigger::cluster::{Cluster, Error, Left, is_rolled_out, restart, survey};
use outrigger::diagnosis::wanting;
use outrigger::installation::{DEFAULT_REVISION, Names};
use outrigger::settings::INSTALLATION_NAMESPACE;
use outrigger::sidecars::{Want, Workload};
use serde_json::json;

use super::cluster::ClusterFlags;
use super::output;
use super::report::{Outcome, Report};
use super::rewrite;

/// How often a restarted workload is looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// Find the pods without a sidecar, and with an old one; restart what makes them, on request
///
/// Such pods came in while the webhook was away, or before an upgrade. Without --restart nothing is changed. With it,
/// their Deployments, StatefulSets and DaemonSets are restarted as by kubectl rollout restart, one after the other, each
/// when the one before is ready again. A workload that a PodDisruptionBudget protects now is left alone, and so are Jobs
/// and bare pods, which nobody makes anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger repair
  outrigger repair --only shop --restart
  outrigger repair --restart --every 300

Exit status: 0 done, or nothing to do; 1 something is left that was to be restarted, or went wrong; 2 usage.")]
pub(crate) struct Repair {
    #[command(flatten)]
    cluster: ClusterFlags,
    /// Revision of the installation
    #[arg(long, value_name = "NAME", default_value = DEFAULT_REVISION)]
    revision: String,
    /// Namespace of the installation
    #[arg(short, long, value_name = "NAME", default_value = INSTALLATION_NAMESPACE)]
    namespace: String,
    /// Only the pods of this namespace; repeatable [default: all that ask for injection]
    #[arg(long, value_name = "NAMESPACE")]
    only: Vec<String>,
    /// Restart the workloads
    #[arg(long)]
    restart: bool,
    /// Seconds that a restarted workload may take to be ready again, before the rest is left
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Do it again and again, so many seconds after it was done: as a controller
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// For people, or for programs: an array with one element for each workload
    #[arg(short, long, value_enum, default_value = "text", help_heading = "Output")]
    output: OutputFlag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFlag {
    Text,
    Json,
}

impl Repair {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        loop {
            let code = rewrite::reported(|report| self.once(report).map(|()| String::new()));
            let Some(seconds) = self.every else { return code };
            std::thread::sleep(Duration::from_secs(seconds));
        }
    }

    fn once(&self, report: &mut Report) -> Result<(), String> {
        let names = Names::new(&self.revision, &self.namespace).map_err(|e| e.to_string())?;
        let facts = self.cluster.ask(async |cluster| Ok(survey(cluster, &names).await))?;
        let only: BTreeSet<&str> = self.only.iter().map(String::as_str).collect();
        let found: Vec<Workload> = wanting(&facts)?
            .into_iter()
            .filter(|workload| only.is_empty() || only.contains(workload.namespace.as_str()))
            .collect();
        if self.output == OutputFlag::Json {
            let text = format!("{:#}\n", json!(found));
            output::write(None, text.as_bytes())?;
        }
        self.cluster.ask(async |cluster| {
            for workload in &found {
                if !self.mend(cluster, workload, report).await? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Restarts one workload, or says that it would; whether to go on with the next.
    async fn mend(&self, cluster: &Cluster, workload: &Workload, report: &mut Report) -> Result<bool, Error> {
        let what = match workload.want {
            Want::Missing => "without a sidecar",
            Want::Old => "with an old sidecar",
        };
        let (title, what) =
            (workload.title(), format!("{} {what}", super::report::counted(workload.pods.len(), "pod")));
        match restart(cluster, workload, !self.restart).await? {
            Some(Left::Kind) => {
                let detail = format!("{what}; nobody makes it anew: delete it, and create it again");
                report.workload(&title, Outcome::Left, "left", detail);
            }
            Some(Left::Budget(budget)) => {
                let detail = format!("{what}; the PodDisruptionBudget {budget} allows no disruption now");
                report.workload(&title, Outcome::Left, "left", detail);
            }
            None if !self.restart => report.workload(&title, Outcome::Left, "to be restarted", what),
            None => {
                eprintln!("restarting {title}: {what}");
                let deadline = Instant::now() + Duration::from_secs(self.timeout);
                while !is_rolled_out(cluster, workload).await? {
                    if Instant::now() > deadline {
                        let seconds = self.timeout;
                        report.failure(format!(
                            "{title} is not ready {seconds} s after it was restarted, and the rest is left; look at \
                             kubectl -n {} describe pods",
                            workload.namespace
                        ));
                        return Ok(false);
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                report.workload(&title, Outcome::Done, "restarted", what);
            }
        }
        Ok(true)
    }
}
