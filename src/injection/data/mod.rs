//! What templates see: one object, in which the thinking is done. `docs/templates.md` describes every key. What is the
//! same for all pods is made once, what is a pod's own is set anew for each.

mod canonical;
mod image;
mod named;
mod otel;
mod ports;
mod resources;
mod traffic;

use outrigger_contract as contract;
use serde_json::{Value, json};

use super::mesh::Mesh;
use super::proxy_config::{self, ProxyConfig};
use super::user::User;
use crate::owner::Owner;

const STATUS_PORT: &str = "status.sidecar.istio.io/port";

/// The constants of the contract, as templates see them.
pub(super) fn contract() -> Value {
    json!({
        "initContainer": contract::INIT_CONTAINER,
        "validationContainer": contract::VALIDATION_CONTAINER,
        "proxyContainer": contract::PROXY_CONTAINER,
        "captureAnnotation": contract::CAPTURE_ANNOTATION,
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

/// What is known about a pod besides the pod.
pub(super) struct About<'a> {
    pub(super) namespace: &'a str,
    pub(super) workload: &'a Owner,
    pub(super) native: bool,
    pub(super) proxy_config: &'a ProxyConfig,
    pub(super) user: User,
}

/// A pod and what its operator set for it: what the parts of the data are made of.
struct Input<'a> {
    annotations: &'a Value,
    labels: &'a Value,
    spec: &'a Value,
    /// `values.global`.
    global: &'a Value,
    proxy_config: &'a ProxyConfig,
}

impl<'a> Input<'a> {
    fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations[key].as_str()
    }

    /// The annotation, even if it is empty, or the value in its place.
    fn setting(&self, key: &str, otherwise: &Value) -> String {
        self.annotation(key).map_or_else(|| text(otherwise), str::to_owned)
    }

    fn containers(&self) -> &'a [Value] {
        self.spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}

/// What is the pod's own in the templates' data, by key; but for what [`exchange`] lends. `pod` is without what an
/// earlier injection added, `global` are the values of that name.
///
/// # Errors
/// An annotation that is no JSON where JSON is wanted.
pub(super) fn own(global: &Value, mesh: &Mesh, pod: &Value, about: &About) -> Result<Own, String> {
    let metadata = &pod["metadata"];
    let input = Input {
        annotations: &metadata["annotations"],
        labels: &metadata["labels"],
        spec: &pod["spec"],
        global,
        proxy_config: about.proxy_config,
    };
    let proxy = &input.global["proxy"];
    let apps: Vec<&str> = input
        .containers()
        .iter()
        .filter_map(|c| c["name"].as_str())
        .filter(|name| *name != contract::PROXY_CONTAINER)
        .collect();
    let status_port = input.setting(STATUS_PORT, &proxy["statusPort"]);
    let user_volumes = named::list(&input, "sidecar.istio.io/userVolume")?;
    Ok([
        ("agent", agent(&input, &status_port)),
        ("appContainers", json!(apps)),
        ("canonical", canonical::canonical(input.labels, &about.workload.name)),
        ("datadogEnvironment", named::environment(&input)),
        ("hold", Value::Bool(hold(&input))),
        ("image", image::images(&input)),
        ("lightstepFolder", lightstep_folder(&input)),
        (
            "log",
            json!({
                "proxy": input.setting("sidecar.istio.io/logLevel", &proxy["logLevel"]),
                "component": input.setting("sidecar.istio.io/componentLogLevel", &proxy["componentLogLevel"]),
                "agent": input.setting("sidecar.istio.io/agentLogLevel", &input.global["logging"]["level"]),
            }),
        ),
        ("namespace", Value::from(about.namespace)),
        ("native", Value::Bool(about.native)),
        ("otelAttributes", Value::from(otel::attributes(&input, mesh.otel_attributes, about.namespace))),
        ("podPorts", Value::from(ports::declared(&input))),
        ("probe", probe(&input, &status_port)),
        ("proxyConfig", Value::Object(about.proxy_config.clone())),
        ("proxyMetadata", about.proxy_config.get("proxyMetadata").cloned().unwrap_or_else(|| json!({}))),
        ("proxyConfigText", Value::from(proxy_config::print(about.proxy_config))),
        ("resources", resources::resources(&input)),
        ("serviceAccount", Value::from(input.spec["serviceAccountName"].as_str().unwrap_or_default())),
        ("traffic", traffic::traffic(&input, &status_port)),
        ("statusPort", Value::from(status_port)),
        ("user", json!({"uid": about.user.uid, "gid": about.user.gid})),
        ("evictableVolumes", Value::from(named::evictable(&input, &user_volumes))),
        ("userVolumeMounts", named::list(&input, "sidecar.istio.io/userVolumeMount")?),
        ("userVolumes", user_volumes),
        ("workload", workload(&input, about)),
    ])
}

/// What is a pod's own in the data, by key.
type Own = [(&'static str, Value); 25];

/// Sets what is a pod's own in the data.
pub(super) fn set(data: &mut Value, own: Own) {
    for (key, value) in own.into_iter().chain(LENT.map(|(key, _)| (key, json!({})))) {
        data[key] = value;
    }
}

/// What templates see of the pod as it is: by key, and where it stands.
const LENT: [(&str, &str); 3] =
    [("annotations", "/metadata/annotations"), ("labels", "/metadata/labels"), ("spec", "/spec")];

/// Exchanges what templates see of the pod as it is: the data gets it, and gives it back the second time. (A copy
/// would be the largest part of the data.)
pub(super) fn exchange(data: &mut Value, pod: &mut Value) {
    for (key, pointer) in LENT {
        if let Some(part) = pod.pointer_mut(pointer).filter(|part| part.is_object()) {
            std::mem::swap(&mut data[key], part);
        }
    }
}

fn workload(input: &Input, about: &About) -> Value {
    let Owner { api_version, kind, name } = about.workload;
    let namespace = if about.namespace.is_empty() { "default" } else { about.namespace };
    let owner = if api_version.is_empty() || name.is_empty() {
        String::new()
    } else {
        let kinds = kind.to_lowercase();
        format!("kubernetes://apis/{api_version}/namespaces/{namespace}/{kinds}s/{name}")
    };
    let label = input.labels["service.istio.io/workload-name"].as_str().filter(|label| !label.is_empty());
    let known_as = label.unwrap_or(name);
    json!({"apiVersion": api_version, "kind": kind, "name": name, "knownAs": known_as, "owner": owner})
}

/// Whether the application is held until the proxy has started.
fn hold(input: &Input) -> bool {
    input.proxy_config.get("holdApplicationUntilProxyStarts") == Some(&Value::Bool(true))
        || input.global["proxy"]["holdApplicationUntilProxyStarts"] == true
}

/// The port that the agent is to have, as text: the annotation's, the ProxyConfig's where it moves it, or the value; null
/// where that is 0.
fn agent(input: &Input, status_port: &str) -> Value {
    let of_config =
        input.proxy_config.get("statusPort").filter(|port| **port != proxy_config::DEFAULT_STATUS_PORT);
    let port = match of_config {
        Some(port) if status_port != "0" && input.annotation(STATUS_PORT).is_none() => text(port),
        _ => status_port.trim().to_owned(),
    };
    json!({
        "port": Some(&port).filter(|port| *port != "0"),
        "excludeInboundPorts": traffic::exclude_inbound(input, &port),
    })
}

/// The readiness probe's times, in seconds and tries; null where the proxy has no status port.
fn probe(input: &Input, status_port: &str) -> Value {
    if status_port == "0" {
        return Value::Null;
    }
    let proxy = &input.global["proxy"];
    let number = |annotation: &str, otherwise: &Value| match input.annotation(annotation) {
        Some(text) => text.parse::<u32>().map_or(Value::Null, Value::from),
        None => otherwise.clone(),
    };
    json!({
        "initialDelaySeconds": number("readiness.status.sidecar.istio.io/initialDelaySeconds", &proxy["readinessInitialDelaySeconds"]),
        "periodSeconds": number("readiness.status.sidecar.istio.io/periodSeconds", &proxy["readinessPeriodSeconds"]),
        "failureThreshold": number("readiness.status.sidecar.istio.io/failureThreshold", &proxy["readinessFailureThreshold"]),
    })
}

/// The folder of Lightstep's certificates, with the slash at its end; null where they are not needed.
fn lightstep_folder(input: &Input) -> Value {
    let tls = input.proxy_config.get("tracing").map_or(&Value::Null, |tracing| &tracing["tlsSettings"]);
    if input.global["proxy"]["tracer"] != "lightstep" || !tls.is_object() {
        return Value::Null;
    }
    let file = tls["caCertificates"].as_str().unwrap_or_default();
    Value::from(file.rfind('/').map_or("", |slash| &file[..=slash]))
}

/// A value as Istio's templates print it: numbers from a million as `1e+06`.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(n) if n.abs() >= 1e6 || n != 0.0 && n.abs() < 1e-4 => exponent(n),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// `1.5e+06`.
fn exponent(n: f64) -> String {
    let text = format!("{n:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests;
