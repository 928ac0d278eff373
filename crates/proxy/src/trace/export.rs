//! Spans to the collector: OTLP over HTTP, as JSON (OTLP 1.0, "OTLP/HTTP"; the trace conventions of OpenTelemetry).

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, header};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::{Ended, Settings};
use crate::destination::Direction;
use crate::identity::Identity;
use crate::status::client;
use crate::telemetry::{Flag, Spans};

/// Most spans of one export, and how long the first of them waits for company. OpenTelemetry's defaults.
const BATCH: usize = 512;
const PERIOD: Duration = Duration::from_secs(5);
/// Time that an export has.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer of a collector that is read.
const ANSWER: usize = 64 * 1024;

/// Exports `spans` until nobody makes any.
pub(super) async fn run(
    settings: Settings,
    identity: Identity,
    mut spans: Receiver<Ended>,
    counts: Arc<Spans>,
) {
    let resource = resource(&settings, &identity);
    while let Some(first) = spans.recv().await {
        let mut batch = vec![first];
        let deadline = Instant::now() + PERIOD;
        while batch.len() < BATCH {
            match timeout_at(deadline, spans.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        let body = export(&resource, &batch).to_string();
        let sent = timeout(PATIENCE, send(&settings, body)).await;
        match sent.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}"))) {
            Ok(()) => counts.exported.add(count),
            Err(error) => {
                counts.dropped.add(count);
                tracing::warn!(collector = %settings.endpoint, spans = count, error, "cannot export spans");
            }
        }
    }
}

async fn send(settings: &Settings, body: String) -> Result<(), String> {
    let uri = &settings.endpoint;
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = uri.host().unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    for (name, value) in &settings.headers {
        request = request.header(name, value);
    }
    let request = request.body(Bytes::from(body)).map_err(|error| error.to_string())?;
    let host = host.trim_matches(['[', ']']);
    let stream = connect(host, port).await.map_err(|error| error.to_string())?;
    let answer = if secure {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(tls(&settings.roots)?));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        client::http1(stream, request, ANSWER).await?
    } else {
        client::http1(stream, request, ANSWER).await?
    };
    if answer.status.is_success() {
        Ok(())
    } else {
        Err(format!("HTTP status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
    }
}

fn tls(roots: &[CertificateDer<'static>]) -> Result<ClientConfig, String> {
    let failed = |error: rustls::Error| format!("TLS: {error}");
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(failed)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(failed)?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Whose spans these are. What the operator says stands above what we know.
fn resource(settings: &Settings, identity: &Identity) -> Value {
    let own = format!("{}.{}", identity.canonical_service, identity.namespace);
    let mut attributes = settings.attributes.clone();
    let name = settings.service.clone().or_else(|| attributes.remove("service.name")).unwrap_or(own);
    for (key, value) in [
        ("service.version", &identity.canonical_revision),
        ("k8s.namespace.name", &identity.namespace),
        ("k8s.cluster.name", &identity.cluster),
    ] {
        attributes.entry(key.to_owned()).or_insert_with(|| value.clone());
    }
    attributes.insert("service.name".to_owned(), name);
    let attributes: Vec<Value> = attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    json!({"attributes": attributes})
}

/// An `ExportTraceServiceRequest`.
fn export(resource: &Value, batch: &[Ended]) -> Value {
    let scope = json!({"name": "outrigger-proxy", "version": env!("CARGO_PKG_VERSION")});
    let spans: Vec<Value> = batch.iter().map(span).collect();
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

fn span(ended: &Ended) -> Value {
    let nanoseconds =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let kind = match ended.direction {
        Direction::Inbound => 2,
        Direction::Outbound => 3,
    };
    let mut attributes = vec![
        attribute("http.request.method", &ended.method),
        attribute("url.path", ended.path.split('?').next().unwrap_or_default()),
        attribute("server.address", &ended.host),
        attribute("network.protocol.version", ended.protocol.trim_start_matches("HTTP/")),
        attribute("network.peer.address", &ended.peer.ip().to_string()),
        attribute("guid:x-request-id", &ended.request_id),
        attribute("response_flags", ended.flag.name()),
    ];
    attributes
        .push(json!({"key": "http.response.status_code", "value": {"intValue": ended.code.to_string()}}));
    let failed = ended.code >= 500 || ended.code == 0 || ended.flag != Flag::None;
    let mut span = json!({
        "traceId": format!("{:032x}", ended.span.trace),
        "spanId": format!("{:016x}", ended.span.id),
        "name": ended.method,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(ended.ended.checked_sub(ended.duration).unwrap_or(UNIX_EPOCH)),
        "endTimeUnixNano": nanoseconds(ended.ended),
        "attributes": attributes,
        "status": if failed { json!({"code": 2}) } else { json!({}) },
    });
    if ended.span.parent != 0 {
        span["parentSpanId"] = format!("{:016x}", ended.span.parent).into();
    }
    span
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::trace::context::Span;

    fn ended(parent: u64, code: u16) -> Ended {
        Ended {
            span: Span { trace: 0xabc, id: 0xdef, parent, sampled: true },
            direction: Direction::Inbound,
            ended: UNIX_EPOCH + Duration::from_millis(1500),
            duration: Duration::from_millis(500),
            method: "GET".to_owned(),
            path: "/a?secret=1".to_owned(),
            host: "shop".to_owned(),
            protocol: "HTTP/1.1",
            code,
            flag: Flag::None,
            request_id: "id".to_owned(),
            peer: ([10, 0, 0, 2], 4000).into(),
        }
    }

    #[test]
    fn a_span_is_written_as_otlp_has_it() {
        let value = span(&ended(0x123, 200));
        assert_eq!(value["traceId"], "00000000000000000000000000000abc");
        assert_eq!(value["parentSpanId"], "0000000000000123");
        assert_eq!(
            (&value["startTimeUnixNano"], &value["endTimeUnixNano"]),
            (&json!("1000000000"), &json!("1500000000"))
        );
        assert_eq!((&value["kind"], &value["status"]), (&json!(2), &json!({})));
        let text = value.to_string();
        assert!(text.contains(r#""intValue":"200""#) && !text.contains("secret"), "{text}");
        let root = span(&ended(0, 503));
        assert_eq!((root.get("parentSpanId"), &root["status"]["code"]), (None, &json!(2)));
    }

    #[test]
    fn spans_reach_the_collector_and_what_does_not_is_counted() {
        crate::connection::harness::run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let settings = |address: std::net::SocketAddr| {
                let endpoint = format!("http://{address}/v1/traces");
                let env =
                    |name: &str| (name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").then(|| endpoint.clone());
                Settings::read(&env).unwrap().unwrap()
            };
            let counts = Arc::new(Spans::default());
            let (sender, spans) = tokio::sync::mpsc::channel(10);
            sender.send(ended(1, 200)).await.unwrap();
            sender.send(ended(2, 200)).await.unwrap();
            drop(sender);
            let exporting = run(
                settings(listener.local_addr().unwrap()),
                Identity::unknown(),
                spans,
                Arc::clone(&counts),
            );
            let collecting = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                while !text.ends_with("]}]}]}") {
                    let mut piece = [0; 4096];
                    let count = stream.read(&mut piece).await.unwrap();
                    assert!(count > 0, "{text}");
                    text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                text
            };
            let ((), text) = tokio::join!(exporting, collecting);
            assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{text}");
            let body: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert_eq!(body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 2);
            assert_eq!((counts.exported.get(), counts.dropped.get()), (2, 0));

            let (_nobody, address) = crate::connection::harness::refusing();
            let (sender, spans) = tokio::sync::mpsc::channel(10);
            sender.send(ended(1, 200)).await.unwrap();
            drop(sender);
            run(settings(address), Identity::unknown(), spans, Arc::clone(&counts)).await;
            assert_eq!((counts.exported.get(), counts.dropped.get()), (2, 1));
        });
    }

    #[test]
    fn a_collector_behind_tls_is_told_if_its_certificate_leads_to_a_root() {
        crate::connection::harness::run(async {
            let trusted = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
            let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
            let file = std::env::temp_dir().join(format!("outrigger-roots-{}", std::process::id()));
            std::fs::write(&file, trusted.cert.pem()).unwrap();
            let counts = Arc::new(Spans::default());
            for (certified, counted) in [(trusted, (1, 0)), (other, (1, 1))] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let endpoint = format!("https://{}", listener.local_addr().unwrap());
                let settings = Settings::read(&|name| match name {
                    "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
                    "OTEL_EXPORTER_OTLP_CERTIFICATE" => Some(file.to_str()?.to_owned()),
                    _ => None,
                });
                let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
                    .unwrap();
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let server = rustls::ServerConfig::builder_with_provider(provider);
                let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
                let server = server.with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
                let (sender, spans) = tokio::sync::mpsc::channel(10);
                sender.send(ended(1, 200)).await.unwrap();
                drop(sender);
                let exporting =
                    run(settings.unwrap().unwrap(), Identity::unknown(), spans, Arc::clone(&counts));
                let collecting = async {
                    let (stream, _) = listener.accept().await.unwrap();
                    // A client that does not trust us ends the handshake.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return String::new() };
                    let mut text = Vec::new();
                    while !text.ends_with(b"]}]}]}") {
                        match stream.read_buf(&mut text).await {
                            Ok(0) | Err(_) => return String::new(),
                            Ok(_) => {}
                        }
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                    stream.shutdown().await.unwrap();
                    String::from_utf8(text).unwrap()
                };
                let ((), text) = tokio::join!(exporting, collecting);
                assert_eq!(text.starts_with("POST /v1/traces HTTP/1.1\r\n"), counted.1 == 0, "{text}");
                assert_eq!((counts.exported.get(), counts.dropped.get()), counted);
            }
            std::fs::remove_file(&file).unwrap();
        });
    }
}
