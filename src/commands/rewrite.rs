//! Changing the workloads of manifests: every document in order, each workload asked about, everything else kept.

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use outrigger::injection::Request;
use outrigger::manifest::{Format, Object, Output, Pod};
use serde_json::Value;

use super::manifests::{self, ManifestFlags, Namespaces, Parsed};
use super::output;
use super::report::{Outcome, Report, counted};

/// What becomes of a workload, and what its line in the report says: `title: word detail`.
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) word: &'static str,
    pub(crate) detail: String,
    pub(crate) warnings: Vec<String>,
    /// The pod, if it changes.
    pub(crate) pod: Option<Value>,
}

/// What becomes of a document.
pub(crate) enum Fate {
    Kept,
    Changed(Value),
    /// Nothing of it can be kept: its only object failed.
    LeftOut,
}

/// Format of documents.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FormatFlag {
    Yaml,
    Json,
}

impl From<FormatFlag> for Format {
    fn from(flag: FormatFlag) -> Self {
        match flag {
            FormatFlag::Yaml => Self::Yaml,
            FormatFlag::Json => Self::Json,
        }
    }
}

/// Runs a command that reports on standard error and may fail with one line more.
pub(crate) fn reported(command: impl FnOnce(&mut Report) -> Result<String, String>) -> ExitCode {
    let mut report = Report::default();
    let summary = command(&mut report).unwrap_or_else(|failure| {
        report.failure(failure);
        String::new()
    });
    report.print(&summary);
    if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Reads manifests, changes their workloads, and writes them. `done` is what changed workloads are called in the
/// summary, which is returned.
pub(crate) fn write(
    manifests: &ManifestFlags,
    to: &Path,
    format: Option<FormatFlag>,
    done: &str,
    report: &mut Report,
    change: impl Fn(&Object, &Pod, &Request) -> Result<Verdict, String>,
) -> Result<String, String> {
    let mut output = Output::new(format.map(Format::from));
    let summary = each(manifests, done, report, change, |parsed, fate| match (fate, &parsed.value) {
        (Fate::Changed(value), _) => output.change(&parsed.document, &value),
        (Fate::Kept, Ok(value)) => output.keep(&parsed.document, value.as_ref()),
        (Fate::Kept | Fate::LeftOut, _) => {}
    })?;
    // Where nothing could be read, a file stays as it was.
    if !(output.is_empty() && report.has_failures()) {
        output::write(Some(to), &output.into_bytes())?;
    }
    Ok(summary)
}

/// Reads manifests, asks `change` about every workload, and tells `sink` what becomes of every document that can be
/// read. What cannot is reported.
pub(crate) fn each(
    manifests: &ManifestFlags,
    done: &str,
    report: &mut Report,
    change: impl Fn(&Object, &Pod, &Request) -> Result<Verdict, String>,
    mut sink: impl FnMut(&Parsed, Fate),
) -> Result<String, String> {
    let (streams, failures) = manifests.read();
    let nothing_read = streams.is_empty();
    failures.into_iter().for_each(|failure| report.failure(failure));
    if nothing_read {
        return Ok(String::new());
    }
    let parsed = manifests::parse(&streams);
    let namespaces = manifests.namespaces(&parsed)?;
    let mut run = Run { namespaces, report, change, others: 0 };
    for document in &parsed {
        match document.objects() {
            Ok(objects) => {
                let fate = run.document(document, &objects);
                sink(document, fate);
            }
            Err(failure) => run.report.failure(failure),
        }
    }
    let others = run.others;
    Ok(summary(report, done, others))
}

fn summary(report: &Report, done: &str, others: usize) -> String {
    let [changed, left, failed] =
        [Outcome::Done, Outcome::Left, Outcome::Failed].map(|outcome| report.count(outcome));
    let mut summary = format!(
        "{}: {changed} {done}, {left} unchanged, {failed} failed",
        counted(changed + left + failed, "workload")
    );
    if others > 0 {
        summary += &format!("; {} passed through", counted(others, "other object"));
    }
    summary
}

struct Run<'r, F> {
    namespaces: Namespaces,
    report: &'r mut Report,
    change: F,
    /// Objects that are no workloads.
    others: usize,
}

impl<F: Fn(&Object, &Pod, &Request) -> Result<Verdict, String>> Run<'_, F> {
    fn document(&mut self, parsed: &Parsed, objects: &[Object]) -> Fate {
        let mut changes = Changes::default();
        for object in objects {
            if object.is_workload() {
                self.workload(parsed, object, &mut changes);
            } else {
                self.others += 1;
            }
        }
        match &parsed.value {
            Ok(Some(value)) if !changes.is_empty() => {
                changes.apply(value).map_or(Fate::LeftOut, Fate::Changed)
            }
            _ => Fate::Kept,
        }
    }

    fn workload(&mut self, parsed: &Parsed, object: &Object, changes: &mut Changes) {
        let title = object.title(self.namespaces.of(object));
        let failure = match object.pod() {
            Ok(None) => return,
            Ok(Some(pod)) => match (self.change)(object, &pod, &self.namespaces.request(object, &pod)) {
                Ok(verdict) => {
                    self.report.workload(&title, verdict.outcome, verdict.word, verdict.detail);
                    for warning in verdict.warnings {
                        self.report.warning(format!("{title}: {warning}"));
                    }
                    changes.put.extend(verdict.pod.map(|changed| (pod.pointer, changed)));
                    return;
                }
                Err(e) => parsed.failure(parsed.line_of(object), e),
            },
            Err(problem) => parsed.problem(object, &title, &problem),
        };
        self.report.workload(&title, Outcome::Failed, "failed", "and left out of the output".to_owned());
        self.report.failure(failure);
        changes.leave_out.push(object.pointer.clone());
    }
}

/// What becomes of one document, by JSON pointers.
#[derive(Debug, Default)]
struct Changes {
    /// Pods to put in place.
    put: Vec<(String, Value)>,
    /// Objects to leave out, in order.
    leave_out: Vec<String>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.put.is_empty() && self.leave_out.is_empty()
    }

    /// The document with the changes; `None` where nothing of it is left.
    fn apply(self, document: &Value) -> Option<Value> {
        let mut document = document.clone();
        for (pointer, pod) in self.put {
            if let Some(place) = document.pointer_mut(&pointer) {
                *place = pod;
            }
        }
        // From the last, so that the earlier pointers stay true.
        for pointer in self.leave_out.iter().rev() {
            let (list, index) = pointer.rsplit_once('/')?;
            let items = document.pointer_mut(list).and_then(Value::as_array_mut);
            if let (Some(items), Ok(index)) = (items, index.parse::<usize>()) {
                items.remove(index);
            }
        }
        Some(document)
    }
}
