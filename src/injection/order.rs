//! The order of containers: capture before the sidecar, a native sidecar before the pod's own init containers, any
//! other sidecar first or last among the containers.

use outrigger_contract::{INIT_CONTAINER, PROXY_CONTAINER, VALIDATION_CONTAINER};
use serde_json::Value;

/// Where a sidecar that is no native one stands among the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the application, which then starts after it.
    First,
    /// After the application.
    Last,
}

/// Init containers that come before all others, in this order, where the sidecar is a native one.
const FRONT: [&str; 4] = [INIT_CONTAINER, VALIDATION_CONTAINER, PROXY_CONTAINER, "enable-core-dump"];

/// Puts the injected containers where they belong. A pod in order stays as it is.
pub(super) fn order(pod: &mut Value, place: Place) {
    let spec = &mut pod["spec"];
    let is_proxy = |container: &Value| container["name"] == PROXY_CONTAINER;
    if let Some(containers) = spec.get_mut("containers").and_then(Value::as_array_mut)
        && containers.iter().any(is_proxy)
    {
        containers.sort_by_key(|container| is_proxy(container) == (place == Place::Last));
    }
    if let Some(containers) = spec.get_mut("initContainers").and_then(Value::as_array_mut) {
        let native = containers.iter().any(is_proxy);
        containers.sort_by_key(|container| rank(container["name"].as_str().unwrap_or_default(), native));
    }
}

/// Without a native sidecar, capture comes last: the pod's own init containers then still reach the network.
fn rank(name: &str, native: bool) -> usize {
    if native {
        return FRONT.iter().position(|front| *front == name).unwrap_or(FRONT.len());
    }
    match name {
        VALIDATION_CONTAINER => 0,
        INIT_CONTAINER => 2,
        "enable-core-dump" => 3,
        _ => 1,
    }
}
