//! What templates see: one object, made anew for every pod.
//!
//! | key | what |
//! |---|---|
//! | `contract` | the constants of `outrigger-contract` |
//! | `values` | the operator's values over the pack's |
//! | `meshConfig` | the operator's mesh configuration |
//! | `labels`, `annotations`, `spec` | the pod's, as its author sent them |
//! | `namespace` | the pod's namespace; empty where it is not known |
//! | `workload` | `apiVersion`, `kind`, `name` of the object that the pod was made from |
//! | `canonical` | `name`, `revision` of the service that the pod belongs to |
//! | `appContainers` | the names of the pod's own containers |
//! | `revision` | the installation's revision |
//! | `native` | whether the sidecar is a native one |
//! | `environment` | the environment by request path, by name |

use outrigger_contract as contract;
use serde_json::{Map, Value, json};

use super::owner::Owner;

/// The constants of the contract, as templates see them.
pub(super) fn contract() -> Value {
    json!({
        "initContainer": contract::INIT_CONTAINER,
        "proxyContainer": contract::PROXY_CONTAINER,
        "uid": contract::PROXY_UID,
        "gid": contract::PROXY_GID,
        "adminPort": contract::ADMIN_PORT,
        "outboundPort": contract::OUTBOUND_PORT,
        "inboundPort": contract::INBOUND_PORT,
        "tunnelPort": contract::TUNNEL_PORT,
        "agentPort": contract::AGENT_PORT,
        "readinessPort": contract::READINESS_PORT,
        "readinessPath": contract::READINESS_PATH,
        "dnsPort": contract::DNS_PORT,
        "metricsPort": contract::METRICS_PORT,
    })
}

/// What is the pod's own in the templates' data.
pub(super) struct PodData<'a> {
    pub(super) pod: &'a Value,
    pub(super) namespace: &'a str,
    pub(super) workload: &'a Owner,
    pub(super) native: bool,
    pub(super) environment: &'a [(String, String)],
}

/// The templates' data: what is the same for all pods (`base`), and what is this pod's.
pub(super) fn data(base: &Map<String, Value>, pod: &PodData) -> Value {
    let metadata = &pod.pod["metadata"];
    let object = |value: &Value| if value.is_object() { value.clone() } else { json!({}) };
    let containers = pod.pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let apps: Vec<&str> = containers
        .iter()
        .filter_map(|c| c["name"].as_str())
        .filter(|name| *name != contract::PROXY_CONTAINER)
        .collect();
    let environment: Map<String, Value> =
        pod.environment.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let mut data = base.clone();
    let own = [
        ("labels", object(&metadata["labels"])),
        ("annotations", object(&metadata["annotations"])),
        ("spec", object(&pod.pod["spec"])),
        ("namespace", Value::from(pod.namespace)),
        (
            "workload",
            json!({"apiVersion": pod.workload.api_version, "kind": pod.workload.kind, "name": pod.workload.name}),
        ),
        ("canonical", canonical(&metadata["labels"], &pod.workload.name)),
        ("appContainers", json!(apps)),
        ("native", Value::Bool(pod.native)),
        ("environment", Value::Object(environment)),
    ];
    data.extend(own.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(data)
}

/// Name and revision by the labels that Istio looks at, in its order
/// (<https://istio.io/latest/docs/ops/deployment/application-requirements/>). A name is a label value: 63
/// characters at most, and no separator at either end.
fn canonical(labels: &Value, workload: &str) -> Value {
    let first = |keys: &[&str], otherwise: &str| {
        let found = keys.iter().filter_map(|key| labels[key].as_str()).find(|value| !value.is_empty());
        found.unwrap_or(otherwise).to_owned()
    };
    let name = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"], workload);
    let name: String = name.chars().take(63).collect();
    json!({
        "name": name.trim_matches(['-', '_', '.']),
        "revision": first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"], "latest"),
    })
}
