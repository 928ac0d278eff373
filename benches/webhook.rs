//! The webhook over TLS with keep-alive, beside a handler behind the same listener that parses the same review
//! and only answers "allowed". Asked about replicas of one workload, and about workloads not seen before.
//!
//! Both serve on one thread in this process, one after the other in short turns, so that whatever else the
//! machine does hits both alike. The CPU time is that of the serving thread (`/proc/self/task/*/schedstat`).
//!
//! ```text
//! cargo bench --bench webhook [-- [SECONDS] [--json]]       default: 6, a third of it for each side
//! ```

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use outrigger::certificates::{Identity, make, unix_now};
use outrigger::injection::Injector;
use outrigger::settings::Settings;
use outrigger::telemetry::Metrics;
use outrigger::webhook::review::{Answer, Review, Verdict};
use outrigger::webhook::{Around, Limits, Listener, Phase, Webhook, bind, router};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Connections that ask at the same time.
const CONNECTIONS: usize = 8;
/// Replicas of the workload that is asked about, one after the other.
const REPLICAS: usize = 64;
/// Workloads that are asked about one after the other: more than are kept, so that each is new.
const WORKLOADS: usize = 2048;
/// Turns of each side.
const TURNS: u32 = 10;
/// Microseconds of CPU time that a request costs Istio's webhook.
const ISTIO: f64 = 2450.0;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(6.0);
    let turn = Duration::from_secs_f64(seconds / 3.0 / f64::from(TURNS));
    // As `serve` logs: one JSON line an admission.
    let log = File::create("/dev/null").unwrap();
    tracing_subscriber::fmt().json().flatten_event(true).with_target(false).with_writer(log).init();
    let json = std::env::args().any(|argument| argument == "--json");
    let (mut budgets, mut figures) = (Vec::new(), Vec::new());
    if !json {
        println!("{:<22} {:>12} {:>14}", "", "requests/s", "CPU us a request");
    }
    for (name, pod) in [("one container", one_container()), ("three containers", three_containers())] {
        let injector = Injector::new(Settings::default()).unwrap();
        let (_phase, in_phase) = watch::channel(Phase::Serving);
        let webhook = Webhook::new(
            watch::channel(Arc::new(injector)).1,
            Arc::new(Metrics::new()),
            Limits::default(),
            in_phase,
            Around::default(),
        );
        let servers = [Server::start("injects", router(webhook)), Server::start("allows", only_allows())];
        let replicas: Vec<_> = (0..REPLICAS).map(|n| request(&replica(&pod, n))).collect();
        let workloads: Vec<_> = (0..WORKLOADS).map(|n| request(&replica(&workload(&pod, n), n))).collect();
        let sides = [(&servers[0], &replicas), (&servers[0], &workloads), (&servers[1], &replicas)];
        let mut totals = [Total::default(), Total::default(), Total::default()];
        for n in 0..=TURNS {
            for ((server, requests), total) in sides.iter().zip(&mut totals) {
                let measured = server.ask(requests, turn);
                // The first turn warms up.
                if n > 0 {
                    total.add(&measured);
                }
            }
        }
        let [replica, workload, allows] = totals;
        if json {
            let sides = [("parses and allows", &allows), ("replicas", &replica), ("workloads", &workload)];
            figures.extend(sides.map(|(what, total)| {
                json!({"pod": name, "what": what, "rate": total.rate(), "microseconds": total.cpu_each()})
            }));
            for (what, total) in &sides[1..] {
                let mut budget = |text: &str, measured: f64, wanted: f64| {
                    let what = format!("webhook, {name}, {what}: {text}");
                    budgets
                        .push(json!({"what": what, "measured": measured, "wanted": wanted, "at": "least"}));
                };
                if name == "one container" {
                    budget("CPU a request, Istio's over ours", ISTIO / total.cpu_each(), 25.0);
                }
                budget("rate beside a handler that allows", total.rate() / allows.rate(), 0.6);
            }
            continue;
        }
        println!("{name}, {} bytes", replicas[0].len());
        allows.print("  parses and allows");
        for (name, injects) in [("  injects replicas", replica), ("  injects workloads", workload)] {
            injects.print(name);
            let (rate, cpu) = (injects.rate() / allows.rate(), injects.cpu_each() / allows.cpu_each());
            println!("{:<22} {rate:>12.2} {cpu:>14.2}", "    ratio");
        }
    }
    if json {
        println!("{:#}", json!({"budgets": budgets, "figures": figures}));
    }
}

/// Parses as the webhook does, envelope and pod, and answers `allowed`.
fn only_allows() -> Router {
    Router::new().route(
        "/inject",
        post(async |body: Bytes| {
            let review = Review::parse(&body).unwrap();
            let pod: Value = serde_json::from_str(review.request.object().unwrap()).unwrap();
            std::hint::black_box(pod);
            let answer = review.answer(&Answer { verdict: Verdict::Unchanged, reason: None }).unwrap();
            ([(CONTENT_TYPE, "application/json")], answer).into_response()
        }),
    )
}

/// Requests answered in a time, and what they took.
#[derive(Default)]
struct Total {
    requests: u64,
    time: Duration,
    cpu: Duration,
}

impl Total {
    fn add(&mut self, other: &Total) {
        self.requests += other.requests;
        self.time += other.time;
        self.cpu += other.cpu;
    }

    fn rate(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }

    /// Microseconds.
    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    fn print(&self, name: &str) {
        println!("{name:<22} {:>12.0} {:>14.1}", self.rate(), self.cpu_each());
    }
}

/// A listener on a thread of its own.
struct Server {
    thread: String,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Server {
    fn start(name: &str, router: Router) -> Self {
        let made = make(&["127.0.0.1".to_owned()], 1, unix_now()).unwrap();
        let identity = Identity::from_pem(made.certificate.as_bytes(), made.key.as_bytes()).unwrap();
        let config = watch::channel(Some(identity.server_config().unwrap())).1;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.ca.as_bytes()).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (told, addresses) = std::sync::mpsc::channel();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
                told.send(socket.local_addr().unwrap()).unwrap();
                let (_phase, in_phase) = watch::channel(Phase::Serving);
                let metrics = Arc::new(Metrics::new());
                Listener::tls(socket, config, router, Limits::default(), metrics).serve(in_phase).await;
            });
        };
        let thread = format!("{name}-{}", next());
        std::thread::Builder::new().name(thread.clone()).spawn(serve).unwrap();
        Self { thread, address: addresses.recv().unwrap(), tls: Arc::new(tls) }
    }

    /// Asks on all connections for a time.
    fn ask(&self, replicas: &[Vec<u8>], time: Duration) -> Total {
        let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| self.connect()).collect();
        for connection in &mut connections {
            exchange(connection, &replicas[0]);
        }
        let stop = AtomicBool::new(false);
        let (began, cpu) = (Instant::now(), self.cpu());
        let ask = |n: usize, mut connection: Connection| {
            let mut requests = 0;
            // No two connections ask about the same at about the same time.
            for replica in replicas.iter().cycle().skip(n * replicas.len() / CONNECTIONS) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                exchange(&mut connection, replica);
                requests += 1;
            }
            requests
        };
        let requests = std::thread::scope(|threads| {
            let ask = &ask;
            let asking = connections.into_iter().enumerate().map(|(n, c)| threads.spawn(move || ask(n, c)));
            let asking: Vec<_> = asking.collect();
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            asking.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        Total { requests, time: began.elapsed(), cpu: self.cpu() - cpu }
    }

    fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::from(self.address.ip());
        StreamOwned::new(ClientConnection::new(self.tls.clone(), name).unwrap(), stream)
    }

    /// Time on a CPU since the thread began.
    fn cpu(&self) -> Duration {
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap().path();
            if std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == self.thread) {
                let schedstat = std::fs::read_to_string(task.join("schedstat")).unwrap();
                return Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap());
            }
        }
        panic!("no thread {}", self.thread)
    }
}

fn next() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// One request and its answer, which has a Content-Length.
fn exchange(connection: &mut Connection, request: &[u8]) {
    connection.write_all(request).unwrap();
    connection.flush().unwrap();
    let mut answer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        length += connection.read(&mut answer[length..]).unwrap();
        let read = &answer[..length];
        let Some(head) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&read[..head]).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let body: usize =
            text.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        if length == head + 4 + body {
            return;
        }
    }
}

fn request(pod: &Value) -> Vec<u8> {
    let body = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]
            },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}
        }
    })
    .to_string();
    let length = body.len();
    let head = "POST /inject HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The same of another workload.
fn workload(pod: &Value, n: usize) -> Value {
    serde_json::from_str(&pod.to_string().replace("cart", &format!("cart{n:04}"))).unwrap()
}

/// A replica as the webhook gets it: with what the API server adds, which differs from one to the next.
fn replica(pod: &Value, n: usize) -> Value {
    let mut pod = pod.clone();
    let volume = format!("kube-api-access-x{n:04}");
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        let mount = json!({"name": volume, "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
        match container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
            Some(mounts) => mounts.push(mount),
            None => container["volumeMounts"] = json!([mount]),
        }
    }
    let token = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}});
    match pod["spec"].get_mut("volumes").and_then(Value::as_array_mut) {
        Some(volumes) => volumes.push(token),
        None => pod["spec"]["volumes"] = json!([token]),
    }
    pod["metadata"]["managedFields"] = json!([{"manager": "kube-controller-manager", "operation": "Update",
        "apiVersion": "v1", "time": format!("2026-01-01T00:00:{:02}Z", n % 60), "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:app": {}},
        "f:ownerReferences": {".": {}, "k:{\"uid\":\"1\"}": {}}}, "f:spec": {"f:containers":
        {"k:{\"name\":\"cart\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {}, "f:resources": {}}}}}}]);
    pod
}

/// A pod as a ReplicaSet creates it.
fn one_container() -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": "cart-7d9f6c5b4-",
            "labels": {"app": "cart", "pod-template-hash": "7d9f6c5b4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-7d9f6c5b4", "uid": "1",
                                 "controller": true, "blockOwnerDeletion": true}]
        },
        "spec": {
            "containers": [{"name": "cart", "image": "example.com/cart:1.4",
                            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}], "resources": {}}],
            "restartPolicy": "Always",
            "serviceAccountName": "default"
        }
    })
}

/// A pod with what larger ones have: probes, resources, environment, volumes.
fn three_containers() -> Value {
    let mut pod = one_container();
    let container = |name: &str, port: u16| {
        let env: Vec<_> =
            (0..10).map(|n| json!({"name": format!("SETTING_{n}"), "value": "a value"})).collect();
        json!({
            "name": name,
            "image": format!("example.com/{name}:1.4"),
            "env": env,
            "ports": [{"containerPort": port, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": port}, "periodSeconds": 5},
            "livenessProbe": {"httpGet": {"path": "/live", "port": port}, "periodSeconds": 10},
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/token", "readOnly": true}]
        })
    };
    pod["spec"]["containers"] =
        json!([container("cart", 8080), container("cache", 6379), container("agent", 9000)]);
    pod["spec"]["volumes"] = json!([{"name": "token", "emptyDir": {}}]);
    pod
}
