//! The service that a pod belongs to, in telemetry.

use serde_json::{Value, json};

/// Name and revision by the labels that Istio looks at, in its order
/// (<https://istio.io/latest/docs/ops/deployment/application-requirements/>). A name is a label value: 63
/// characters at most, and no separator at either end.
pub(super) fn canonical(labels: &Value, workload: &str) -> Value {
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
