//! A pod that Istio's injector, or pack `istio`, has injected: taken back from what is left in it.
//!
//! The status annotation names what was added; the sidecar's environment holds the application's probes and the
//! metrics annotations as they were; the overrides annotation holds containers of the user's own. What the injector
//! leaves no trace of cannot be told from what the user wrote: a label or annotation that has just the value that
//! injection gives is taken for injection's.

use outrigger_contract::{INIT_CONTAINER, METRICS_PATH, PROXY_CONTAINER, VALIDATION_CONTAINER};
use serde_json::{Map, Value, json};

use super::{remove_status, status};
use crate::owner::Owner;

const OVERRIDES: &str = "proxy.istio.io/overrides";
const PROBES: &str = "ISTIO_KUBE_APP_PROBERS";
const TARGETS: &str = "prometheus.istio.io/scrape-targets";
const METRICS: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";

/// Annotation that says whether probes are turned; the grpc templates set it.
const REWRITES: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
/// The agent's port where nothing else is said.
const STATUS_PORT: &str = "15020";
/// Volumes that only those templates add.
const OF_GRPC: [&str; 2] = ["istio-xds", "grpc-io-proxyless-bootstrap"];

/// The annotations by which Istio's CNI plugin is told what to capture: with the values that Istio's defaults give.
const TOLD_TO_CNI: [(&str, &str); 3] = [
    ("sidecar.istio.io/interceptionMode", "REDIRECT"),
    ("traffic.sidecar.istio.io/includeInboundPorts", "*"),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*"),
];
const EXCLUDED_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// How the network of the plugin is added to others: to a list of names, or to a JSON list.
const NETWORK: [&str; 2] = [", default/istio-cni", ", {\"name\": \"istio-cni\", \"namespace\": \"default\"}"];

/// Annotations that only injection writes.
const ANNOTATIONS: [&str; 3] = [OVERRIDES, "istio.io/rev", "prometheus.istio.io/secure-port"];
/// Labels that only injection writes.
const LABELS: [(&str, &str); 2] =
    [("security.istio.io/tlsMode", "istio"), ("networking.istio.io/tunnel", "http")];

/// `None` where the pod carries no status.
pub(super) fn uninject(pod: &Value) -> Option<Value> {
    // Istio before 1.0 left a text in place of names.
    let status: Value = serde_json::from_str(status(pod)?).unwrap_or_else(
        |_| json!({"containers": [PROXY_CONTAINER], "initContainers": [INIT_CONTAINER, "enable-core-dump"]}),
    );
    let mut before = pod.clone();
    let sidecar = sidecar(pod).cloned().unwrap_or(Value::Null);
    restore_probes(&mut before, &sidecar);
    restore_metrics(&mut before, &sidecar);
    for list in ["initContainers", "containers", "volumes", "imagePullSecrets"] {
        take_away(&mut before, list, &status[list]);
    }
    restore_overrides(&mut before);
    restore_metadata(&mut before, &sidecar, &status);
    restore_security(&mut before, &sidecar);
    remove_status(&mut before);
    for map in ["annotations", "labels"] {
        drop_if_empty(&mut before, "/metadata", map);
    }
    drop_if_empty(&mut before, "", "metadata");
    Some(before)
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| pod["spec"][list].as_array()).flatten()
}

fn sidecar(pod: &Value) -> Option<&Value> {
    containers(pod).find(|container| container["name"] == PROXY_CONTAINER)
}

/// A variable of the sidecar that holds JSON.
fn variable(sidecar: &Value, name: &str) -> Option<Value> {
    let variable = sidecar["env"].as_array()?.iter().find(|variable| variable["name"] == name)?;
    serde_json::from_str(variable["value"].as_str()?).ok()
}

fn take_away(pod: &mut Value, list: &str, names: &Value) {
    let Some(names) = names.as_array() else { return };
    if let Some(items) = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) {
        items.retain(|item| !names.contains(&item["name"]));
    }
    drop_if_empty(pod, "/spec", list);
}

/// Drops a field that holds nothing, of the object at a JSON pointer.
fn drop_if_empty(pod: &mut Value, object: &str, field: &str) {
    let Some(of) = pod.pointer_mut(object) else { return };
    let empty = match of.get(field) {
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        _ => false,
    };
    if let (true, Some(fields)) = (empty, of.as_object_mut()) {
        fields.shift_remove(field);
    }
}

/// The user's own containers of injected names. A sidecar container that was made a native one came from the
/// containers: an init container of that name without `restartPolicy` would make no sense.
fn restore_overrides(pod: &mut Value) {
    let text = pod["metadata"]["annotations"][OVERRIDES].as_str();
    let overrides: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for list in ["initContainers", "containers"] {
        for own in overrides[list].as_array().into_iter().flatten() {
            let made_native = own["name"] == PROXY_CONTAINER && own["restartPolicy"].is_null();
            let home = if made_native { "containers" } else { list };
            for list in [list, home] {
                take_away(pod, list, &json!([own["name"]]));
            }
            let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
            if let Some(items) = spec.entry(home).or_insert_with(|| json!([])).as_array_mut() {
                let mut own = own.clone();
                // Istio forgets an image that says to take the template's.
                if own["image"].is_null() {
                    own["image"] = "auto".into();
                }
                items.push(own);
            }
        }
    }
}

/// Probes and lifecycle handlers as they were before they were turned to the agent.
fn restore_probes(pod: &mut Value, sidecar: &Value) {
    let Some(Value::Object(probes)) = variable(sidecar, PROBES) else { return };
    for (path, probe) in probes {
        let Some((container, place)) = place_of(&path) else { continue };
        for list in ["initContainers", "containers"] {
            let items =
                pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut).into_iter().flatten();
            for item in items.filter(|item| item["name"] == container) {
                let ports = named_ports(item);
                let handler = item.pointer_mut(place).and_then(Value::as_object_mut);
                let Some(handler) = handler.filter(|h| is_turned(h.get("httpGet"), &path)) else { continue };
                for kind in ["httpGet", "tcpSocket", "grpc"] {
                    if let Some(original) = probe.get(kind) {
                        let mut original = original.clone();
                        // The agent is told a number; a port that has a name was most likely asked for by it.
                        if kind != "grpc"
                            && let Some((name, _)) =
                                ports.iter().find(|(_, number)| *number == original["port"])
                        {
                            original["port"] = Value::from(name.as_str());
                        }
                        if let Some(fields) = original.as_object_mut() {
                            fields.retain(|_, value| !value.is_null());
                        }
                        handler.shift_remove("httpGet");
                        handler.insert(kind.to_owned(), original);
                    }
                }
            }
        }
    }
}

/// The ports of a container that have a name: name, number.
fn named_ports(container: &Value) -> Vec<(String, Value)> {
    let ports = container["ports"].as_array().into_iter().flatten();
    ports
        .filter_map(|port| Some((port["name"].as_str()?.to_owned(), port["containerPort"].clone())))
        .collect()
}

/// Container and JSON pointer of a probe's path at the agent: `/app-health/web/livez`.
fn place_of(path: &str) -> Option<(&str, &'static str)> {
    let (container, probe) = path.trim_start_matches('/').split_once('/')?.1.split_once('/')?;
    let place = match probe {
        "livez" => "/livenessProbe",
        "readyz" => "/readinessProbe",
        "startupz" => "/startupProbe",
        "prestopz" => "/lifecycle/preStop",
        "poststartz" => "/lifecycle/postStart",
        _ => return None,
    };
    Some((container, place))
}

fn is_turned(http_get: Option<&Value>, path: &str) -> bool {
    http_get.is_some_and(|http_get| http_get["path"] == path)
}

/// The metrics annotations as they were before they named the agent.
fn restore_metrics(pod: &mut Value, sidecar: &Value) {
    let Some(annotations) = pod.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get("prometheus.io/path").is_none_or(|path| path != METRICS_PATH) {
        return;
    }
    let before = variable(sidecar, METRICS).unwrap_or(Value::Null);
    // Targets stand for port and path.
    let targets: Vec<String> =
        before["targets"].as_array().into_iter().flatten().filter_map(target).collect();
    for (key, field) in
        [("prometheus.io/scrape", "scrape"), ("prometheus.io/path", "path"), ("prometheus.io/port", "port")]
    {
        let given = field == "scrape" || targets.is_empty();
        match before[field].as_str().filter(|value| given && !value.is_empty()) {
            Some(value) => annotations.insert(key.to_owned(), value.into()),
            None => annotations.shift_remove(key),
        };
    }
    if !targets.is_empty() {
        annotations.insert(TARGETS.to_owned(), targets.join(", ").into());
    }
}

/// A scrape target as its annotation writes it: `8080:/path`, `8080`.
fn target(target: &Value) -> Option<String> {
    let port = target["port"].as_str()?;
    Some(match target["path"].as_str()? {
        "/metrics" => port.to_owned(),
        path => format!("{port}:{path}"),
    })
}

/// Takes away what a CNI plugin is told, where it has just the values that Istio's defaults give.
fn forget_cni(annotations: &mut Map<String, Value>) {
    annotations
        .retain(|key, value| !TOLD_TO_CNI.iter().any(|(told, default)| key == told && value == default));
    let port = annotations.get("status.sidecar.istio.io/port").and_then(Value::as_str).unwrap_or(STATUS_PORT);
    let rest =
        annotations.get(EXCLUDED_PORTS).and_then(Value::as_str).and_then(|ports| ports.strip_suffix(port));
    match rest.map(|rest| rest.strip_suffix(',').unwrap_or(rest).to_owned()) {
        Some(rest) if rest.is_empty() => drop(annotations.shift_remove(EXCLUDED_PORTS)),
        Some(rest) => drop(annotations.insert(EXCLUDED_PORTS.to_owned(), rest.into())),
        None => {}
    }
    let networks = annotations.get(NETWORKS).and_then(Value::as_str).unwrap_or_default().to_owned();
    if networks == NETWORK[0].trim_start_matches(", ") {
        annotations.shift_remove(NETWORKS);
    } else if let Some(added) = NETWORK.iter().find(|added| networks.contains(**added)) {
        annotations.insert(NETWORKS.to_owned(), networks.replacen(added, "", 1).into());
    }
}

/// A gateway's pod may listen on low ports by a system setting, which its template gives where the pod has no security
/// context of its own.
fn restore_security(pod: &mut Value, sidecar: &Value) {
    let is_gateway =
        sidecar["args"].as_array().is_some_and(|args| args.get(1).is_some_and(|role| role == "router"));
    let given = json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]});
    if is_gateway
        && pod["spec"]["securityContext"] == given
        && let Some(spec) = pod["spec"].as_object_mut()
    {
        spec.shift_remove("securityContext");
    }
}

fn restore_metadata(pod: &mut Value, sidecar: &Value, status: &Value) {
    let first = pod["spec"]["containers"][0]["name"].clone();
    let env = |name: &str| {
        let variable = sidecar["env"].as_array()?.iter().find(|v| v["name"] == name)?;
        variable["value"].as_str().map(str::to_owned)
    };
    let network = env("ISTIO_META_NETWORK");
    if let Some(annotations) = pod.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !ANNOTATIONS.contains(&key.as_str()));
        let lists = |list: &str, name: &str| {
            status[list].as_array().is_some_and(|names| names.iter().any(|n| n == name))
        };
        if lists("initContainers", VALIDATION_CONTAINER) {
            forget_cni(annotations);
        }
        if OF_GRPC.iter().any(|volume| lists("volumes", volume))
            && annotations.get(REWRITES).is_some_and(|value| value == "false")
        {
            annotations.shift_remove(REWRITES);
        }
        for key in ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"]
        {
            if annotations.get(key) == Some(&first) {
                annotations.shift_remove(key);
            }
        }
    }
    let workloads = [env("ISTIO_META_WORKLOAD_NAME"), Some(Owner::of(pod).name)];
    if let Some(labels) = pod.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        let label =
            |key: &str| labels.get(key).and_then(Value::as_str).filter(|v| !v.is_empty()).map(str::to_owned);
        let names = match label("app.kubernetes.io/name").or_else(|| label("app")) {
            Some(name) => [Some(name), None],
            None => workloads,
        };
        let revision =
            label("app.kubernetes.io/version").or_else(|| label("version")).unwrap_or("latest".to_owned());
        let [name, other_name] = names.map(|name| {
            let short: String = name?.chars().take(63).collect();
            Some(short.trim_matches(['-', '_', '.']).to_owned())
        });
        let given = [
            ("service.istio.io/canonical-name", name),
            ("service.istio.io/canonical-name", other_name),
            ("service.istio.io/canonical-revision", Some(revision)),
            ("topology.istio.io/network", network),
        ];
        labels.retain(|key, value| {
            let fixed = LABELS.iter().any(|(k, v)| k == key && value == v);
            let derived = given.iter().any(|(k, v)| k == key && v.as_deref() == value.as_str());
            !fixed && !derived
        });
    }
}
