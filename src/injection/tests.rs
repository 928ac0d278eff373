use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Error, Injector, Request};
use crate::owner::Owner;
use crate::patch;
use crate::policy::Reason;
use crate::settings::Settings;

pub(super) fn injector(settings: &str) -> Injector {
    Injector::new(Settings::parse(settings, "test").unwrap()).unwrap()
}

/// Injects, and asserts what holds for every injection: the patch applied to the pod as sent gives the pod as
/// injected, and injecting that again changes nothing.
pub(super) fn injected(injector: &Injector, pod: &Value) -> Value {
    let request = Request { namespace: "shop", ..Request::default() };
    let injection = injector.inject(pod, &request).unwrap();
    assert!(injection.decision.inject());
    let injected = injection.pod.expect("a pod that was not injected before is changed");
    let operations = serde_json::to_value(patch::diff(pod, &injected)).unwrap();
    let mut patched = pod.clone();
    let operations: json_patch::Patch = serde_json::from_value(operations).unwrap();
    json_patch::patch(&mut patched, &operations).unwrap();
    assert_eq!(patched, injected);
    let again = injector.inject(&injected, &request).unwrap().pod;
    assert_eq!(
        again,
        None,
        "injecting twice differs: {:?}",
        patch::diff(&injected, again.as_ref().unwrap_or(&Value::Null))
    );
    injected
}

pub(super) fn web() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"initContainers": [{"name": "migrate", "image": "m"}],
                 "containers": [{"name": "web", "image": "w"}, {"name": "log", "image": "l"}]}})
}

pub(super) fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod["spec"][list].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
}

#[test]
fn a_native_sidecar_comes_before_the_pods_own_init_containers() {
    let pod = injected(&injector(""), &web());
    assert_eq!(names(&pod, "initContainers"), ["istio-init", "istio-proxy", "migrate"]);
    assert_eq!(names(&pod, "containers"), ["web", "log"]);
    let proxy = &pod["spec"]["initContainers"][1];
    assert_eq!(proxy["restartPolicy"], "Always");
    assert_eq!(proxy["startupProbe"]["httpGet"], json!({"path": "/healthz/ready", "port": 15021}));
    assert_eq!(proxy["securityContext"]["runAsUser"], 1337);
    let init = &pod["spec"]["initContainers"][0];
    assert_eq!(init["securityContext"]["capabilities"], json!({"add": ["NET_ADMIN"], "drop": ["ALL"]}));
    let args: Vec<&str> = init["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let want = [
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1337",
        "-g",
        "1337",
        "-m",
        "REDIRECT",
        "-i",
        "*",
        "-x",
        "",
        "-o",
        "",
        "-b",
        "*",
        "-d",
        "15090,15021,15020",
    ];
    assert_eq!(args, want);
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "web");
    let mut status: Value =
        serde_json::from_str(annotations["sidecar.istio.io/status"].as_str().unwrap()).unwrap();
    let undo = status.as_object_mut().unwrap().shift_remove("undo").unwrap();
    assert_eq!(undo["spec"], json!({"initContainers": {"istio-init": null, "istio-proxy": null}}));
    let want = json!({"initContainers": ["istio-init", "istio-proxy"], "containers": null, "volumes": null,
        "imagePullSecrets": null, "revision": "default"});
    assert_eq!(status, want);
}

#[test]
fn without_native_sidecars_the_proxy_is_the_first_container() {
    for settings in ["kubernetesVersion: \"1.28\"", "nativeSidecars: false"] {
        let pod = injected(&injector(settings), &web());
        assert_eq!(names(&pod, "initContainers"), ["migrate", "istio-init"], "{settings}");
        assert_eq!(names(&pod, "containers"), ["istio-proxy", "web", "log"], "{settings}");
        assert_eq!(pod["spec"]["containers"][0]["restartPolicy"], Value::Null);
    }
    let pod = injected(&injector("kubernetesVersion: \"1.29\""), &web());
    assert_eq!(names(&pod, "initContainers"), ["istio-init", "istio-proxy", "migrate"]);
}

#[test]
fn annotations_choose_what_is_captured() {
    let mut pod = web();
    pod["metadata"]["annotations"] = json!({
        "traffic.sidecar.istio.io/excludeOutboundPorts": "3306,6379",
        "traffic.sidecar.istio.io/excludeInboundPorts": "9000",
        "sidecar.istio.io/nativeSidecar": "false",
    });
    let pod = injected(&injector(""), &pod);
    let args = pod["spec"]["initContainers"][1]["args"].as_array().unwrap();
    let after = |flag: &str| args[args.iter().position(|a| a == flag).unwrap() + 1].as_str().unwrap();
    assert_eq!(after("-o"), "3306,6379");
    assert_eq!(after("-d"), "15090,15021,9000,15020");
    assert_eq!(names(&pod, "containers")[0], "istio-proxy");
}

#[test]
fn a_pod_that_is_left_alone_says_why() {
    let mut pod = web();
    pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    let injection = injector("").inject(&pod, &Request::default()).unwrap();
    assert_eq!(injection.pod, None);
    assert_eq!(injection.decision.reason, Reason::InjectLabelFalse);
    assert!(injection.decision.warnings().is_empty());
    pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("true");
    pod["spec"]["hostNetwork"] = json!(true);
    let injection = injector("").inject(&pod, &Request::default()).unwrap();
    assert_eq!(
        injection.decision.warnings(),
        [
            "outrigger: no sidecar was injected although sidecar.istio.io/inject is \"true\": spec.hostNetwork is true, \
          and capture would turn the node's own traffic (host_network_enabled)"
        ]
    );
}

#[test]
fn what_is_no_pod_is_refused_by_field() {
    for (pod, message) in [
        (json!("web"), "the object is a string, and must be an object"),
        (json!({"metadata": {}}), "spec is missing, and must be an object"),
        (json!({"metadata": 1, "spec": {}}), "metadata is a number, and must be an object"),
        (json!({"spec": {}}), "spec.containers is empty, and a pod needs a container"),
        (json!({"spec": {"containers": {}}}), "spec.containers is an object, and must be a list"),
        (json!({"spec": {"containers": [1]}}), "spec.containers[0] is a number, and must be an object"),
        (json!({"spec": {"containers": [{}]}}), "spec.containers[0].name is missing, and must be a string"),
        (
            json!({"metadata": {"annotations": {"a/b": 1}}, "spec": {"containers": [{"name": "a"}]}}),
            "metadata.annotations[\"a/b\"] is a number, and must be a string; write it in quotes: \"1\"",
        ),
        (
            json!({"metadata": {"labels": 7}, "spec": {"containers": [{"name": "a"}]}}),
            "metadata.labels is a number, and must be an object",
        ),
        (
            json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i", "env": "x"}]}}),
            "spec.initContainers[0].env is a string, and must be a list",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "env": [{"nama": "X", "value": "y"}]}]}}),
            "spec.containers[0].env[0].name is missing, and must be a string",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "volumeMounts": [{"name": "v"}]}]}}),
            "spec.containers[0].volumeMounts[0].mountPath is missing, and must be a string",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "ports": [{"name": "http"}]}]}}),
            "spec.containers[0].ports[0].containerPort is missing, and must be a number",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80853}]}]}}),
            "spec.containers[0].ports[0].containerPort is 80853, and must be a port from 1 to 65535",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": 80}]}]}}),
            "spec.containers[0].ports[0].name is a number, and must be a string",
        ),
    ] {
        match injector("").inject(&pod, &Request::default()) {
            Err(Error::Refused(got)) => assert!(got.ends_with(message), "{got}"),
            other => panic!("{pod}: {other:?}"),
        }
    }
}

#[test]
fn two_listeners_of_the_sidecar_are_not_given_one_port_whoever_says_so() {
    let injector = injector("meshConfig: {defaultConfig: {statusPort: 15099}}");
    for (config, message) in [
        ("statusPort: 15021", "statusPort is 15021, the sidecar's port for readiness: choose another"),
        ("proxyAdminPort: 15099", "proxyAdminPort and statusPort are both 15099: give each its own"),
    ] {
        let mut pod = web();
        pod["metadata"]["annotations"] = json!({"proxy.istio.io/config": config});
        match injector.inject(&pod, &Request::default()) {
            Err(Error::Refused(got)) => {
                assert!(got.ends_with(&format!("annotation proxy.istio.io/config: {message}")), "{got}");
            }
            other => panic!("{config}: {other:?}"),
        }
    }
}

#[test]
fn a_template_that_is_not_there_or_fails_names_the_pod() {
    let mut pod = web();
    pod["metadata"]["annotations"] = json!({"inject.istio.io/templates": "sidecar, none"});
    let request = Request { namespace: "shop", ..Request::default() };
    let error = injector("").inject(&pod, &request).unwrap_err().to_string();
    assert_eq!(
        error,
        "pod shop/web: failed to run injection template: requested template \"none\" not found; have sidecar"
    );
    let injector = injector("templates: {broken: \"a: {{values.nowhere}}\"}\ndefaultTemplates: [broken]");
    let error = injector.inject(&web(), &request).unwrap_err();
    assert!(matches!(error, Error::Internal(_)));
    assert!(
        error.to_string().starts_with("pod shop/web: template \"broken\": line 1, column 4: "),
        "{error}"
    );
}

/// Whatever an operator's template renders, it is an error that names it, and no panic.
#[test]
fn a_template_that_renders_no_pod_is_the_operators_error() {
    for (text, says) in [
        ("- name: a", "renders no object"),
        ("text", "renders no object"),
        ("metadata: []", "metadata is a list, and must be an object"),
        ("metadata: {annotations: 5}", "metadata.annotations is a number, and must be an object"),
        ("spec: {containers: x}", "spec.containers is a string, and must be a list"),
        ("spec: {volumes: [x]}", "spec.volumes[0] is a string, and must be an object"),
    ] {
        let injector = injector(&format!("templates: {{own: {text:?}}}\ndefaultTemplates: [own]"));
        match injector.inject(&web(), &Request { namespace: "shop", ..Request::default() }) {
            Err(Error::Internal(message)) => {
                assert!(message.starts_with("pod shop/web: ") && message.contains("own"), "{message}");
                assert!(message.contains(says), "{text}: {message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn templates_of_the_operator_and_aliases_merge_in_order() {
    let settings = "templates:\n  custom: |\n    metadata: {labels: {x: \"{{workload.kind}}-{{workload.name}}\"}}\n\
                    aliases: {both: [sidecar, custom]}\ndefaultTemplates: [both]\ninjectedAnnotations: {team: mesh}\n";
    let injector = injector(settings);
    let pod = injected(&injector, &web());
    assert_eq!(pod["metadata"]["labels"]["x"], "Pod-web");
    assert_eq!(pod["metadata"]["annotations"]["team"], "mesh");
    let owner =
        Owner { api_version: "apps/v1".to_owned(), kind: "Deployment".to_owned(), name: "cart".to_owned() };
    let request = Request { owner: Some(&owner), ..Request::default() };
    let template = json!({"spec": {"containers": [{"name": "a"}]}});
    let pod = injector.inject(&template, &request).unwrap().pod.unwrap();
    assert_eq!(pod["metadata"]["labels"]["x"], "Deployment-cart");
}

#[test]
fn setup_refuses_what_cannot_work_with_its_place() {
    for (settings, part) in [
        ("pack: nowhere", "there is no such pack, folder or file; the packs are"),
        ("templates: {t: \"a: {{#if x}}\"}", "template \"t\": line 1, column"),
        ("defaultTemplates: [none]", "defaultTemplates: there is no template \"none\"; have sidecar"),
    ] {
        let error = Injector::new(Settings::parse(settings, "test").unwrap()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// Text that is shown by its beginning, so that a failure with a megabyte can be read.
#[derive(Clone)]
struct Hostile(String);

impl std::fmt::Debug for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let shown: String = self.0.chars().take(60).collect();
        write!(f, "{shown:?} ({} bytes)", self.0.len())
    }
}

/// Text that an author may put wherever a string goes, to break out of it.
fn hostile() -> impl Strategy<Value = Hostile> {
    hostile_text().prop_map(Hostile)
}

fn hostile_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\n\r\t \"'{}:,&*#|>%@`!\\[\\]\u{E000}-\u{E002}\u{2028}\u{85}-]{0,24}",
        Just("{{values}}".to_owned()),
        Just("x\nspec:\n  hostNetwork: true".to_owned()),
        Just("a: b".to_owned()),
        Just("*alias &anchor !!tag".to_owned()),
        Just("\"}, privileged: true, x: {\"".to_owned()),
        "[a\n:\"]{1}".prop_map(|s| s.repeat(1 << 20)),
    ]
}

/// The annotations whose values packs interpolate, and that may be any text.
const INTERPOLATED: [&str; 12] = [
    "apm.datadoghq.com/env",
    "kubectl.kubernetes.io/default-container",
    "kubectl.kubernetes.io/default-logs-container",
    "resource.opentelemetry.io/service.version",
    "sidecar.istio.io/agentLogLevel",
    "sidecar.istio.io/bootstrapOverride",
    "sidecar.istio.io/capNetBindService",
    "sidecar.istio.io/componentLogLevel",
    "sidecar.istio.io/logLevel",
    "sidecar.istio.io/proxyImageType",
    "traffic.sidecar.istio.io/includeOutboundPorts",
    "unknown.example/key",
];

/// Those that are refused where they are not what they must be, and a value that each takes.
const VALIDATED: [(&str, &str); 9] = [
    ("sidecar.istio.io/interceptionMode", "REDIRECT"),
    ("sidecar.istio.io/proxyCPU", "1"),
    ("sidecar.istio.io/userVolume", "{}"),
    ("status.sidecar.istio.io/port", "15020"),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "1"),
    ("traffic.sidecar.istio.io/excludeInterfaces", "eth0"),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/8"),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", "1"),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*"),
];

/// The shape of a value: the same value with every string emptied, but for the names that merges go by.
fn skeleton(value: &Value) -> Value {
    match value {
        Value::String(_) => json!(""),
        Value::Array(items) => items.iter().map(skeleton).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(k, v)| (k.clone(), skeleton(v))).collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_author_can_make_structure(
        values in prop::collection::vec(hostile(), INTERPOLATED.len()),
        app in hostile(), version in hostile(), name in hostile(), container in hostile(),
        environment in hostile(), native in any::<bool>(), pack in prop::sample::select(vec!["outrigger", "istio"]),
    ) {
        let injector = injector(&format!("pack: {pack}"));
        let pod_with = |values: &dyn Fn(usize) -> String, app: &str, version: &str, name: &str, container: &str| {
            let mut annotations: BTreeMap<&str, String> =
                INTERPOLATED.iter().enumerate().map(|(i, key)| (*key, values(i))).collect();
            annotations.extend(VALIDATED.map(|(key, value)| (key, value.to_owned())));
            annotations.insert("sidecar.istio.io/nativeSidecar", native.to_string());
            json!({"metadata": {"name": name, "annotations": annotations, "labels": {"app": app, "version": version}},
                "spec": {"containers": [{"name": container, "image": "i"}]}})
        };
        let inject = |pod: &Value, environment: &str| {
            let environment = [("KEY".to_owned(), environment.to_owned())];
            let request = Request { environment: &environment, ..Request::default() };
            injector.inject(pod, &request).unwrap().pod.unwrap()
        };
        let tame = inject(&pod_with(&|_| "1".to_owned(), "a", "v", "n", "c"), "e");
        let pod = pod_with(&|i| values[i].0.clone(), &app.0, &version.0, &name.0, &container.0);
        let got = inject(&pod, &environment.0);
        // What is empty may be left out; the pod's own name decides whether it has an owner.
        if [&name, &container, &values[9]].iter().all(|text| !text.0.is_empty()) {
            prop_assert_eq!(skeleton(&got), skeleton(&tame));
        }
        let list = if native { "initContainers" } else { "containers" };
        let proxy = got["spec"][list].as_array().unwrap().iter().find(|c| c["name"] == "istio-proxy").unwrap();
        let variable = |name: &str| {
            let env = proxy["env"].as_array().unwrap();
            env.iter().find(|e| e["name"] == name).and_then(|e| e["value"].as_str()).unwrap_or_default().to_owned()
        };
        prop_assert_eq!(variable("KEY"), environment.0);
        prop_assert_eq!(variable("ISTIO_META_APP_CONTAINERS"), container.0);
    }

    #[test]
    fn what_is_validated_is_refused_or_stays_text(value in hostile(), index in 0..VALIDATED.len()) {
        let injector = injector("");
        let (key, good) = VALIDATED[index];
        let pod_with = |value: &str| {
            let mut pod = web();
            pod["metadata"]["annotations"] = json!({key: value});
            injector.inject(&pod, &Request::default())
        };
        let tame = pod_with(good).unwrap().pod.unwrap();
        match pod_with(&value.0) {
            Err(Error::Refused(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok(got) => prop_assert_eq!(skeleton(&got.pod.unwrap())["spec"]["containers"].clone(), skeleton(&tame)["spec"]["containers"].clone()),
        }
    }
}

/// What an API server does to a pod that it stores: the fields of maps are sorted, defaults filled in.
#[test]
fn a_pod_that_an_api_server_has_stored_stays_as_it_is() {
    for settings in ["", "pack: istio"] {
        let injector = injector(settings);
        // A pod template need not have metadata; a stored one has.
        let mut template = web();
        template.as_object_mut().unwrap().shift_remove("metadata");
        let mut stored = injected(&injector, &template);
        stored["metadata"]["creationTimestamp"] = Value::Null;
        stored.sort_all_objects();
        for volume in stored["spec"]["volumes"].as_array_mut().into_iter().flatten() {
            if let Some(items) = volume["downwardAPI"]["items"].as_array_mut() {
                items.iter_mut().for_each(|item| item["fieldRef"]["apiVersion"] = json!("v1"));
                volume["downwardAPI"]["defaultMode"] = json!(420);
            }
        }
        assert_eq!(injector.inject(&stored, &Request::default()).unwrap().pod, None, "{settings}");
    }
}
