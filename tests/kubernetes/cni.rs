//! Capture from the node: pods under Pod Security `restricted`, whose containers have no capability at all.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::cluster::{Namespace, folder, kubectl, outrigger, repository, until};
use crate::pods::{container_status, names};
use crate::traffic::{ECHO, UNTIL_SIGTERM, count_bytes, running};

/// The pod as an author writes it for `restricted`, injected for the plugin.
fn injected(mut pod: Value) -> Value {
    pod["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}});
    pod["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(pod.to_string().as_bytes()).expect("written");
    let file = file.path().to_str().expect("a path");
    let set = ["--set", "pilot.cni.enabled=true", "--set", "imagePullPolicy=IfNotPresent"];
    let arguments = [&["inject", "-f", file, "--format", "json"][..], &set].concat();
    let pod = outrigger(&arguments).json();
    assert_eq!(names(&pod, "initContainers"), ["istio-validation", "istio-proxy"]);
    pod
}

/// A pod that has ended, whether well or not.
fn ended(namespace: &Namespace, name: &str) -> Value {
    until("the end of the pod", || {
        let pod = namespace.get("pod", name);
        match pod["status"]["phase"].as_str() {
            Some("Failed" | "Succeeded") => Ok(pod),
            phase => Err(format!("{phase:?}")),
        }
    })
}

#[test]
fn without_net_admin_the_node_captures_and_a_node_that_does_not_fails_the_pod() {
    kubectl(&["delete", "--filename", &repository("manifests/cni"), "--ignore-not-found"]); // of an earlier run that failed
    let namespace = Namespace::create("cni", json!({"pod-security.kubernetes.io/enforce": "restricted"}));
    let once = |name: &str| {
        let mut pod = injected(running(name, &["true"]));
        pod["spec"]["restartPolicy"] = json!("Never");
        namespace.create_object(&pod);
        ended(&namespace, name)
    };

    // The node has no plugin.
    let pod = once("early");
    assert_eq!(pod["status"]["phase"], "Failed");
    let check = &container_status(&pod, "istio-validation")["state"]["terminated"];
    assert_eq!(check["exitCode"], 126, "{check:#}");
    let log = namespace.kubectl(&["logs", "early", "-c", "istio-validation"]).stdout;
    assert!(log.contains("the CNI plugin outrigger-cni was not there"), "{log}");
    let app = container_status(&pod, "app");
    assert!(app["state"]["waiting"].is_object(), "the application never ran: {app:#}");

    // As an installation brings it, whose settings leave capture to it.
    let own = Namespace::create("node", json!({}));
    let which = ["--revision", "node", "--namespace", &own.name];
    let said = outrigger(&[&["install", "--cni", "--replicas=1", "--apply"], &which[..]].concat()).stderr;
    assert!(said.contains("rolled out  DaemonSet outrigger-cni/outrigger-cni: "), "{said}");
    let sent = Namespace::create("pods", json!({"istio.io/rev": "node"}));
    let created = sent.create_object(&crate::pods::stored("sent")).json();
    assert_eq!(names(&created, "initContainers"), ["istio-validation", "istio-proxy"]);
    let said = outrigger(&[&["uninstall", "--apply"], &which[..]].concat()).stderr;
    assert!(said.contains("left        DaemonSet outrigger-cni/outrigger-cni"), "{said}");
    // A runtime reads a changed list on its own time, which only a pod can tell.
    let mut asked = 0;
    until("a pod that the node captures", || {
        asked += 1;
        let pod = once(&format!("ask-{asked}"));
        if pod["status"]["phase"] == "Succeeded" { Ok(()) } else { Err("it was not captured".to_owned()) }
    });

    namespace.create_object(&injected(running("echo", &ECHO)));
    namespace.create_object(&injected(running("client", &UNTIL_SIGTERM)));
    for pod in ["echo", "client"] {
        namespace.wait("condition=Ready", &format!("pod/{pod}"));
        let log = namespace.kubectl(&["logs", pod, "-c", "istio-validation"]).stdout;
        assert!(log.contains("self-test passed"), "{log}");
    }
    count_bytes(&namespace);

    kubectl(&["delete", "--filename", &repository("manifests/cni")]);
    // Of somebody else's cluster, the node's folders are not to be seen from here.
    let list = folder().join("cni/10-bridge.conflist");
    if let Ok(list) = std::fs::read_to_string(list) {
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let types: Vec<&Value> =
            list["plugins"].as_array().expect("a list").iter().map(|p| &p["type"]).collect();
        assert_eq!(types, ["bridge", "portmap"]);
        assert!(!folder().join("cni-bin/outrigger-cni").exists());
    }
}
