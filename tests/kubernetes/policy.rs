//! The policy table: what the mesh's policy and a pod's own wish make of it, asserted on the stored pod.

use serde_json::json;

use crate::cluster::{Namespace, dry_run};
use crate::install::{Installation, installed};
use crate::pods;

/// What a pod's label or annotation `sidecar.istio.io/inject` may say.
const WISHES: [Option<&str>; 3] = [Some("true"), Some("false"), None];

/// Creates one pod for each wish, by label and by annotation, and asserts which of them were injected.
fn assert_table(policy: &str, namespace: &Namespace, expected: [bool; 3]) {
    for (wish, expected) in WISHES.into_iter().zip(expected) {
        for place in ["labels", "annotations"] {
            let name = format!("{}-{place}", wish.unwrap_or("omitted"));
            let mut pod = pods::stored(&name);
            if let Some(wish) = wish {
                pod["metadata"][place] = json!({"sidecar.istio.io/inject": wish});
            }
            let answer = namespace.create_object(&pod);
            let stored = namespace.get("pod", &name);
            assert_eq!(pods::injected(&stored), expected, "policy {policy}, {name}: {}", answer.stderr);
            assert_eq!(pods::names(&stored, "containers"), ["app"], "policy {policy}, {name}");
            let refused = wish == Some("true") && !expected;
            let warning =
                format!("although sidecar.istio.io/inject is \"true\": the mesh policy is {policy}");
            assert_eq!(
                answer.stderr.contains(&warning),
                refused,
                "policy {policy}, {name}: {}",
                answer.stderr
            );
        }
    }
}

#[test]
fn policy_enabled_injects_all_but_those_that_refuse() {
    installed();
    assert_table("enabled", &Namespace::injected("policy-enabled"), [true, false, true]);
}

#[test]
fn policy_disabled_injects_those_that_ask() {
    let installation = Installation::with_policy("disabled");
    assert_table("disabled", &installation.pods(), [true, false, false]);
}

#[test]
fn policy_off_injects_none() {
    let installation = Installation::with_policy("off");
    assert_table("off", &installation.pods(), [false, false, false]);
}

#[test]
fn a_namespace_without_the_label_injects_the_pods_that_ask_by_label() {
    installed();
    let namespace = Namespace::create("unlabelled", json!({}));
    for (wish, expected) in WISHES.into_iter().zip([true, false, false]) {
        let name = wish.unwrap_or("omitted");
        let mut pod = pods::stored(name);
        if let Some(wish) = wish {
            pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": wish});
        }
        namespace.create_object(&pod);
        assert_eq!(pods::injected(&namespace.get("pod", name)), expected, "{name}");
    }
}

#[test]
fn disabled_and_system_namespaces_are_left_alone() {
    installed();
    let mut pod = pods::stored("asks");
    pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "true"});
    let disabled = Namespace::create("disabled", json!({"istio-injection": "disabled"}));
    for namespace in [disabled.name.as_str(), "kube-system", "outrigger-system"] {
        let mut pod = pod.clone();
        // outrigger-system lets nothing else in.
        pod["spec"]["securityContext"] =
            json!({"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}});
        pod["spec"]["containers"][0]["securityContext"] =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let answer = dry_run(namespace, &pod).expect("a dry run");
        assert!(!pods::injected(&answer.json()), "{namespace}");
    }
}
