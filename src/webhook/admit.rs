//! One admission: review in, review out, one log line.

use std::borrow::Cow;
use std::time::Instant;

use outrigger_trace::Value;

use super::happening::Happening;
use super::review::{Answer, Request, Review, Verdict};
use super::span::Facts;
use super::{Around, path};
use crate::injection::{self, Injector, Patched};
use crate::notice::Notice;
use crate::telemetry::Metrics;

/// Why there is no review to answer with. Both let `failurePolicy` decide.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The body is not what an API server sends; answered 400.
    Malformed(String),
    /// The operator must mend something; answered 500.
    Internal(String),
}

/// What was sent.
pub(super) struct Sent<'a> {
    /// The review.
    pub body: &'a [u8],
    /// The path below `/inject/`.
    pub below: &'a str,
    /// Whether its trace is recorded.
    pub traced: bool,
}

/// Answers a review, and says what is known of it, where its trace is recorded.
pub(super) fn admit(
    injector: &Injector,
    metrics: &Metrics,
    around: &Around,
    sent: &Sent,
) -> (Result<Vec<u8>, Failure>, Option<Facts>) {
    let began = Instant::now();
    let review = match parse(sent.body) {
        Ok(review) => review,
        Err(failure) => return (Err(failure), None),
    };
    metrics.requests.inc();
    let admission = decide(injector, around, &review.request, sent.below);
    log(&review.request, &admission, began);
    around.notices.tell(|| notice(&review.request, &admission));
    let facts = sent.traced.then(|| facts(injector, &review.request, &admission));
    (answer(metrics, &review, &admission), facts)
}

fn parse(body: &[u8]) -> Result<Review<'_>, Failure> {
    if body.is_empty() {
        return Err(Failure::Malformed("the body is empty".to_owned()));
    }
    Review::parse(body).map_err(|e| Failure::Malformed(e.to_string()))
}

fn answer(metrics: &Metrics, review: &Review, admission: &Admission) -> Result<Vec<u8>, Failure> {
    let answer = match admission {
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
            let (because, code) = (&decision.because, decision.reason.code());
            (Happening::Injected, format!("a sidecar was injected: {because} ({code})"))
        }
        Admission::Patched(patched) => {
            let decision = patched.decision();
            let remark = decision.remarks().into_iter().next()?;
            let remedy = decision.reason.remedy().filter(|_| decision.asked);
            (Happening::Skipped, remedy.map_or(remark.clone(), |remedy| format!("{remark}; {remedy}")))
        }
        // What to do comes first: the error may be longer than an Event.
        Admission::Refused { message } => {
            (Happening::Failed, format!("the pod was refused until its author mends it: {message}"))
        }
        Admission::Failed(Failure::Internal(message)) => (
            Happening::Failed,
            format!(
                "no sidecar could be made until the mesh's operator mends settings or templates, and failurePolicy decides \
                 whether the pod comes in without one: {message}"
            ),
        ),
        Admission::NotOurs { .. } | Admission::Failed(Failure::Malformed(_)) => return None,
    };
    happening.notice(request, message)
}

/// What the request's span says.
fn facts(injector: &Injector, request: &Request, admission: &Admission) -> Facts {
    let text = |field: &Option<Cow<str>>| field.as_deref().unwrap_or_default().to_owned();
    let settings = injector.settings();
    let packs = std::iter::once(&settings.pack).chain(&settings.packs).cloned().collect();
    let mut attributes = vec![
        ("k8s.namespace.name", text(&request.namespace).into()),
        ("admission.uid", request.uid.as_ref().into()),
        ("admission.operation", request.operation.as_ref().into()),
        ("admission.resource", request.resource().into()),
        ("admission.name", name(request, admission).into()),
        ("admission.dry_run", Value::Flag(request.dry_run.unwrap_or_default())),
        ("injection.revision", settings.revision.as_str().into()),
        ("injection.packs", Value::Texts(packs)),
    ];
    let (decision, reason, failure) = match admission {
        Admission::NotOurs { reason } => ("unchanged", Some(*reason), None),
        Admission::Patched(patched) if patched.patch().is_some() => {
            let bytes = i64::try_from(patched.patch_bytes()).unwrap_or(i64::MAX);
            attributes.push(("injection.patch_bytes", Value::Number(bytes)));
            ("injected", Some(patched.reason()), None)
        }
        Admission::Patched(patched) => ("unchanged", Some(patched.reason()), None),
        Admission::Refused { message } => ("refused", None, Some(message)),
        Admission::Failed(Failure::Internal(message) | Failure::Malformed(message)) => {
            ("failed", None, Some(message))
        }
    };
    attributes.push(("injection.decision", decision.into()));
    attributes.extend(reason.map(|reason| ("injection.reason", reason.into())));
    Facts { attributes, failure: failure.cloned() }
}

/// The object's name, or what its name will begin with.
fn name<'a>(request: &'a Request, admission: &'a Admission) -> &'a str {
    let generated = match admission {
        Admission::Patched(patched) => patched.generate_name(),
        _ => "",
    };
    request.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(generated)
}

/// The log line of an admission.
fn log(request: &Request, admission: &Admission, began: Instant) {
    let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let name = name(request, admission);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::Settings;

    /// Reason and message of the Event about a pod.
    fn event(settings: &str, label: &str, spec: serde_json::Value) -> Option<(&'static str, String)> {
        let injector = Injector::new(Settings::parse(settings, "test").unwrap()).unwrap();
        let metadata = json!({"name": "web", "labels": {"sidecar.istio.io/inject": label}});
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "namespace": "shop", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec},
        }});
        let text = review.to_string();
        let review = Review::parse(text.as_bytes()).unwrap();
        let admission = decide(&injector, &Around::default(), &review.request, "");
        notice(&review.request, &admission).map(|notice| (notice.reason, notice.message))
    }

    #[test]
    fn events_say_what_why_and_what_to_do() {
        let app = json!({"containers": [{"name": "app", "image": "app"}]});
        let on_node = json!({"hostNetwork": true, "containers": app["containers"]});
        let no_pod = json!({"containers": 1});
        let because = "the pod's label sidecar.istio.io/inject is \"true\"";
        let injected = format!("a sidecar was injected: {because} (inject_label_true)");
        assert_eq!(event("", "true", app.clone()), Some(("SidecarInjected", injected)));
        let (reason, message) = event("", "true", on_node).unwrap();
        assert_eq!(reason, "SidecarNotInjected");
        assert!(message.starts_with("no sidecar was injected although "), "{message}");
        assert!(
            message.ends_with("(host_network_enabled); take hostNetwork away, or what asks for a sidecar"),
            "{message}"
        );
        let (reason, message) = event("policy: disabled", "yes", app.clone()).unwrap();
        assert_eq!(reason, "SidecarNotInjected");
        assert!(message.ends_with("has no effect; use \"true\" or \"false\""), "{message}");
        let (reason, message) = event("", "true", no_pod).unwrap();
        assert_eq!(reason, "SidecarInjectionFailed");
        assert!(
            message.starts_with("the pod was refused until its author mends it: pod shop/web"),
            "{message}"
        );
        let broken = "templates: {sidecar: \"a: {{values.nope}}\"}";
        let (reason, message) = event(broken, "true", app.clone()).unwrap();
        assert_eq!(reason, "SidecarInjectionFailed");
        assert!(message.starts_with("no sidecar could be made until the mesh's operator mends"), "{message}");
        assert!(message.contains("\"values.nope\" is not set"), "{message}");
        assert_eq!(event("", "false", app), None);
    }
}
