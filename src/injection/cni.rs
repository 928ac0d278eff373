//! What the CNI plugin on the node is told to capture.
//!
//! A plugin sees a pod's annotations and nothing else of it. The container that checks its work is given the very plan,
//! so where a template asks for the annotation, it is filled in from that container's arguments and environment.

use outrigger_contract::{CAPTURE_ANNOTATION, VALIDATION_CONTAINER};
use serde_json::{Map, Value, json};

/// Fills in the annotation, if it is there.
pub(super) fn tell(pod: &mut Value) {
    let containers = pod["spec"]["initContainers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(check) = containers.iter().find(|container| container["name"] == VALIDATION_CONTAINER) else {
        return;
    };
    let environment: Map<String, Value> = check["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variable| Some((variable["name"].as_str()?.to_owned(), variable.get("value")?.clone())))
        .collect();
    let told = json!({"args": check["args"], "env": environment}).to_string();
    if let Some(annotation) = pod
        .pointer_mut("/metadata/annotations")
        .and_then(|annotations| annotations.get_mut(CAPTURE_ANNOTATION))
    {
        *annotation = told.into();
    }
}
