//! The policy table: what decides whether a pod is injected, row by row, beside what Istio's documentation says.

use serde_json::json;

use crate::{comes_of, document, injector};

/// What the label or annotation `sidecar.istio.io/inject` may say; `None` is that it is not there.
const SAYS: [Option<&str>; 4] = [None, Some("true"), Some("false"), Some("yes")];

/// Istio's rule: a label, where there is one, stands in for the annotation; what is neither true nor false leaves it to
/// the policy. (istio.io, "Installing the Sidecar"; `../shared/spec/injection.md`, section 2.)
fn istio(policy: &str, label: Option<&str>, annotation: Option<&str>) -> bool {
    match label.or(annotation) {
        Some("true") => true,
        Some("false") => false,
        _ => policy == "enabled",
    }
}

#[test]
fn the_page_on_the_policy_has_every_row() {
    let mut rows = Vec::new();
    for policy in ["enabled", "disabled"] {
        let injector = injector("istio", &json!({"policy": policy}));
        for label in SAYS {
            for annotation in SAYS {
                let mut pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
                for (kind, value) in [("labels", label), ("annotations", annotation)] {
                    if let Some(value) = value {
                        pod["metadata"][kind]["sidecar.istio.io/inject"] = json!(value);
                    }
                }
                let decision = injector.decide(&pod, &outrigger::injection::Request::default());
                let injected = comes_of(&injector, &pod, &json!({})).contains("istio-proxy");
                assert_eq!(injected, decision.inject());
                assert_eq!(injected, istio(policy, label, annotation), "{policy} {label:?} {annotation:?}");
                let said = |value: Option<&str>| value.unwrap_or("").to_owned();
                let yes = if injected { "injected" } else { "not" };
                rows.push(vec![
                    policy.to_owned(),
                    said(label),
                    said(annotation),
                    yes.to_owned(),
                    format!("`{}`", decision.reason.code()),
                ]);
            }
        }
    }
    let mut page = String::from(
        "# Policy\n\nThe mesh-wide policy, and `sidecar.istio.io/inject` as a label and as an annotation of the pod. Each row was decided, and is what Istio decides.\n\n",
    );
    page += &document::table(&["policy", "label", "annotation", "the pod is", "reason"], &rows);
    document::holds("policy.md", &page);
}
