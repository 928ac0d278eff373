//! `outrigger check` and `outrigger repair` on a real installation.

use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::cluster::{Namespace, kubectl, outrigger, run_outrigger, try_kubectl, until};
use crate::install::Installation;
use crate::pods;

/// The line of a report about one thing.
pub(crate) fn line<'a>(report: &'a Value, check: &str) -> &'a Value {
    let lines = report["lines"].as_array().unwrap();
    lines.iter().find(|line| line["check"] == check).unwrap_or_else(|| panic!("no {check} in {report:#}"))
}

/// How `outrigger check` ends for an installation, and its report.
pub(crate) fn check(installation: &Installation) -> (ExitStatus, Value) {
    let namespace = &installation.namespace.name;
    let which = ["--revision", &installation.revision, "--namespace", namespace, "--output=json"];
    let (status, output) = run_outrigger(&[&["check"], &which[..]].concat());
    (status, output.json())
}

/// A Deployment whose one pod can run.
fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    let container = json!({"name": "app", "image": pods::IMAGE, "command": ["sleep", "infinity"]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [container],
        }}},
    })
}

#[test]
fn what_missed_its_sidecar_is_found_and_restarted() {
    let installation = Installation::new("operated", 1, json!({}));
    let (status, report) = check(&installation);
    let nobody = line(&report, "injection");
    assert!(status.success() && nobody["state"] == "warning", "{report:#}");
    assert!(nobody["message"].as_str().unwrap().ends_with(", came back injected"), "{nobody}");

    // A pod of before the namespace asked for injection.
    let namespace = Namespace::create("before", json!({}));
    namespace.create_object(&deployment("web"));
    namespace.create_object(&deployment("kept"));
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "budget"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
    });
    namespace.create_object(&budget);
    for name in ["web", "kept"] {
        namespace.wait("condition=Available", &format!("deployment/{name}"));
    }
    kubectl(&["label", "namespace", &namespace.name, &format!("istio.io/rev={}", installation.revision)]);
    until("a budget that was counted", || {
        let budget = namespace.get("poddisruptionbudget", "budget");
        if budget["status"]["currentHealthy"] == 1 { Ok(()) } else { Err(budget["status"].to_string()) }
    });

    let (status, report) = check(&installation);
    assert!(status.success(), "{report:#}");
    for good in ["version", "kubelets", "permissions", "installation", "certificate", "settings", "injection"]
    {
        assert_eq!(line(&report, good)["state"], "ok", "{report:#}");
    }
    let missing = line(&report, "missing-sidecars");
    assert_eq!(missing["state"], "warning", "{missing}");
    for name in ["web", "kept"] {
        let title = format!("Deployment {}/{name}", namespace.name);
        assert!(missing["message"].as_str().unwrap().contains(&title), "{missing}");
    }

    let which = ["--revision", &installation.revision, "--namespace", &installation.namespace.name];
    let repair =
        |more: &[&str]| outrigger(&[&["repair", "--only", &namespace.name], &which[..], more].concat());
    let said = repair(&[]).stderr;
    assert!(said.contains("to be restarted") && said.contains("allows no disruption now"), "{said}");
    assert!(said.ends_with("nothing was changed; --restart restarts what is to be\n"), "{said}");
    let said = outrigger(&[&["repair", "--only", "kube-system"], &which[..]].concat()).stderr;
    assert_eq!(said, "no pod is without its sidecar, or with an old one\n");
    let stored = |name: &str| pods::injected(&namespace.pods(&format!("app={name}"))[0]);
    assert!(!stored("web") && !stored("kept"));

    let said = repair(&["--restart"]).stderr;
    assert!(said.contains("restarted"), "{said}");
    until("only the new pod", || match namespace.pods("app=web").as_slice() {
        [pod] if pods::injected(pod) => Ok(()),
        others => Err(format!("{} pods", others.len())),
    });
    assert!(!stored("kept"));
    let found = repair(&["--output=json"]).json();
    let names: Vec<_> = found.as_array().unwrap().iter().map(|workload| &workload["name"]).collect();
    assert_eq!(names, ["kept"]);

    // Nobody is there to ask: the check says so, and fails.
    let deployment = format!("deployment/{}", installation.name);
    installation.namespace.kubectl(&["scale", &deployment, "--replicas=0"]);
    until("a check that fails", || {
        let (status, report) = check(&installation);
        let states = ["replicas", "injection"].map(|check| line(&report, check)["state"].clone());
        if !status.success() && states == ["failed", "failed"] { Ok(()) } else { Err(format!("{report:#}")) }
    });
}

#[test]
fn the_controller_reports_until_it_is_let_to_restart_what_makes_the_pods() {
    // Pods of before the namespace asked for injection; one of them is nobody's.
    let before = Namespace::create("before", json!({}));
    before.create_object(&deployment("web"));
    let bare = before.create_object(&pods::stored("bare")).json();
    before.wait("condition=Available", "deployment/web");
    let namespace = Namespace::create("mended", json!({}));
    let report = ["--repair", "report"];
    let installation = Installation::applied(namespace, "mended", 1, json!({}), &report);
    installation.works();
    kubectl(&["label", "namespace", &before.name, "istio.io/rev=mended"]);
    let name = "outrigger-mended-repair";
    let apply = |repair: &str| {
        let which = ["--revision", "mended", "--namespace", &installation.namespace.name];
        let how = ["--replicas", "1", "--repair", repair];
        let objects = outrigger(&[&["install"], &which[..], &how].concat()).stdout;
        let mut objects: Vec<Value> = outrigger::manifest::split(objects.as_bytes())
            .iter()
            .filter_map(|document| document.parse().unwrap())
            .filter(|object: &Value| object["metadata"]["name"].as_str().unwrap().starts_with(name))
            .collect();
        // It looks again sooner than in five minutes.
        for object in objects.iter_mut().filter(|object| object["kind"] == "Deployment") {
            let arguments =
                object["spec"]["template"]["spec"]["containers"][0]["args"].as_array_mut().unwrap();
            let every = arguments.iter_mut().find(|argument| *argument == "300").unwrap();
            *every = json!("1");
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        try_kubectl(&["apply", "--filename=-"], &list.to_string()).expect("applied");
        crate::install::rolled_out(&installation.namespace.name, name);
    };
    let logs = || installation.namespace.try_kubectl(&["logs", &format!("deployment/{name}")], "");
    let says = |wanted: &str| {
        until(wanted, || match logs()?.stdout {
            log if log.contains(wanted) => Ok(()),
            log => Err(log),
        });
    };
    let (web, bare_pod) =
        (format!("Deployment {}/web: ", before.name), format!("Pod {}/bare: ", before.name));
    apply("report");
    says(&format!("{web}to be restarted"));
    says(&format!("{bare_pod}left"));
    let [pod] = before.pods("app=web").try_into().unwrap();
    assert!(!pods::injected(&pod) && pod["metadata"]["deletionTimestamp"].is_null());

    apply("restart");
    until("only the new pod", || match before.pods("app=web").as_slice() {
        [pod] if pods::injected(pod) => Ok(()),
        others => Err(format!("{} pods", others.len())),
    });
    says(&format!("{web}restarted"));
    says(&format!("{bare_pod}left"));
    assert_eq!(before.get("pod", "bare")["metadata"]["uid"], bare["metadata"]["uid"]);

    // It ends when it is told to, before it would be killed.
    let [pod] = installation.namespace.pods(&format!("app.kubernetes.io/name={name}")).try_into().unwrap();
    let pod = pod["metadata"]["name"].as_str().unwrap();
    let watched = installation
        .namespace
        .try_kubectl(&["delete", "pod", pod, "--grace-period=600", "--timeout=120s"], "");
    watched.expect("it ends by itself");
}
