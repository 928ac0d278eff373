//! `outrigger repair`: pods without a sidecar, or with an old one, and the restart of what makes them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use outrigger::cluster::{Cluster, Error, How, Left, is_rolled_out, restart, wanting};
use outrigger::installation::{DEFAULT_REVISION, Names};
use outrigger::settings::INSTALLATION_NAMESPACE;
use outrigger::sidecars::{Want, Workload};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::arguments;
use super::cluster::ClusterFlags;
use super::output::{self, OutputFlag};
use super::report::{Outcome, Report};
use super::rewrite;

/// How often a restarted workload is looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// Find the pods without a sidecar, and with an old one; restart what makes them, on request
///
/// Such pods came in while the webhook was away, or before an upgrade. Without --restart nothing is changed. With it,
/// their Deployments, StatefulSets and DaemonSets are restarted as by kubectl rollout restart, one after the other, each
/// when the one before is ready again. A workload that a PodDisruptionBudget protects now is left alone, and so is one that
/// is being rolled out; and Jobs and bare pods, which nobody makes anew. With --every, what was restarted less than an hour
/// ago is left, too.
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
    #[arg(long, value_name = "NAME", default_value = DEFAULT_REVISION, value_parser = arguments::revision)]
    revision: String,
    /// Namespace of the installation
    #[arg(short, long, value_name = "NAME", default_value = INSTALLATION_NAMESPACE, value_parser = arguments::namespace)]
    namespace: String,
    /// Only the pods of this namespace; repeatable [default: all that ask for injection]
    #[arg(long, value_name = "NAMESPACE")]
    only: Vec<String>,
    /// Restart the workloads
    #[arg(long)]
    restart: bool,
    /// Seconds that a restarted workload may take to be ready again, before the rest is left
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = arguments::number::<u64>(0..=arguments::YEAR))]
    timeout: u64,
    /// Do it again and again, so many seconds after it was done: as a controller
    #[arg(long, value_name = "SECONDS", value_parser = arguments::number::<u64>(1..=arguments::YEAR))]
    every: Option<u64>,
    /// For people, or for programs: an array with one element for each workload
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text", help_heading = "Output")]
    output: OutputFlag,
}

impl Repair {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        let Some(seconds) = self.every else { return self.reported() };
        let stopped = std::thread::Builder::new().name("signals".to_owned()).spawn(stop);
        if let Err(error) = stopped {
            eprintln!("error: cannot start a thread: {error}");
            return ExitCode::FAILURE;
        }
        loop {
            self.reported();
            std::thread::sleep(Duration::from_secs(seconds));
        }
    }

    fn reported(&self) -> ExitCode {
        rewrite::reported(|report| self.once(report))
    }

    /// Looks once, and restarts what is to be; the closing line, where a person has asked.
    fn once(&self, report: &mut Report) -> Result<String, String> {
        let names = Names::new(&self.revision, &self.namespace).map_err(|e| e.to_string())?;
        let only: BTreeSet<&str> = self.only.iter().map(String::as_str).collect();
        let found = self.cluster.ask(async |cluster| Ok(wanting(cluster, &names, &only).await))??;
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
        })?;
        Ok(match (found.is_empty(), self.restart) {
            _ if self.every.is_some() => String::new(),
            (true, _) => "no pod is without its sidecar, or with an old one".to_owned(),
            (false, false) => "nothing was changed; --restart restarts what is to be".to_owned(),
            (false, true) => String::new(),
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
        let how = How { dry_run: !self.restart, alone: self.every.is_some() };
        match restart(cluster, workload, how).await? {
            Some(Left::Kind) => {
                let detail = format!("{what}; nobody makes it anew: delete it, and create it again");
                report.workload(&title, Outcome::Left, "left:", detail);
            }
            Some(Left::Budget(budget)) => {
                let detail = format!("{what}; the PodDisruptionBudget {budget} allows no disruption now");
                report.workload(&title, Outcome::Left, "left:", detail);
            }
            Some(Left::RollingOut) => {
                let detail = format!(
                    "{what}; its pods are being replaced now, or cannot be: look at its rollout status"
                );
                report.workload(&title, Outcome::Left, "left:", detail);
            }
            Some(Left::Recently) => {
                let detail = format!(
                    "{what}, though it was restarted less than an hour ago: outrigger explain says why of a pod; it is \
                     restarted again after the hour"
                );
                report.workload(&title, Outcome::Left, "left:", detail);
            }
            None if !self.restart => report.workload(&title, Outcome::Left, "to be restarted:", what),
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
                report.workload(&title, Outcome::Done, "restarted:", what);
            }
        }
        Ok(true)
    }
}

/// Ends the program on SIGTERM or SIGINT, which a container's first process is not ended by otherwise. Nothing is left half
/// done: a restart is one patch.
fn stop() {
    let signalled = || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = terminate.recv() => {}
                interrupted = tokio::signal::ctrl_c() => interrupted?,
            }
            Ok(())
        })
    };
    if let Err(error) = signalled() {
        eprintln!("error: cannot handle signals: {error}");
        std::process::exit(1);
    }
    std::process::exit(0)
}
