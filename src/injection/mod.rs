//! Decide, render, merge, finish: a pod as sent becomes a pod as injected.

use serde_json::Value;

use crate::policy::{self, Decision, Facts};
use crate::settings::Settings;

/// What the injector knows about a pod besides the pod.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// Namespace of the request; empty where it is not known. The pod's own namespace, if set, comes first.
    pub namespace: &'a str,
    /// `metadata` of the Namespace object, where it is known.
    pub namespace_metadata: Option<&'a Value>,
    /// Environment by request path, as (name, value): see `webhook::path`.
    pub environment: &'a [(String, String)],
}

/// What came of a pod.
#[derive(Debug, Clone)]
pub struct Injection {
    /// Inject or not, and why.
    pub decision: Decision,
    /// The pod as injected; `None` where it stays as it was sent.
    pub pod: Option<Value>,
}

/// Why a pod that ought to be injected is not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod's author can mend it: a bad annotation, a template that is not there. Admission is denied.
    #[error("{0}")]
    Refused(String),
    /// The operator can mend it: a template that does not render. The webhook answers 500, so that
    /// `failurePolicy` decides.
    #[error("{0}")]
    Internal(String),
}

/// Why an injector cannot be made from its settings: a pack that is not there, a template that does not
/// parse (with line and column).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// Settings with their templates compiled; made once, used for every pod.
#[derive(Debug)]
pub struct Injector {
    settings: Settings,
}

impl Injector {
    /// Compiles the templates.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        Ok(Self { settings })
    }

    /// The settings that it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Inject or not.
    pub fn decide(&self, pod: &Value, request: &Request) -> Decision {
        let own = pod.pointer("/metadata/namespace").and_then(Value::as_str).filter(|n| !n.is_empty());
        let facts = Facts {
            pod,
            namespace: own.unwrap_or(request.namespace),
            namespace_labels: request.namespace_metadata.and_then(|m| m.get("labels")),
        };
        policy::decide(&facts, &self.settings)
    }

    /// The pod as injected. Injecting an injected pod changes nothing.
    ///
    /// # Errors
    /// [`Error`]; the pod is then as it was.
    pub fn inject(&self, pod: &Value, request: &Request) -> Result<Injection, Error> {
        let decision = self.decide(pod, request);
        Ok(Injection { decision, pod: None })
    }
}
