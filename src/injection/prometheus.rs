//! Metrics merged: Prometheus is sent to the agent, which asks the application itself.
//!
//! Source: <https://istio.io/latest/docs/ops/integrations/prometheus/#option-1-metrics-merging>

use outrigger_contract::METRICS_PATH;
use serde_json::{Map, Value, json};

use super::cluster::{set_variable, sidecar};
use super::validate::boolean;

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const TARGETS: &str = "prometheus.istio.io/scrape-targets";
const SECURE_PORT: &str = "prometheus.istio.io/secure-port";
const MERGE: &str = "prometheus.istio.io/merge-metrics";

/// Ports that belong to the sidecar, and what for.
const RESERVED: [(u16, &str); 9] = [
    (15000, "Envoy admin"),
    (15001, "outbound traffic capture"),
    (15004, "pilot debug"),
    (15006, "inbound traffic capture"),
    (15008, "HBONE tunnel"),
    (15020, "pilot-agent status / merged Prometheus"),
    (15021, "Envoy health"),
    (15053, "DNS proxy"),
    (15090, "Envoy Prometheus (already merged)"),
];

/// Whether two annotations are one for Prometheus, which knows only letters, digits and underscores.
fn same(key: &str, other: &str) -> bool {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    key.chars().map(plain).eq(other.chars().map(plain))
}

/// An annotation by any of its spellings; the proper one first.
fn find<'a>(annotations: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let spelled = || annotations.iter().find(|(known, _)| same(known, key)).map(|(_, value)| value);
    annotations.get(key).or_else(spelled)?.as_str()
}

/// Whether an earlier injection has set Prometheus' port already.
fn is_done(annotations: &Map<String, Value>, agent: i64) -> bool {
    find(annotations, PORT) == Some(agent.to_string().as_str())
}

/// Takes away all spellings of the annotations that are merged.
fn clear(annotations: &mut Map<String, Value>) {
    annotations.retain(|key, _| ![SCRAPE, PORT, PATH, TARGETS].iter().any(|known| same(key, known)));
}

/// Takes away what an earlier injection has set, whose agent has the port `agent`.
pub(super) fn strip(annotations: &mut Map<String, Value>, agent: i64) {
    if is_done(annotations, agent) {
        clear(annotations);
    }
}

/// Sends Prometheus to the agent, and tells the agent where the application's metrics are.
/// `by_default` is for a pod that does not say whether it wants that.
pub(super) fn merge(pod: &mut Value, by_default: bool, agent: i64) -> Result<(), String> {
    let empty = Map::new();
    let annotations = pod["metadata"]["annotations"].as_object().unwrap_or(&empty);
    let refused = annotations
        .iter()
        .filter(|(key, _)| same(key, SCRAPE))
        .any(|(_, value)| value.as_str().is_some_and(|value| boolean(value) == Ok(false)));
    let asked = annotations.get(MERGE).and_then(Value::as_str).and_then(|value| boolean(value).ok());
    if refused || !asked.unwrap_or(by_default) || is_done(annotations, agent) {
        return Ok(());
    }
    if let Some(scrape) = scrape(annotations, agent)?
        && let Some(sidecar) = sidecar(pod)
    {
        set_variable(sidecar, "ISTIO_PROMETHEUS_ANNOTATIONS", &scrape.to_string());
    }
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        clear(annotations);
    }
    let annotations = &mut pod["metadata"]["annotations"];
    annotations[PORT] = agent.to_string().into();
    annotations[PATH] = METRICS_PATH.into();
    annotations[SCRAPE] = "true".into();
    Ok(())
}

/// Where the application's metrics are, for the agent; `None` where the pod says nothing of it.
fn scrape(annotations: &Map<String, Value>, agent: i64) -> Result<Option<Value>, String> {
    let text = |key: &str| find(annotations, key).unwrap_or_default();
    let targets = targets(text(TARGETS));
    let mut scrape = json!({"scrape": text(SCRAPE), "path": text(PATH), "port": text(PORT)});
    if let Some((port, path)) = targets.first() {
        scrape["port"] = Value::from(port.as_str());
        scrape["path"] = Value::from(path.as_str());
        for (port, _) in &targets {
            check(port, agent, "target port")
                .map_err(|e| format!("invalid prometheus scrape targets: {e}"))?;
        }
        let list: Vec<Value> =
            targets.iter().map(|(port, path)| json!({"port": port, "path": path})).collect();
        scrape["targets"] = list.into();
    } else if !text(PORT).is_empty() {
        check(text(PORT), agent, "port")
            .map_err(|e| format!("invalid prometheus scrape configuration: {e}"))?;
    }
    let empty = scrape.as_object().is_none_or(|fields| fields.values().all(|value| *value == ""));
    Ok((!empty).then_some(scrape))
}

/// `PORT:PATH,…`; the path is `/metrics` where it is left out. A list with an empty port is no list.
fn targets(text: &str) -> Vec<(String, String)> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let targets = entries.map(|entry| {
        let (port, path) = entry.split_once(':').unwrap_or((entry, ""));
        let path = if path.trim().is_empty() { "/metrics" } else { path.trim() };
        (!port.trim().is_empty()).then(|| (port.trim().to_owned(), path.to_owned()))
    });
    targets.collect::<Option<_>>().unwrap_or_default()
}

fn check(port: &str, agent: i64, what: &str) -> Result<(), String> {
    let number = port.parse::<u16>().ok().filter(|number| *number != 0);
    let Some(number) = number else { return Err(format!("invalid {what} {port:?}")) };
    if i64::from(number) == agent {
        return Err(format!("{what} {port} conflicts with agent port"));
    }
    match RESERVED.iter().find(|(reserved, _)| *reserved == number) {
        Some((_, reason)) => {
            Err(format!("{what} {port} is reserved for Istio ({reason}) and cannot be scraped"))
        }
        None => Ok(()),
    }
}

/// Names the port of the agent's encrypted metrics for Prometheus, where the sidecar has one.
pub(super) fn secure_port(pod: &mut Value) {
    let annotations = pod["metadata"]["annotations"].as_object();
    if annotations.is_some_and(|annotations| annotations.keys().any(|key| same(key, SECURE_PORT))) {
        return;
    }
    let port = sidecar(pod).and_then(|sidecar| {
        let env = sidecar["env"].as_array()?;
        let variable = env.iter().find(|variable| variable["name"] == "ENVOY_SECURE_MERGED_METRICS_PORT")?;
        variable["value"].as_str().filter(|port| !matches!(*port, "" | "0")).map(str::to_owned)
    });
    if let Some(port) = port {
        pod["metadata"]["annotations"][SECURE_PORT] = port.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(annotations: Value) -> Result<Value, String> {
        let mut pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "istio-proxy"}]}});
        merge(&mut pod, true, 15020)?;
        Ok(pod)
    }

    fn told(pod: &Value) -> Value {
        let env = pod["spec"]["containers"][0]["env"].as_array();
        env.map_or(Value::Null, |env| serde_json::from_str(env[0]["value"].as_str().unwrap()).unwrap())
    }

    #[test]
    fn the_agent_learns_what_prometheus_would_have_read() {
        let ours = json!({"prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus", "prometheus.io/scrape": "true"});
        let pod = merged(json!({})).unwrap();
        assert_eq!((&pod["metadata"]["annotations"], told(&pod)), (&ours, Value::Null));
        let pod = merged(json!({"prometheus-io/port": "8080", "prometheus.io.path": "/m"})).unwrap();
        let want = json!({"scrape": "", "path": "/m", "port": "8080"});
        assert_eq!((&pod["metadata"]["annotations"], told(&pod)), (&ours, want));
        let pod = merged(json!({TARGETS: " 8080:/a ,9090", "prometheus.io/scrape": "true"})).unwrap();
        let want = json!({"scrape": "true", "path": "/a", "port": "8080",
            "targets": [{"port": "8080", "path": "/a"}, {"port": "9090", "path": "/metrics"}]});
        assert_eq!((&pod["metadata"]["annotations"], told(&pod)), (&ours, want));
    }

    #[test]
    fn a_pod_may_refuse() {
        for annotations in [
            json!({"prometheus.io/scrape": "false"}),
            json!({"prometheus-io-scrape": "F"}),
            json!({MERGE: "false"}),
            json!({"prometheus.io/port": "15020"}),
        ] {
            assert_eq!(merged(annotations.clone()).unwrap()["metadata"]["annotations"], annotations);
        }
    }

    #[test]
    fn the_sidecars_own_ports_are_no_applications() {
        for (annotations, want) in [
            (
                json!({TARGETS: "8080,15001:/m"}),
                "invalid prometheus scrape targets: target port 15001 is reserved for Istio (outbound traffic capture) and cannot be scraped",
            ),
            (json!({TARGETS: "x"}), "invalid prometheus scrape targets: invalid target port \"x\""),
            (
                json!({TARGETS: "15020"}),
                "invalid prometheus scrape targets: target port 15020 conflicts with agent port",
            ),
            (
                json!({"prometheus.io/port": "15090"}),
                "invalid prometheus scrape configuration: port 15090 is reserved for Istio (Envoy Prometheus (already merged)) and cannot be scraped",
            ),
            (
                json!({"prometheus.io/port": "0"}),
                "invalid prometheus scrape configuration: invalid port \"0\"",
            ),
        ] {
            assert_eq!(merged(annotations).unwrap_err(), want);
        }
    }
}
