//! The cluster and the network that a pod belongs to, and what else the request's path sets in the environment.

use outrigger_contract::PROXY_CONTAINER;
use serde_json::{Value, json};

const CLUSTER: &str = "ISTIO_META_CLUSTER_ID";
const NETWORK: &str = "ISTIO_META_NETWORK";
/// Label of a pod that names its network.
pub(super) const NETWORK_LABEL: &str = "topology.istio.io/network";

/// The sidecar's environment by operator and path, sorted by name: values, over them the path, over them the pod's
/// own label.
pub(super) fn environment(
    global: &Value,
    path: &[(String, String)],
    labels: &Value,
) -> Vec<(String, String)> {
    let mut environment = path.to_vec();
    let set = |environment: &Vec<(String, String)>, name: &str| {
        environment.iter().any(|(known, value)| known == name && !value.is_empty())
    };
    for (name, value) in [(CLUSTER, &global["multiCluster"]["clusterName"]), (NETWORK, &global["network"])] {
        if let Some(value) = value.as_str().filter(|value| !value.is_empty())
            && !set(&environment, name)
        {
            environment.retain(|(known, _)| known != name);
            environment.push((name.to_owned(), value.to_owned()));
        }
    }
    if let Some(label) = labels[NETWORK_LABEL].as_str().filter(|label| !label.is_empty()) {
        environment.retain(|(known, _)| known != NETWORK);
        environment.push((NETWORK.to_owned(), label.to_owned()));
    }
    environment.sort();
    environment
}

/// Sets the environment of the sidecar, and the pod's label for its network.
pub(super) fn apply(pod: &mut Value, environment: &[(String, String)]) {
    if let Some(sidecar) = sidecar(pod) {
        for (name, value) in environment {
            set_variable(sidecar, name, value);
        }
    }
    if let Some((_, network)) = environment.iter().find(|(name, _)| name == NETWORK) {
        pod["metadata"]["labels"][NETWORK_LABEL] = Value::from(network.as_str());
    }
}

/// The sidecar, wherever it stands.
pub(super) fn sidecar(pod: &mut Value) -> Option<&mut Value> {
    let has = |list: &Value| {
        list.as_array().is_some_and(|items| items.iter().any(|c| c["name"] == PROXY_CONTAINER))
    };
    let list = ["containers", "initContainers"].into_iter().find(|list| has(&pod["spec"][*list]))?;
    pod["spec"][list].as_array_mut()?.iter_mut().find(|container| container["name"] == PROXY_CONTAINER)
}

/// Sets one variable of a container's environment: in its place if it is there, at the end if not.
pub(super) fn set_variable(container: &mut Value, name: &str, value: &str) {
    let variable = json!({"name": name, "value": value});
    let Some(container) = container.as_object_mut() else { return };
    let env = container.entry("env").or_insert_with(|| json!([]));
    if env.is_null() {
        *env = json!([]);
    }
    let Some(env) = env.as_array_mut() else { return };
    match env.iter_mut().find(|known| known["name"] == name) {
        Some(known) => *known = variable,
        None => env.push(variable),
    }
}
