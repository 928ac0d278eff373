//! Settings that change while the replicas' API server is away. A kubelet brings a ConfigMap to its pods; here the test
//! does, by the same API server.

use serde_json::{Value, json};

use crate::cluster::{Namespace, dry_run, until};
use crate::install::Installation;
use crate::pods;

use super::api_server::start;
use super::{Beside, How, Replica};

/// Not the port of another test's API server.
const PORT: u16 = 6445;
const SERVER: &str = "https://127.0.0.1:6445";
const NOTE: &str = "test/settings";

/// Writes the ConfigMap, by the cluster's own API server.
fn change(beside: &Beside, text: &str) {
    let data = json!({"data": {"config.yaml": beside.text(text)}}).to_string();
    let Installation { name, namespace, .. } = &beside.installation;
    namespace.kubectl(&["patch", "configmap", name, "--patch", &data]);
}

/// What a kubelet does once in a minute.
fn bring(beside: &Beside) -> Result<(), String> {
    let Installation { name, namespace, .. } = &beside.installation;
    let server = format!("--server={SERVER}");
    let map: Value = namespace.try_kubectl(&["get", "configmap", name, &server, "--output=json"], "")?.json();
    beside.write(map["data"]["config.yaml"].as_str().expect("settings"));
    Ok(())
}

fn noted(note: &str) -> String {
    format!("policy: enabled\ninjectedAnnotations: {{{NOTE}: {note}}}\n")
}

/// The settings that a new pod is injected by.
fn in_force(namespace: &Namespace) -> String {
    let pod = dry_run(&namespace.name, &pods::stored("noted")).expect("a pod").json();
    assert!(pods::injected(&pod), "{pod:#}");
    pod["metadata"]["annotations"][NOTE].as_str().unwrap_or_default().to_owned()
}

fn reloads(replica: &Replica, result: &str) -> u64 {
    replica.metric(&format!("outrigger_settings_reloads_total{{result=\"{result}\"}}")).expect("a metric")
}

/// Waits until each replica has taken up, or refused, so many changes.
fn until_reloads(replicas: &[&Replica], result: &str, count: u64) {
    for replica in replicas {
        until(&format!("{count} changes: {result}"), || match reloads(replica, result) {
            found if found == count => Ok(()),
            found => Err(format!("{found} by {}", replica.identity)),
        });
    }
}

#[test]
fn settings_that_change_while_the_api_server_is_away_are_taken_up_when_it_is_back() {
    let api_server = start(PORT, &[]);
    let beside = Beside::new("settings");
    change(&beside, &noted("first"));
    bring(&beside).unwrap();
    let how = || How { server: Some(SERVER), ..How::default() };
    let first = beside.serving("first", &how());
    let second = beside.serving("second", &how());
    let both = [&first, &second];
    let namespace = beside.pods();
    assert_eq!(in_force(&namespace), "first");

    // Nobody brings the change. Pods come in by the settings of before.
    api_server.kill();
    change(&beside, &noted("second"));
    bring(&beside).unwrap_err();
    assert_eq!(in_force(&namespace), "first");
    for replica in both {
        assert_eq!(replica.get("/readyz").as_deref(), Ok("ok\n"), "{}", replica.process.log());
        assert_eq!((reloads(replica, "success"), reloads(replica, "failure")), (0, 0));
    }
    let api_server = start(PORT, &[]);
    bring(&beside).unwrap();
    until_reloads(&both, "success", 1);
    assert_eq!(in_force(&namespace), "second");

    // A broken one reaches them by another way: it is refused, though no Event can tell of it.
    api_server.kill();
    beside.write(&beside.text("policy: perhaps\n"));
    until_reloads(&both, "failure", 1);
    for replica in both {
        replica.said("changed settings refused");
        replica.said("cannot write an Event");
        assert_eq!(replica.metric("outrigger_settings_last_reload_successful"), Ok(0));
    }
    assert_eq!(in_force(&namespace), "second");

    // It is back, and so are good settings; the replicas are those that started.
    let _api_server = start(PORT, &[]);
    change(&beside, &noted("third"));
    bring(&beside).unwrap();
    until_reloads(&both, "success", 2);
    assert_eq!(in_force(&namespace), "third");
    for replica in both {
        assert_eq!(replica.metric("outrigger_settings_last_reload_successful"), Ok(1));
        assert_eq!(replica.count("serving"), replica.count("serving certificate") + 1);
    }
}
