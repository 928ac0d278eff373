//! One admission: review in, review out, one log line.

use std::time::Instant;

use super::happening::Happening;
use super::review::{Answer, Request, Review, Verdict};
use super::{Around, path};
use crate::injection::{self, Injector, Patched};
use crate::notice::Notice;
use crate::telemetry::Metrics;

/// Why there is no review to answer with. Both let `failurePolicy` decide.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The body is not what an API server sends; answered 400.
    Malformed(String),
    /// The operator must mend something; answered 500.
    Internal(String),
}

/// Answers the review in `body`, which was sent to the path `below` `/inject/`.
///
/// # Errors
/// [`Failure`].
pub fn admit(
    injector: &Injector,
    metrics: &Metrics,
    around: &Around,
    body: &[u8],
    below: &str,
) -> Result<Vec<u8>, Failure> {
    let began = Instant::now();
    if body.is_empty() {
        return Err(Failure::Malformed("the body is empty".to_owned()));
    }
    let review = Review::parse(body).map_err(|e| Failure::Malformed(e.to_string()))?;
    metrics.requests.inc();
    let admission = decide(injector, around, &review.request, below);
    log(&review.request, &admission, began);
    around.notices.tell(|| notice(&review.request, &admission));
    let answer = match &admission {
        Admission::NotOurs { reason } => {
            metrics.skip.inc(reason);
            Answer { verdict: Verdict::Unchanged, reason: Some(reason) }
        }
        Admission::Patched(patched) => {
            let reason = patched.reason();
            if patched.patch().is_some() {
                metrics.success.inc(reason);
                metrics.patch_size.observe(patched.patch_bytes() as f64);
            } else {
                metrics.skip.inc(reason);
            }
            let (patch, warnings) = (patched.patch(), patched.decision().warnings());
            Answer { verdict: Verdict::Allowed { patch, warnings }, reason: Some(reason) }
        }
        Admission::Refused { message } => {
            metrics.failure.inc();
            Answer { verdict: Verdict::Refused { message: message.clone() }, reason: None }
        }
        Admission::Failed(failure) => {
            metrics.failure.inc();
            return Err(failure.clone());
        }
    };
    review.answer(&answer).map_err(|e| Failure::Internal(e.to_string()))
}

/// What came of a request.
enum Admission {
    /// Not a pod that is being created.
    NotOurs { reason: &'static str },
    /// A pod that comes in, changed or not.
    Patched(Patched),
    /// A pod whose author must mend it.
    Refused { message: String },
    /// No answer.
    Failed(Failure),
}

impl Patched {
    /// The decision's reason; or that a pod that is to be injected carries everything already.
    fn reason(&self) -> &'static str {
        let decision = self.decision();
        if decision.inject() && self.patch().is_none() { "already_injected" } else { decision.reason.code() }
    }
}

fn decide(injector: &Injector, around: &Around, request: &Request, below: &str) -> Admission {
    let whole = request.sub_resource.as_deref().unwrap_or_default().is_empty();
    let kind = request.kind();
    if kind.kind != "Pod" || !kind.group.is_empty() || !whole {
        return Admission::NotOurs { reason: "not_a_pod" };
    }
    if request.operation != "CREATE" {
        return Admission::NotOurs { reason: "not_created" };
    }
    let pod = match request.object() {
        Ok(pod) => pod,
        Err(malformed) => return Admission::Failed(Failure::Malformed(malformed.to_string())),
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let (metadata, environment) = (around.namespaces.get(namespace), path::environment(below));
    let asked = injection::Request {
        namespace,
        namespace_metadata: metadata.as_deref(),
        environment: &environment,
        tag: path::tag(below),
        ..Default::default()
    };
    match injector.patch(pod, &asked) {
        Ok(patched) => Admission::Patched(patched),
        Err(injection::Error::Refused(message)) => Admission::Refused { message },
        Err(injection::Error::Internal(message)) => Admission::Failed(Failure::Internal(message)),
        Err(injection::Error::NoObject(why)) => {
            Admission::Failed(Failure::Malformed(request.malformed(&why).to_string()))
        }
    }
}

/// What is worth an Event: an injected pod, one that is not although it was asked for, and an error.
fn notice(request: &Request, admission: &Admission) -> Option<Notice> {
    let (happening, message) = match admission {
        Admission::Patched(patched) if patched.patch().is_some() => {
            let decision = patched.decision();
            (Happening::Injected, format!("{}: {}", decision.reason.code(), decision.because))
        }
        Admission::Patched(patched) => {
            (Happening::Skipped, patched.decision().warnings().into_iter().next()?)
        }
        Admission::Refused { message } | Admission::Failed(Failure::Internal(message)) => {
            (Happening::Failed, message.clone())
        }
        Admission::NotOurs { .. } | Admission::Failed(Failure::Malformed(_)) => return None,
    };
    happening.notice(request, message)
}

/// The log line of an admission.
fn log(request: &Request, admission: &Admission, began: Instant) {
    let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    // The object's name, or what its name will begin with.
    let generated = match admission {
        Admission::Patched(patched) => patched.generate_name(),
        _ => "",
    };
    let name = request.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(generated);
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
        Admission::Patched(patched) if patched.patch().is_some() => {
            let (reason, patch_bytes) = (patched.reason(), patched.patch_bytes());
            line!(info, "injected", inject = true, reason, patch_bytes,)
        }
        Admission::Patched(patched) => {
            line!(info, "not injected", inject = false, reason = patched.reason(),)
        }
        Admission::Refused { message } => line!(warn, "refused", inject = false, error = message,),
        Admission::Failed(Failure::Internal(message)) => {
            line!(error, "failed", inject = false, error = message,)
        }
        // The router logs what it turns away.
        Admission::Failed(Failure::Malformed(_)) => {}
    }
}
