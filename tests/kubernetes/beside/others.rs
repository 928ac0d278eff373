//! Other mutating webhooks before and after ours, which do what is known of others: they add a container, turn the order
//! of containers around, and take annotations away. Whoever comes after ours makes the API server ask ours once more.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::replica::Process;
use super::{NODE, apply};
use crate::cluster::{Namespace, outrigger, program, try_kubectl, until};
use crate::install::installed;
use crate::pods;

/// The program of the other webhooks, and its certificate.
struct Others {
    _process: Process,
    url: String,
    bundle: String,
    _folder: tempfile::TempDir,
}

impl Others {
    fn start() -> Others {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        outrigger(&["certs", "--dns", NODE, "--out", folder.path().to_str().unwrap()]);
        let any = format!("{NODE}:0");
        let (certificate, key) = (file("tls.crt"), file("tls.key"));
        let apps = program("apps");
        let process = Process::start(apps.to_str().unwrap(), &["mutate", &any, &certificate, &key], &[]);
        let address = until("a webhook that listens", || {
            let log = process.log();
            let address = log.lines().find_map(|line| line.strip_prefix("listening on "));
            address.map(str::to_owned).ok_or(log.clone())
        });
        let bundle = STANDARD.encode(std::fs::read(file("ca.crt")).unwrap());
        Others { _process: process, url: format!("https://{address}"), bundle, _folder: folder }
    }

    /// A webhook that sees the pods of namespaces with the label `when-what`.
    fn register(&self, when: &str, what: &str) -> Value {
        let asked = format!("{when}-{what}");
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": registration(when, what)},
            "webhooks": [{
                "name": "others.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "reinvocationPolicy": "IfNeeded",
                "clientConfig": {"url": format!("{}/{what}", self.url), "caBundle": self.bundle},
                "namespaceSelector": {"matchExpressions": [{"key": asked, "operator": "Exists"}]},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            }],
        })
    }
}

/// API servers call webhooks in the order of the names of their registrations; ours is `outrigger`.
fn registration(when: &str, what: &str) -> String {
    let letter = match when {
        "before" => "a",
        _ => "z",
    };
    format!("{letter}-{what}-others")
}

const WHEN: [&str; 2] = ["before", "after"];
const WHAT: [&str; 3] = ["add", "reverse", "strip"];

/// The registrations, which go when the test ends: each sees pods of namespaces that ask for it only.
struct Registered(Vec<String>);

impl Drop for Registered {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = try_kubectl(&["delete", "mutatingwebhookconfiguration", name], "");
        }
    }
}

/// A pod of a namespace that these webhooks see, beside ours.
fn pod(seen_by: &[(&str, &str)]) -> Value {
    let mut labels = json!({"istio-injection": "enabled"});
    for (when, what) in seen_by {
        labels[format!("{when}-{what}")] = json!("");
    }
    let namespace = Namespace::create("others", labels);
    let mut pod = pods::stored("pod");
    pod["metadata"]["annotations"] = json!({"example.org/own": "kept"});
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": 80, "path": "/"}});
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "second", "image": pods::IMAGE}));
    namespace.create_object(&pod).json()
}

/// What was injected, without what differs from pod to pod, and the order of the others' containers.
fn ours(pod: &Value) -> Value {
    let mut containers = pod["spec"]["initContainers"].clone();
    for container in containers.as_array_mut().unwrap() {
        container["volumeMounts"].take();
        if let Some(environment) = container["env"].as_array_mut() {
            let differs = ["ISTIO_META_OWNER", "ISTIO_META_APP_CONTAINERS"];
            environment.retain(|variable| !differs.iter().any(|name| variable["name"] == *name));
        }
    }
    containers
}

/// What the sidecar knows of the probes that it stands in for.
fn probers(pod: &Value) -> Value {
    let environment = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let probers = environment.iter().find(|variable| variable["name"] == "ISTIO_KUBE_APP_PROBERS");
    serde_json::from_str(probers.expect("probers")["value"].as_str().unwrap()).unwrap()
}

#[test]
fn a_pod_comes_out_right_whoever_else_changes_it_before_and_after() {
    installed();
    let others = Others::start();
    let all: Vec<_> = WHEN.iter().flat_map(|when| WHAT.map(|what| (*when, what))).collect();
    let _registered = Registered(all.iter().map(|(when, what)| registration(when, what)).collect());
    apply(all.iter().map(|(when, what)| others.register(when, what)).collect());
    // They are seen in the order in which they were written.
    let last = all.last().unwrap();
    assert_eq!(last, &("after", "strip"));
    until("the last registration", || {
        let pod = pod(&[*last]);
        let annotations = &pod["metadata"]["annotations"];
        if annotations.is_null() { Ok(()) } else { Err(annotations.to_string()) }
    });
    let nobody = pod(&[]);
    let before_all: Vec<_> = WHAT.map(|what| ("before", what)).to_vec();
    let after_all: Vec<_> = WHAT.map(|what| ("after", what)).to_vec();
    let singles = all.iter().map(|one| vec![*one]);
    for seen_by in singles.chain([before_all, after_all, all.clone()]) {
        let has = |what: &str| seen_by.iter().any(|(_, seen)| *seen == what);
        let pod = pod(&seen_by);
        // Once: the sidecar after what sets capture up. Nobody comes after the last one that takes annotations away.
        if seen_by.contains(&("after", "strip")) {
            assert_eq!(pods::names(&pod, "initContainers"), ["istio-init", "istio-proxy"], "{seen_by:?}");
            assert!(pod["metadata"]["annotations"].is_null(), "{seen_by:?}: {pod:#}");
        } else {
            assert!(pods::injected(&pod), "{seen_by:?}: {pod:#}");
        }
        let mut names = pods::names(&pod, "containers");
        names.sort_unstable();
        let expected: &[&str] = if has("add") { &["app", "other", "second"] } else { &["app", "second"] };
        assert_eq!(names, expected, "{seen_by:?}");
        // The sidecar asks for the probes in the kubelet's stead, whoever brought their container.
        let probed: &[(&str, &str)] = &[("app", "/"), ("other", "/ready")][..expected.len() - 1];
        let probers = probers(&pod);
        assert_eq!(probers.as_object().unwrap().len(), probed.len(), "{seen_by:?}: {probers}");
        for (name, path) in probed {
            let container = pod["spec"]["containers"].as_array().unwrap().iter().find(|c| c["name"] == *name);
            let to_sidecar = format!("/app-health/{name}/readyz");
            assert_eq!(container.unwrap()["readinessProbe"]["httpGet"]["path"], to_sidecar, "{seen_by:?}");
            assert_eq!(probers[&to_sidecar]["httpGet"]["path"], *path, "{seen_by:?}");
        }
        if !has("add") {
            assert_eq!(ours(&pod), ours(&nobody), "{seen_by:?}");
        }
        assert_eq!(pod["metadata"]["annotations"]["example.org/own"].is_null(), has("strip"), "{seen_by:?}");
    }
}
