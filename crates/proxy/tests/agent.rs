//! What the kubelet and Prometheus ask the agent on 15020, with applications on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Sidecar, command, get, head, metric, patient, refusing};

fn start(env: &[(&str, String)]) -> Sidecar {
    let mut command = command();
    command.env("INSTANCE_IP", "127.0.0.1").envs(env.iter().map(|(name, value)| (name, value)));
    Sidecar::start(command)
}

fn probing(path: &str, probe: serde_json::Value) -> Sidecar {
    start(&[("ISTIO_KUBE_APP_PROBERS", serde_json::json!({ path: probe }).to_string())])
}

/// An application that gives one answer to each connection in turn, and what it was asked by whom.
fn application(answers: Vec<String>) -> (u16, thread::JoinHandle<Vec<(SocketAddr, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = thread::spawn(move || {
        let serve = |answer: String| {
            let (stream, peer) = listener.accept().unwrap();
            let mut stream = patient(stream);
            let head = head(&mut stream).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            (peer, head)
        };
        answers.into_iter().map(serve).collect()
    });
    (port, asked)
}

const HEALTH: &str = "/app-health/web/livez";

#[test]
fn an_http_probe_asks_the_application_as_the_kubelet_would() {
    let (port, asked) =
        application(vec!["HTTP/1.1 418 I'm a teapot\r\ncontent-length: 5\r\n\r\nshort".to_owned()]);
    let sidecar = probing(
        HEALTH,
        serde_json::json!({"httpGet": {"path": "/x?y=1", "port": port}, "timeoutSeconds": 10}),
    );
    let mut stream = patient(TcpStream::connect(sidecar.at("agent")).unwrap());
    let own = sidecar.port("agent");
    write!(
        stream,
        "GET {HEALTH} HTTP/1.1\r\nHost: 10.1.2.3:{own}\r\nUser-Agent: kube-probe/1.34\r\nX-Custom: A\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 418 ") && answer.ends_with("\r\n\r\nshort"), "{answer}");
    let asked = asked.join().unwrap();
    let (peer, head) = &asked[0];
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    assert!(head.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    for line in
        [&format!("host: 10.1.2.3:{port}"), "user-agent: kube-probe/1.34", "x-custom: a", "connection: close"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
}

#[test]
fn redirects_are_followed_on_the_same_host_only() {
    let moved = |to: &str| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let gone = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".to_owned();
    let (port, asked) = application(vec![moved("/next"), gone, moved("http://elsewhere.example/")]);
    let sidecar =
        probing(HEALTH, serde_json::json!({"httpGet": {"path": "/", "port": port}, "timeoutSeconds": 10}));
    assert_eq!(get(sidecar.at("agent"), HEALTH).0, 410);
    assert_eq!(get(sidecar.at("agent"), HEALTH).0, 200);
    let asked = asked.join().unwrap();
    assert!(asked[1].1.starts_with("GET /next "), "{}", asked[1].1);
}

#[test]
fn an_application_that_is_not_there_is_500_and_an_unknown_probe_400() {
    let (_nobody, port) = refusing();
    let sidecar =
        probing(HEALTH, serde_json::json!({"httpGet": {"path": "/", "port": port}, "timeoutSeconds": 10}));
    let (code, body) = get(sidecar.at("agent"), HEALTH);
    assert_eq!(code, 500);
    assert!(body.contains(&port.to_string()) && body.contains("refused"), "{body}");
    assert_eq!(get(sidecar.at("agent"), "/app-health/web/readyz").0, 400);
}

#[test]
fn an_application_that_does_not_answer_is_500_after_the_probes_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let sidecar =
        probing(HEALTH, serde_json::json!({"httpGet": {"path": "/", "port": port}, "timeoutSeconds": 1}));
    let (code, body) = get(sidecar.at("agent"), HEALTH);
    assert_eq!((code, body.as_str()), (500, "probe failed: no answer in 1 s\n"));
}

#[test]
fn a_tcp_probe_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_nobody, refused) = refusing();
    for (port, code) in [(listener.local_addr().unwrap().port(), 200), (refused, 500)] {
        let sidecar = probing(HEALTH, serde_json::json!({"tcpSocket": {"port": port}, "timeoutSeconds": 10}));
        assert_eq!(get(sidecar.at("agent"), HEALTH).0, code);
    }
}

/// A gRPC server whose health is SERVING for service `good` and NOT_SERVING for any other.
async fn health(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    use http_body_util::BodyExt;
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let state = if body.ends_with(b"good") { 1 } else { 2 };
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
    Ok(response.body(Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 0x08, state]))).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_grpc_probe_wants_serving() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), hyper::service::service_fn(health)));
        }
    });
    for (service, code) in [("good", 200), ("bad", 500)] {
        let probe = serde_json::json!({"grpc": {"port": port, "service": service}, "timeoutSeconds": 10});
        let sidecar = probing(HEALTH, probe);
        assert_eq!(get(sidecar.at("agent"), HEALTH).0, code, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_https_probe_takes_any_certificate_and_either_http() {
    let made = rcgen::generate_simple_self_signed(vec!["nobody.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    for protocol in ["h2", "http/1.1"] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let answer = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let version = format!("{:?} {}", request.version(), request.uri().path());
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(version))))
            });
            if protocol == "h2" {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            }
        });
        let probe = serde_json::json!({"httpGet": {"path": "/tls", "port": port, "scheme": "HTTPS"}, "timeoutSeconds": 10});
        let sidecar = probing(HEALTH, probe);
        let version = if protocol == "h2" { "HTTP/2.0 /tls" } else { "HTTP/1.1 /tls" };
        assert_eq!(get(sidecar.at("agent"), HEALTH), (200, version.to_owned()));
    }
}

#[test]
fn bad_probes_stop_the_start() {
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"))
        .args(["proxy", "sidecar"])
        .env("ISTIO_KUBE_APP_PROBERS", r#"{"/app-health/web/livez":{"httpGet":{"port":"http"}}}"#)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("/app-health/web/livez") && message.contains("INSTANCE_IP"), "{message}");
}

#[test]
fn merged_metrics_hold_agent_proxy_and_application() {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let body = "# TYPE shop_orders counter\nshop_orders_total 7\n# EOF\n";
    let length = body.len();
    let (port, asked) = application(vec![format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    )]);
    let annotations =
        serde_json::json!({"scrape": "true", "path": "/m", "port": port.to_string()}).to_string();
    let sidecar = start(&[("ISTIO_PROMETHEUS_ANNOTATIONS", annotations)]);
    let (code, text) = get(sidecar.at("agent"), "/stats/prometheus");
    assert_eq!(code, 200);
    assert_eq!(metric(&text, "shop_orders_total", &[]), 7.0);
    assert_eq!(metric(&text, "istio_agent_scrapes_total", &[]), 1.0);
    assert_eq!(metric(&text, "istio_build", &[]), 1.0);
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.ends_with("# EOF\n"));
    assert!(asked.join().unwrap()[0].1.starts_with("GET /m HTTP/1.1\r\n"));
    // The application has gone now; its part is missing, and counted.
    let (code, text) = get(sidecar.at("agent"), "/stats/prometheus");
    assert_eq!(code, 200);
    assert_eq!(metric(&text, "istio_agent_scrape_failures_total", &["type=\"application\""]), 1.0);
    assert_eq!(text.matches("# EOF").count(), 0);
}
