//! A pod that proves an installation: by dry run, in a namespace where it must come back injected.

use outrigger_contract::{INJECT_KEY, NAMESPACE_LABEL, REVISION_LABEL, STATUS_ANNOTATION};
use serde_json::{Value, json};

use super::DEFAULT_REVISION;
use crate::policy::{self, Facts};
use crate::settings::Settings;

/// Label by which Pod Security is enforced in a namespace; injection adds what the stricter levels refuse.
const POD_SECURITY_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// A pod to send, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialPod {
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub pod: Value,
}

impl TrialPod {
    /// A pod for the revision (or tag) `asked`, in the first of the namespaces in which it reaches the webhook and the
    /// settings inject it. Those without Pod Security come first, then the oldest, which is the least likely to be just
    /// going. `None` where there is no such namespace.
    pub fn choose(namespaces: &[Value], asked: &str, settings: &Settings) -> Option<Self> {
        let trials = namespaces.iter().filter_map(|namespace| {
            let created = namespace["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
            trial(namespace, asked, settings).map(|(secured, trial)| ((secured, created), trial))
        });
        trials.min_by_key(|(order, _)| *order).map(|(_, trial)| trial)
    }
}

/// A pod to send by dry run, with these labels.
pub(crate) fn trial_pod(labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "outrigger-trial-", "labels": labels},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "trial", "image": "trial"}],
        },
    })
}

/// The pod for one namespace, and whether Pod Security is enforced there.
fn trial(namespace: &Value, asked: &str, settings: &Settings) -> Option<(bool, TrialPod)> {
    let metadata = &namespace["metadata"];
    if !metadata["deletionTimestamp"].is_null() {
        return None;
    }
    let label = |key: &str| metadata["labels"][key].as_str();
    let by_namespace = match label(NAMESPACE_LABEL) {
        Some("enabled") if asked == DEFAULT_REVISION => true,
        Some(_) => return None,
        None => match label(REVISION_LABEL) {
            Some(revision) if revision == asked => true,
            Some(_) => return None,
            None => false,
        },
    };
    let mut labels = json!({INJECT_KEY: "true"});
    if !by_namespace {
        labels[REVISION_LABEL] = asked.into();
    }
    let pod = trial_pod(&labels);
    let name = metadata["name"].as_str()?;
    // Whether the namespace's label names this revision or a tag of it has been seen to above.
    let facts = Facts {
        pod: &json!({"metadata": {"labels": {INJECT_KEY: "true"}}}),
        namespace: name,
        namespace_labels: None,
        tag: None,
    };
    let injected = policy::decide(&facts, settings).inject();
    let secured = label(POD_SECURITY_LABEL).is_some_and(|level| level != "privileged");
    injected.then(|| (secured, TrialPod { namespace: name.to_owned(), pod }))
}

/// Whether a pod came back injected by a revision.
///
/// # Errors
/// Why it did not, for people.
pub fn verify(pod: &Value, revision: &str) -> Result<(), String> {
    let Some(status) = pod["metadata"]["annotations"][STATUS_ANNOTATION].as_str() else {
        return Err("the pod came back as it was sent".to_owned());
    };
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    match status["revision"].as_str() {
        Some(injected) if injected == revision => Ok(()),
        other => Err(format!("the pod came back injected by revision {}", other.unwrap_or("(none)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, labels: Value) -> Value {
        json!({"metadata": {"name": name, "labels": labels}})
    }

    fn chosen(namespaces: &[Value], asked: &str, settings: &str) -> Option<(String, Value)> {
        let settings = Settings::parse(settings, "settings").unwrap();
        let trial = TrialPod::choose(namespaces, asked, &settings)?;
        Some((trial.namespace, trial.pod["metadata"]["labels"].clone()))
    }

    #[test]
    fn a_namespace_is_chosen_in_which_the_pod_must_be_injected() {
        let all = [
            namespace("kube-system", json!({})),
            namespace("off", json!({"istio-injection": "disabled"})),
            namespace("strict", json!({"pod-security.kubernetes.io/enforce": "restricted"})),
            namespace("canaries", json!({"istio.io/rev": "canary"})),
            namespace("shop", json!({"istio-injection": "enabled"})),
            namespace("default", json!({})),
        ];
        let asks = json!({"sidecar.istio.io/inject": "true"});
        let named = |revision: &str| json!({"sidecar.istio.io/inject": "true", "istio.io/rev": revision});
        let of = |name: &str, labels: &Value| Some((name.to_owned(), labels.clone()));
        assert_eq!(chosen(&all, "default", ""), of("shop", &asks));
        assert_eq!(chosen(&all, "canary", "revision: canary"), of("canaries", &asks));
        assert_eq!(chosen(&all, "blue", "revision: blue"), of("default", &named("blue")));
        assert_eq!(chosen(&all[..3], "default", ""), of("strict", &named("default")));
        assert_eq!(chosen(&all, "default", "excludeNamespaces: [shop]"), of("default", &named("default")));
        assert_eq!(chosen(&all, "default", "policy: off"), None);
        assert_eq!(chosen(&all[..2], "default", ""), None);
        let mut going = all.clone();
        let mut aged = all.clone();
        aged[4]["metadata"]["creationTimestamp"] = json!("2026-11-28T12:00:00Z");
        aged[5]["metadata"]["creationTimestamp"] = json!("2026-11-28T11:00:00Z");
        assert_eq!(chosen(&aged, "default", ""), of("default", &named("default")));
        going[4]["metadata"]["deletionTimestamp"] = json!("2026-11-28T12:00:00Z");
        assert_eq!(chosen(&going, "default", ""), of("default", &named("default")));
    }

    #[test]
    fn a_pod_is_injected_when_its_status_names_the_revision() {
        let pod = |status: &str| json!({"metadata": {"annotations": {"sidecar.istio.io/status": status}}});
        assert_eq!(verify(&pod(r#"{"revision":"canary"}"#), "canary"), Ok(()));
        assert!(
            verify(&pod(r#"{"revision":"default"}"#), "canary").unwrap_err().contains("by revision default")
        );
        assert!(verify(&json!({"metadata": {}}), "canary").unwrap_err().contains("as it was sent"));
    }
}
