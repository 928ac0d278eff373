//! `outrigger diff`: what injection would change.

use std::process::ExitCode;

use clap::Args;
use outrigger::{patch, yaml};
use serde::Serialize;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::inject::{inject, injector};
use super::manifests::{ManifestFlags, Parsed};
use super::output::{self, OutputFlag};
use super::report::{BAD, DIM, GOOD, STRONG};
use super::rewrite::{self, Fate};
use super::settings::SettingsFlags;

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// Show what injection would change in manifests.
///
/// Documents are compared as kubectl would print them, so that only what injection changes is shown. The
/// differences go to standard output, the report to standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger diff -f app.yaml
  outrigger diff -f app.yaml -o json | jq '.[].patch'

Exit status: 0 done, whether there are differences or not; 1 something failed; 2 usage.")]
pub(crate) struct Diff {
    #[command(flatten)]
    manifests: ManifestFlags,
    /// For people, or for programs: an array with a JSON patch (RFC 6902) for each document that changes
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text", help_heading = "Output")]
    output: OutputFlag,
    #[command(flatten)]
    settings: SettingsFlags,
}

/// The change of one document.
#[derive(Debug, Serialize)]
struct Change {
    file: String,
    document: usize,
    line: usize,
    /// Operations of RFC 6902.
    patch: Value,
}

impl Diff {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        rewrite::reported(|report| {
            let injector = injector(&self.settings, report)?;
            let (mut text, mut changes) = (String::new(), Vec::new());
            let summary = rewrite::each(
                &self.manifests,
                "would be injected",
                report,
                |_, pod, request| inject(&injector, pod, request),
                |parsed, fate| {
                    let (Fate::Changed(after), Ok(Some(before))) = (fate, &parsed.value) else { return };
                    match self.output {
                        OutputFlag::Text => text += &differences(parsed, before, &after),
                        OutputFlag::Json => changes.push(change(parsed, before, &after)),
                    }
                },
            )?;
            if self.output == OutputFlag::Json {
                text = serde_json::to_string_pretty(&changes).map_err(|e| e.to_string())? + "\n";
            }
            output::write_styled(&text)?;
            Ok(summary)
        })
    }
}

fn change(parsed: &Parsed, before: &Value, after: &Value) -> Change {
    Change {
        file: parsed.stream.to_owned(),
        document: parsed.document.number,
        line: parsed.document.first_line_of_content(),
        patch: json!(patch::diff(before, after)),
    }
}

/// A unified diff of one document.
fn differences(parsed: &Parsed, before: &Value, after: &Value) -> String {
    let place = format!("{}, document {}", parsed.stream, parsed.document.number);
    let mut text = format!("{STRONG}--- {place}{STRONG:#}\n{STRONG}+++ {place}, injected{STRONG:#}\n");
    let (before, after) = (yaml::write(before), yaml::write(after));
    let diff = TextDiff::from_lines(&before, &after);
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        text += &format!("{DIM}{}{DIM:#}\n", hunk.header());
        for change in hunk.iter_changes() {
            let line = change.value().trim_end_matches('\n');
            text += &match change.tag() {
                ChangeTag::Insert => format!("{GOOD}+{line}{GOOD:#}\n"),
                ChangeTag::Delete => format!("{BAD}-{line}{BAD:#}\n"),
                ChangeTag::Equal => format!(" {line}\n"),
            };
        }
    }
    text
}
