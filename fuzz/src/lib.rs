//! What the targets of the injector share.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use outrigger::injection::{Injector, Request};
use outrigger::settings::Settings;
use outrigger::{patch, uninject};
use serde_json::Value;

/// Where the pods of the targets are.
pub const REQUEST: Request<'static> =
    Request { namespace: "shop", namespace_metadata: None, environment: &[], tag: None, owner: None };

/// An injector for each pack, and for what else changes the way that a pod takes.
pub static INJECTORS: LazyLock<Vec<Injector>> = LazyLock::new(|| {
    let settings = [
        "pack: outrigger",
        "pack: outrigger\nnativeSidecars: false",
        "pack: istio\nvalues: {pilot: {cni: {enabled: true}}}",
        "pack: linkerd-daemonset",
    ];
    settings.iter().map(|text| Injector::new(Settings::parse(text, "fuzz").unwrap()).unwrap()).collect()
});

/// Injects a pod and checks all that has to hold of it; the pod as injected, if it is.
pub fn inject(injector: &Injector, pod: &Value) -> Option<Value> {
    let injected = injector.inject(pod, &REQUEST).ok()?.pod?;
    let operations = serde_json::to_value(patch::diff(pod, &injected)).unwrap();
    assert_eq!(applied(pod, operations), injected, "the patch does not make the pod");
    let again = injector.inject(&injected, &REQUEST).unwrap_or_else(|error| panic!("{error}: {injected}"));
    if let Some(again) = again.pod {
        let difference = serde_json::to_string(&patch::diff(&injected, &again)).unwrap();
        panic!("injecting twice changes {difference} in {injected}");
    }
    if injector.keeps_record() && uninject::uninject(pod).is_none() && status(pod).is_null() {
        assert_eq!(uninject::uninject(&injected).as_ref(), Some(pod), "the way back leads elsewhere");
    }
    Some(injected)
}

/// The value with an RFC 6902 patch applied, by another's hand.
pub fn applied(value: &Value, operations: Value) -> Value {
    let operations: json_patch::Patch = serde_json::from_value(operations).unwrap();
    let mut value = value.clone();
    json_patch::patch(&mut value, &operations).unwrap_or_else(|error| panic!("{error}: {operations:?}"));
    value
}

fn status(pod: &Value) -> &Value {
    &pod["metadata"]["annotations"]["sidecar.istio.io/status"]
}

/// A container of a pod, by its name; of those that the application has and of those that are there to begin with.
pub fn container<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    lists.flatten().find(|container| container["name"] == name)
}

/// The variables of a container, as a kubelet would set them.
pub fn variables(container: &Value) -> BTreeMap<String, String> {
    let list = container["env"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let value = |variable: &Value| match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        Some("status.podIP") => Some("10.244.0.5".to_owned()),
        Some(_) => Some("cart".to_owned()),
        None => text(&variable["value"]),
    };
    list.iter().filter_map(|variable| Some((text(&variable["name"])?, value(variable)?))).collect()
}

/// What was injected works: the sidecar starts with its environment, and the init program takes its arguments.
pub fn works(injected: &Value) {
    if let Some(sidecar) = container(injected, "istio-proxy") {
        outrigger_proxy::properties::starts(&variables(sidecar))
            .unwrap_or_else(|errors| panic!("the sidecar does not start: {errors:?}"));
    }
    if let Some(init) = container(injected, "istio-init") {
        let arguments = init["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        let arguments: Vec<String> = arguments.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
        let arguments = arguments.strip_prefix(&["istio-iptables".to_owned()]).unwrap_or(&arguments);
        outrigger_init::properties::istio_takes(arguments, &variables(init))
            .unwrap_or_else(|error| panic!("the init program refuses {arguments:?}: {error}"));
    }
}
