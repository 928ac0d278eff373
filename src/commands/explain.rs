//! `outrigger explain`: why a pod is, or is not, injected.

use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args};
use outrigger::injection::{Injector, Request};
use outrigger::manifest::Object;
use outrigger::mistakes;
use outrigger::provenance::{Experiments, Field};
use serde::Serialize;
use serde_json::{Map, Value};

use super::cluster::ClusterFlags;
use super::inject::injector_of;
use super::manifests::{self, ManifestFlags, Namespaces, Parsed, Stream};
use super::output::{self, OutputFlag};
use super::report::{BAD, DIM, GOOD, Report, STRONG, WARNING};
use super::rewrite;
use super::settings::SettingsFlags;

/// Say why a workload is, or is not, injected: every rule with its outcome.
///
/// For manifests (-f), or for a pod that runs: with its namespace, its owners and the Services that select it, under
/// the settings of the installation that its namespace asks for, unless --revision or --config names others.
#[derive(Debug, Args)]
#[command(mut_arg("filenames", |arg| arg.required(false)))]
#[command(group = ArgGroup::new("what").args(["pod", "filenames"]).required(true))]
#[command(after_help = "Examples:
  outrigger explain web-5d4f8-x7k2p -n shop
  outrigger explain -f app.yaml
  outrigger explain -f app.yaml -o json | jq '.[] | select(.inject | not) | .reason'

Exit status: 0 explained; 1 a manifest could not be read; 2 usage.")]
pub(crate) struct Explain {
    /// A running pod: its name, or pod/NAME
    #[arg(value_name = "POD", value_parser = NonEmptyStringValueParser::new())]
    pod: Option<String>,
    #[command(flatten)]
    manifests: ManifestFlags,
    #[command(flatten)]
    cluster: ClusterFlags,
    /// For people, or for programs: an array with one element for each workload, in order
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text", help_heading = "Output")]
    output: OutputFlag,
    /// Also say where every injected field comes from: which annotation, which value, which default
    #[arg(long, help_heading = "Output")]
    fields: bool,
    #[command(flatten)]
    settings: SettingsFlags,
}

/// One workload, explained.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation<'a> {
    kind: &'a str,
    api_version: &'a str,
    namespace: &'a str,
    name: &'a str,
    /// File, standard input, or the cluster.
    file: &'a str,
    /// Where it begins in a file; `None` in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    inject: bool,
    reason: &'static str,
    because: String,
    rules: Vec<Rule>,
    /// The templates that apply, in order; empty where the pod is not injected.
    templates: Vec<String>,
    /// What injection would add, by name; `None` where the pod is not injected.
    adds: Option<Map<String, Value>>,
    /// Every field that injection would change, and where it comes from; with `--fields`.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Field>>,
    /// Why injection would fail.
    error: Option<String>,
    warnings: Vec<String>,
}

/// One row of the truth table, asked.
#[derive(Debug, Serialize)]
struct Rule {
    rule: &'static str,
    outcome: RuleOutcome,
    reason: Option<&'static str>,
    because: Option<String>,
    /// Whether this is the rule that decides: the first with an outcome.
    decides: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum RuleOutcome {
    Inject,
    Skip,
    /// The rule does not apply.
    None,
}

impl Explain {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        rewrite::reported(|report| self.explain(report).map(|()| String::new()))
    }

    fn explain(&self, report: &mut Report) -> Result<(), String> {
        let running = match &self.pod {
            Some(pod) => {
                Some(self.cluster.read(pod, self.manifests.namespace(), self.settings.revision())?)
            }
            None => None,
        };
        let installed = running.as_ref().and_then(|found| found.installed.as_ref());
        if let (Some(found), None, false) = (&running, installed, self.settings.names_file()) {
            report.warning(found.no_settings());
        }
        let settings = self
            .settings
            .settings_over(|| installed.map(|installed| installed.settings.clone()).unwrap_or_default())?;
        let injector = injector_of(&self.settings, settings, installed.map(|i| i.place.as_str()), report)?;
        let (streams, failures) = match &running {
            Some(found) => (vec![Stream::of_objects(&found.place, &found.running.objects())], Vec::new()),
            None => self.manifests.read(),
        };
        failures.into_iter().for_each(|failure| report.failure(failure));
        let parsed = manifests::parse(&streams);
        let namespaces = self.manifests.namespaces(&parsed)?;
        let mut objects = Vec::new();
        for document in &parsed {
            match document.objects() {
                Ok(found) => objects.extend(found.into_iter().map(|object| (document, object))),
                Err(failure) => report.failure(failure),
            }
        }
        let experiments = match self.fields {
            true => Some(Experiments::new(injector.settings()).map_err(|e| e.to_string())?),
            false => None,
        };
        // Settings from a file are another installation's, which no tag leads to.
        let tag = installed.and_then(|i| i.tag.as_deref()).filter(|_| !self.settings.names_file());
        let context = Context { experiments, injector, namespaces, tag, objects: &objects };
        let mut explanations = Vec::new();
        for (document, object) in &objects {
            match context.explain(document, object) {
                Ok(explanation) => explanations.extend(explanation),
                Err(failure) => report.failure(failure),
            }
        }
        if explanations.is_empty() && !report.has_failures() {
            report.warning(
                "no workload is in what was read; kinds with pods are explained, such as Deployment and Pod",
            );
        }
        if let Some(found) = &running {
            explanations = of_running(explanations, &found.running.pod);
        }
        let text = match self.output {
            OutputFlag::Json => {
                serde_json::to_string_pretty(&explanations).map_err(|e| e.to_string())? + "\n"
            }
            OutputFlag::Text => explanations.iter().map(text).collect::<Vec<_>>().join("\n"),
        };
        output::write_styled(&text)
    }
}

/// The explanation of a running pod, with what is wrong with the workload that it belongs to: those between, such as
/// a ReplicaSet, are copies of it.
fn of_running<'a>(explanations: Vec<Explanation<'a>>, pod: &Value) -> Vec<Explanation<'a>> {
    let mut explanations = explanations.into_iter();
    let Some(mut own) = explanations.next() else { return Vec::new() };
    own.line = None;
    for warning in explanations.last().into_iter().flat_map(|owner| owner.warnings) {
        if !own.warnings.contains(&warning) {
            own.warnings.push(warning);
        }
    }
    own.warnings.extend(mistakes::out_of_date(pod, own.inject));
    vec![own]
}

struct Context<'a> {
    experiments: Option<Experiments>,
    injector: Injector,
    namespaces: Namespaces,
    /// The tag by which the installation was asked for.
    tag: Option<&'a str>,
    /// All objects of the input.
    objects: &'a [(&'a Parsed<'a>, Object<'a>)],
}

impl<'a> Context<'a> {
    /// `None` for what is no workload.
    fn explain(&'a self, parsed: &'a Parsed, object: &'a Object) -> Result<Option<Explanation<'a>>, String> {
        let namespace = self.namespaces.of(object);
        let pod = object.pod().map_err(|p| parsed.problem(object, &object.title(namespace), &p))?;
        let Some(pod) = pod else { return Ok(None) };
        let request = Request { tag: self.tag, ..self.namespaces.request(object, &pod) };
        let decision = self.injector.decide(pod.value, &request);
        let (injected, error) = match self.injector.inject(pod.value, &request) {
            Ok(injection) => (injection.pod, None),
            Err(e) => (None, Some(e.to_string())),
        };
        let adds = (decision.inject() && error.is_none()).then(|| added(pod.value, injected.as_ref()));
        let fields = self.experiments.as_ref().map(|experiments| match &injected {
            Some(injected) => experiments.fields(&self.injector, pod.value, injected, &request),
            None => Vec::new(),
        });
        let templates = match decision.inject() {
            true => self.injector.template_names(pod.value).into_iter().map(str::to_owned).collect(),
            false => Vec::new(),
        };
        let mut warnings: Vec<String> = decision.remarks();
        warnings.extend(mistakes::misplaced(object, &pod, request.namespace_metadata));
        if decision.inject() {
            warnings.extend(mistakes::unmet(pod.value, &self.services(namespace)));
        }
        Ok(Some(Explanation {
            kind: object.kind,
            api_version: object.api_version,
            namespace,
            name: object.name,
            file: parsed.stream,
            line: Some(parsed.line_of(object)),
            inject: decision.inject(),
            reason: decision.reason.code(),
            because: decision.because,
            rules: rules(self.injector.rules(pod.value, &request)),
            templates,
            adds,
            fields,
            error,
            warnings,
        }))
    }

    fn services(&self, namespace: &str) -> Vec<&'a Value> {
        let objects = self.objects.iter().map(|(_, object)| object);
        objects
            .filter(|o| o.kind == "Service" && o.api_version == "v1" && self.namespaces.of(o) == namespace)
            .map(|o| o.value)
            .collect()
    }
}

fn rules(asked: Vec<(&'static str, Option<(outrigger::policy::Reason, String)>)>) -> Vec<Rule> {
    let deciding = asked.iter().position(|(_, verdict)| verdict.is_some());
    asked
        .into_iter()
        .enumerate()
        .map(|(i, (rule, verdict))| {
            let outcome = match &verdict {
                Some((reason, _)) if reason.injects() => RuleOutcome::Inject,
                Some(_) => RuleOutcome::Skip,
                None => RuleOutcome::None,
            };
            let (reason, because) = verdict.map(|(reason, because)| (reason.code(), because)).unzip();
            Rule { rule, outcome, reason, because, decides: deciding == Some(i) }
        })
        .collect()
}

/// The names of what injection would add, by place; empty where the pod carries everything already.
fn added(before: &Value, after: Option<&Value>) -> Map<String, Value> {
    let mut adds = Map::new();
    let Some(after) = after else { return adds };
    for list in ["initContainers", "containers", "volumes", "imagePullSecrets"] {
        let named = |pod: &Value| -> Vec<Value> {
            pod["spec"][list].as_array().into_iter().flatten().map(|item| item["name"].clone()).collect()
        };
        let had = named(before);
        let new: Vec<Value> = named(after).into_iter().filter(|name| !had.contains(name)).collect();
        if !new.is_empty() {
            adds.insert(list.to_owned(), new.into());
        }
    }
    for map in ["labels", "annotations"] {
        let fields = after["metadata"][map].as_object().into_iter().flatten();
        let new: Vec<Value> = fields
            .filter(|(key, value)| before["metadata"][map].get(key) != Some(value))
            .map(|(key, _)| Value::from(key.as_str()))
            .collect();
        if !new.is_empty() {
            adds.insert(map.to_owned(), new.into());
        }
    }
    adds
}

/// An explanation for people.
fn text(e: &Explanation) -> String {
    let (style, word) = if e.inject { (GOOD, "injected") } else { (WARNING, "not injected") };
    let place = e.line.map_or(e.file.to_owned(), |line| format!("{}, line {line}", e.file));
    let mut text = format!(
        "{STRONG}{} {}/{}{STRONG:#}: {style}{word}{style:#} because {} ({})\n  {DIM}{place}{DIM:#}\n",
        e.kind, e.namespace, e.name, e.because, e.reason
    );
    let width = e.rules.iter().map(|rule| rule.rule.len()).max().unwrap_or(0);
    for rule in &e.rules {
        let outcome = match rule.outcome {
            RuleOutcome::Inject => "inject",
            RuleOutcome::Skip => "skip",
            RuleOutcome::None => "-",
        };
        let line = format!(
            "{:width$}  {outcome:6}  {}",
            rule.rule,
            rule.because.as_deref().unwrap_or("does not decide")
        );
        text += &match (rule.decides, rule.outcome) {
            (true, _) => format!("  {style}=> {line}{style:#}\n"),
            (false, RuleOutcome::None) => format!("     {DIM}{line}{DIM:#}\n"),
            (false, _) => format!("     {DIM}{line} (overruled){DIM:#}\n"),
        };
    }
    if !e.templates.is_empty() {
        text += &format!("  templates: {}\n", e.templates.join(", "));
    }
    match &e.adds {
        Some(adds) if adds.is_empty() => text += "  adds: nothing, the pod carries everything already\n",
        Some(adds) => {
            text += "  adds:\n";
            for (place, names) in adds {
                let names: Vec<&str> =
                    names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                text += &format!("     {place}: {}\n", names.join(", "));
            }
        }
        None => {}
    }
    let fields = e.fields.as_deref().unwrap_or_default();
    if !fields.is_empty() {
        text += "  fields:\n";
    }
    for field in fields {
        let value = field.value.as_ref().map_or("(taken away)".to_owned(), short);
        text += &format!("     {} = {value}  {DIM}from {}{DIM:#}\n", field.field, field.from.join(", "));
    }
    if let Some(error) = &e.error {
        text += &format!("  {BAD}refused:{BAD:#} {error}\n");
    }
    for warning in &e.warnings {
        text += &format!("  {WARNING}warning:{WARNING:#} {warning}\n");
    }
    text
}

/// A value on one line, the long ones cut.
fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
