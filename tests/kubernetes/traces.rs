//! Spans of admission requests, to a collector in the cluster.

use serde_json::{Value, json};

use crate::cluster::{Namespace, until};
use crate::install::Installation;
use crate::pods;

/// A collector that prints what it is sent, behind a Service of the same name.
fn collector() -> Namespace {
    let namespace = Namespace::create("collector", json!({}));
    let labels = json!({"app": "collector"});
    namespace.create_object(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "collector"},
        "spec": {"selector": labels, "ports": [{"port": 4318}]},
    }));
    namespace.create_object(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "collector", "labels": labels},
        "spec": {"containers": [{"name": "collector", "image": "localhost/apps:test", "args": ["collect"]}]},
    }));
    namespace.wait("condition=Ready", "pod/collector");
    namespace
}

/// Attributes with text for a value.
fn said<'a>(of: &'a Value, key: &str) -> Option<&'a str> {
    let attributes = of["attributes"].as_array()?;
    attributes.iter().find(|pair| pair["key"] == key)?["value"]["stringValue"].as_str()
}

#[test]
fn the_span_of_a_pods_admission_reaches_the_collector_by_its_services_name() {
    let collector = collector();
    let url = format!("http://collector.{}:4318", collector.name);
    let namespace = Namespace::create("traces", json!({}));
    let options = ["--trace-collector", &url];
    let installation = Installation::applied(namespace, "traced", 1, json!({}), &options);
    installation.works();
    let pods = installation.pods();
    assert!(pods::injected(&pods.create_object(&pods::stored("traced")).json()));

    let (resource, span) = until("the span of the pod", || {
        let exports = collector.kubectl(&["logs", "pod/collector"]).stdout;
        let exports = exports.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut spans = exports.flat_map(|export| {
            let of = export["resourceSpans"][0].clone();
            let spans = of["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default();
            spans.into_iter().map(move |span| (of["resource"].clone(), span))
        });
        spans
            .find(|(_, span)| said(span, "admission.name") == Some("traced"))
            .ok_or("there is none".to_owned())
    });
    assert_eq!(said(&resource, "service.name"), Some(installation.name.as_str()));
    assert_eq!(said(&resource, "k8s.namespace.name"), Some(installation.namespace.name.as_str()));
    let replica = said(&resource, "k8s.pod.name").unwrap();
    installation.get("pod", replica).expect("a replica");
    assert_eq!(said(&span, "k8s.namespace.name"), Some(pods.name.as_str()));
    assert_eq!(said(&span, "injection.decision"), Some("injected"));
    assert_eq!(said(&span, "injection.revision"), Some("traced"));
    assert_eq!(span["status"], json!({}));
}
