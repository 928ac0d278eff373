//! What the API server and kubectl make of the webhook's answers.

use serde_json::json;

use crate::cluster::{Namespace, dry_run};
use crate::install::installed;
use crate::pods;

#[test]
fn a_dry_run_shows_the_injected_pod_and_stores_nothing() {
    installed();
    let namespace = Namespace::injected("dry-run");
    let shown = dry_run(&namespace.name, &pods::stored("shown")).expect("a dry run").json();
    assert!(pods::injected(&shown), "{shown:#}");
    let error = namespace.try_kubectl(&["get", "pod", "shown"], "").expect_err("nothing is stored");
    assert!(error.contains("NotFound"), "{error}");
}

#[test]
fn kubectl_shows_a_warning_when_a_pod_asks_and_is_not_injected() {
    installed();
    let namespace = Namespace::injected("warning");
    let mut pod = pods::stored("host-network");
    pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "true"});
    pod["spec"]["hostNetwork"] = json!(true);
    let answer = namespace.create_object(&pod);
    assert!(!pods::injected(&namespace.get("pod", "host-network")));
    let warnings: Vec<&str> = answer.stderr.lines().filter(|line| line.starts_with("Warning: ")).collect();
    assert_eq!(
        warnings,
        ["Warning: outrigger: no sidecar was injected although sidecar.istio.io/inject is \"true\": \
          spec.hostNetwork is true, and capture would turn the node's own traffic (host_network_enabled)"]
    );
}

#[test]
fn nothing_is_said_about_a_pod_that_is_injected() {
    installed();
    let answer = Namespace::injected("quiet").create_object(&pods::stored("quiet"));
    assert_eq!(answer.stderr, "");
}

#[test]
fn an_injected_pod_comes_back_unchanged() {
    installed();
    let namespace = Namespace::injected("first");
    namespace.create_object(&pods::stored("pod"));
    let first = namespace.get("pod", "pod");
    assert!(pods::injected(&first), "{first:#}");
    // As `kubectl get --output=yaml`, edited and sent again: with all that the API server has put in since.
    let metadata = &first["metadata"];
    let again = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": first["spec"],
        "metadata": {"name": "pod", "labels": metadata["labels"], "annotations": metadata["annotations"]}
    });
    let namespace = Namespace::injected("second");
    namespace.create_object(&again);
    let second = namespace.get("pod", "pod");
    assert_eq!(second["spec"], first["spec"]);
    for field in ["labels", "annotations"] {
        assert_eq!(second["metadata"][field], metadata[field], "{field}");
    }
}
