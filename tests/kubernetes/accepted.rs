//! Every injected pod is one that the API server takes, and injecting it again, as the API server has defaulted it,
//! changes nothing. By dry run, many pods a call.
//!
//! A pod that the API server refuses as it was before injection says nothing about injection: such inputs are sent
//! first, and told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use outrigger::injection::{Injector, Request};
use outrigger::manifest;
use outrigger::owner::Owner;
use outrigger::settings::Settings;
use serde_json::{Value, json};

use crate::cases::{cases, settings};
use crate::cluster::{Namespace, run_kubectl};

/// A pod to inject, and how.
struct Case {
    /// For messages.
    name: String,
    pod: Value,
    injector: std::rc::Rc<Injector>,
    owner: Option<Owner>,
    namespace_metadata: Option<Value>,
    environment: Vec<(String, String)>,
    /// What Istio makes of it, where that is recorded.
    istios: Option<Value>,
}

impl Case {
    fn inject(&self, pod: &Value) -> Option<Value> {
        let request = Request {
            namespace: "shop",
            namespace_metadata: self.namespace_metadata.as_ref(),
            environment: &self.environment,
            owner: self.owner.as_ref(),
            tag: None,
        };
        self.injector.inject(pod, &request).unwrap_or_else(|e| panic!("{}: {e}", self.name)).pod
    }
}

fn injector(settings: &Value) -> std::rc::Rc<Injector> {
    let settings = Settings::parse(&settings.to_string(), "settings").unwrap_or_else(|e| panic!("{e}"));
    std::rc::Rc::new(Injector::new(settings).unwrap_or_else(|e| panic!("{e}")))
}

/// Every pod and pod template of the fixtures, with every pack, native sidecars or not.
fn fixtures() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests");
    let injectors = ["outrigger", "istio", "linkerd-daemonset"].into_iter().flat_map(|pack| {
        [true, false].map(|native| {
            let settings = json!({"pack": pack, "nativeSidecars": native});
            (format!("{pack}, native {native}"), injector(&settings))
        })
    });
    let injectors: Vec<_> = injectors.collect();
    let mut cases = Vec::new();
    for file in ["kinds.yaml", "list.yaml", "objects.json", "awkward.yaml"] {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        for value in manifest::split(&bytes).iter().filter_map(|document| document.parse().ok().flatten()) {
            for object in manifest::objects(&value).unwrap() {
                let Ok(Some(pod)) = object.pod() else { continue };
                for (title, injector) in &injectors {
                    cases.push(Case {
                        name: format!("{file}: {} {} with {title}", object.kind, object.name),
                        pod: pod.value.clone(),
                        injector: injector.clone(),
                        owner: pod.owner.clone(),
                        namespace_metadata: None,
                        environment: Vec::new(),
                        istios: None,
                    });
                }
            }
        }
    }
    cases
}

/// The recorded injections, where they are beside this clone.
fn recorded() -> Vec<Case> {
    let mut injectors = BTreeMap::new();
    let mut recorded = Vec::new();
    for case in cases() {
        if case["expectedAllowed"] != true {
            continue;
        }
        let settings = settings(&case);
        let known = injectors.entry(settings.to_string()).or_insert_with(|| injector(&settings));
        let path = case["admission"]["path"].as_str().unwrap_or_default();
        let below = path.strip_prefix("/inject/").unwrap_or_default();
        recorded.push(Case {
            name: case["id"].as_str().unwrap().to_owned(),
            pod: case["input"].clone(),
            injector: known.clone(),
            owner: None,
            namespace_metadata: case.get("namespaceObject").cloned(),
            environment: outrigger::webhook::path::environment(below),
            istios: Some(case["expected"].clone()).filter(Value::is_object),
        });
    }
    recorded
}

/// A pod that can be sent: with a name of its own, and in no other namespace than the test's.
fn sendable(pod: &Value, name: &str) -> Value {
    let mut pod = pod.clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    let fields = pod["metadata"].as_object_mut().unwrap();
    fields.retain(|field, _| ["name", "labels", "annotations"].contains(&field.as_str()));
    // A pod template's own is not a pod's.
    if pod["spec"]["restartPolicy"].is_null() {
        pod["spec"]["restartPolicy"] = json!("Always");
    }
    pod
}

/// What came of pods that were sent.
struct Sent {
    /// Of each: the pod as the API server has defaulted it, or what is said against it.
    answers: Vec<Result<Value, String>>,
    /// The last names of the fields that the API server does not know.
    unknown: BTreeSet<String>,
}

/// Sends pods, named `c0`, `c1`, …, by dry run. Fields that are not known are warnings: the fixtures have some, on
/// purpose.
fn send(namespace: &Namespace, pods: &[Value]) -> Sent {
    let items: Vec<Value> = pods.iter().enumerate().map(|(i, pod)| sendable(pod, &format!("c{i}"))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let flags = ["create", "--filename=-", "--dry-run=server", "--validate=warn", "--output=json"];
    let arguments = [&["--namespace", &namespace.name], &flags[..]].concat();
    let (_, output) = run_kubectl(&arguments, &list.to_string());
    let mut back = BTreeMap::new();
    for object in serde_json::Deserializer::from_str(&output.stdout).into_iter::<Value>() {
        let object = object.unwrap();
        let objects = match object["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![object],
        };
        back.extend(
            objects.into_iter().map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), pod)),
        );
    }
    let warnings = output.stderr.lines().filter_map(|line| line.strip_prefix("Warning: unknown field "));
    let unknown =
        warnings.map(|field| field.trim_matches('"').rsplit('.').next().unwrap().to_owned()).collect();
    let answers = (0..pods.len())
        .map(|i| {
            let name = format!("\"c{i}\"");
            let said =
                || output.stderr.lines().skip_while(|line| !line.contains(&name)).take(3).collect::<Vec<_>>();
            back.remove(&format!("c{i}")).ok_or_else(|| match said() {
                lines if lines.is_empty() => output.stderr.chars().take(500).collect(),
                lines => lines.join(" "),
            })
        })
        .collect();
    Sent { answers, unknown }
}

fn is_refused(namespace: &Namespace, pod: Option<&Value>) -> bool {
    pod.is_some_and(|pod| send(namespace, std::slice::from_ref(pod)).answers[0].is_err())
}

/// The ServiceAccounts that pods ask for; without one a pod is refused.
fn make_service_accounts(namespace: &Namespace, cases: &[Case]) {
    let names: BTreeSet<&str> =
        cases.iter().filter_map(|case| case.pod["spec"]["serviceAccountName"].as_str()).collect();
    for name in names.into_iter().filter(|name| !matches!(*name, "" | "default")) {
        namespace.kubectl(&["create", "serviceaccount", name]);
    }
}

#[test]
fn every_injected_pod_is_accepted_and_stays_as_it_is_when_injected_again() {
    let namespace = Namespace::create("accepted", json!({"istio-injection": "disabled"}));
    let mut cases = fixtures();
    let of_fixtures = cases.len();
    cases.extend(recorded());
    make_service_accounts(&namespace, &cases);
    let inputs: Vec<Value> = cases.iter().map(|case| case.pod.clone()).collect();
    let before = send(&namespace, &inputs);
    let mut refused = Vec::new();
    let mut injected = Vec::new();
    for (case, answer) in cases.iter().zip(before.answers) {
        match answer {
            Ok(_) => injected.extend(case.inject(&case.pod).map(|pod| (case, pod))),
            Err(reason) => refused.push(format!("{}: {reason}", case.name)),
        }
    }
    println!("{} pods, {of_fixtures} of fixtures; {} are refused as they are:", cases.len(), refused.len());
    refused.iter().for_each(|refused| println!("  {refused}"));
    assert!(refused.len() * 5 < cases.len(), "more than a fifth of the inputs is refused: {refused:#?}");
    let pods: Vec<Value> = injected.iter().map(|(_, pod)| pod.clone()).collect();
    let mut wrong = Vec::new();
    let after = send(&namespace, &pods);
    assert_eq!(after.unknown, before.unknown, "injection adds fields that the API server does not know");
    for ((case, _), answer) in injected.iter().zip(after.answers) {
        match answer {
            // Pack `istio` makes the very pods that Istio makes, and Istio makes some that nobody takes.
            Err(reason) if is_refused(&namespace, case.istios.as_ref()) => {
                println!("{}: refused, as the pod that Istio makes of it is: {reason}", case.name);
            }
            Err(reason) => wrong.push(format!("{}: refused: {reason}", case.name)),
            Ok(defaulted) => {
                if let Some(again) = case.inject(&defaulted) {
                    let patch = outrigger::patch::diff(&defaulted, &again);
                    let patch = serde_json::to_string(&patch).unwrap();
                    wrong.push(format!("{}: injected again: {patch}", case.name));
                }
            }
        }
    }
    println!("{} are injected", injected.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), injected.len(), wrong.join("\n"));
}
