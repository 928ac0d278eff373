//! The annotation that records a finished injection: what it added, by name.

use outrigger_contract::STATUS_ANNOTATION;
use serde_json::{Value, json};

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// What an earlier injection added.
#[derive(Debug)]
pub(super) struct Status(Value);

impl Status {
    /// Of a pod that was injected. A status that is no JSON object is nobody's.
    pub(super) fn of(pod: &Value) -> Option<Self> {
        let text = pod["metadata"]["annotations"][STATUS_ANNOTATION].as_str()?;
        serde_json::from_str(text).ok().filter(Value::is_object).map(Self)
    }

    /// Whether it lists a container, wherever that stood.
    pub(super) fn lists(&self, name: &Value) -> bool {
        LISTS.iter().any(|list| self.lists_in(list, name))
    }

    fn lists_in(&self, list: &str, name: &Value) -> bool {
        self.0[list].as_array().is_some_and(|names| names.contains(name))
    }

    /// Leaves the volumes that it lists as they were sent, as their containers are: an API server has filled in what
    /// the templates leave to it.
    pub(super) fn keep_volumes(&self, pod: &mut Value, sent: &Value) {
        let sent = sent["spec"]["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let volumes = pod["spec"].get_mut("volumes").and_then(Value::as_array_mut);
        for volume in volumes.into_iter().flatten().filter(|volume| self.lists_in("volumes", &volume["name"]))
        {
            if let Some(known) = sent.iter().find(|known| known["name"] == volume["name"]) {
                volume.clone_from(known);
            }
        }
    }

    /// Takes the containers that it lists, and itself, out of a pod.
    pub(super) fn strip(&self, pod: &mut Value) {
        for list in LISTS {
            if let Some(items) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !self.lists_in(list, &item["name"]));
            }
        }
        if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
            annotations.shift_remove(STATUS_ANNOTATION);
        }
    }
}

/// The status annotation's value: the names of what the templates rendered. Absent lists are null, as in Istio.
pub(super) fn record(rendered: &Value, revision: &str) -> String {
    let names = |list: &str| match rendered["spec"][list].as_array() {
        Some(items) if !items.is_empty() => items.iter().map(|item| item["name"].clone()).collect(),
        _ => Value::Null,
    };
    json!({
        "initContainers": names("initContainers"),
        "containers": names("containers"),
        "volumes": names("volumes"),
        "imagePullSecrets": names("imagePullSecrets"),
        "revision": revision,
    })
    .to_string()
}
