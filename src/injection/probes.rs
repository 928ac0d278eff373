//! Probes turned to the agent: the kubelet has no certificate and cannot follow capture, so that it asks the agent,
//! which asks the application.
//!
//! Source: <https://istio.io/latest/docs/ops/configuration/mesh/app-health-check/>

use outrigger_contract::PROXY_CONTAINER;
use serde_json::{Map, Value, json};

use super::cluster::{set_variable, sidecar};
use super::validate::boolean;

const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
const PORT: &str = "status.sidecar.istio.io/port";
const REWRITE: &str = "sidecar.istio.io/rewriteAppHTTPProbers";

/// Probes of a container, and the last part of the agent's path for each.
const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
/// Lifecycle handlers, likewise.
const HANDLERS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];
/// The kinds of a probe that go over the network. A lifecycle handler is none of gRPC.
const KINDS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Turns the application's probes to the agent, which has `own_port`, and tells the agent what they were.
pub(super) fn rewrite(pod: &mut Value, own_port: i64, by_default: bool) {
    let annotation = |key: &str| pod["metadata"]["annotations"][key].as_str();
    let asked = annotation(REWRITE).and_then(|value| boolean(value).ok()).unwrap_or(by_default);
    let of_pod = annotation(PORT).and_then(|port| port.trim().parse().ok());
    if !asked || sidecar(pod).is_none() {
        return;
    }
    let agent = Agent { port: of_pod.unwrap_or(own_port), own_port };
    let mut probers = Map::new();
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|c| c["name"] != PROXY_CONTAINER) {
            agent.rewrite(container, &mut probers);
        }
    }
    if probers.is_empty() {
        return;
    }
    if let Some(sidecar) = sidecar(pod) {
        let known = known_probers(sidecar);
        probers.extend(known);
        probers.sort_keys();
        set_variable(sidecar, VARIABLE, &Value::Object(probers).to_string());
    }
}

/// What the sidecar knows from an earlier injection.
fn known_probers(sidecar: &Value) -> Map<String, Value> {
    let env = sidecar["env"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known = env.iter().find(|variable| variable["name"] == VARIABLE);
    let known = known.and_then(|variable| serde_json::from_str(variable["value"].as_str()?).ok());
    known.unwrap_or_default()
}

/// Visits the probes and lifecycle handlers of a container: each with its path at the agent, by the container's name,
/// and the kinds that it may have.
fn for_each_handler(
    container: &mut Value,
    mut visit: impl FnMut(&mut Value, &dyn Fn(&str) -> String, &[&str]),
) {
    for (field, last) in PROBES {
        if let Some(probe) = container.get_mut(field).filter(|probe| probe.is_object()) {
            visit(probe, &|name| format!("/app-health/{name}/{last}"), &KINDS);
        }
    }
    for (field, last) in HANDLERS {
        let handler = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(field));
        if let Some(handler) = handler.filter(|handler| handler.is_object()) {
            visit(handler, &|name| format!("/app-lifecycle/{name}/{last}"), &KINDS[..2]);
        }
    }
}

/// Whether an API server takes the handler, as far as the agent has to understand it.
fn is_valid(handler: &Value, kind: &str) -> bool {
    let action = &handler[kind];
    let port = match &action["port"] {
        Value::Number(number) => matches!(number.as_u64(), Some(1..=65535)),
        Value::String(_) => kind != "grpc",
        _ => false,
    };
    let texts = ["path", "scheme", "service"]
        .iter()
        .all(|field| action[*field].is_null() || action[*field].is_string());
    let timeout = &handler["timeoutSeconds"];
    let timeout = timeout.is_null() || timeout.as_u64().is_some();
    port && texts && timeout && KINDS.iter().filter(|kind| handler[**kind].is_object()).count() == 1
}

/// Where the agent listens.
struct Agent {
    /// Where the kubelet is sent: by the pod's annotation, or else as Prometheus.
    port: i64,
    /// Where Prometheus is sent.
    own_port: i64,
}

impl Agent {
    fn rewrite(&self, container: &mut Value, probers: &mut Map<String, Value>) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let ports: Vec<(String, Value)> = container["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|port| Some((port["name"].as_str()?.to_owned(), port["containerPort"].clone())))
            .collect();
        for_each_handler(container, |handler, path_of, kinds| {
            let Some(kind) = kinds.iter().find(|kind| handler[**kind].is_object()) else { return };
            // What an API server refuses stays, so that it is refused, and not hidden behind the agent.
            if !is_valid(handler, kind) {
                return;
            }
            let path = path_of(&name);
            let is_ours = *kind == "httpGet"
                && handler["httpGet"]["path"] == path.as_str()
                && (handler["httpGet"]["port"] == self.port || handler["httpGet"]["port"] == self.own_port);
            if !is_ours && let Some(prober) = self.prober(handler, kind, &ports) {
                probers.insert(path.clone(), prober);
            }
            self.turn(handler, kind, path);
        });
    }

    /// What the agent has to ask; `None` where the port is not known, or is the agent's own.
    fn prober(&self, handler: &Value, kind: &str, ports: &[(String, Value)]) -> Option<Value> {
        let mut action = handler[kind].clone();
        if kind == "grpc" {
            if action.get("service").is_none() {
                action["service"] = Value::Null;
            }
        } else {
            match &action["port"] {
                Value::String(name) => {
                    let (_, number) = ports.iter().rfind(|(known, _)| known == name)?;
                    number.as_u64().and_then(|number| u16::try_from(number).ok())?;
                    action["port"] = number.clone();
                }
                number if *number == self.own_port => return None,
                _ => {}
            }
        }
        let mut prober = json!({kind: action});
        if handler["timeoutSeconds"].as_i64().unwrap_or_default() != 0 {
            prober["timeoutSeconds"] = handler["timeoutSeconds"].clone();
        }
        Some(prober)
    }

    fn turn(&self, handler: &mut Value, kind: &str, path: String) {
        if kind != "httpGet"
            && let Some(fields) = handler.as_object_mut()
        {
            fields.shift_remove(kind);
        }
        let action = &mut handler["httpGet"];
        action["path"] = Value::from(path);
        action["port"] = Value::from(self.port);
        // The kubelet asks the agent in the clear; the agent asks the application by HTTPS.
        if action["scheme"] == "HTTPS" {
            action["scheme"] = Value::from("HTTP");
        }
    }
}
