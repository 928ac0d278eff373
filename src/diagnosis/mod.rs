//! Is this cluster ready, is the installation sound? Facts in, lines out; pure.
//!
//! The checks are a table. Each looks at the facts and says what it found, and whoever must do something is told what.

mod checks;

use serde::Serialize;
use serde_json::Value;

use crate::installation::Names;
use crate::settings::KubernetesVersion;

/// What was asked, and what came of it: the answer, or why there is none.
pub type Asked<T> = Result<T, String>;

/// What is known of a cluster.
#[derive(Debug)]
pub struct Facts {
    /// What the installation's objects are called.
    pub names: Names,
    /// The API server's time, in Unix seconds.
    pub now: i64,
    /// `/version`.
    pub version: Asked<Value>,
    /// All Nodes.
    pub nodes: Asked<Vec<Value>>,
    /// What one must be allowed to do to install, and whether we are.
    pub permissions: Asked<Vec<(String, bool)>>,
    /// All MutatingWebhookConfigurations.
    pub registrations: Asked<Vec<Value>>,
    /// All Namespaces.
    pub namespaces: Asked<Vec<Value>>,
    /// The installation's Deployment; `None` where there is none.
    pub deployment: Asked<Option<Value>>,
    /// The Secret of its certificate.
    pub secret: Asked<Option<Value>>,
    /// The ConfigMap of its settings.
    pub settings: Asked<Option<Value>>,
    /// The replicas, each with the text of its metrics.
    pub replicas: Asked<Vec<(String, Asked<String>)>>,
    /// A pod that was sent to each namespace that asks for injection, for nothing (dry run), and what came back.
    pub samples: Vec<(String, Asked<Value>)>,
    /// Where no namespace asks for injection: a pod that asks for it itself, sent likewise, and what came back. `None`
    /// where there is no namespace in which the settings would inject it.
    pub trial: Option<(String, Asked<Value>)>,
    /// The pods of these namespaces.
    pub pods: Asked<Vec<Value>>,
}

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Good.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It could not be seen.
    Unknown,
    /// It does not work.
    Failed,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The check: a word that does not change.
    pub check: &'static str,
    /// How it stands.
    pub state: State,
    /// What was seen.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a check found: state, message, remedy.
type Found = (State, String, Option<String>);

/// Nothing is wrong.
fn ok(message: impl Into<String>) -> Found {
    (State::Ok, message.into(), None)
}

fn bad(state: State, message: impl Into<String>, remedy: impl Into<String>) -> Found {
    (state, message.into(), Some(remedy.into()))
}

/// The oldest kubelet among Nodes; `None` where none says its version.
pub fn oldest_kubelet(nodes: &[Value]) -> Option<KubernetesVersion> {
    let version = |node: &Value| checks::parsed(node["status"]["nodeInfo"]["kubeletVersion"].as_str()?);
    nodes.iter().filter_map(version).min()
}

/// All checks that apply, in order: those of the cluster, and where there is an installation, those of it.
pub fn diagnose(facts: &Facts) -> Vec<Line> {
    let installed = matches!(facts.deployment, Ok(Some(_)));
    let checks = checks::CLUSTER.iter().chain(if installed { checks::INSTALLATION } else { &[] });
    checks
        .map(|(check, look)| {
            let (state, message, remedy) = look(facts).unwrap_or_else(|why| {
                let remedy = "ask with a kubeconfig that may see it";
                bad(State::Unknown, why, remedy)
            });
            Line { check, state, message, remedy }
        })
        .collect()
}

/// Whether a namespace asks for injection by this installation, by itself or by one of its tags. One that is about to go
/// takes no pods.
pub(crate) fn asks(namespace: &Value, names: &Names, tags: &[String]) -> bool {
    let labels = &namespace["metadata"]["labels"];
    if !namespace["metadata"]["deletionTimestamp"].is_null() {
        return false;
    }
    let label = |key: &str| labels[key].as_str();
    match (label(outrigger_contract::NAMESPACE_LABEL), label(outrigger_contract::REVISION_LABEL)) {
        (Some("enabled"), _) => names.revision == crate::installation::DEFAULT_REVISION,
        (None, Some(asked)) => asked == names.revision || tags.iter().any(|tag| tag == asked),
        (Some(_) | None, _) => false,
    }
}

/// Whether a registration sends pods to an installation.
fn leads_to(registration: &Value, names: &Names) -> bool {
    registration["webhooks"].as_array().into_iter().flatten().any(|webhook| {
        let service = &webhook["clientConfig"]["service"];
        service["name"] == names.name.as_str() && service["namespace"] == names.namespace.as_str()
    })
}

#[cfg(test)]
mod tests;
