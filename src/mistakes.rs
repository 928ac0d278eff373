//! The classic mistakes: manifests that are right for Kubernetes and do not do what their author means.
//!
//! Sources: the requirements that a mesh has of its pods
//! (<https://istio.io/latest/docs/ops/deployment/application-requirements/>), protocol selection
//! (<https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/>).

use outrigger_contract::{INJECT_KEY, NAMESPACE_LABEL, STATUS_ANNOTATION};
use serde_json::Value;

use crate::manifest::{Object, Pod};

/// Keys that say something about injection to whoever reads a pod.
const POD_KEYS: [&str; 6] = [
    "sidecar.istio.io/",
    "traffic.sidecar.istio.io/",
    "status.sidecar.istio.io/",
    "readiness.status.sidecar.istio.io/",
    "inject.istio.io/",
    "proxy.istio.io/",
];

/// What a Service's port name may begin with.
const PROTOCOLS: [&str; 12] =
    ["http", "http2", "https", "grpc", "grpc-web", "mongo", "mysql", "redis", "tcp", "tls", "udp", "auto"];

/// Keys that stand on the wrong object, and so have no effect: one sentence each.
pub fn misplaced(workload: &Object, pod: &Pod, namespace_metadata: Option<&Value>) -> Vec<String> {
    let mut mistakes = Vec::new();
    let template = if pod.owner.is_some() { "pod template" } else { "pod" };
    for (place, metadata) in above(workload, pod) {
        for (field, keys) in [("labels", &metadata["labels"]), ("annotations", &metadata["annotations"])] {
            for key in keys.as_object().into_iter().flatten().map(|(key, _)| key) {
                let of_pods =
                    POD_KEYS.iter().any(|prefix| key.starts_with(prefix)) && key != STATUS_ANNOTATION;
                if of_pods && pod.value["metadata"][field][key].is_null() {
                    mistakes.push(format!(
                        "{key} stands in {place}.{field} of the {}, where nothing reads it; put it into the pod \
                         template's metadata.{field}",
                        workload.kind
                    ));
                }
                if key == NAMESPACE_LABEL {
                    mistakes
                        .push(belongs_to_namespaces(&format!("{place}.{field} of the {}", workload.kind)));
                }
            }
        }
    }
    for field in ["labels", "annotations"] {
        if !pod.value["metadata"][field][NAMESPACE_LABEL].is_null() {
            mistakes.push(belongs_to_namespaces(&format!("metadata.{field} of the {template}")));
        }
    }
    if let Some(namespace) = namespace_metadata {
        if !namespace["annotations"][NAMESPACE_LABEL].is_null() {
            mistakes.push(format!(
                "{NAMESPACE_LABEL} stands in the annotations of namespace {}, where nothing reads it; make it a label",
                namespace["name"].as_str().unwrap_or_default()
            ));
        }
        for field in ["labels", "annotations"] {
            if !namespace[field][INJECT_KEY].is_null() {
                mistakes.push(format!(
                    "{INJECT_KEY} stands in the {field} of namespace {}, where nothing reads it; a namespace asks with \
                     the label {NAMESPACE_LABEL}=enabled",
                    namespace["name"].as_str().unwrap_or_default()
                ));
            }
        }
    }
    mistakes
}

fn belongs_to_namespaces(place: &str) -> String {
    format!(
        "{NAMESPACE_LABEL} stands in {place}, where nothing reads it; it is a label of namespaces, and a pod asks with \
         the label {INJECT_KEY}"
    )
}

/// The metadata around a pod template: the workload's own, and a CronJob's job template's.
fn above<'a>(workload: &Object<'a>, pod: &Pod) -> Vec<(&'static str, &'a Value)> {
    let mut places = Vec::new();
    if pod.owner.is_some() {
        places.push(("metadata", &workload.value["metadata"]));
        let job = &workload.value["spec"]["jobTemplate"]["metadata"];
        if job.is_object() {
            places.push(("spec.jobTemplate.metadata", job));
        }
    }
    places
}

/// What a pod in the mesh lacks: an `app` label, one Service, ports whose names say their protocol. `services` are
/// the Services of its namespace.
pub fn unmet(pod: &Value, services: &[&Value]) -> Vec<String> {
    let mut mistakes = Vec::new();
    let labels = &pod["metadata"]["labels"];
    if labels["app"].is_null() && labels["app.kubernetes.io/name"].is_null() {
        mistakes.push(
            "the pod has no label app (or app.kubernetes.io/name), by which telemetry names it; add one"
                .to_owned(),
        );
    }
    let selecting: Vec<&Value> =
        services.iter().copied().filter(|service| selects(service, labels)).collect();
    if selecting.len() > 1 {
        let names: Vec<&str> = selecting.iter().map(|service| name(service)).collect();
        mistakes.push(format!(
            "{} Services select the pod ({}); they must agree on the protocol of a port that they share",
            names.len(),
            names.join(", ")
        ));
    }
    for service in selecting {
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            mistakes.extend(unnamed(service, port));
        }
    }
    mistakes
}

/// What a running pod is, that it would not be if it were made now: injection happens when a pod is created, so that a
/// change of settings or labels reaches a pod with its next restart.
pub fn out_of_date(pod: &Value, inject: bool) -> Option<String> {
    let injected = !pod["metadata"]["annotations"][STATUS_ANNOTATION].is_null();
    match (inject, injected) {
        (true, false) => Some(
            "the pod runs without a sidecar, but would get one if it were made now; restart its workload"
                .to_owned(),
        ),
        (false, true) => Some(
            "the pod runs with a sidecar, but would not get one if it were made now; restart its workload"
                .to_owned(),
        ),
        _ => None,
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn selects(service: &Value, labels: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|s| !s.is_empty() && s.iter().all(|(key, value)| labels[key] == *value))
}

fn unnamed(service: &Value, port: &Value) -> Option<String> {
    let port_name = port["name"].as_str().unwrap_or_default();
    let known = |protocol: &str| PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str());
    let prefixes = port_name.match_indices('-').map(|(at, _)| &port_name[..at]);
    let says = known(port_name) || prefixes.into_iter().any(known);
    if says || !port["appProtocol"].is_null() || !matches!(port["protocol"].as_str(), None | Some("TCP")) {
        return None;
    }
    let lacks = match port_name {
        "" => "has no name".to_owned(),
        other => format!("is named {other:?}, which begins with no protocol"),
    };
    Some(format!(
        "port {} of Service {} {lacks}, so that its protocol must be guessed; name it <protocol>[-<suffix>], as in \
         http-web, or set appProtocol",
        port["port"],
        name(service)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::objects;
    use serde_json::json;

    fn misplaced_in(workload: Value, namespace: Option<Value>) -> Vec<String> {
        let objects = objects(&workload).unwrap();
        let pod = objects[0].pod().unwrap().unwrap();
        misplaced(&objects[0], &pod, namespace.as_ref())
    }

    fn deployment(metadata: Value, pod_metadata: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template":
            {"metadata": pod_metadata, "spec": {"containers": [{"name": "a"}]}}}})
    }

    #[test]
    fn a_key_on_the_workload_instead_of_its_template_is_found() {
        let annotated = deployment(json!({"annotations": {INJECT_KEY: "false", "other": "x"}}), json!({}));
        let [mistake] = &misplaced_in(annotated, None)[..] else { panic!("want one mistake") };
        assert!(
            mistake.starts_with("sidecar.istio.io/inject stands in metadata.annotations of the Deployment")
        );
        let both =
            deployment(json!({"labels": {INJECT_KEY: "true"}}), json!({"labels": {INJECT_KEY: "true"}}));
        assert_eq!(misplaced_in(both, None), Vec::<String>::new());
        let status = deployment(json!({"annotations": {STATUS_ANNOTATION: "x"}}), json!({}));
        assert_eq!(misplaced_in(status, None), Vec::<String>::new());
        let cron_job = json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"jobTemplate": {
            "metadata": {"labels": {INJECT_KEY: "true"}},
            "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}}}});
        assert!(misplaced_in(cron_job, None)[0].contains("spec.jobTemplate.metadata.labels of the CronJob"));
    }

    #[test]
    fn namespace_keys_on_pods_and_pod_keys_on_namespaces_are_found() {
        let labelled = deployment(json!({}), json!({"labels": {"istio-injection": "enabled"}}));
        let [mistake] = &misplaced_in(labelled, None)[..] else { panic!("want one mistake") };
        assert!(mistake.starts_with("istio-injection stands in metadata.labels of the pod template"));
        let namespace = json!({"name": "shop", "annotations": {"istio-injection": "enabled"}, "labels": {INJECT_KEY: "true"}});
        let mistakes = misplaced_in(deployment(json!({}), json!({})), Some(namespace));
        assert_eq!(mistakes.len(), 2);
        assert!(
            mistakes[0].contains("annotations of namespace shop") && mistakes[0].ends_with("make it a label")
        );
        assert!(mistakes[1].contains("istio-injection=enabled"));
    }

    #[test]
    fn a_pod_that_would_come_out_otherwise_now_is_found() {
        let pod = |annotations: Value| json!({"metadata": {"annotations": annotations}});
        let (bare, injected) = (pod(json!({})), pod(json!({STATUS_ANNOTATION: "{}"})));
        assert!(out_of_date(&bare, true).unwrap().contains("runs without a sidecar"));
        assert!(out_of_date(&injected, false).unwrap().contains("runs with a sidecar"));
        assert_eq!((out_of_date(&bare, false), out_of_date(&injected, true)), (None, None));
    }

    fn service(name: &str, selector: Value, ports: Value) -> Value {
        json!({"kind": "Service", "metadata": {"name": name}, "spec": {"selector": selector, "ports": ports}})
    }

    #[test]
    fn a_pod_without_app_label_or_with_several_services_is_found() {
        let bare = json!({"metadata": {"labels": {"tier": "x"}}});
        assert!(unmet(&bare, &[])[0].contains("no label app"));
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "x"}}});
        let one = service("one", json!({"app": "web"}), json!([{"name": "http", "port": 80}]));
        let two = service("two", json!({"tier": "x"}), json!([]));
        let other = service("other", json!({"app": "db"}), json!([{"port": 5432}]));
        let nobody = service("nobody", json!({}), json!([{"port": 1}]));
        assert_eq!(unmet(&pod, &[&one, &other, &nobody]), Vec::<String>::new());
        assert!(unmet(&pod, &[&one, &two])[0].starts_with("2 Services select the pod (one, two)"));
    }

    #[test]
    fn a_port_that_does_not_say_its_protocol_is_found() {
        let pod = json!({"metadata": {"labels": {"app": "web"}}});
        for (port, found) in [
            (json!({"port": 80}), Some("has no name")),
            (json!({"port": 80, "name": "http2foo"}), Some("\"http2foo\"")),
            (json!({"port": 80, "name": "web"}), Some("\"web\"")),
            (json!({"port": 80, "name": "http"}), None),
            (json!({"port": 80, "name": "http2-foo"}), None),
            (json!({"port": 80, "name": "grpc-web-x"}), None),
            (json!({"port": 80, "name": "HTTP-x"}), None),
            (json!({"port": 80, "appProtocol": "http"}), None),
            (json!({"port": 53, "protocol": "UDP"}), None),
        ] {
            let mistakes = unmet(&pod, &[&service("web", json!({"app": "web"}), json!([port]))]);
            match found {
                Some(part) => assert!(mistakes[0].contains(part), "{port}: {mistakes:?}"),
                None => assert_eq!(mistakes, Vec::<String>::new(), "{port}"),
            }
        }
    }
}
