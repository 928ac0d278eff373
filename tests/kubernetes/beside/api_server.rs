//! The API server of the replicas is away, frozen, and back again, while another one goes on sending them pods, as in a
//! cluster with several.

use crate::certificate::{kept, renewed};
use crate::cluster::{Namespace, dry_run, folder, kubectl, program, try_kubectl, until};
use crate::pods;
use crate::stream::Stream;

use super::replica::Process;
use super::{Beside, How, Replica};

/// One more API server of the cluster, with the same etcd, on this port, with more options.
pub(super) fn start(port: u16, options: &[&str]) -> Process {
    let file = |name: &str| folder().join("pki").join(name).display().to_string();
    let arguments = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // The Service of the cluster's own API server is left as it is.
        "--advertise-address=10.250.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--profiling=false".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(options.iter().copied()).collect();
    let process = Process::start(program("kube-apiserver").to_str().unwrap(), &arguments, &[]);
    let server = format!("--server=https://127.0.0.1:{port}");
    let ask = [&server, "get", "--raw", "/readyz"];
    until("one more API server", || try_kubectl(&ask, "").map_err(|e| format!("{e}: {}", process.log())));
    process
}

const PORT: u16 = 6444;
const SERVER: &str = "https://127.0.0.1:6444";
const AWAY: &str = "cannot ask for the Lease";

/// Waits until this many of the replicas lead.
fn until_lead(replicas: &[&Replica], count: usize) {
    until(&format!("{count} leaders"), || {
        let lead: Result<Vec<bool>, String> = replicas.iter().map(|replica| replica.leads()).collect();
        let lead = lead?;
        if lead.iter().filter(|leads| **leads).count() == count { Ok(()) } else { Err(format!("{lead:?}")) }
    });
}

/// Waits until one of the replicas has said a message once more often than `before`.
fn until_said(replicas: &[&Replica], message: &str, before: usize) {
    until(message, || {
        let count: usize = replicas.iter().map(|replica| replica.count(message)).sum();
        if count > before { Ok(()) } else { Err(format!("{count} times")) }
    });
}

fn transitions(beside: &Beside) -> u64 {
    beside.lease().unwrap()["leaseTransitions"].as_u64().unwrap()
}

/// The user that the sidecar runs as in a new pod: it follows from an annotation of the namespace.
fn user(namespace: &Namespace) -> Result<u64, String> {
    let pod = dry_run(&namespace.name, &pods::stored("ranged"))?.json();
    pod["spec"]["initContainers"][1]["securityContext"]["runAsUser"].as_u64().ok_or("none".to_owned())
}

fn annotate(namespace: &Namespace, first: u64) {
    let range = format!("openshift.io/sa.scc.uid-range={first}/10000");
    kubectl(&["annotate", "--overwrite", "namespace", &namespace.name, &range]);
}

#[test]
fn replicas_go_on_while_their_api_server_is_away_or_frozen_and_catch_up_when_it_is_back() {
    let api_server = start(PORT, &[]);
    let beside = Beside::new("api-server");
    beside.settings("policy: enabled\nplatform: openshift\n");
    let how = || How { server: Some(SERVER), ..How::default() };
    let first = beside.serving("first", &how());
    let second = beside.serving("second", &how());
    let both = [&first, &second];
    let serve = |replicas: &[&Replica]| {
        for replica in replicas {
            assert_eq!(replica.get("/readyz").as_deref(), Ok("ok\n"), "{}", replica.process.log());
        }
    };
    let namespace = beside.pods();
    annotate(&namespace, 1_000_000);
    until("what the namespace says", || match user(&namespace)? {
        1_009_999 => Ok(()),
        other => Err(other.to_string()),
    });
    let stream = Stream::start(beside.pods());
    let before = kept(&beside.installation).unwrap();

    // It ends. Nobody leads, all serve what they know.
    let led = transitions(&beside);
    api_server.kill();
    until_lead(&both, 0);
    until_said(&both, AWAY, 0);
    assert!(first.process.log().contains("does not answer"), "{}", first.process.log());
    serve(&both);
    annotate(&namespace, 2_000_000);
    beside.rotate();
    // One that starts now lives, says what it waits for, and has nothing to serve.
    let late = beside.start("late", &how());
    late.said(AWAY);
    late.said("the watch of namespaces begins again");
    serve(&[&late]);
    assert_eq!((late.count("serving certificate"), user(&namespace)), (0, Ok(1_009_999)));

    // It is back.
    let api_server = start(PORT, &[]);
    until("what the namespace says by now", || match user(&namespace)? {
        2_009_999 => Ok(()),
        other => Err(other.to_string()),
    });
    late.said("serving certificate");
    beside.endpoint(&late, true);
    renewed(&beside.installation, &before);
    let all = [&first, &second, &late];
    until_lead(&all, 1);
    assert!(transitions(&beside) <= led + 1);

    // It is frozen, for so long that a renewal fails; then for longer than anybody leads without one.
    for nobody in [false, true] {
        let led = transitions(&beside);
        let count = |message: &str| all.iter().map(|replica| replica.count(message)).sum::<usize>();
        let (failed, gave_up) = (count(AWAY), count("following"));
        api_server.freeze();
        until_said(&all, AWAY, failed);
        if nobody {
            until_lead(&all, 0);
        }
        serve(&all);
        api_server.thaw();
        until_lead(&all, 1);
        assert!(transitions(&beside) <= led + 1);
        assert!(count("following") <= gave_up + 1);
    }
    serve(&all);
    assert!(stream.finish() > 0);
}
