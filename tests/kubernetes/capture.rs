//! Capture in pods: by each back end, run twice, and without the capability that it needs.

use serde_json::{Value, json};

use crate::cluster::{Namespace, dry_run, until};
use crate::install::installed;
use crate::pods::container_status;
use crate::traffic::{ECHO, UNTIL_SIGTERM, count_bytes, running};

/// outrigger-init with the tools of both iptables flavours; `tests/kubernetes/base-images` makes it.
const IMAGE: &str = "localhost/outrigger-init-iptables:test";

/// The pod as the webhook makes it, to be changed and then created where the webhook does not see it.
fn injected(namespace: &Namespace, pod: &Value) -> Value {
    let mut pod = dry_run(&namespace.name, pod).expect("injected").json();
    pod["metadata"] = json!({"name": pod["metadata"]["name"], "labels": pod["metadata"]["labels"]});
    pod
}

/// Its init container.
fn init(pod: &mut Value) -> &mut Value {
    let init = &mut pod["spec"]["initContainers"][0];
    assert_eq!(init["name"], "istio-init");
    init
}

/// What a container wrote.
fn log(namespace: &Namespace, pod: &str, container: &str) -> String {
    namespace.kubectl(&["logs", pod, "-c", container]).stdout
}

fn carries_traffic_by(backend: &str) {
    installed();
    let (webhook, plain) = (Namespace::injected("inject"), Namespace::create(backend, json!({})));
    for pod in [running("echo", &ECHO), running("client", &UNTIL_SIGTERM)] {
        let mut pod = injected(&webhook, &pod);
        let init = init(&mut pod);
        init["image"] = json!(IMAGE);
        init["args"].as_array_mut().expect("arguments").extend([json!("--backend"), json!(backend)]);
        if backend == "iptables-legacy" {
            init["securityContext"]["capabilities"]["add"] = json!(["NET_ADMIN", "NET_RAW"]);
        }
        plain.create_object(&pod);
    }
    for pod in ["echo", "client"] {
        plain.wait("condition=Ready", &format!("pod/{pod}"));
        let log = log(&plain, pod, "istio-init");
        assert!(log.contains(&format!("capture applied backend={backend} ")), "{log}");
    }
    count_bytes(&plain);
}

#[test]
fn nftables_carries_traffic() {
    carries_traffic_by("nftables");
}

#[test]
fn iptables_nft_carries_traffic() {
    carries_traffic_by("iptables-nft");
}

#[test]
fn iptables_legacy_carries_traffic() {
    carries_traffic_by("iptables-legacy");
}

#[test]
fn an_init_container_that_runs_again_changes_nothing() {
    installed();
    let (webhook, plain) = (Namespace::injected("inject"), Namespace::create("again", json!({})));
    for pod in [running("echo", &ECHO), running("client", &UNTIL_SIGTERM)] {
        let mut pod = injected(&webhook, &pod);
        let mut again = init(&mut pod).clone();
        again["name"] = json!("again");
        pod["spec"]["initContainers"].as_array_mut().expect("init containers").insert(1, again);
        plain.create_object(&pod);
    }
    for pod in ["echo", "client"] {
        plain.wait("condition=Ready", &format!("pod/{pod}"));
        let (first, second) = (log(&plain, pod, "istio-init"), log(&plain, pod, "again"));
        assert!(first.contains("capture applied"), "{first}");
        assert!(second.contains("capture is in place already"), "{second}");
    }
    count_bytes(&plain);
}

#[test]
fn without_net_admin_the_log_says_so() {
    installed();
    let (webhook, plain) = (Namespace::injected("inject"), Namespace::create("unprivileged", json!({})));
    let mut pod = injected(&webhook, &running("pod", &UNTIL_SIGTERM));
    init(&mut pod)["securityContext"]["capabilities"] = json!({"drop": ["ALL"]});
    pod["spec"]["restartPolicy"] = json!("Never");
    plain.create_object(&pod);
    let ended = until("the end of the init container", || {
        let pod = plain.get("pod", "pod");
        if pod["status"]["phase"] == "Failed" { Ok(pod) } else { Err(pod["status"]["phase"].to_string()) }
    });
    let terminated = &container_status(&ended, "istio-init")["state"]["terminated"];
    assert_eq!(terminated["exitCode"], 1, "{terminated:#}");
    let log = log(&plain, "pod", "istio-init");
    assert!(log.contains("NET_ADMIN"), "{log}");
}
