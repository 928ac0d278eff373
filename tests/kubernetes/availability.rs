//! Many pods at once, replicas that come and go, and a webhook that is away.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::cluster::{dry_run, until};
use crate::install::{Installation, rolled_out};
use crate::pods;

/// Clients that create pods at the same time, and how many pods each of them creates.
const CLIENTS: usize = 4;
const EACH: usize = 250;

#[test]
fn a_thousand_pods_come_in_while_the_webhook_is_rolled_out_anew() {
    let installation = Installation::new("rolling", 2, json!({}));
    let namespace = installation.pods();
    let list = |client: usize| {
        let items: Vec<Value> = (0..EACH).map(|n| pods::stored(&format!("pod-{client}-{n}"))).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    };
    std::thread::scope(|scope| {
        let create = |client| {
            let (namespace, pods) = (&namespace, list(client));
            move || namespace.try_kubectl(&["create", "--filename=-", "--output=name"], &pods)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(create(client))).collect();
        // In the middle of it all replicas are replaced, as by an upgrade.
        until("the first pods", || {
            let pods = namespace.try_kubectl(&["get", "pods", "--output=name"], "")?.stdout;
            if pods.is_empty() { Err("there are none".to_owned()) } else { Ok(()) }
        });
        installation.namespace.kubectl(&["rollout", "restart", &format!("deployment/{}", installation.name)]);
        for client in clients {
            client.join().expect("it ends").unwrap_or_else(|error| panic!("pods were refused: {error}"));
        }
    });
    rolled_out(&installation.namespace.name, &installation.name);
    let stored = namespace.kubectl(&["get", "pods", "--output=json"]).json();
    let stored = stored["items"].as_array().unwrap();
    assert_eq!(stored.len(), CLIENTS * EACH);
    let left = stored.iter().filter(|pod| !pods::injected(pod)).count();
    assert_eq!(left, 0, "pods without a sidecar");
}

#[test]
fn while_the_webhook_is_away_pods_that_ask_are_refused_and_it_comes_back_by_itself() {
    let installation = Installation::new("away", 1, json!({}));
    let namespace = installation.pods();
    let deployment = format!("deployment/{}", installation.name);
    installation.namespace.kubectl(&["scale", &deployment, "--replicas=0"]);
    let pod = pods::stored("asks");
    until("a pod that is refused", || match dry_run(&namespace.name, &pod) {
        Err(error) if error.contains("failed calling webhook") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err("it was let in".to_owned()),
    });
    // Whoever does not ask is not affected: other namespaces, those of the system, and pods that refuse.
    let mut refuses = pods::stored("refuses");
    refuses["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "false"});
    for (place, pod) in [
        (namespace.name.as_str(), &refuses),
        ("default", &pods::stored("elsewhere")),
        ("kube-system", &pods::stored("system")),
    ] {
        let pod = dry_run(place, pod);
        assert!(!pods::injected(&pod.unwrap_or_else(|error| panic!("{place}: {error}")).json()), "{place}");
    }
    installation.namespace.kubectl(&["scale", &deployment, "--replicas=1"]);
    rolled_out(&installation.namespace.name, &installation.name);
    until("an injected pod", || {
        let pod = dry_run(&namespace.name, &pod)?.json();
        if pods::injected(&pod) { Ok(()) } else { Err("no sidecar".to_owned()) }
    });
}

#[test]
fn what_came_of_pods_is_told_on_their_owner() {
    let installation = Installation::new("telling", 1, json!({}));
    let namespace = installation.pods();
    let deployment = |name: &str, labels: Value, network: bool| {
        let mut all = labels;
        all["app"] = json!(name);
        let mut template = pods::template(&all);
        template["spec"]["hostNetwork"] = json!(network);
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": name}}, "template": template},
        })
    };
    namespace.create_object(&deployment("web", json!({}), false));
    namespace.create_object(&deployment("node", json!({"sidecar.istio.io/inject": "true"}), true));
    for (app, kind, reason, message) in [
        ("web", "Normal", "SidecarInjected", "(policy_enabled)"),
        ("node", "Warning", "SidecarNotInjected", "host_network"),
    ] {
        let set = until("a ReplicaSet", || {
            let select = ["get", "replicasets", "--selector", &format!("app={app}"), "--output=json"];
            let list = namespace.try_kubectl(&select, "")?.json();
            list["items"].as_array().and_then(|items| items.first().cloned()).ok_or("none".to_owned())
        });
        let name = set["metadata"]["name"].as_str().unwrap();
        let about = format!("involvedObject.name={name},reason={reason}");
        // Three pods, one Event.
        let event = namespace.event(&about, 3);
        assert_eq!(
            (event["type"].as_str(), event["involvedObject"]["uid"].as_str()),
            (Some(kind), set["metadata"]["uid"].as_str())
        );
        assert!(event["message"].as_str().unwrap().contains(message), "{event}");
    }
}

/// Ends the replica in a pod by SIGKILL, as the kernel does where memory is short: nothing is said to anybody.
fn kill_without_notice(pod: &str) {
    let name = format!("HOSTNAME={pod}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let process = processes.into_iter().find(|process| {
        let variables = std::fs::read(process.join("environ")).unwrap_or_default();
        let program = std::fs::read_link(process.join("exe")).unwrap_or_default();
        program.ends_with("outrigger") && variables.split(|byte| *byte == 0).any(|v| v == name.as_bytes())
    });
    let process = process.unwrap_or_else(|| panic!("the process of {pod} is not on this machine"));
    let number = process.file_name().unwrap();
    assert!(Command::new("kill").arg("-KILL").arg(number).status().unwrap().success());
}

#[test]
fn pods_come_in_though_replicas_are_killed_without_notice() {
    let installation = Installation::new("killed", 3, json!({}));
    let namespace = installation.pods();
    let stop = AtomicBool::new(false);
    // A client tries again, as controllers do by themselves; what it was told is counted.
    let create = |client: usize| {
        let (mut pods, mut refusals) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let pod = pods::stored(&format!("pod-{client}-{pods}")).to_string();
            match namespace.try_kubectl(&["create", "--filename=-", "--output=name"], &pod) {
                Ok(_) => pods += 1,
                Err(error) => refusals.push(error),
            }
        }
        (pods, refusals)
    };
    let set = |name: &str| {
        let labels = json!({"app": name});
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
            "spec": {"replicas": 50, "selector": {"matchLabels": labels}, "template": pods::template(&labels)},
        })
    };
    let made = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || create(client))).collect();
        for (round, pod) in installation.replicas().into_iter().enumerate() {
            namespace.create_object(&set(&format!("set-{round}")));
            kill_without_notice(&pod);
            until("a replica that is back", || {
                let status = installation.get("pod", &pod)?["status"]["containerStatuses"][0].clone();
                let back = status["restartCount"] == 1 && status["ready"] == true;
                if back { Ok(()) } else { Err(status.to_string()) }
            });
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("it ends")).collect::<Vec<_>>()
    });
    let pods: usize = made.iter().map(|(pods, _)| pods).sum();
    let refusals: Vec<&String> = made.iter().flat_map(|(_, refusals)| refusals).collect();
    // What controllers were told is in their Events; they have tried again by themselves.
    let failed = ["get", "events", "--field-selector=reason=FailedCreate", "--output=json"];
    let failed = namespace.kubectl(&failed).json()["items"].take();
    let failed: u64 = failed.as_array().unwrap().iter().filter_map(|event| event["count"].as_u64()).sum();
    println!(
        "{pods} pods of clients and 150 of ReplicaSets; {} and {failed} refused at first",
        refusals.len()
    );
    for refusal in refusals {
        assert!(refusal.contains("failed calling webhook"), "{refusal}");
    }
    let stored = until("all pods of the ReplicaSets", || {
        let stored = namespace.kubectl(&["get", "pods", "--output=json"]).json()["items"].take();
        let stored = stored.as_array().unwrap().clone();
        if stored.len() == pods + 150 { Ok(stored) } else { Err(format!("{} pods", stored.len())) }
    });
    assert_eq!(stored.iter().filter(|pod| !pods::injected(pod)).count(), 0, "pods without a sidecar");
}
