//! One admission: review in, review out, one log line.

use std::time::Instant;

use serde_json::Value;

use super::review::{Answer, Request, Review, Verdict, patch_bytes};
use crate::injection::{self, Injector};
use crate::patch;
use crate::telemetry::Metrics;

/// Why there is no review to answer with. Both let `failurePolicy` decide.
#[derive(Debug)]
pub enum Failure {
    /// The body is not what an API server sends; answered 400.
    Malformed(String),
    /// The operator must mend something; answered 500.
    Internal(String),
}

/// Answers the review in `body`.
///
/// # Errors
/// [`Failure`].
pub fn admit(
    injector: &Injector,
    metrics: &Metrics,
    body: &[u8],
    environment: &[(String, String)],
) -> Result<Vec<u8>, Failure> {
    let began = Instant::now();
    if body.is_empty() {
        return Err(Failure::Malformed("the body is empty".to_owned()));
    }
    let review = Review::parse(body).map_err(|e| Failure::Malformed(e.to_string()))?;
    metrics.requests.inc();
    let (name, admission) = decide(injector, &review, environment);
    log(&review, &name, &admission, began);
    let answer = match admission {
        Admission::NotOurs { reason } => {
            metrics.skip.inc(reason);
            Answer { verdict: Verdict::Unchanged, reason: Some(reason) }
        }
        Admission::Skipped { reason, warnings } => {
            metrics.skip.inc(reason);
            Answer { verdict: Verdict::Allowed { patch: None, warnings }, reason: Some(reason) }
        }
        Admission::Injected { reason, warnings, patch } => {
            metrics.success.inc(reason);
            Answer { verdict: Verdict::Allowed { patch: Some(patch), warnings }, reason: Some(reason) }
        }
        Admission::Refused { message } => {
            metrics.failure.inc();
            Answer { verdict: Verdict::Refused { message }, reason: None }
        }
        Admission::Failed(failure) => {
            metrics.failure.inc();
            return Err(failure);
        }
    };
    review.answer(&answer).map_err(|e| Failure::Internal(e.to_string()))
}

/// What came of a request.
enum Admission {
    /// Not a pod that is being created.
    NotOurs { reason: &'static str },
    /// A pod that stays as it is.
    Skipped { reason: &'static str, warnings: Vec<String> },
    /// A pod that changes.
    Injected { reason: &'static str, warnings: Vec<String>, patch: Vec<u8> },
    /// A pod whose author must mend it.
    Refused { message: String },
    /// No answer.
    Failed(Failure),
}

/// The object's name, or what its name will begin with, and what came of it.
fn decide(injector: &Injector, review: &Review, environment: &[(String, String)]) -> (String, Admission) {
    let request = &review.request;
    let name = request.name.as_deref().unwrap_or_default().to_owned();
    let whole = request.sub_resource.as_deref().unwrap_or_default().is_empty();
    let kind = request.kind();
    if kind.kind != "Pod" || !kind.group.is_empty() || !whole {
        return (name, Admission::NotOurs { reason: "not_a_pod" });
    }
    if request.operation != "CREATE" {
        return (name, Admission::NotOurs { reason: "not_created" });
    }
    match request.object() {
        Ok(pod) => {
            let generated = || pod.pointer("/metadata/generateName")?.as_str();
            let name = if name.is_empty() { generated().unwrap_or_default().to_owned() } else { name };
            (name, inject(injector, request, &pod, environment))
        }
        Err(malformed) => (name, Admission::Failed(Failure::Malformed(malformed.to_string()))),
    }
}

fn inject(
    injector: &Injector,
    request: &Request,
    pod: &Value,
    environment: &[(String, String)],
) -> Admission {
    let asked = injection::Request {
        namespace: request.namespace.as_deref().unwrap_or_default(),
        environment,
        ..Default::default()
    };
    let injection = match injector.inject(pod, &asked) {
        Ok(injection) => injection,
        Err(injection::Error::Refused(message)) => return Admission::Refused { message },
        Err(injection::Error::Internal(message)) => return Admission::Failed(Failure::Internal(message)),
    };
    let (reason, warnings) = (injection.decision.reason.code(), injection.decision.warnings());
    let operations = injection.pod.as_ref().map(|injected| patch::diff(pod, injected)).unwrap_or_default();
    match patch_bytes(&operations) {
        Ok(Some(patch)) => Admission::Injected { reason, warnings, patch },
        Ok(None) if injection.decision.inject() => {
            Admission::Skipped { reason: "already_injected", warnings }
        }
        Ok(None) => Admission::Skipped { reason, warnings },
        Err(error) => Admission::Failed(Failure::Internal(format!("{}: {error}", request.display()))),
    }
}

/// The log line of an admission.
fn log(review: &Review, name: &str, admission: &Admission, began: Instant) {
    let request = &review.request;
    let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    macro_rules! line {
        ($level:ident, $message:expr, $($field:tt)*) => {
            tracing::$level!(
                uid = %request.uid,
                namespace = request.namespace.as_deref().unwrap_or_default(),
                name,
                operation = %request.operation,
                kind = %request.kind().kind,
                dry_run = request.dry_run.unwrap_or_default(),
                microseconds,
                $($field)*
                $message
            )
        };
    }
    match admission {
        Admission::NotOurs { reason } => line!(debug, "let through", inject = false, reason,),
        Admission::Skipped { reason, .. } => line!(info, "not injected", inject = false, reason,),
        Admission::Injected { reason, patch, .. } => {
            line!(info, "injected", inject = true, reason, patch_bytes = patch.len(),)
        }
        Admission::Refused { message } => line!(warn, "refused", inject = false, error = message,),
        Admission::Failed(Failure::Internal(message)) => {
            line!(error, "failed", inject = false, error = message,)
        }
        // The router logs what it turns away.
        Admission::Failed(Failure::Malformed(_)) => {}
    }
}
