//! Limits, with small numbers, on a listener in this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use outrigger::certificates::{Identity, make, unix_now};
use outrigger::injection::Injector;
use outrigger::settings::Settings;
use outrigger::telemetry::Metrics;
use outrigger::webhook::{Around, Limits, Listener, Phase, Webhook, bind, router};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;

use crate::client::{Client, DEADLINE, eventually, pod, post_head, review, trusting};

pub(crate) struct Small {
    _runtime: Runtime,
    phase: watch::Sender<Phase>,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Small {
    pub(crate) fn start(limits: Limits) -> Self {
        let runtime = Runtime::new().unwrap();
        let made = make(&["127.0.0.1".to_owned()], 1, unix_now()).unwrap();
        let identity = Identity::from_pem(made.certificate.as_bytes(), made.key.as_bytes()).unwrap();
        let config = watch::channel(Some(identity.server_config().unwrap())).1;
        let (phase, in_phase) = watch::channel(Phase::Serving);
        let metrics = Arc::new(Metrics::new());
        let injector = Injector::new(Settings::default()).unwrap();
        let router = router(Webhook::new(
            watch::channel(Arc::new(injector)).1,
            metrics.clone(),
            limits,
            in_phase.clone(),
            Around::default(),
        ));
        let guard = runtime.enter();
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        runtime.spawn(Listener::tls(socket, config, router, limits, metrics.clone()).serve(in_phase));
        drop(guard);
        Self { _runtime: runtime, phase, metrics, address, tls: trusting(&made.ca) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address, &self.tls)
    }

    pub(crate) fn counted(&self, metric: &str) {
        eventually(metric, || self.metrics.text().unwrap().lines().any(|line| line == metric));
    }
}

pub(crate) const SOON: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_secs(3600);

/// No time-out ever, so that a test sees the one that it sets.
pub(crate) fn patient() -> Limits {
    Limits {
        handshake_time: NEVER,
        head_time: NEVER,
        request_time: NEVER,
        idle_time: NEVER,
        close_time: SOON,
        ..Limits::default()
    }
}

#[test]
fn connections_over_the_limit_are_closed() {
    let small = Small::start(Limits { connections: 2, ..patient() });
    let (mut first, second) = (small.client(), small.client());
    let mut third = TcpStream::connect(small.address).unwrap();
    third.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 0);
    small.counted("outrigger_connections_rejected_total{reason=\"too_many\"} 1");
    assert_eq!(first.get("/healthz").status, 200);
    drop(second);
    small.counted("outrigger_connections_open 1");
    // A connection's place is free a moment after it is counted out.
    eventually("room", || Client::try_connect(small.address, &small.tls).is_ok());
}

#[test]
fn requests_over_the_limit_are_503_and_health_is_not() {
    let small = Small::start(Limits { requests: 1, ..patient() });
    let body = review(&pod("cart")).to_string();
    let mut slow = small.client();
    slow.send(post_head("/inject", "application/json", body.len())).unwrap();
    small.counted("outrigger_requests_in_flight 1");
    let mut other = small.client();
    let answer = other.post("/inject", &review(&pod("cart")));
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    assert!(answer.body.contains("1 admission requests are in flight"), "{}", answer.body);
    assert_eq!(other.get("/readyz").status, 200);
    slow.send(&body).unwrap();
    assert!(slow.answer().unwrap().injected(&pod("cart")).is_some());
    assert!(other.post("/inject", &review(&pod("cart"))).injected(&pod("cart")).is_some());
    small.counted("outrigger_requests_rejected_total{reason=\"busy\"} 1");
}

#[test]
fn bodies_together_have_a_limit() {
    let small = Small::start(Limits { bodies: 10_000, ..patient() });
    // Neither body is whole, so neither gives its bytes back: whichever comes second is refused.
    let (answers, answered) = std::sync::mpsc::channel();
    for mut client in [small.client(), small.client()] {
        let answers = answers.clone();
        std::thread::spawn(move || {
            client.send(post_head("/inject", "application/json", 9_999)).unwrap();
            client.send(" ".repeat(6_000)).unwrap();
            answers.send(client.answer().unwrap().status).unwrap();
            client
        });
    }
    assert_eq!(answered.recv_timeout(DEADLINE), Ok(503));
    // What is left fits beside the one that is still sending.
    assert_eq!(small.client().post("/inject", &review(&pod("cart"))).status, 200);
}

#[test]
fn a_client_that_opens_tls_and_says_nothing_is_closed() {
    let small = Small::start(Limits { handshake_time: SOON, ..patient() });
    let mut silent = TcpStream::connect(small.address).unwrap();
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let mut half = TcpStream::connect(small.address).unwrap();
    half.set_read_timeout(Some(DEADLINE)).unwrap();
    half.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    assert_eq!(half.read(&mut [0]).unwrap(), 0);
    small.counted("outrigger_tls_handshake_failures_total{reason=\"timeout\"} 2");
}

#[test]
fn a_head_has_its_time() {
    let small = Small::start(Limits { head_time: SOON, ..patient() });
    // No request at all.
    small.client().closed();
    // Half a head, as first and as second request.
    let mut client = small.client();
    client.send("POST /inject HTTP/1.1\r\nHost:").unwrap();
    client.closed();
    let mut client = small.client();
    assert_eq!(client.get("/healthz").status, 200);
    client.send("GET /healthz HTTP/1.1\r\n").unwrap();
    client.closed();
}

#[test]
fn an_idle_connection_is_closed_but_a_busy_one_is_not() {
    let small = Small::start(Limits { idle_time: SOON, ..patient() });
    let body = review(&pod("cart")).to_string();
    let mut idle = small.client();
    let mut busy = small.client();
    busy.send(post_head("/inject", "application/json", body.len())).unwrap();
    small.counted("outrigger_requests_in_flight 1");
    assert_eq!(idle.get("/healthz").status, 200);
    idle.closed();
    busy.send(&body).unwrap();
    assert!(busy.answer().unwrap().injected(&pod("cart")).is_some());
}

#[test]
fn a_request_has_its_time() {
    let small = Small::start(Limits { request_time: SOON, ..patient() });
    let mut client = small.client();
    client.send(post_head("/inject", "application/json", 100)).unwrap();
    client.send("{").unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (408, "no answer within 0.1 s\n"));
    client.closed();
    small.counted("outrigger_requests_rejected_total{reason=\"timeout\"} 1");
}

#[test]
fn a_server_that_settles_is_not_ready_and_still_injects() {
    let small = Small::start(patient());
    let mut client = small.client();
    assert_eq!(client.get("/readyz").status, 200);
    let answer = client.post("/inject", &review(&pod("cart")));
    assert!(!answer.head.contains("connection:"), "{}", answer.head);
    small.phase.send_replace(Phase::Settling);
    let answer = client.get("/readyz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "stopping\n"));
    assert_eq!(client.get("/healthz").status, 200);
    // Whoever asks is told to come on another connection; who is idle may still ask.
    let mut new = small.client();
    let answer = new.post("/inject", &review(&pod("cart")));
    assert!(answer.injected(&pod("cart")).is_some());
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    new.closed();
    assert_eq!(client.get("/healthz").status, 200);
    small.phase.send_replace(Phase::Draining);
    client.closed();
}
