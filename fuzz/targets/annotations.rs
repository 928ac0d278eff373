//! The annotations and labels of a pod, one `name=value` a line (a label's begins with `@`): what is not refused makes a
//! sidecar that starts and an init program that takes its arguments.
#![no_main]

use outrigger_fuzz::{INJECTORS, inject, works};
use serde_json::json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart", "annotations": {}, "labels": {"app": "cart"}},
        "spec": {"containers": [{"name": "cart", "image": "cart:1",
            "ports": [{"containerPort": 8080, "name": "http"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}}],
          "volumes": [{"name": "cache", "emptyDir": {}}]}});
    for line in String::from_utf8_lossy(bytes).lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        // As with Istio, injection takes any text here: it is the init program that says what is wrong with it.
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        if name == "traffic.sidecar.istio.io/includeOutboundPorts" && !value.split(',').all(is_port) {
            continue;
        }
        let (field, name) = name.strip_prefix('@').map_or(("annotations", name), |name| ("labels", name));
        // As a manifest has it, a value may have several lines.
        pod["metadata"][field][name] = value.replace("\\n", "\n").into();
    }
    for injector in &INJECTORS[..2] {
        if let Some(injected) = inject(injector, &pod) {
            works(&injected);
        }
    }
});
