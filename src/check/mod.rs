//! What a pack would break: it is rendered against a corpus of pods, and what comes out is looked at.
//!
//! Sources: the API's validation of pods
//! (<https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>), the Pod Security Standards
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).

mod breaks;
mod risks;

use serde::Serialize;
use serde_json::Value;

use crate::injection::{Injector, Request, TEMPLATES_ANNOTATION};
use crate::manifest;
use crate::uninject::uninject;

const CORPUS: &str = include_str!("corpus.yaml");

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pod is refused, or does not do what it did.
    Break,
    /// It works, but not in every cluster.
    Risk,
}

/// One thing that is wrong, with all pods of the corpus that show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing: a word that does not change.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The templates that do it, as the annotation that asks for them has them.
    pub templates: String,
    /// The pods of the corpus.
    pub pods: Vec<String>,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many pods the corpus has.
    pub pods: usize,
    /// What was rendered for each: the default templates, and every other template by itself.
    pub templates: Vec<String>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings of this kind there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// What one look at one pod found: code, message.
type Found = Vec<(&'static str, String)>;

/// Renders all templates of an injector against the corpus.
pub fn check(injector: &Injector) -> Report {
    let pods = corpus();
    let mut report = Report { pods: pods.len(), templates: template_sets(injector), findings: Vec::new() };
    for templates in report.templates.clone() {
        for pod in &pods {
            for (severity, code, message) in look_at(injector, pod, &templates) {
                report.add(severity, code, message, &templates, pod);
            }
        }
    }
    report.findings.sort_by_key(|finding| finding.severity);
    report
}

impl Report {
    fn add(&mut self, severity: Severity, code: &'static str, message: String, templates: &str, pod: &Value) {
        let metadata = &pod["metadata"];
        let name =
            metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default().to_owned();
        let known = self.findings.iter_mut().find(|f| {
            (f.code, f.message.as_str(), f.templates.as_str()) == (code, message.as_str(), templates)
        });
        match known {
            Some(known) if known.pods.contains(&name) => {}
            Some(known) => known.pods.push(name),
            None => {
                let templates = templates.to_owned();
                self.findings.push(Finding { severity, code, message, templates, pods: vec![name] });
            }
        }
    }
}

/// The pods; the corpus is checked by a test.
fn corpus() -> Vec<Value> {
    manifest::split(CORPUS.as_bytes()).iter().filter_map(|document| document.parse().ok().flatten()).collect()
}

/// The default templates together, and each other template by itself.
fn template_sets(injector: &Injector) -> Vec<String> {
    let defaults = &injector.settings().default_templates;
    let others = injector.templates().iter().filter(|name| !defaults.contains(name));
    std::iter::once(defaults.join(",")).chain(others.cloned()).collect()
}

fn look_at(injector: &Injector, pod: &Value, templates: &str) -> Vec<(Severity, &'static str, String)> {
    let mut pod = pod.clone();
    pod["metadata"]["annotations"][TEMPLATES_ANNOTATION] = Value::from(templates);
    let request = Request { namespace: "shop", ..Request::default() };
    let breaks = |found: Found| found.into_iter().map(|(code, message)| (Severity::Break, code, message));
    let injected = match injector.inject(&pod, &request) {
        Ok(injection) if !injection.decision.inject() => {
            let message = format!("the settings leave the pod alone: {}", injection.decision.because);
            return vec![(Severity::Risk, "not_injected", message)];
        }
        Ok(injection) => injection.pod.unwrap_or_else(|| pod.clone()),
        Err(e) => {
            // The pod is told apart from the message, so that the same message of several pods is one finding.
            let message = e.to_string();
            let (_, message) = message.split_once(": ").unwrap_or(("", &message));
            return breaks(vec![("not_rendered", message.to_owned())]).collect();
        }
    };
    let mut found: Vec<_> = breaks(breaks::find(&pod, &injected)).collect();
    match injector.inject(&injected, &request) {
        Ok(again) => found.extend(again.pod.iter().flat_map(|again| breaks(breaks::twice(&injected, again)))),
        Err(e) => found.extend(breaks(vec![("not_rendered_again", e.to_string())])),
    }
    if injector.keeps_record() && uninject(&injected).as_ref() != Some(&pod) && injected != pod {
        let message =
            "what it adds cannot be taken away again: uninject does not give the pod back".to_owned();
        found.push((Severity::Break, "not_undone", message));
    }
    found.extend(
        risks::find(&pod, &injected).into_iter().map(|(code, message)| (Severity::Risk, code, message)),
    );
    found
}

#[cfg(test)]
mod tests;
