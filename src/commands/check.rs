//! `outrigger check`: what a pack would break.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use outrigger::check::{Finding, Report, Severity, check};

use super::inject::injector;
use super::output;
use super::report::{BAD, DIM, GOOD, STRONG, WARNING, counted};
use super::rewrite;
use super::settings::SettingsFlags;

/// Say what a pack would break: render it against a corpus of pods.
///
/// The default templates together, and every other template by itself, are rendered for pods with and without probes,
/// volumes, ports, labels and so on. What would be refused by an API server, what changes what is the application's
/// own, and what is not undone or changes when it is injected twice, is a break; what only some clusters refuse is a
/// risk.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger check --pack ./my-pack
  outrigger check --pack ./my-pack --set level=debug -o json | jq '.findings[].code'

Exit status: 0 nothing breaks; 1 something would break, or the pack cannot be loaded; 2 usage.")]
pub(crate) struct Check {
    /// For people, or for programs
    #[arg(short, long, value_enum, default_value = "text", help_heading = "Output")]
    output: OutputFlag,
    #[command(flatten)]
    settings: SettingsFlags,
}

/// Pods that a finding names in its line.
const NAMED: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFlag {
    Text,
    Json,
}

impl Check {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
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
