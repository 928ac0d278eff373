//! The operator's settings, and the ConfigMaps that an Istio installation left: what is accepted makes an injector.
#![no_main]

use outrigger::injection::Injector;
use outrigger::settings::Settings;
use outrigger_fuzz::inject;
use serde_json::json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut settings = match Settings::parse_for(text, "fuzz", Some("outrigger")) {
        Ok(settings) => settings,
        Err(error) => return assert!(error.to_string().len() > 10, "{error}"),
    };
    // Nothing is read from the machine.
    settings.packs.clear();
    settings.warnings();
    let Ok(injector) = Injector::new(settings) else { return };
    injector.warnings();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart", "labels": {"app": "cart"}},
        "spec": {"containers": [{"name": "cart", "image": "cart:1"}]}});
    inject(&injector, &pod);
});
