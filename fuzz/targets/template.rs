//! An operator's template, and behind a line `---` the value of an annotation of a pod that it is rendered for.
#![no_main]

use std::collections::BTreeMap;

use outrigger::injection::Injector;
use outrigger::settings::Settings;
use outrigger_fuzz::REQUEST;
use serde_json::json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (template, value) = text.split_once("\n---\n").unwrap_or((text, "]}\n- a: &b"));
    let mut settings = Settings::default();
    // The pack that takes least time to compile.
    settings.pack = "linkerd-daemonset".to_owned();
    settings.templates = BTreeMap::from([("own".to_owned(), template.to_owned())]);
    settings.default_templates = vec!["own".to_owned()];
    let injector = match Injector::new(settings) {
        Ok(injector) => injector,
        Err(error) => return assert!(error.to_string().len() > 10, "{error}"),
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart", "annotations": {"a": value}},
        "spec": {"containers": [{"name": "cart", "image": "cart:1"}]}});
    // Rendered with the tree that is kept, and without it.
    let [first, second] = [(); 2].map(|()| injector.inject(&pod, &REQUEST).map(|injection| injection.pod));
    assert_eq!(first.ok(), second.ok());
});
