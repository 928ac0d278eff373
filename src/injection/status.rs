//! The annotation that records a finished injection: what it added, by name.

use outrigger_contract::STATUS_ANNOTATION;
use serde_json::{Value, json};

/// The status annotation's value: the names of what the templates rendered. Absent lists are null, as in Istio.
pub(super) fn of(rendered: &Value, revision: &str) -> String {
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

/// The pod as its author sent it, if an earlier injection has left its status: without the containers that it
/// lists. A status that is no JSON is nobody's.
pub(super) fn strip(pod: &Value) -> Option<Value> {
    let status = pod["metadata"]["annotations"][STATUS_ANNOTATION].as_str()?;
    let status: Value = serde_json::from_str(status).ok()?;
    let mut stripped = pod.clone();
    for list in ["containers", "initContainers"] {
        if let Some(items) = stripped["spec"].get_mut(list).and_then(Value::as_array_mut) {
            let added = status[list].as_array().map(Vec::as_slice).unwrap_or_default();
            items.retain(|item| !added.contains(&item["name"]));
        }
    }
    if let Some(annotations) = stripped["metadata"]["annotations"].as_object_mut() {
        annotations.shift_remove(STATUS_ANNOTATION);
    }
    Some(stripped)
}
