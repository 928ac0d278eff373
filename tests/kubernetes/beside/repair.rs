//! Each verb that the options `repair` and `repair-restart` grant is needed.

use serde_json::json;

use super::{API_SERVER, Beside, How, beside};
use crate::cluster::{Namespace, kubectl};
use crate::pods;

/// Role, resource, verb, and the kind of the workload whose repair needs it.
pub(super) type Right = (&'static str, &'static str, &'static str, &'static str);

/// All that these files grant.
pub(super) const RIGHTS: [(&str, &[Right]); 2] = [
    (
        "manifests/options/repair/repair.yaml",
        &[
            ("ClusterRole", "namespaces", "list", "Deployment"),
            ("ClusterRole", "mutatingwebhookconfigurations", "list", "Deployment"),
            ("ClusterRole", "pods", "list", "Deployment"),
            ("ClusterRole", "daemonsets", "get", "DaemonSet"),
            ("ClusterRole", "deployments", "get", "Deployment"),
            ("ClusterRole", "statefulsets", "get", "StatefulSet"),
            ("ClusterRole", "poddisruptionbudgets", "list", "Deployment"),
            ("Role", "configmaps", "get", "Deployment"),
        ],
    ),
    (
        "manifests/options/repair-restart/repair-restart.yaml",
        &[
            ("ClusterRole", "daemonsets", "patch", "DaemonSet"),
            ("ClusterRole", "deployments", "patch", "Deployment"),
            ("ClusterRole", "statefulsets", "patch", "StatefulSet"),
        ],
    ),
];

const KINDS: [&str; 3] = ["DaemonSet", "Deployment", "StatefulSet"];

/// A namespace with a workload of this kind, whose pod runs and came in before it could be injected.
fn missed(beside: &Beside, kind: &str) -> Namespace {
    let namespace = Namespace::create("missed", json!({}));
    let labels = json!({"app": "app"});
    let container = json!({"name": "app", "image": pods::IMAGE, "command": ["sleep", "infinity"]});
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    });
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "app"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    });
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!("app");
    }
    namespace.create_object(&object);
    let status = ["rollout", "status", &format!("{kind}/app"), "--timeout=120s", "--request-timeout=0"];
    namespace.kubectl(&status);
    let revision = format!("istio.io/rev={}", beside.installation.revision);
    kubectl(&["label", "namespace", &namespace.name, &revision]);
    namespace
}

/// What `outrigger repair` says, run by an account.
fn repair(installed: &Beside, account: &str, namespace: &Namespace, options: &[&str]) -> String {
    let kubeconfig = installed.kubeconfig(account, API_SERVER);
    let installation = &installed.installation;
    let which = ["--revision", &installation.revision, "--namespace", &installation.namespace.name];
    let mut command = beside("env");
    command.arg(format!("KUBECONFIG={}", kubeconfig.display())).arg(env!("CARGO_BIN_EXE_outrigger"));
    command.arg("repair").args(which).args(["--only", &namespace.name]).args(options);
    String::from_utf8(command.output().expect("it runs").stderr).expect("text")
}

#[test]
fn without_any_one_of_its_rights_repair_fails_and_names_it_and_with_all_it_restarts() {
    let installed = Beside::without("repairs", &["--repair", "restart"], &[]);
    let _webhook = installed.serving("replica", &How::default());
    let workloads: Vec<_> = KINDS.iter().map(|kind| (*kind, missed(&installed, kind))).collect();
    let namespace = |kind: &str| &workloads.iter().find(|(known, _)| *known == kind).unwrap().1;
    let own = format!("{}-repair", installed.installation.name);
    let without = |number: usize, (_, resource, verb, kind): Right| {
        let account = format!("{}-{number}", installed.installation.name);
        installed.account_like(&own, &account, &[(resource, verb)]);
        let said = repair(&installed, &account, namespace(kind), &["--restart"]);
        let refusal = format!("cannot {verb} resource \"{resource}\"");
        assert!(said.contains(&refusal), "{resource} {verb}: {said}");
    };
    std::thread::scope(|scope| {
        for (number, right) in RIGHTS.iter().flat_map(|(_, rights)| *rights).enumerate() {
            let without = &without;
            scope.spawn(move || without(number, *right));
        }
    });
    installed.account_like(&own, &own, &[]);
    for kind in KINDS {
        let said = repair(&installed, &own, namespace(kind), &[]);
        assert!(said.contains("to be restarted") && !said.contains("forbidden"), "{said}");
        let said = repair(&installed, &own, namespace(kind), &["--restart"]);
        assert!(said.contains("restarted") && !said.contains("forbidden"), "{said}");
        let object = namespace(kind).get(kind, "app");
        let at = &object["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"];
        assert!(at.is_string(), "{object:#}");
    }
}
