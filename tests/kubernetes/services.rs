//! What stands in front of real services: HTTP, gRPC and Redis between two pods, probes of all kinds, a rolling restart
//! under load, and pods that Istio's templates made.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cluster::{Namespace, beside_node, kubectl_path, until};
use crate::install::installed;
use crate::pods::{self, IMAGE, container_status};
use crate::traffic::Metrics;

/// The image that speaks HTTP, HTTPS and gRPC; `tests/kubernetes/base-images` makes it.
const APPS: &str = "localhost/apps:test";
/// Redis.
const REDIS: &str = "localhost/redis:test";

/// A pod with the programs of both images and a shell; it serves on the ports that are named, and calls others.
fn pod(name: &str) -> Value {
    let port = |name: &str, number: u16| json!({"name": name, "containerPort": number});
    let redis = ["redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"];
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": {"app": name},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}
        },
        "spec": {
            "terminationGracePeriodSeconds": 20,
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "containers": [
                {"name": "apps", "image": APPS, "args": ["serve"], "ports": [port("http", 8080), port("grpc", 50051)]},
                {"name": "redis", "image": REDIS, "command": redis, "ports": [port("redis", 6379)],
                 "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
                {"name": "shell", "image": IMAGE, "command": ["sleep", "infinity"]}
            ]
        }
    })
}

fn service(name: &str) -> Value {
    let port = |name: &str, number: u16| json!({"name": name, "port": number});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [port("http", 8080), port("grpc", 50051), port("redis", 6379)]}
    })
}

/// Two services, `server` and `client`, whose pods are ready.
fn two_services(namespace: &Namespace, make: impl Fn(&str) -> Value) {
    for name in ["server", "client"] {
        namespace.create_object(&service(name));
        namespace.try_kubectl(&["apply", "--filename=-"], &make(name).to_string()).expect("applied");
    }
    for pod in ["pod/server", "pod/client"] {
        namespace.wait("condition=Ready", pod);
    }
}

/// What `command` prints in a container of the client.
fn client(namespace: &Namespace, container: &str, command: &[&str]) -> Result<String, String> {
    let exec = [&["exec", "client", "-c", container, "--"], command].concat();
    namespace.try_kubectl(&exec, "").map(|output| output.stdout)
}

/// HTTP, gRPC and Redis from the client to the server, by the Service's name.
fn all_protocols_pass(namespace: &Namespace) {
    let answer = until("an answer from the Service", || {
        client(namespace, "shell", &["wget", "-qO-", "http://server:8080/"])
    });
    // The sidecar's own source address: nobody else has opened that connection.
    assert_eq!(answer.trim(), "127.0.0.6 false");
    let calls = client(namespace, "apps", &["/apps", "call", "server:50051", "20"]);
    assert_eq!(calls.as_deref(), Ok("20 calls and a stream\n"));
    let redis = |command: &[&str]| {
        let all = [&["redis-cli", "-h", "server"], command].concat();
        client(namespace, "redis", &all).map(|said| said.trim().to_owned())
    };
    assert_eq!(redis(&["set", "fruit", "mango"]).as_deref(), Ok("OK"));
    assert_eq!(redis(&["get", "fruit"]).as_deref(), Ok("mango"));
    for (pod, reporter) in [("server", "reporter=\"destination\""), ("client", "reporter=\"source\"")] {
        until(&format!("what the sidecar of {pod} counts"), || {
            let metrics = Metrics::read(namespace, pod, "shell");
            let requests = |protocol: &str| {
                let protocol = format!("request_protocol=\"{protocol}\"");
                metrics.sum("istio_requests_total", &[reporter, "response_code=\"200\"", &protocol])
            };
            // 20 calls and a stream, which ends when its client goes.
            let (http, grpc, tcp) = (requests("http"), requests("grpc"), metrics.tcp_opened(reporter));
            if http == 1 && grpc == 21 && tcp == 2 { Ok(()) } else { Err(format!("{http} {grpc} {tcp}")) }
        });
    }
}

#[test]
fn two_services_speak_http_grpc_and_redis() {
    installed();
    let namespace = Namespace::injected("services");
    two_services(&namespace, pod);
    all_protocols_pass(&namespace);
    // Prometheus scrapes a pod once, and gets the application's metrics with the sidecar's.
    let server = namespace.get("pod", "server");
    let annotation = |key: &str| server["metadata"]["annotations"][key].as_str().expect("an annotation");
    let address = server["status"]["podIP"].as_str().unwrap();
    let (port, path) = (annotation("prometheus.io/port"), annotation("prometheus.io/path"));
    let scraped =
        client(&namespace, "shell", &["wget", "-qO-", &format!("http://{address}:{port}{path}")]).unwrap();
    for part in ["apps_up 1\n", "istio_requests_total{", "istio_build{", "istio_agent_scrapes_total 1\n"] {
        assert!(scraped.contains(part), "{part:?} in {scraped}");
    }
    // The ways of people into a pod.
    assert_eq!(client(&namespace, "shell", &["echo", "hello"]).as_deref(), Ok("hello\n"));
    let log = namespace.kubectl(&["logs", "server", "-c", "istio-proxy"]).stdout;
    assert!(log.contains("ready"), "{log}");
    let said = forwarded(&namespace);
    assert!(said.ends_with(" false\n"), "{said}");
}

/// What the server answers to whoever comes by `kubectl port-forward`.
fn forwarded(namespace: &Namespace) -> String {
    let mut forwarding = Command::new(kubectl_path())
        .args(["--namespace", &namespace.name, "port-forward", "pod/server", ":8080"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut lines = BufReader::new(forwarding.stdout.take().unwrap()).lines();
    let line = lines.next().expect("a line").expect("text");
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    let url = format!("http://127.0.0.1:{port}/");
    // The port is where kubectl runs.
    let fetched = beside_node("busybox").args(["wget", "-qO-", &url]).output().expect("busybox runs");
    let _ = forwarding.kill();
    let _ = forwarding.wait();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    String::from_utf8(fetched.stdout).expect("text")
}

#[test]
fn probes_of_every_kind_reach_the_application() {
    installed();
    let namespace = Namespace::injected("probes");
    let mut pod = pod("server");
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    let probe = |kind: &str, what: Value| json!({kind: what, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 60});
    containers[0]["startupProbe"] = probe("tcpSocket", json!({"port": "http"}));
    containers[0]["readinessProbe"] =
        probe("httpGet", json!({"port": 8443, "scheme": "HTTPS", "path": "/ready?x=1"}));
    containers[0]["livenessProbe"] = probe("grpc", json!({"port": 50051}));
    containers[1]["readinessProbe"] = probe("tcpSocket", json!({"port": 6379}));
    // Of nobody that listens: it is never ready, and so probes are seen to reach the application and nobody else.
    containers[2]["readinessProbe"] = probe("httpGet", json!({"port": 9, "path": "/"}));
    containers[2]["livenessProbe"] = probe("exec", json!({"command": ["true"]}));
    namespace.create_object(&pod);
    let ready = until("the containers that answer are ready", || {
        let pod = namespace.get("pod", "server");
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let ready =
            |name: &str| statuses.iter().any(|status| status["name"] == name && status["ready"] == true);
        if ready("apps") && ready("redis") { Ok(pod) } else { Err(format!("{statuses:?}")) }
    });
    assert_eq!(container_status(&ready, "shell")["ready"], false);
    // The sidecar says why, and asks again and again.
    let url = "http://127.0.0.1:15020/app-health/shell/readyz";
    let asked = namespace.kubectl(&[
        "exec",
        "server",
        "-c",
        "shell",
        "--",
        "sh",
        "-c",
        &format!("wget -qO- {url}; true"),
    ]);
    assert!(asked.stderr.contains("500"), "{asked:?}");
    for name in ["apps", "redis", "shell", "istio-proxy"] {
        assert_eq!(container_status(&ready, name)["restartCount"], 0, "{name}");
    }
}

#[test]
fn an_agent_on_another_port_is_found_by_kubelet_prometheus_and_hook() {
    installed();
    let namespace = Namespace::injected("agent");
    let moved = |name: &str| {
        let mut pod = pod(name);
        let (key, value) = match name {
            "server" => ("status.sidecar.istio.io/port", "15333"),
            _ => ("proxy.istio.io/config", "statusPort: 15444"),
        };
        pod["metadata"]["annotations"][key] = json!(value);
        // Ready only if the kubelet finds the agent.
        pod["spec"]["containers"][0]["readinessProbe"] =
            json!({"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1, "timeoutSeconds": 10});
        pod
    };
    two_services(&namespace, moved);
    for (name, port) in [("server", "15333"), ("client", "15444")] {
        let pod = namespace.get("pod", name);
        assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], port);
        let address = pod["status"]["podIP"].as_str().unwrap();
        let url = format!("http://{address}:{port}/stats/prometheus");
        let scraped = client(&namespace, "shell", &["wget", "-qO-", &url]).expect("metrics");
        assert!(scraped.contains("apps_up 1\n"), "{scraped}");
        let sidecar = &pod["spec"]["initContainers"][1];
        let hook = sidecar["lifecycle"]["preStop"]["exec"]["command"].as_array().unwrap();
        let hook: Vec<&str> = hook.iter().map(|word| word.as_str().unwrap()).collect();
        let exec = [&["exec", name, "-c", "istio-proxy", "--"], hook.as_slice()].concat();
        namespace.kubectl(&exec);
        let ask =
            ["exec", name, "-c", "istio-proxy", "--", "/outrigger-proxy", "request", "GET", "server_info"];
        let state: Value = serde_json::from_str(&namespace.kubectl(&ask).stdout).expect("JSON");
        assert_eq!(state["state"], "DRAINING");
    }
}

#[test]
fn a_rolling_restart_under_load_loses_no_request() {
    installed();
    let namespace = Namespace::injected("rolling");
    let container = json!({
        "name": "apps", "image": APPS, "args": ["serve"], "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1, "timeoutSeconds": 10}
    });
    namespace.create_object(&service("server"));
    namespace.create_object(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "server"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "server"}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": {"app": "server"}}, "spec": {"containers": [container]}}
        }
    }));
    namespace.create_object(&pod("client"));
    namespace.wait("condition=Available", "deployment/server");
    namespace.wait("condition=Ready", "pod/client");
    until("an answer from the Service", || {
        client(&namespace, "shell", &["wget", "-qO-", "http://server:8080/"])
    });
    let mut load = Command::new(kubectl_path())
        .args(["--namespace", &namespace.name, "exec", "-i", "client", "-c", "apps", "--"])
        .args(["/apps", "load", "http://server:8080/"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut said = BufReader::new(load.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "100 requests\n");
    let before: Vec<Value> = namespace.pods("app=server");
    namespace.kubectl(&["rollout", "restart", "deployment/server"]);
    namespace.kubectl(&["--request-timeout=0", "rollout", "status", "deployment/server", "--timeout=180s"]);
    for pod in &before {
        namespace.wait("delete", &format!("pod/{}", pod["metadata"]["name"].as_str().unwrap()));
    }
    let mut stdin = load.stdin.take().unwrap();
    stdin.flush().unwrap();
    drop(stdin);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(load.wait().unwrap().success(), "{rest}");
    assert!(rest.ends_with(" requests, 0 failures\n"), "{rest}");
}

/// The pod as `outrigger inject --pack istio` makes it, with nothing set but the image.
fn made_by_istios_templates(pod: &Value, kubernetes: &str) -> Value {
    let mut inject = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args([
            "inject",
            "--pack",
            "istio",
            "--filename=-",
            "--format=json",
            "--kubernetes-version",
            kubernetes,
        ])
        .args([
            "--set",
            "global.hub=localhost",
            "--set",
            &format!("global.tag={}", env!("CARGO_PKG_VERSION")),
        ])
        .args([
            "--set",
            "global.proxy.image=outrigger-proxy",
            "--set",
            "global.proxy_init.image=outrigger-proxy",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("outrigger starts");
    inject.stdin.take().unwrap().write_all(pod.to_string().as_bytes()).unwrap();
    let output = inject.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn pods_of_istios_templates_run_without_istiod() {
    // Before and since sidecars are native.
    for (kubernetes, init) in [("1.28", vec!["istio-init"]), ("1.34", vec!["istio-init", "istio-proxy"])] {
        let namespace = Namespace::create("istio", json!({}));
        // istiod puts it into every namespace; the pods mount it.
        let certificate = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-ca-root-cert"},
            "data": {"root-cert.pem": ""}
        });
        namespace.create_object(&certificate);
        two_services(&namespace, |name| {
            let pod = made_by_istios_templates(&pod(name), kubernetes);
            assert_eq!(pods::names(&pod, "initContainers"), init, "{kubernetes}");
            pod
        });
        all_protocols_pass(&namespace);
        let asked = namespace.kubectl(&[
            "exec",
            "client",
            "-c",
            "istio-proxy",
            "--",
            "pilot-agent",
            "request",
            "GET",
            "ready",
        ]);
        assert_eq!(asked.stdout, "LIVE\n");
    }
}
