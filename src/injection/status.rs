//! The annotation that records a finished injection: what it added, by name.

use outrigger_contract::{PROXY_CONTAINER, STATUS_ANNOTATION};
use serde::Serialize;
use serde_json::Value;

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

/// What the templates of a pod add, by name; absent lists are null.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Added {
    init_containers: Option<Vec<Value>>,
    containers: Option<Vec<Value>>,
    volumes: Option<Vec<Value>>,
    image_pull_secrets: Option<Vec<Value>>,
}

impl Added {
    /// By an overlay.
    pub(super) fn by(overlay: &Value) -> Self {
        let names = |list: &str| {
            let items = overlay["spec"][list].as_array().filter(|items| !items.is_empty())?;
            Some(items.iter().map(|item| item["name"].clone()).collect())
        };
        Self {
            init_containers: names("initContainers"),
            containers: names("containers"),
            volumes: names("volumes"),
            image_pull_secrets: names("imagePullSecrets"),
        }
    }

    /// The names in one of the two lists of containers.
    pub(super) fn containers(&self, list: &str) -> &[Value] {
        let names = if list == "containers" { &self.containers } else { &self.init_containers };
        names.as_deref().unwrap_or_default()
    }

    /// Whether the sidecar is an init container.
    pub(super) fn has_native_sidecar(&self) -> bool {
        self.containers("initContainers").iter().any(|name| name == PROXY_CONTAINER)
    }

    /// The status annotation's value, as Istio writes it.
    pub(super) fn record(&self, revision: &str) -> String {
        #[derive(Serialize)]
        struct Record<'a> {
            #[serde(flatten)]
            added: &'a Added,
            revision: &'a str,
        }
        let record = serde_json::to_string(&Record { added: self, revision });
        // Names and text always serialize.
        record.unwrap_or_default()
    }
}
