//! `outrigger inject`: what the webhook would do, to a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use outrigger::injection::Injector;
use outrigger::manifest::{Format, Object, Output};
use serde_json::Value;

use super::manifests::{self, ManifestFlags, Namespaces, Parsed};
use super::output;
use super::report::{Outcome, Report, counted};
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
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Format of all documents [default: each as it came]
    #[arg(long, value_enum)]
    format: Option<FormatFlag>,
    #[command(flatten)]
    settings: SettingsFlags,
}

/// Format of documents.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatFlag {
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

impl Inject {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        let mut report = Report::default();
        let summary = match self.inject(&mut report) {
            Ok(summary) => summary,
            Err(failure) => {
                report.failure(failure);
                String::new()
            }
        };
        report.print(&summary);
        if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn inject(&self, report: &mut Report) -> Result<String, String> {
        let injector = Injector::new(self.settings.settings()?).map_err(|e| e.to_string())?;
        injector.settings().warnings().into_iter().for_each(|warning| report.warning(warning));
        let (streams, failures) = self.manifests.read();
        let nothing_read = streams.is_empty();
        failures.into_iter().for_each(|failure| report.failure(failure));
        if nothing_read {
            return Ok(String::new());
        }
        let parsed = manifests::parse(&streams);
        let namespaces = self.manifests.namespaces(&parsed)?;
        let mut run = Run {
            injector,
            namespaces,
            report,
            output: Output::new(self.format.map(Format::from)),
            others: 0,
        };
        parsed.iter().for_each(|document| run.document(document));
        let Run { output, others, .. } = run;
        if !(output.is_empty() && report.has_failures()) {
            output::write(Some(&self.output), &output.into_bytes())?;
        }
        Ok(summary(report, others))
    }
}

fn summary(report: &Report, others: usize) -> String {
    let [injected, left, failed] =
        [Outcome::Done, Outcome::Left, Outcome::Failed].map(|outcome| report.count(outcome));
    let mut summary = format!(
        "{}: {injected} injected, {left} unchanged, {failed} failed",
        counted(injected + left + failed, "workload")
    );
    if others > 0 {
        summary += &format!("; {} passed through", counted(others, "other object"));
    }
    summary
}

struct Run<'r> {
    injector: Injector,
    namespaces: Namespaces,
    report: &'r mut Report,
    output: Output,
    /// Objects that are no workloads.
    others: usize,
}

impl Run<'_> {
    fn document(&mut self, parsed: &Parsed) {
        let objects = match parsed.objects() {
            Ok(objects) => objects,
            Err(failure) => return self.report.failure(failure),
        };
        let Ok(value) = &parsed.value else { return };
        let mut changes = Changes::default();
        for object in &objects {
            self.object(parsed, object, &mut changes);
        }
        match value {
            Some(value) if !changes.is_empty() => {
                if let Some(value) = changes.apply(value) {
                    self.output.change(&parsed.document, &value);
                }
            }
            value => self.output.keep(&parsed.document, value.as_ref()),
        }
    }

    fn object(&mut self, parsed: &Parsed, object: &Object, changes: &mut Changes) {
        if !object.is_workload() {
            self.others += 1;
            return;
        }
        let title = object.title(self.namespaces.of(object));
        let failure = match object.pod() {
            Ok(None) => return,
            Ok(Some(pod)) => match self.injector.inject(pod.value, &self.namespaces.request(object, &pod)) {
                Ok(injection) => {
                    let decision = &injection.decision;
                    let (outcome, word, detail) = match &injection.pod {
                        Some(_) => (Outcome::Done, "injected", format!("({})", decision.reason.code())),
                        None if decision.inject() => (Outcome::Left, "already injected", String::new()),
                        None => {
                            let detail = format!("({}): {}", decision.reason.code(), decision.because);
                            (Outcome::Left, "not injected", detail)
                        }
                    };
                    self.report.workload(&title, outcome, word, detail);
                    for warning in decision.warnings() {
                        self.report
                            .warning(format!("{title}: {}", warning.trim_start_matches("outrigger: ")));
                    }
                    if let Some(injected) = injection.pod {
                        changes.put.push((pod.pointer, injected));
                    }
                    return;
                }
                Err(e) => parsed.failure(parsed.line_of(object), &e),
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
