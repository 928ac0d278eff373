//! Installing by each way, upgrading, two revisions side by side, tags, and taking an installation away.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{
    Namespace, beside_node, dry_run, kubectl, outrigger, program, repository, run_outrigger, try_kubectl,
    until,
};
use crate::install::{bundles, installed};
use crate::pods;
use crate::stream::Stream;
use crate::traffic::{UNTIL_SIGTERM, running};

const REGISTRATION: &str = "mutatingwebhookconfiguration";

/// Runs Helm beside the cluster.
fn helm(arguments: &[&str]) -> String {
    let output = beside_node(program("helm")).args(arguments).output().expect("helm starts");
    assert!(output.status.success(), "helm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The revision that a new pod of a namespace is injected by; by dry run.
fn revision_in(namespace: &Namespace) -> Result<String, String> {
    let pod = dry_run(&namespace.name, &pods::stored("asked"))?.json();
    let status = pod["metadata"]["annotations"]["sidecar.istio.io/status"].as_str().unwrap_or("{}");
    let status: Value = serde_json::from_str(status).unwrap();
    Ok(status["revision"].as_str().unwrap_or("none").to_owned())
}

/// Waits until new pods of a namespace are injected by a revision: labels and registrations are seen a moment later.
fn until_injected_by(namespace: &Namespace, revision: &str) {
    until(&format!("injection by {revision}"), || match revision_in(namespace)? {
        found if found == revision => Ok(()),
        other => Err(format!("by {other}")),
    });
}

#[test]
fn an_installation_is_applied_works_and_leaves_its_pods_when_it_goes() {
    let namespace = Namespace::create("applied", json!({}));
    let which = ["--revision", "applied", "--namespace", &namespace.name];
    let install = [&["install", "--replicas", "1"], &which[..]].concat();

    let said = outrigger(&[&install[..], &["--dry-run=server"]].concat()).stderr;
    assert!(said.contains("created     Deployment") && said.contains("nothing is stored"), "{said}");
    assert!(try_kubectl(&["get", REGISTRATION, "outrigger-applied"], "").is_err(), "{said}");

    let said = outrigger(&[&install[..], &["--apply"]].concat()).stderr;
    assert!(said.contains("rolled out  ") && said.contains("works       "), "{said}");
    let pods = Namespace::create("pods", json!({"istio.io/rev": "applied"}));
    pods.create_object(&running("stays", &UNTIL_SIGTERM));
    pods.wait("condition=Ready", "pod/stays");
    let before = bundles("outrigger-applied");
    assert!(before.iter().all(|bundle| !bundle.is_empty()), "{before:?}");

    let said = outrigger(&[&install[..], &["--apply"]].concat()).stderr;
    assert!(!said.contains("created") && !said.contains("configured"), "{said}");
    assert_eq!(bundles("outrigger-applied"), before);

    let said = outrigger(&[&["uninstall", "--apply"], &which[..]].concat()).stderr;
    let first = said.lines().next().unwrap();
    assert_eq!(first, "deleted     MutatingWebhookConfiguration outrigger-applied");
    let farewell = format!(
        "1 pod has a sidecar of revision applied and keeps it, working, until restarted: {} (1).",
        pods.name
    );
    assert!(said.contains(&farewell), "{said}");
    let left = [
        "get",
        "all,configmap,role,rolebinding,serviceaccount,poddisruptionbudget,lease,secret",
        "--output=name",
    ];
    let label = ["--selector", "app.kubernetes.io/name=outrigger-applied"];
    until("nothing to be left", || {
        let left = namespace.try_kubectl(&[&left[..], &label].concat(), "")?.stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    for kind in ["clusterrole", "clusterrolebinding", REGISTRATION] {
        assert!(try_kubectl(&["get", kind, "outrigger-applied"], "").is_err(), "{kind}");
    }
    let stays = pods.get("pod", "stays");
    assert!(pods::injected(&stays));
    for status in [pods::container_status(&stays, "istio-proxy"), pods::container_status(&stays, "app")] {
        assert_eq!((&status["ready"], &status["restartCount"]), (&json!(true), &json!(0)), "{status:#}");
    }
    assert_eq!(revision_in(&pods).unwrap(), "none");
}

/// The uids of the webhook's pods, when there are so many and none is going.
fn webhooks(namespace: &Namespace, name: &str, count: usize) -> BTreeSet<String> {
    until("all replicas", || {
        let deployment = namespace.get("deployment", name);
        let seen = deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"];
        let pods = namespace.pods(&format!("app.kubernetes.io/name={name}"));
        let staying = pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        if seen && staying && pods.len() == count {
            Ok(pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect())
        } else {
            Err(format!("{} of {count}", pods.len()))
        }
    })
}

#[test]
fn an_autoscaler_takes_over_as_many_replicas_as_there_are() {
    let namespace = Namespace::create("scaled", json!({}));
    let which = ["--revision", "scaled", "--namespace", &namespace.name, "--replicas", "2", "--apply"];
    outrigger(&[&["install"], &which[..]].concat());
    let before = webhooks(&namespace, "outrigger-scaled", 2);
    outrigger(&[&["install", "--with", "hpa"], &which[..]].concat());
    assert_eq!(webhooks(&namespace, "outrigger-scaled", 2), before);
    let deployment =
        namespace.kubectl(&["get", "deployment/outrigger-scaled", "--output=json", "--show-managed-fields"]);
    let deployment = deployment.json();
    let managers = deployment["metadata"]["managedFields"].as_array().unwrap();
    let of_replicas: Vec<_> = managers
        .iter()
        .filter(|entry| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some())
        .map(|entry| entry["manager"].as_str().unwrap())
        .collect();
    assert!(!of_replicas.is_empty() && !of_replicas.contains(&"outrigger"), "{of_replicas:?}");
    outrigger(&["uninstall", "--revision", "scaled", "--namespace", &namespace.name, "--apply"]);
}

#[test]
fn helm_installs_upgrades_and_uninstalls() {
    let namespace = Namespace::create("helm", json!({}));
    let chart = repository("charts/outrigger");
    let values =
        ["--namespace", &namespace.name, "--set", "revision=helm,tags={blue}", "--wait", "--timeout=120s"];
    helm(&[&["install", "outrigger", &chart, "--set", "replicas=1"], &values[..]].concat());
    let [by_revision, by_tag] =
        ["helm", "blue"].map(|name| Namespace::create("pods", json!({"istio.io/rev": name})));
    for pods in [&by_revision, &by_tag] {
        until_injected_by(pods, "helm");
    }
    let before = [bundles("outrigger-helm"), bundles("outrigger-tag-blue")];
    helm(&[&["upgrade", "outrigger", &chart, "--set", "replicas=2"], &values[..]].concat());
    assert_eq!([bundles("outrigger-helm"), bundles("outrigger-tag-blue")], before);
    let replicas = &namespace.get("deployment", "outrigger-helm")["spec"]["replicas"];
    assert_eq!(*replicas, json!(2));
    assert_eq!(revision_in(&by_tag).unwrap(), "helm");
    // An autoscaler takes over as many as there are.
    let before = webhooks(&namespace, "outrigger-helm", 2);
    helm(&[&["upgrade", "outrigger", &chart, "--set", "replicas=2,hpa=true"], &values[..]].concat());
    assert_eq!(webhooks(&namespace, "outrigger-helm", 2), before);
    helm(&["uninstall", "outrigger", "--namespace", &namespace.name]);
    assert_eq!(revision_in(&by_revision).unwrap(), "none");
}

#[test]
fn a_namespace_and_a_tag_move_between_two_revisions() {
    installed();
    kubectl(&["apply", "--kustomize", &repository("overlays/canary")]);
    let namespace = Namespace::injected("moves");
    until_injected_by(&namespace, "default");
    kubectl(&["label", "namespace", &namespace.name, "istio-injection-", "istio.io/rev=canary"]);
    until_injected_by(&namespace, "canary");
    kubectl(&["label", "namespace", &namespace.name, "istio.io/rev-", "istio-injection=enabled"]);
    until_injected_by(&namespace, "default");

    let tag = ["install", "--tag", "prod", "--apply"];
    outrigger(&tag);
    let tagged = Namespace::create("tagged", json!({"istio.io/rev": "prod"}));
    until_injected_by(&tagged, "default");
    // Its pods come in while it moves.
    let stream = Stream::start(Namespace::create("stream", json!({"istio.io/rev": "prod"})));
    outrigger(&[&tag[..], &["--revision", "canary"]].concat());
    until_injected_by(&tagged, "canary");
    assert!(stream.finish() > 0);

    let refused = run_outrigger(&["uninstall", "--revision", "canary", "--apply"]);
    let (success, refused) = (refused.0.success(), refused.1.stderr);
    assert!(!success && refused.contains("tags point to revision canary: prod"), "{refused}");
    until_injected_by(&tagged, "canary");
    outrigger(&["uninstall", "--tag", "prod", "--apply"]);
    outrigger(&["uninstall", "--revision", "canary", "--apply"]);
    assert_eq!(revision_in(&tagged).unwrap(), "none");
    until_injected_by(&namespace, "default");
}

#[test]
fn an_installation_of_before_is_upgraded_while_pods_come_in() {
    let namespace = Namespace::create("before", json!({}));
    let name = format!("outrigger-before.{}.svc", namespace.name);
    let made = tempfile::tempdir().unwrap();
    let file = |name: &str| made.path().join(name).display().to_string();
    // As its administrator made it: a certificate in a Secret, and its CA in the registration.
    outrigger(&["certs", "--dns", &name, "--out", made.path().to_str().unwrap()]);
    let (certificate, key) = (format!("--cert={}", file("tls.crt")), format!("--key={}", file("tls.key")));
    namespace.kubectl(&["create", "secret", "tls", "outrigger-before-certificate", &certificate, &key]);
    let objects = std::fs::read_to_string(repository("tests/fixtures/installed/before.yaml")).unwrap();
    try_kubectl(&["apply", "--filename=-"], &objects.replace("NAMESPACE", &namespace.name)).expect("applied");
    let bundle = STANDARD.encode(std::fs::read(file("ca.crt")).unwrap());
    let trust = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]);
    kubectl(&["patch", REGISTRATION, "outrigger-before", "--type=json", "--patch", &trust.to_string()]);
    namespace.kubectl(&["rollout", "status", "deployment/outrigger-before", "--timeout=120s"]);
    let pods = Namespace::create("pods", json!({"istio.io/rev": "before"}));
    until_injected_by(&pods, "before");

    let stream = Stream::start(pods);
    let which = ["--revision", "before", "--namespace", &namespace.name, "--replicas", "1"];
    let said = outrigger(&[&["install", "--apply"], &which[..]].concat()).stderr;
    assert!(stream.finish() > 0);
    assert!(said.contains("configured  Deployment"), "{said}");
    // What is no longer applied is gone, though kubectl wrote it.
    let budget = &namespace.get("poddisruptionbudget", "outrigger-before")["spec"];
    assert_eq!((&budget["maxUnavailable"], &budget["minAvailable"]), (&json!(1), &Value::Null));
    let deployment = namespace.get("deployment", "outrigger-before");
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["projected"].is_null()), "{volumes:?}");
    let webhooks = bundles("outrigger-before");
    assert!(webhooks.len() == 2 && webhooks.iter().all(|bundle| !bundle.is_empty()), "{webhooks:?}");
    for kind in [REGISTRATION, "clusterrolebinding", "clusterrole"] {
        kubectl(&["delete", kind, "outrigger-before"]);
    }
}
