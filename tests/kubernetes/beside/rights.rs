//! Each verb that the manifests grant is needed: without it, something that can be named fails, and the log says which
//! verb of which resource is missing. With all of them nothing is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Beside, How, Replica, repair, replica};
use crate::certificate::{kept, renewed};
use crate::cluster::{Namespace, until};
use crate::pods;

/// What is done to a replica so that it needs a right.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    /// It is started where there is no Lease and no Secret.
    Start,
    /// The same, where a signer of the cluster is to sign its certificate.
    Signer,
    /// A workload has two pods that are injected.
    Pods,
    /// Its settings become such as are refused.
    Settings,
    /// The next certificate is asked for.
    Rotate,
}

/// Role, resource, verb; what needs it; and the message of the log line that names both, if it is missing.
type Right = (&'static str, &'static str, &'static str, Act, &'static str);

const KEEP: &str = "cannot keep the certificate";
const LEASE: &str = "cannot ask for the Lease";
const WATCH: &str = "a watch begins again";
const NAMESPACES: &str = "the watch of namespaces begins again";
const EVENT: &str = "cannot write an Event";
const CONFIGMAP: &str = "cannot read the ConfigMap of the settings";
const REGISTRATIONS: &str = "mutatingwebhookconfigurations";

/// All that files of the repository grant.
const RIGHTS: [(&str, &[Right]); 2] = [
    (
        "manifests/1-access.yaml",
        &[
            ("ClusterRole", "namespaces", "list", Act::Start, NAMESPACES),
            ("ClusterRole", "namespaces", "watch", Act::Start, NAMESPACES),
            ("ClusterRole", "events", "create", Act::Pods, EVENT),
            ("ClusterRole", "events", "patch", Act::Pods, EVENT),
            ("ClusterRole", REGISTRATIONS, "list", Act::Start, KEEP),
            ("ClusterRole", REGISTRATIONS, "watch", Act::Start, WATCH),
            ("ClusterRole", REGISTRATIONS, "patch", Act::Start, KEEP),
            ("Role", "secrets", "get", Act::Start, KEEP),
            ("Role", "secrets", "list", Act::Start, WATCH),
            ("Role", "secrets", "watch", Act::Start, WATCH),
            ("Role", "secrets", "update", Act::Start, KEEP),
            ("Role", "secrets", "create", Act::Start, KEEP),
            ("Role", "leases", "get", Act::Start, LEASE),
            ("Role", "leases", "update", Act::Start, LEASE),
            ("Role", "leases", "create", Act::Start, LEASE),
            ("Role", "endpointslices", "list", Act::Rotate, KEEP),
            ("Role", "configmaps", "get", Act::Settings, CONFIGMAP),
        ],
    ),
    (
        "certs/signer/signer.yaml",
        &[
            ("ClusterRole", "certificatesigningrequests", "get", Act::Signer, KEEP),
            ("ClusterRole", "certificatesigningrequests", "create", Act::Signer, KEEP),
        ],
    ),
];

/// Whether a log has a line of this message that names the right, as API servers do where they refuse.
fn refused(log: &str, resource: &str, verb: &str, message: &str) -> bool {
    let refusal = format!("cannot {verb} resource \"{resource}\"");
    replica::lines(log).any(|line| {
        let why = ["error", "problem"].map(|field| line[field].as_str().unwrap_or_default());
        line["message"].as_str().is_some_and(|text| text.starts_with(message))
            && why.iter().any(|text| text.contains(&refusal))
    })
}

/// Two pods of one workload, which are stored and never run.
fn two_pods(namespace: &Namespace) {
    let labels = json!({"app": "two"});
    namespace.create_object(&json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "two"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": pods::template(&labels)},
    }));
}

const BROKEN: &str = "policy: perhaps\n";

/// Starts a replica without a right, and has it do what needs that right; its log says what is missing.
fn without(number: usize, (_, resource, verb, act, message): Right) {
    const SIGNER: [&str; 4] =
        ["--certificate-signer", "signer.test/rights", "--certificate-authority", "/nowhere/ca.crt"];
    let signer = if act == Act::Signer { &SIGNER[..2] } else { &[] };
    let beside = Beside::without(&format!("right-{number}"), signer, &[(resource, verb)]);
    let says = |replica: &Replica| {
        until(&format!("{message:?}, as {verb} on {resource} is missing"), || {
            let log = replica.process.log();
            if refused(&log, resource, verb, message) { Ok(()) } else { Err(log) }
        });
    };
    match act {
        Act::Start => return says(&beside.start("replica", &How::default())),
        Act::Signer => return says(&beside.start("replica", &How { options: &SIGNER, ..How::default() })),
        Act::Pods | Act::Settings | Act::Rotate => {}
    }
    let replica = beside.serving("replica", &How::default());
    let mut namespaces = Vec::new();
    match act {
        Act::Pods => {
            let namespace = beside.pods();
            two_pods(&namespace);
            namespaces.push(namespace);
        }
        Act::Settings => beside.settings(BROKEN),
        Act::Rotate => beside.rotate(),
        Act::Start | Act::Signer => unreachable!("it has started"),
    }
    says(&replica);
}

/// With all rights everything of that works, and nothing is refused.
fn with_all() {
    let beside = Beside::new("rights");
    let replica = beside.serving("replica", &How::default());
    let (installation, namespace) = (&beside.installation, beside.pods());
    let before = kept(installation).unwrap();
    two_pods(&namespace);
    namespace.event("involvedObject.name=two,reason=SidecarInjected", 2);
    beside.settings(BROKEN);
    let about = format!("involvedObject.kind=ConfigMap,involvedObject.name={}", installation.name);
    let told = installation.namespace.event(&about, 1);
    let map = installation.get("configmap", &installation.name).unwrap();
    assert_eq!(told["involvedObject"]["uid"], map["metadata"]["uid"]);
    beside.rotate();
    renewed(installation, &before);
    let log = replica.process.terminate();
    assert_eq!(beside.lease().unwrap()["holderIdentity"], "", "{log}");
    assert!(!log.contains("forbidden") && !log.contains("cannot"), "{log}");
}

#[test]
fn without_any_one_of_its_rights_something_fails_that_names_it_and_with_all_nothing_does() {
    std::thread::scope(|scope| {
        scope.spawn(with_all);
        for (number, right) in RIGHTS.iter().flat_map(|(_, rights)| *rights).enumerate() {
            scope.spawn(move || without(number, *right));
        }
    });
}

/// The YAML files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).collect()
}

#[test]
fn what_the_manifests_grant_is_what_is_tested_and_nothing_else_is_granted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut granted = BTreeSet::new();
    for file in files(&root.join("manifests")).into_iter().chain(files(&root.join("certs"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().display().to_string();
        for document in text.split("\n---\n") {
            let object = outrigger::yaml::parse(document).unwrap_or_else(|e| panic!("{name}: {e}"));
            for rule in
                object["rules"].as_array().filter(|_| object["roleRef"].is_null()).into_iter().flatten()
            {
                let texts = |field: &str| -> Vec<String> {
                    let all = rule[field].as_array().into_iter().flatten();
                    all.map(|text| text.as_str().unwrap().to_owned()).collect()
                };
                for resource in texts("resources") {
                    for verb in texts("verbs") {
                        let kind = object["kind"].as_str().unwrap().to_owned();
                        granted.insert([name.clone(), kind, resource.clone(), verb]);
                    }
                }
            }
        }
    }
    granted.retain(|[_, kind, ..]| kind.ends_with("Role"));
    let tested = RIGHTS.iter().flat_map(|(file, rights)| {
        rights.iter().map(|(kind, resource, verb, ..)| [*file, *kind, *resource, *verb].map(str::to_owned))
    });
    let repair = repair::RIGHTS.iter().flat_map(|(file, rights)| {
        rights.iter().map(|(kind, resource, verb, ..)| [*file, *kind, *resource, *verb].map(str::to_owned))
    });
    assert_eq!(granted, tested.chain(repair).collect());
}
