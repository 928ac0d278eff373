use super::*;

fn sent(text: &str) -> Result<String, Refusal> {
    let mut out = Vec::new();
    request(text.as_bytes(), || "ID".to_owned(), 100, None, &mut out).map(|_| String::from_utf8(out).unwrap())
}

#[test]
fn order_and_case_stay_and_hop_by_hop_fields_go() {
    let text = "POST /a?b HTTP/1.1\r\nX-Second: 2\r\nHOST: a.example:80\r\nConnection: X-Hop, keep-alive\r\nx-hop: 1\r\n\
                Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers, gzip\r\nContent-Length: 3\r\n\
                traceparent: 00-ab-cd-01\r\nX-B3-TraceId: 1\r\nx-first:1\r\n\r\n";
    let expected = "POST /a?b HTTP/1.1\r\nX-Second: 2\r\nHOST: a.example:80\r\nContent-Length: 3\r\n\
                    traceparent: 00-ab-cd-01\r\nX-B3-TraceId: 1\r\nx-first: 1\r\nTE: trailers\r\nConnection: TE\r\n\
                    x-request-id: ID\r\nx-forwarded-proto: http\r\n\r\n";
    assert_eq!(sent(text).unwrap(), expected);
}

#[test]
fn what_is_there_is_not_added() {
    let text = "GET / HTTP/1.1\r\nhost: a\r\nX-Request-Id: mine\r\nx-forwarded-proto: https\r\nx-forwarded-for: 1.2.3.4\r\n\r\n";
    assert_eq!(sent(text).unwrap(), text);
}

#[test]
fn an_id_is_made_for_a_request_that_has_none_and_for_no_other() {
    for (fields, made) in [("", 1), ("x-request-id: mine\r\n", 0)] {
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        let mut ids = 0;
        let id = || {
            ids += 1;
            "ID".to_owned()
        };
        request(text.as_bytes(), id, 100, None, &mut Vec::new()).unwrap();
        assert_eq!(ids, made, "{fields:?}");
    }
}

#[test]
fn fields_that_frame_or_address_cannot_be_named_away() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: content-length, host, x-forwarded-for\r\nx-forwarded-for: 1\r\n\r\n";
    let out = sent(text).unwrap();
    assert!(
        out.contains("Content-Length: 3") && out.contains("Host: a") && out.contains("x-forwarded-for"),
        "{out}"
    );
}

#[test]
fn an_absolute_target_becomes_a_path_and_its_authority_wins() {
    let out = sent("GET http://b.example:8080/x?y HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(out.starts_with("GET /x?y HTTP/1.1\r\nHost: b.example:8080\r\n"), "{out}");
    let out = sent("GET http://b.example HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(out.starts_with("GET / HTTP/1.1\r\nHost: b.example\r\n"), "{out}");
}

#[test]
fn upgrades_pass_but_not_to_http2() {
    let text = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n";
    let out = sent(text).unwrap();
    assert!(
        out.contains("\r\nUpgrade: websocket\r\n") && out.contains("\r\nConnection: Upgrade\r\n"),
        "{out}"
    );
    let text = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n";
    let out = sent(text).unwrap().to_ascii_lowercase();
    assert!(!out.contains("upgrade") && !out.contains("http2-settings"), "{out}");
}

/// Requests that two readers could frame differently, and others that are not HTTP; each with the status of the refusal.
const REFUSED: &[(u16, &str)] = &[
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\n Content-Length: 3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tContent-Length: 3\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer\0-Encoding: chunked\r\n\r\n"),
    (400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (505, "GET / x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    (400, "G\"T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    (400, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
];

#[test]
fn ambiguous_requests_are_refused() {
    for (code, text) in REFUSED {
        match sent(text) {
            Err(Refusal(status, _)) if status == *code => {}
            other => panic!("{text:?}: expected {code}, got {other:?}"),
        }
    }
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(100));
    assert_eq!(sent(&many).unwrap_err().0, 431);
}

#[test]
fn lines_end_with_cr_lf() {
    for text in ["GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "\nGET / HTTP/1.1\r\n\r\n"]
    {
        assert!(end(text.as_bytes(), 0).is_err(), "{text:?}");
    }
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
    assert_eq!(end(text, 0), Ok(Some(text.len() - 4)));
    for seen in 0..text.len() - 4 {
        assert_eq!(end(text, seen), Ok(Some(text.len() - 4)), "{seen} seen before");
        assert_eq!(end(&text[..seen], 0), Ok(None));
    }
}

fn answered(text: &str, method: &str, close: bool) -> Result<(Response, String), &'static str> {
    let mut out = Vec::new();
    response(text.as_bytes(), method, 100, close, None, &mut out)
        .map(|head| (head, String::from_utf8(out).unwrap()))
}

#[test]
fn responses_are_framed_by_method_and_status() {
    let framing = |text: &str, method: &str| answered(text, method, false).unwrap().0.framing;
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(framing(length, "GET"), Framing::Length(5));
    assert_eq!(framing(length, "HEAD"), Framing::NONE);
    assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET"), Framing::NONE);
    assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n", "GET"), Framing::NONE);
    assert_eq!(framing("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", "GET"), Framing::NONE);
    assert_eq!(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", "GET"), Framing::CHUNKED);
    assert_eq!(framing("HTTP/1.0 200 OK\r\n\r\n", "GET"), Framing::UntilClose);
    assert!(answered("HTTP/1.1 200 OK\r\n\r\n", "CONNECT", false).unwrap().0.tunnel);
    assert!(
        answered(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "GET",
            false
        )
        .unwrap()
        .0
        .tunnel
    );
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
    ] {
        assert!(answered(bad, "GET", false).is_err(), "{bad:?}");
    }
}

#[test]
fn responses_keep_order_and_case_and_say_when_the_connection_ends() {
    let text = "HTTP/1.1 404 Nicht Da\r\nX-B: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nx-a: 2\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
    let (head, out) = answered(text, "GET", true).unwrap();
    assert_eq!(
        out,
        "HTTP/1.1 404 Nicht Da\r\nX-B: 1\r\nx-a: 2\r\nContent-Length: 0\r\nconnection: close\r\n\r\n"
    );
    assert!(head.keep_alive);
    assert!(!answered("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", false).unwrap().0.keep_alive);
    let closes = answered("HTTP/1.1 200 OK\r\n\r\n", "GET", false).unwrap();
    assert!(closes.1.contains("connection: close") && !closes.0.keep_alive);
}

#[test]
fn the_upstreams_time_is_shown_where_there_is_an_answer() {
    let shown = |text: &str, method: &str| {
        let mut out = Vec::new();
        response(text.as_bytes(), method, 100, false, Some(1234), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let before = "HTTP/1.1 200 OK\r\nX-Envoy-Upstream-Service-Time: 5\r\nContent-Length: 0\r\n\r\n";
    let after = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-envoy-upstream-service-time: 1234\r\n\r\n";
    assert_eq!(shown(before, "GET"), after, "ours is the last word");
    for (text, method) in [
        ("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", "GET"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "GET"),
        ("HTTP/1.1 200 OK\r\n\r\n", "CONNECT"),
    ] {
        assert_eq!(shown(text, method), text);
    }
}
