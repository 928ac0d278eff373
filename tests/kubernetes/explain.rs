//! A running pod, explained from what its API server knows.

use serde_json::{Value, json};

use crate::cluster::{Namespace, outrigger};
use crate::install::installed;
use crate::pods;

#[test]
fn a_pod_is_explained_with_its_namespace_its_owner_and_its_services() {
    installed();
    let namespace = Namespace::injected("explain");
    let labels = json!({"app": "web"});
    namespace.create_object(&json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {"selector": {"matchLabels": labels}, "template": pods::template(&labels)}}));
    namespace.create_object(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": [{"port": 80}]}}));
    let pod = &namespace.pods("app=web")[0];
    assert!(pods::injected(pod));
    let name = pod["metadata"]["name"].as_str().unwrap();
    let explained = outrigger(&["explain", name, "--namespace", &namespace.name, "--output", "json"]);
    let explained: Value = explained.json();
    let explained = &explained[0];
    assert_eq!((&explained["name"], &explained["inject"]), (&json!(name), &json!(true)));
    // What runs is what would be made now.
    assert_eq!((&explained["adds"], &explained["error"]), (&json!({}), &Value::Null));
    let warnings: Vec<&str> =
        explained["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    for part in ["port 80 of Service web has no name", "stands in metadata.annotations of the Deployment"] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}
