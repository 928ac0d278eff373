//! The probes and hooks of a container, as JSON: the sidecar reads what the injector leaves it of them.
#![no_main]

use outrigger_fuzz::{INJECTORS, inject, works};
use serde_json::{Map, Value, json};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(bytes) else { return };
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart"},
        "spec": {"containers": [{"name": "cart", "image": "cart:1", "ports": [{"containerPort": 8080, "name": "http"}]}]}});
    for field in ["readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "ports"] {
        if let Some(value) = fields.get(field) {
            pod["spec"]["containers"][0][field] = value.clone();
        }
    }
    if let Some(injected) = inject(&INJECTORS[0], &pod) {
        works(&injected);
    }
});
