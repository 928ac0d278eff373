//! `outrigger check`: is the cluster ready and the installation sound; or, what a pack would break.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use outrigger::check::{Finding, Report, Severity, check};
use outrigger::cluster::survey;
use outrigger::diagnosis::{Line, State, diagnose};
use outrigger::installation::{DEFAULT_REVISION, Names};
use outrigger::settings::INSTALLATION_NAMESPACE;
use serde_json::json;

use super::arguments;
use super::cluster::ClusterFlags;
use super::inject::injector;
use super::output::{self, OutputFlag};
use super::report::{BAD, DIM, GOOD, STRONG, WARNING, counted};
use super::rewrite;
use super::settings::SettingsFlags;

/// Say whether a cluster is ready and its installation sound; or, with --pack, what a pack would break
///
/// In a cluster: its versions, what you may do, other injectors, Pod Security, kernels; and of an installation its
/// replicas, registration, certificate and settings, whether a pod sent by dry run to each namespace comes back
/// injected, and which pods have no sidecar or an old one. Every line that is not good says what to do.
///
/// A pack: the default templates together, and every other template by itself, are rendered for pods with and without
/// probes, volumes, ports, labels and so on. What would be refused by an API server, what changes what is the
/// application's own, and what is not undone or changes when it is injected twice, is a break; what only some clusters
/// refuse is a risk.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger check
  outrigger check --wait 120
  outrigger check -o json | jq '.lines[] | select(.state != \"ok\")'
  outrigger check --pack ./my-pack

Exit status: 0 nothing failed, nothing breaks; 1 something did, could not be seen, or the pack cannot be loaded; 2 usage.")]
pub(crate) struct Check {
    /// For people, or for programs
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text", help_heading = "Output")]
    output: OutputFlag,
    #[command(flatten)]
    cluster: ClusterFlags,
    /// Namespace of the installation
    #[arg(short, long, value_name = "NAME", default_value = INSTALLATION_NAMESPACE, value_parser = arguments::namespace, help_heading = "Cluster")]
    namespace: String,
    /// Look again until nothing fails, for so long
    #[arg(long, value_name = "SECONDS", value_parser = arguments::number::<u64>(0..=arguments::YEAR), help_heading = "Cluster", conflicts_with = "packs")]
    wait: Option<u64>,
    #[command(flatten)]
    settings: SettingsFlags,
}

/// Pods that a finding names in its line.
const NAMED: usize = 3;

impl Check {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        if self.settings.names_pack() { self.pack() } else { self.diagnosis() }
    }

    fn diagnosis(&self) -> ExitCode {
        let mut failed = false;
        let code = rewrite::reported(|_| {
            let revision = self.settings.revision().unwrap_or(DEFAULT_REVISION);
            let names = Names::new(revision, &self.namespace).map_err(|e| e.to_string())?;
            let deadline = Instant::now() + Duration::from_secs(self.wait.unwrap_or_default());
            let lines = loop {
                let facts = self.cluster.ask(async |cluster| Ok(survey(cluster, &names).await))?;
                let lines = diagnose(&facts);
                failed = lines.iter().any(|line| matches!(line.state, State::Failed | State::Unknown));
                if !failed || Instant::now() >= deadline {
                    break lines;
                }
                let bad = lines.iter().filter(|line| line.state >= State::Unknown).map(|line| line.check);
                eprintln!("waiting: {}", bad.collect::<Vec<_>>().join(", "));
                std::thread::sleep(AGAIN);
            };
            let text = match self.output {
                OutputFlag::Json => format!("{:#}\n", json!({"lines": lines})),
                OutputFlag::Text => lines.iter().map(diagnosed).collect(),
            };
            output::write_styled(&text).map(|()| String::new())
        });
        if failed { ExitCode::FAILURE } else { code }
    }

    fn pack(self) -> ExitCode {
        let mut breaks = 0;
        let code = rewrite::reported(|report| {
            let found = check(&injector(&self.settings, report)?);
            breaks = found.count(Severity::Break);
            let text = match self.output {
                OutputFlag::Json => serde_json::to_string_pretty(&found).map_err(|e| e.to_string())? + "\n",
                OutputFlag::Text => text(&found),
            };
            output::write_styled(&text).map(|()| String::new())
        });
        if breaks > 0 { ExitCode::FAILURE } else { code }
    }
}

/// How often it is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

fn diagnosed(line: &Line) -> String {
    let (style, word) = match line.state {
        State::Ok => (GOOD, "ok"),
        State::Warning => (WARNING, "warning"),
        State::Unknown => (WARNING, "unknown"),
        State::Failed => (BAD, "failed"),
    };
    let mut text =
        format!("{style}{word:<8}{style:#} {STRONG}{:<16}{STRONG:#} {}\n", line.check, line.message);
    if let Some(remedy) = &line.remedy {
        text += &format!("{:26}{DIM}{remedy}{DIM:#}\n", "");
    }
    text
}

fn text(report: &Report) -> String {
    let mut text: String = report.findings.iter().map(|finding| line(finding, report.pods)).collect();
    let (breaks, risks) = (report.count(Severity::Break), report.count(Severity::Risk));
    let style = if breaks == 0 { GOOD } else { BAD };
    let rendered = counted(report.pods, "pod");
    let sets = report.templates.join("; ");
    let breaks = counted(breaks, "break");
    let risks = counted(risks, "risk");
    text += &format!("{style}{breaks}{style:#}, {risks}: {rendered} with the templates {sets}\n");
    text
}

fn line(finding: &Finding, pods: usize) -> String {
    let (style, word) = match finding.severity {
        Severity::Break => (BAD, "break"),
        Severity::Risk => (WARNING, "risk"),
    };
    let Finding { code, message, templates, .. } = finding;
    let shown = match finding.pods.len() {
        all if all == pods => "all pods".to_owned(),
        few if few <= NAMED => finding.pods.join(", "),
        many => format!("{}, and {} more", finding.pods[..NAMED].join(", "), many - NAMED),
    };
    format!(
        "{style}{word}{style:#} {STRONG}{code}{STRONG:#}: {message}\n  {DIM}template {templates}; {shown}{DIM:#}\n"
    )
}
