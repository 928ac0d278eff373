//! Injected pods that run: their order of start, their traffic, their end.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Namespace, until};
use crate::install::installed;
use crate::pods::{self, IMAGE, container_status};

/// Installs a sample, with an image that the nodes have.
fn sample(namespace: &Namespace, name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert!(text.contains("image: busybox:1.37"), "{text}");
    let text = text.replace("image: busybox:1.37", &format!("image: {IMAGE}"));
    namespace.try_kubectl(&["apply", "--filename=-"], &text).expect("applied");
    namespace.wait("condition=Available", &format!("deployment/{name}"));
}

/// The only pod with the label `app=name`.
fn pod_of(namespace: &Namespace, name: &str) -> Value {
    let mut pods = namespace.pods(&format!("app={name}"));
    assert_eq!(pods.len(), 1);
    pods.remove(0)
}

/// TCP traffic as a pod's proxy counted it in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    opened: u64,
    closed: u64,
    received: u64,
    sent: u64,
}

impl Counted {
    /// Reads the counters of the proxy beside the container `app` of the Deployment `app`. `reporter` is `source` for
    /// what the application opened, `destination` for what was opened to it.
    fn read(namespace: &Namespace, app: &str, reporter: &str) -> Counted {
        let url = "http://127.0.0.1:15090/stats/prometheus";
        let deployment = format!("deployment/{app}");
        let text = namespace.kubectl(&["exec", &deployment, "-c", app, "--", "wget", "-qO-", url]).stdout;
        let reporter = format!("reporter=\"{reporter}\"");
        let sum = |name: &str| -> u64 {
            let prefix = format!("istio_tcp_{name}{{");
            let lines = text.lines().filter(|l| l.starts_with(&prefix) && l.contains(&reporter));
            let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
            values.reduce(|a, b| a + b).unwrap_or_else(|| panic!("no {name} with {reporter}: {text}"))
        };
        Counted {
            opened: sum("connections_opened_total"),
            closed: sum("connections_closed_total"),
            received: sum("received_bytes_total"),
            sent: sum("sent_bytes_total"),
        }
    }

    fn since(self, before: Counted) -> Counted {
        Counted {
            opened: self.opened - before.opened,
            closed: self.closed - before.closed,
            received: self.received - before.received,
            sent: self.sent - before.sent,
        }
    }
}

#[test]
fn a_request_passes_both_proxies_and_both_count_its_bytes() {
    installed();
    let namespace = Namespace::injected("traffic");
    sample(&namespace, "httpbin");
    sample(&namespace, "sleep");
    for app in ["httpbin", "sleep"] {
        let pod = pod_of(&namespace, app);
        assert!(pods::injected(&pod), "{pod:#}");
        let init = &container_status(&pod, "istio-init")["state"]["terminated"];
        assert_eq!(init["exitCode"], 0, "{init:#}");
        let proxy = container_status(&pod, "istio-proxy");
        assert_eq!((&proxy["started"], &proxy["ready"]), (&json!(true), &json!(true)), "{proxy:#}");
        // Whole seconds; `a_job_with_a_sidecar_completes` shows the order without a clock.
        let started = |name| container_status(&pod, name)["state"]["running"]["startedAt"].as_str();
        assert!(started("istio-proxy").unwrap() <= started(app).unwrap(), "{pod:#}");
    }

    let get = |path: &str| {
        let url = format!("http://httpbin:8000/cgi-bin/{path}");
        namespace.kubectl(&["exec", "deployment/sleep", "-c", "sleep", "--", "wget", "-qO-", &url]).stdout
    };
    // The application sees the proxy's own source address, so nothing else opened the connection.
    let ip = get("ip");
    assert!(ip.contains("127.0.0.6"), "{ip}");

    const SIZE: u64 = 1_000_000;
    const HEADERS: u64 = 1_000; // more than the headers of one small exchange
    let before = Counted::read(&namespace, "sleep", "source");
    let before_server = Counted::read(&namespace, "httpbin", "destination");
    let body = get(&format!("bytes?{SIZE}"));
    assert_eq!(body.len() as u64, SIZE);

    let client = until("the end of the client's connection", || {
        let client = Counted::read(&namespace, "sleep", "source").since(before);
        if client.closed == 1 { Ok(client) } else { Err(format!("{client:?}")) }
    });
    assert_eq!(client.opened, 1, "{client:?}");
    assert!((SIZE..SIZE + HEADERS).contains(&client.sent), "{client:?}");
    assert!((1..HEADERS).contains(&client.received), "{client:?}");
    // The server's proxy also counts the kubelet's probes, so it counts at least what the client's does.
    until("the same bytes at the server's proxy", || {
        let server = Counted::read(&namespace, "httpbin", "destination").since(before_server);
        let counted = server.closed >= 1 && server.sent >= client.sent && server.received >= client.received;
        if counted { Ok(()) } else { Err(format!("{server:?}, but {client:?}")) }
    });
}

#[test]
fn a_job_with_a_sidecar_completes() {
    installed();
    let namespace = Namespace::injected("job");
    sample(&namespace, "httpbin");
    // The very first thing that the application does: find its sidecar ready, and use it.
    let first_act =
        "wget -qO- http://127.0.0.1:15021/healthz/ready && wget -qO- http://httpbin:8000/cgi-bin/ip";
    let container = json!({"name": "app", "image": IMAGE, "command": ["sh", "-c", first_act]});
    namespace.create_object(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, "template": {
            "metadata": {"labels": {"app": "job"}},
            "spec": {"restartPolicy": "Never", "containers": [container]}
        }}
    }));
    namespace.wait("condition=Complete", "job/job");
    let pod = pod_of(&namespace, "job");
    assert!(pods::injected(&pod), "{pod:#}");
    assert_eq!(pod["status"]["phase"], "Succeeded", "{pod:#}");
    for name in ["istio-init", "app", "istio-proxy"] {
        let status = container_status(&pod, name);
        assert_eq!(status["state"]["terminated"]["exitCode"], 0, "{status:#}");
        assert_eq!(status["restartCount"], 0, "{status:#}");
    }
}

#[test]
fn a_deleted_pod_ends_by_itself_within_its_grace_period() {
    installed();
    let namespace = Namespace::injected("end");
    let loops = "trap 'exit 0' TERM; sleep infinity & wait";
    // The finalizer keeps the pod's last status to be read.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pod", "finalizers": ["outrigger.dev/test"]},
        "spec": {
            "terminationGracePeriodSeconds": 60,
            "containers": [{"name": "app", "image": IMAGE, "command": ["sh", "-c", loops]}]
        }
    });
    namespace.create_object(&pod);
    namespace.wait("condition=Ready", "pod/pod");
    namespace.kubectl(&["delete", "pod", "pod", "--wait=false"]);
    let ended = until("the end of all containers", || {
        let pod = namespace.get("pod", "pod");
        let running = |name: &&str| container_status(&pod, name)["state"]["terminated"].is_null();
        match ["app", "istio-proxy"].iter().find(|name| running(name)) {
            Some(name) => Err(format!("{name} still runs")),
            None => Ok(pod),
        }
    });
    for name in ["app", "istio-proxy"] {
        let terminated = &container_status(&ended, name)["state"]["terminated"];
        // 137 would be the kubelet's SIGKILL at the end of the grace period.
        assert_eq!(terminated["exitCode"], 0, "{name}: {terminated:#}");
    }
    // The sidecar serves until the application is gone.
    let finished = |name| container_status(&ended, name)["state"]["terminated"]["finishedAt"].as_str();
    assert!(finished("app").unwrap() <= finished("istio-proxy").unwrap(), "{ended:#}");
    namespace.kubectl(&[
        "patch",
        "pod",
        "pod",
        "--type=merge",
        "--patch",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    namespace.wait("delete", "pod/pod");
}
