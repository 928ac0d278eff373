//! Pods to send, and what is looked for in the pods that come back.

use serde_json::{Value, json};

/// The image that plays the applications; `tests/kubernetes/base-images` makes it.
pub(crate) const IMAGE: &str = "localhost/busybox:test";

/// A pod that is stored and never runs: no scheduler has that name.
pub(crate) fn stored(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "schedulerName": "none",
            "containers": [{"name": "app", "image": IMAGE, "command": ["sleep", "infinity"]}]
        }
    })
}

/// A template of such pods, with these labels.
pub(crate) fn template(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": stored("")["spec"].take()})
}

/// The names of the containers under `spec`.`field`, in order.
pub(crate) fn names<'a>(pod: &'a Value, field: &str) -> Vec<&'a str> {
    let containers = pod["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    containers.iter().map(|c| c["name"].as_str().unwrap()).collect()
}

/// Whether the pod was injected. Half a sidecar is neither, and fails the test.
pub(crate) fn injected(pod: &Value) -> bool {
    let status = &pod["metadata"]["annotations"]["sidecar.istio.io/status"];
    match names(pod, "initContainers").as_slice() {
        [] => {
            assert!(status.is_null(), "a status without a sidecar: {pod:#}");
            false
        }
        ["istio-init", "istio-proxy"] => {
            assert!(status.is_string(), "a sidecar without a status: {pod:#}");
            let sidecar = &pod["spec"]["initContainers"][1];
            assert_eq!(sidecar["restartPolicy"], "Always", "the sidecar is no native one: {sidecar:#}");
            assert_eq!(sidecar["startupProbe"]["httpGet"]["port"], 15021, "{sidecar:#}");
            true
        }
        others => panic!("neither injected nor left alone: {others:?}"),
    }
}

/// The status of a container or init container.
pub(crate) fn container_status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = ["initContainerStatuses", "containerStatuses"];
    let mut all = all.iter().filter_map(|field| pod["status"][field].as_array()).flatten();
    all.find(|status| status["name"] == name).unwrap_or_else(|| panic!("no status of {name}: {pod:#}"))
}
