//! Patches of the recorded injections, beside the ones that Istio's injector made of the same pods. The cases lie
//! beside this clone; where they do not, there is nothing to compare.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "conformance/cases.rs"]
mod cases;

use cases::{cases, settings};
use outrigger::injection::{Error, Injector, Patched, Request};
use outrigger::settings::Settings;
use outrigger::webhook::path;
use serde_json::{Value, json};

fn injector(case: &Value) -> Injector {
    Injector::new(Settings::parse(&settings(case).to_string(), "recorded").unwrap()).unwrap()
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
    let cases = cases();
    for case in &cases {
        let Some(recorded) = case["expectedPatch"].as_array().filter(|patch| !patch.is_empty()) else {
            continue;
        };
        let name = case["id"].as_str().unwrap();
        let patched = patch(&injector(case), case, &sent(case));
        let [our, their] = [patched.unwrap().patch_bytes(), json!(recorded).to_string().len()];
        println!("{our:>7} {their:>7} {name}");
        (ours, istios, compared) = (ours + our, istios + their, compared + 1);
        if our > their {
            larger.push(format!("{name}: {our} bytes, Istio's {their}"));
        }
    }
    println!("{compared} patches: {ours} bytes, Istio's {istios}");
    assert!(compared > 0 || cases.is_empty(), "no case has a patch of Istio's");
    assert!(larger.is_empty(), "{} of {compared} are larger:\n{}", larger.len(), larger.join("\n"));
}

#[test]
fn the_second_of_two_pods_gets_what_the_first_got() {
    for case in cases() {
        let pod = sent(&case);
        let seen = injector(&case);
        let outcome = |injector: &Injector| match patch(injector, &case, &pod) {
            Ok(patched) => {
                let patch = patched.patch().map(|patch| patch.get().to_owned());
                (Some(patched.decision().clone()), patch, String::new())
            }
            Err(error) => (None, None, error.to_string()),
        };
        let first = outcome(&seen);
        assert_eq!(outcome(&seen), first, "{}", case["id"]);
        assert_eq!(outcome(&injector(&case)), first, "{}", case["id"]);
    }
}
