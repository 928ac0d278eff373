//! What is not a review gets a clear error, and the next one is answered as ever.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::client::{Client, DEADLINE, pod, post_head, read_answer, review};
use crate::server::Server;

/// The server is none the worse.
fn still_serves(server: &Server) {
    assert!(server.ask(&review(&pod("cart"))).injected(&pod("cart")).is_some());
}

fn post(server: &Server, content_type: &str, body: &str) -> (u16, String) {
    let mut client = server.client();
    client.send(post_head("/inject", content_type, body.len())).unwrap();
    client.send(body).unwrap();
    let answer = client.answer().unwrap();
    (answer.status, answer.body)
}

#[test]
fn a_body_that_is_no_review_gets_400_and_the_field() {
    let server = Server::start("");
    let with = |pointer: &str, value: Value| {
        let mut review = review(&pod("cart"));
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string()
    };
    let without = |parent: &str, field: &str| {
        let mut review = review(&pod("cart"));
        review.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
        review.to_string()
    };
    let deep = |levels: usize| {
        let object = format!("{}{}", "{\"a\":".repeat(levels), "1") + &"}".repeat(levels);
        review(&json!("HERE")).to_string().replace("\"HERE\"", &object)
    };
    let table = [
        (String::new(), "the body is empty"),
        ("hello".to_owned(), "the body is no JSON: expected value at line 1 column 1"),
        ("{\"kind\":".to_owned(), "the body is no JSON: EOF while parsing a value at line 1 column 8"),
        (review(&pod("a")).to_string() + "{}", "the body is no JSON: trailing characters"),
        ("[1]".to_owned(), "the AdmissionReview: invalid type: sequence, expected a map"),
        ("{}".to_owned(), "missing field `apiVersion`"),
        (pod("cart").to_string(), "kind is \"Pod\", not \"AdmissionReview\""),
        (
            with("/apiVersion", json!("admission.k8s.io/v2")),
            "apiVersion is \"admission.k8s.io/v2\", not one of",
        ),
        (with("/apiVersion", json!(7)), "apiVersion: invalid type: integer `7`"),
        (with("/request", Value::Null), "the AdmissionReview has no request"),
        (without("", "request"), "the AdmissionReview has no request"),
        (with("/request", json!("please")), "request: invalid type: string \"please\", expected a map"),
        (with("/request", json!(["uid"])), "request: invalid type: sequence, expected a map"),
        (with("/request/kind", json!(["", "Pod"])), "request.kind: invalid type: sequence, expected a map"),
        (without("/request", "uid"), "request: missing field `uid`"),
        (with("/request/uid", json!({})), "request.uid: invalid type: map"),
        (with("/request/kind", json!("Pod")), "request.kind: invalid type: string \"Pod\""),
        (with("/request/operation", json!(1)), "request.operation: invalid type: integer `1`"),
        (with("/request/namespace", json!([])), "request.namespace: invalid type: sequence"),
        (with("/request/dryRun", json!("no")), "request.dryRun: invalid type: string \"no\""),
        (with("/request/object", Value::Null), "request.object is missing"),
        (with("/request/object", json!(5)), "request.object of Pod shop/(no name yet): it is no map"),
        (deep(200), "request.object of Pod shop/(no name yet): recursion limit exceeded"),
        (deep(100_000), "recursion limit exceeded"),
        ("[".repeat(1_000_000), "the AdmissionReview: invalid type: sequence, expected a map"),
        (format!("{{\"x\":{}", "[".repeat(1_000_000)), "the body is no JSON: "),
    ];
    for (body, message) in &table {
        let (status, answer) = post(&server, "application/json", body);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(message), "{answer} does not say {message}");
    }
    let counted = server.metric("outrigger_requests_rejected_total{reason=\"malformed\"}");
    assert_eq!(counted, table.len() as f64);
    still_serves(&server);
}

#[test]
fn a_pod_that_is_no_pod_is_refused_by_field() {
    let server = Server::start("");
    for (pointer, value, message) in [
        ("/metadata", json!(7), "metadata is a number, and must be an object"),
        ("/metadata/labels", json!(7), "metadata.labels is a number, and must be an object"),
        ("/spec", json!([]), "spec is a list, and must be an object"),
        ("/spec/containers", json!([]), "spec.containers is empty, and a pod needs a container"),
        ("/spec/containers/0", json!("app"), "spec.containers[0] is a string, and must be an object"),
    ] {
        let mut sent = pod("cart");
        *sent.pointer_mut(pointer).unwrap() = value;
        let response = server.ask(&review(&sent)).response();
        assert_eq!(response["allowed"], false, "{response}");
        assert_eq!(response["status"]["code"], 400);
        assert_eq!(response["uid"], review(&sent)["request"]["uid"]);
        let got = response["status"]["message"].as_str().unwrap();
        assert!(got.starts_with("pod shop/") && got.ends_with(message), "{got}");
        assert_eq!(response.get("patch"), None);
    }
    assert_eq!(server.metric("sidecar_injection_failure_total"), 5.0);
    still_serves(&server);
}

#[test]
fn a_template_that_fails_is_500_so_that_the_failure_policy_decides() {
    let server = Server::start("templates: {broken: \"a: {{values.nowhere}}\"}\n");
    let mut sent = pod("cart");
    sent["metadata"]["annotations"] = json!({"inject.istio.io/templates": "broken"});
    let answer = server.ask(&review(&sent));
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("pod shop/cart: template \"broken\": line 1, column 4"), "{}", answer.body);
    assert_eq!(server.metric("sidecar_injection_failure_total"), 1.0);
    assert_eq!(server.log("failed", |_| true)["name"], "");
    still_serves(&server);
}

#[test]
fn other_methods_types_and_paths_are_refused() {
    let server = Server::start("");
    let mut client = server.client();
    let answer = client.get("/inject");
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: post"), "{}", answer.head);
    assert_eq!(client.get("/inject/cluster/east").status, 405);
    assert_eq!(client.get("/").status, 404);
    assert_eq!(client.get("/metrics").status, 404, "metrics have a port of their own");
    assert_eq!(client.get("/healthz").body, "ok\n");
    assert_eq!(client.get("/readyz").status, 200);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.admin(path).status, 200);
    }
    assert_eq!(server.admin("/inject").status, 404);
    let body = review(&pod("cart")).to_string();
    assert_eq!(
        post(&server, "text/plain", &body),
        (415, "Content-Type is text/plain, not application/json\n".to_owned())
    );
    assert_eq!(post(&server, "application/json-patch+json", &body).0, 415);
    assert_eq!(post(&server, "application/json; charset=utf-8", &body).0, 200);
    assert_eq!(server.metric("outrigger_requests_rejected_total{reason=\"content_type\"}"), 2.0);
}

#[test]
fn a_body_over_the_limit_is_413() {
    let server = Server::start("");
    let limit = 8 << 20;
    for length in [limit + 1, 2 * limit] {
        let (status, body) = post(&server, "application/json", &" ".repeat(length));
        assert_eq!((status, body.as_str()), (413, "the body is larger than 8388608 bytes\n"));
    }
    assert_eq!(
        post(&server, "application/json", &" ".repeat(limit)).0,
        400,
        "as large as may be, and no JSON"
    );
    assert_eq!(server.metric("outrigger_requests_rejected_total{reason=\"body_too_large\"}"), 2.0);
    still_serves(&server);
}

#[test]
fn a_body_that_stops_half_way_is_counted() {
    let server = Server::start("");
    let body = review(&pod("cart")).to_string();
    for _ in 0..2 {
        let mut client = server.client();
        client.send(post_head("/inject", "application/json", body.len())).unwrap();
        client.send(&body[..body.len() / 2]).unwrap();
        client.half_close();
        drop(client);
    }
    server.metric_becomes("outrigger_requests_rejected_total{reason=\"body_incomplete\"}", 2.0);
    server.metric_becomes("outrigger_requests_in_flight", 0.0);
    assert_eq!(server.metric("sidecar_injection_requests_total"), 0.0);
    still_serves(&server);
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let server = Server::start("");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(post_head("/inject", "application/json", 0).as_bytes()).unwrap();
    let answer = read_answer(&mut stream).unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("https://"), "{}", answer.body);
    drop(stream);
    server.metric_becomes("outrigger_tls_handshake_failures_total{reason=\"plain_http\"}", 1.0);
    still_serves(&server);
}

#[test]
fn tls_1_1_is_refused() {
    let server = Server::start("");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&client_hello([3, 2])).unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).unwrap();
    // An alert (21), fatal (2); RFC 5246, 7.2: handshake_failure (40) or protocol_version (70).
    assert_eq!((alert[0], alert[5]), (21, 2), "{alert:?}");
    assert!([40, 70].contains(&alert[6]), "{alert:?}");
    server.metric_becomes("outrigger_tls_handshake_failures_total{reason=\"tls\"}", 1.0);
    still_serves(&server);
}

/// A ClientHello (RFC 5246, 7.4.1.2) that knows no version after this one, with one cipher suite of each age.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let mut hello = version.to_vec();
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 6, 0xc0, 0x09, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE-ECDSA-AES128-SHA, and two for TLS 1.2
    hello.extend([1, 0]); // no compression
    // Extensions: supported groups (P-256), point formats, signature algorithms (ECDSA with SHA-256).
    hello.extend([0, 22, 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = hello.len() as u8;
    let mut record = vec![22, version[0], version[1], 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[test]
fn the_hello_of_the_test_above_is_sound() {
    let server = Server::start("");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&client_hello([3, 3])).unwrap();
    let mut head = [0; 6];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0], head[5]), (22, 2), "a handshake record with a ServerHello: {head:?}");
}

#[test]
fn a_head_that_is_no_http_is_400() {
    let server = Server::start("");
    let mut client = Client::connect(server.address, &server.tls);
    client.send("INJECT ME\r\n\r\n").unwrap();
    assert_eq!(client.answer().unwrap().status, 400);
    let mut client = Client::connect(server.address, &server.tls);
    client.send(format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(64 << 10))).unwrap();
    assert_eq!(client.answer().unwrap().status, 431);
    still_serves(&server);
}
