//! Spans of admission requests, as a collector gets them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::client::{pod, post_head, review};
use crate::server::{ANYWHERE, Server, command};

/// A collector on loopback that takes everything: its URL, and the requests that it got, heads and bodies.
fn collector() -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, exports) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let from = head.len();
                stream.read_line(&mut head).unwrap();
                if let Some(value) = head[from..].to_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            // Before the answer: whoever sees that spans were taken finds them here.
            let Ok(()) = sender.send((head, serde_json::from_slice(&body).unwrap())) else { return };
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        }
    });
    (url, exports)
}

fn traced(settings: &str, environment: &[(&str, &str)]) -> Server {
    Server::start_by(settings, |mut command| {
        command.envs(environment.iter().copied());
        command
    })
}

/// Posts as an API server does that traces itself.
fn post(server: &Server, body: &str, traceparent: Option<&str>) -> u16 {
    let head = post_head("/inject", "application/json", body.len());
    let field = traceparent.map(|value| format!("traceparent: {value}\r\n")).unwrap_or_default();
    let mut client = server.client();
    client.send(head.strip_suffix("\r\n").unwrap().to_owned() + &field + "\r\n").unwrap();
    client.send(body).unwrap();
    client.answer().unwrap().status
}

/// Attributes by their keys.
fn attributes(of: &Value) -> BTreeMap<&str, &Value> {
    let pairs = of["attributes"].as_array().unwrap().iter();
    pairs.map(|pair| (pair["key"].as_str().unwrap(), &pair["value"])).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[test]
fn a_collector_gets_a_span_of_each_sampled_request() {
    let (url, exports) = collector();
    let settings = "revision: canary\nnamespaces: [shop]\n";
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_RESOURCE_ATTRIBUTES", "team=mesh")];
    let server = traced(settings, &environment);

    let mut bad = pod("bad");
    bad["metadata"]["annotations"] = json!({"inject.istio.io/templates": "nowhere"});
    let mut service = review(&json!({"kind": "Service"}));
    service["request"]["kind"]["kind"] = json!("Service");
    let mut cart = review(&pod("cart"));
    cart["request"]["name"] = json!("cart");
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(post(&server, &cart.to_string(), Some(&sampled)), 200);
    // Whoever began the trace has decided that nobody records it.
    assert_eq!(
        post(&server, &review(&pod("quiet")).to_string(), Some(&format!("00-{TRACE}-{PARENT}-00"))),
        200
    );
    assert_eq!(post(&server, &review(&bad).to_string(), None), 200);
    assert_eq!(post(&server, &service.to_string(), None), 200);
    assert_eq!(post(&server, "{}", None), 400);
    server.metric_becomes("outrigger_spans_total{result=\"exported\"}", 4.0);
    assert_eq!(server.metric("outrigger_spans_total{result=\"dropped\"}"), 0.0);

    let exports: Vec<_> = exports.try_iter().collect();
    let mut spans = Vec::new();
    for (head, body) in &exports {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let of = &body["resourceSpans"][0];
        let resource = attributes(&of["resource"]);
        assert_eq!(resource["service.name"], &json!({"stringValue": "outrigger"}));
        assert_eq!(resource["service.version"], &json!({"stringValue": env!("CARGO_PKG_VERSION")}));
        assert_eq!(resource["team"], &json!({"stringValue": "mesh"}));
        spans.extend(of["scopeSpans"][0]["spans"].as_array().unwrap());
    }
    let [injected, refused, unchanged, malformed] = spans[..] else { panic!("{spans:?}") };

    assert_eq!((&injected["traceId"], &injected["parentSpanId"]), (&json!(TRACE), &json!(PARENT)));
    assert_eq!((&injected["name"], &injected["kind"]), (&json!("POST /inject"), &json!(2)));
    assert_eq!(injected["status"], json!({}));
    let time = |of: &Value, field: &str| of[field].as_str().unwrap().parse::<u128>().unwrap();
    assert!(time(injected, "startTimeUnixNano") < time(injected, "endTimeUnixNano"));
    let mut said = attributes(injected);
    let bytes = said.remove("injection.patch_bytes").unwrap()["intValue"].as_str().unwrap();
    assert!(bytes.parse::<u64>().unwrap() > 1000, "{bytes}");
    let text = |text: &str| json!({"stringValue": text});
    let expected = [
        ("admission.dry_run", json!({"boolValue": false})),
        ("admission.name", text("cart")),
        ("admission.operation", text("CREATE")),
        ("admission.resource", text("pods")),
        ("admission.uid", text("0df28fbd-5f5f-11e8-bc74-36e6bb280816")),
        ("http.request.method", text("POST")),
        ("http.response.status_code", json!({"intValue": "200"})),
        ("injection.decision", text("injected")),
        ("injection.packs", json!({"arrayValue": {"values": [text("outrigger")]}})),
        ("injection.reason", text("policy_enabled")),
        ("injection.revision", text("canary")),
        ("k8s.namespace.name", text("shop")),
    ];
    assert_eq!(said, expected.iter().map(|(key, value)| (*key, value)).collect());

    // A trace of its own, and an error with its message.
    assert!(refused.get("parentSpanId").is_none() && refused["traceId"] != TRACE, "{refused}");
    assert_eq!(attributes(refused)["injection.decision"], &text("refused"));
    let status = &refused["status"];
    assert!(status["code"] == 2 && status["message"].as_str().unwrap().contains("nowhere"), "{status}");
    let said = attributes(unchanged);
    assert_eq!(
        (said["injection.decision"], said["injection.reason"]),
        (&text("unchanged"), &text("not_a_pod"))
    );
    assert_eq!(unchanged["status"], json!({}));
    let said = attributes(malformed);
    assert_eq!((said["error.type"], malformed["status"]["code"].as_u64()), (&text("malformed"), Some(2)));
    assert_eq!(said["http.response.status_code"], &json!({"intValue": "400"}));
}

#[test]
fn spans_that_nobody_takes_are_counted_and_requests_are_answered() {
    // Taken, and nobody listens.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap().as_socket().unwrap());
    let server = traced("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    assert!(server.ask(&review(&pod("cart"))).injected(&pod("cart")).is_some());
    server.metric_becomes("outrigger_spans_total{result=\"dropped\"}", 1.0);
    server.log("cannot export spans", |line| line["error"].as_str().unwrap().contains("refused"));
    assert!(server.ask(&review(&pod("cart"))).injected(&pod("cart")).is_some());
}

#[test]
fn without_a_collector_no_span_is_made() {
    let server = traced("", &[("OTEL_TRACES_SAMPLER", "parentbased_always_on")]);
    assert!(server.ask(&review(&pod("cart"))).injected(&pod("cart")).is_some());
    for result in ["exported", "dropped"] {
        assert_eq!(server.metric(&format!("outrigger_spans_total{{result=\"{result}\"}}")), 0.0);
    }
}

#[test]
fn a_collector_that_cannot_be_one_is_refused_at_start_with_the_variable() {
    for (url, remedy) in [("collector:4318", "expected http://"), ("https://collector", "https wants a file")]
    {
        let mut command = command(&ANYWHERE);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url);
        let output = command.stdout(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("OTEL_EXPORTER_OTLP_") && said.contains(remedy), "{said}");
    }
}
