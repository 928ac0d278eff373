use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::channel;

use super::*;

fn record(parent: u64, failure: Option<&str>) -> Record {
    Record {
        span: Span { trace: 0xabc, id: 0xdef, parent, sampled: true },
        name: "GET".to_owned(),
        server: true,
        ended: UNIX_EPOCH + Duration::from_millis(1500),
        duration: Duration::from_millis(500),
        attributes: vec![
            ("text", "a".into()),
            ("number", Value::Number(200)),
            ("flag", Value::Flag(true)),
            ("texts", Value::Texts(vec!["a".to_owned(), "b".to_owned()])),
        ],
        failure: failure.map(str::to_owned),
    }
}

fn service() -> Service {
    Service {
        program: ("program", "1.0"),
        name: "shop".to_owned(),
        attributes: vec![("service.version", "2".to_owned()), ("k8s.namespace.name", "mesh".to_owned())],
    }
}

#[test]
fn a_span_is_written_as_otlp_has_it() {
    let expected = json!({
        "traceId": "00000000000000000000000000000abc",
        "spanId": "0000000000000def",
        "parentSpanId": "0000000000000123",
        "name": "GET",
        "kind": 2,
        "startTimeUnixNano": "1000000000",
        "endTimeUnixNano": "1500000000",
        "attributes": [
            {"key": "text", "value": {"stringValue": "a"}},
            {"key": "number", "value": {"intValue": "200"}},
            {"key": "flag", "value": {"boolValue": true}},
            {"key": "texts", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}}},
        ],
        "status": {},
    });
    assert_eq!(span(&record(0x123, None)), expected);
    let root = span(&Record { server: false, ..record(0, Some("")) });
    assert_eq!(
        (root.get("parentSpanId"), &root["kind"], &root["status"]),
        (None, &json!(3), &json!({"code": 2}))
    );
    assert_eq!(span(&record(1, Some("why")))["status"], json!({"code": 2, "message": "why"}));
}

#[test]
fn what_the_operator_says_of_the_service_stands_above_what_it_says_itself() {
    let read = |env: &[(&str, &str)]| {
        let given = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://collector".to_owned()),
            _ => env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        };
        let resource = resource(&Settings::read(&given).unwrap().unwrap(), &service());
        let attributes = resource["attributes"].as_array().unwrap().iter();
        let pairs = attributes.map(|pair| {
            let value = pair["value"]["stringValue"].as_str().unwrap().to_owned();
            (pair["key"].as_str().unwrap().to_owned(), value)
        });
        pairs.collect::<Vec<_>>()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let namespace = pair("k8s.namespace.name", "mesh");
    assert_eq!(read(&[]), [namespace.clone(), pair("service.name", "shop"), pair("service.version", "2")]);
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=cart,service.version=3,team=a");
    let others = [pair("service.version", "3"), pair("team", "a")];
    let all = |name: &str| [&[namespace.clone(), pair("service.name", name)], &others[..]].concat();
    assert_eq!(read(&[attributes]), all("cart"));
    assert_eq!(read(&[attributes, ("OTEL_SERVICE_NAME", "till")]), all("till"));
}

fn settings(endpoint: &str, roots: Option<&str>) -> Settings {
    let given = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.to_owned()),
        "OTEL_EXPORTER_OTLP_CERTIFICATE" => roots.map(str::to_owned),
        _ => None,
    };
    Settings::read(&given).unwrap().unwrap()
}

/// Reads one export and takes it; its head and its body. Nothing, where the connection ends before.
async fn collect(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &str,
) -> Option<(String, serde_json::Value)> {
    let mut read = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        if read.len() == end + 4 + length.parse::<usize>().unwrap() {
            break (head, serde_json::from_slice(&read[end + 4..]).unwrap());
        }
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    Some((head, body))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
const FULL: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nfull";

/// Exports so many spans.
async fn exported(settings: Settings, spans: usize, counts: &Arc<Counts>) {
    let (sender, receiver) = channel(10);
    for _ in 0..spans {
        sender.send(record(1, None)).await.unwrap();
    }
    drop(sender);
    run(settings, service(), receiver, Arc::clone(counts)).await;
}

#[tokio::test]
async fn spans_reach_the_collector_and_what_does_not_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |address: SocketAddr| format!("http://{address}");
    let at = url(listener.local_addr().unwrap());
    let counts = Arc::new(Counts::default());
    for (answer, counted) in [(OK, (2, 0)), (FULL, (2, 2))] {
        let collecting = async { collect(listener.accept().await.unwrap().0, answer).await.unwrap() };
        let ((), (head, body)) = tokio::join!(exported(settings(&at, None), 2, &counts), collecting);
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let scope = &body["resourceSpans"][0]["scopeSpans"][0];
        assert_eq!(scope["scope"], json!({"name": "program", "version": "1.0"}));
        assert_eq!(scope["spans"], json!([span(&record(1, None)), span(&record(1, None))]));
        assert_eq!((counts.exported(), counts.dropped()), counted);
    }

    // An address that refuses connections: it is taken, and nobody listens.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let at = url(nobody.local_addr().unwrap().as_socket().unwrap());
    exported(settings(&at, None), 1, &counts).await;
    assert_eq!((counts.exported(), counts.dropped()), (2, 3));
}

#[tokio::test]
async fn a_collector_behind_tls_is_told_if_its_certificate_leads_to_a_root() {
    let trusted = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), trusted.cert.pem()).unwrap();
    let counts = Arc::new(Counts::default());
    for (certified, counted) in [(trusted, (1, 0)), (other, (1, 1))] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider);
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = server.with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let at = format!("https://{}", listener.local_addr().unwrap());
        let collecting = async {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us ends the handshake.
            collect(acceptor.accept(stream).await.ok()?, OK).await
        };
        let settings = settings(&at, file.path().to_str());
        let ((), collected) = tokio::join!(exported(settings, 1, &counts), collecting);
        assert_eq!(collected.is_some(), counted.1 == 0, "{collected:?}");
        assert_eq!((counts.exported(), counts.dropped()), counted);
    }
}

#[tokio::test]
async fn a_span_that_finds_no_place_is_dropped_and_nobody_waits() {
    let counts = Arc::new(Counts::default());
    let (tracer, mut spans) = crate::Tracer::new(1.0, Arc::clone(&counts));
    let span = |sampled| Span { trace: 1, id: 2, parent: 0, sampled };
    for number in 0..crate::WAITING + 3 {
        tracer.end(span(true), || number);
    }
    assert_eq!(counts.dropped(), 3);
    assert_eq!(spans.recv().await, Some(0));
    tracer.end(span(false), || unreachable!("it is not sampled"));
    assert_eq!((counts.dropped(), counts.exported(), spans.len()), (3, 0, crate::WAITING - 1));
}
