//! Patches of the recorded injections, beside the ones that Istio's injector made of the same pods. The cases lie
//! beside this clone; where they do not, there is nothing to compare.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use outrigger::injection::{Error, Injector, Patched, Request};
use outrigger::settings::Settings;
use outrigger::webhook::path;
use serde_json::{Map, Value, json};

fn cases() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/injection");
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = files.map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// The settings that a case was recorded under.
fn settings(case: &Value) -> Settings {
    let (injector, env) = (&case["injector"], &case["env"]);
    let nodes = case["nodes"].as_array().unwrap().iter();
    let version = |node: &Value| {
        let version = node["kubeletVersion"].as_str().unwrap().trim_start_matches('v');
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let (major, minor) = nodes.map(version).min().unwrap();
    let or = |value: &Value, otherwise: Value| if value.is_null() { otherwise } else { value.clone() };
    let all = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "InjectorConfig", "pack": "istio",
        "revision": case["revision"],
        "policy": injector["policy"],
        "neverInjectSelector": or(&injector["neverInjectSelector"], json!([])),
        "alwaysInjectSelector": or(&injector["alwaysInjectSelector"], json!([])),
        "injectedAnnotations": or(&injector["injectedAnnotations"], json!({})),
        "aliases": or(&injector["aliases"], json!({})),
        "defaultTemplates": or(&injector["defaultTemplates"], json!(["sidecar"])),
        "templates": or(&case["customTemplates"], json!({})),
        "nativeSidecars": or(&env["ENABLE_NATIVE_SIDECARS"], json!("auto")),
        "kubernetesVersion": format!("{major}.{minor}"),
        "platform": env["PLATFORM"],
        "compliancePolicy": env["COMPLIANCE_POLICY"],
        "values": case["values"],
        "meshConfig": case["meshConfig"],
    });
    let set = all.as_object().unwrap().iter().filter(|(_, value)| !value.is_null() && **value != "");
    let set: Map<String, Value> = set.map(|(field, value)| (field.clone(), value.clone())).collect();
    Settings::parse(&Value::Object(set).to_string(), "recorded").unwrap()
}

/// The pod as an API server writes it.
fn sent(case: &Value) -> String {
    let mut pod = json!({"kind": "Pod", "apiVersion": "v1"});
    for (field, value) in case["input"].as_object().unwrap() {
        pod[field] = value.clone();
    }
    pod.to_string()
}

fn patch(injector: &Injector, case: &Value, pod: &str) -> Result<Patched, Error> {
    let path = case["admission"]["path"].as_str().unwrap_or_default().trim_start_matches("/inject");
    let environment = path::environment(path.trim_start_matches('/'));
    let request = Request {
        namespace: case["admission"]["namespace"].as_str().unwrap_or_default(),
        namespace_metadata: case.get("namespaceObject").filter(|metadata| !metadata.is_null()),
        environment: &environment,
        ..Request::default()
    };
    injector.patch(pod, &request)
}

#[test]
fn no_patch_is_larger_than_istios() {
    let (mut ours, mut istios, mut compared, mut larger) = (0, 0, 0, Vec::new());
    for case in cases() {
        let Some(recorded) = case["expectedPatch"].as_array().filter(|patch| !patch.is_empty()) else {
            continue;
        };
        let name = case["id"].as_str().unwrap();
        let patched = patch(&Injector::new(settings(&case)).unwrap(), &case, &sent(&case));
        let [our, their] = [patched.unwrap().patch_bytes(), json!(recorded).to_string().len()];
        println!("{our:>7} {their:>7} {name}");
        (ours, istios, compared) = (ours + our, istios + their, compared + 1);
        if our > their {
            larger.push(format!("{name}: {our} bytes, Istio's {their}"));
        }
    }
    println!("{compared} patches: {ours} bytes, Istio's {istios}");
    assert!(larger.is_empty(), "{} of {compared} are larger:\n{}", larger.len(), larger.join("\n"));
}

#[test]
fn the_second_of_two_pods_gets_what_the_first_got() {
    for case in cases() {
        let (settings, pod) = (settings(&case), sent(&case));
        let injector = Injector::new(settings.clone()).unwrap();
        let outcome = |injector: &Injector| match patch(injector, &case, &pod) {
            Ok(patched) => {
                let patch = patched.patch().map(|patch| patch.get().to_owned());
                (Some(patched.decision().clone()), patch, String::new())
            }
            Err(error) => (None, None, error.to_string()),
        };
        let first = outcome(&injector);
        assert_eq!(outcome(&injector), first, "{}", case["id"]);
        assert_eq!(outcome(&Injector::new(settings).unwrap()), first, "{}", case["id"]);
    }
}
