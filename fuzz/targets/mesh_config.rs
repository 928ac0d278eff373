//! The mesh's configuration, and a pod's own: YAML by other people's schema.
#![no_main]

use outrigger::injection::Injector;
use outrigger::settings::Settings;
use outrigger::yaml;
use outrigger_fuzz::{inject, works};
use serde_json::{Value, json};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (mesh, of_pod) = text.split_once("\n---\n").unwrap_or((text, "{}"));
    let Ok(Value::Object(mesh_config)) = yaml::parse(mesh) else { return };
    let mut settings = Settings::default();
    settings.mesh_config = mesh_config;
    let Ok(injector) = Injector::new(settings) else { return };
    injector.warnings();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart", "annotations": {"proxy.istio.io/config": of_pod}},
        "spec": {"containers": [{"name": "cart", "image": "cart:1"}]}});
    if let Some(injected) = inject(&injector, &pod) {
        works(&injected);
    }
});
