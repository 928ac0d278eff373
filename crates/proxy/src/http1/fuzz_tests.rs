//! Framing holds whatever is sent.

use super::properties;
use crate::fuzz;

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"content-length:\x0b6\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: identity, chunked\r\n",
    b"transfer-encoding:\tchunked\r\n",
    b"Connection: close, transfer-encoding, content-length\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Host: b\r\n",
    b" folded\r\n",
    b"HTTP/1.0",
    b"http://c/d",
    b"CONNECT ",
    b"HEAD ",
    b"\0",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"5;a=b\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
];

const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /p?q HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\n",
    b"PUT http://a/b HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nUser-Agent: x\r\n\r\n",
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Request-Id: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
];

const RESPONSES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nTrailer: X\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n",
];

const BODIES: &[&[u8]] = &[
    b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
    b"a;x=\"y\"\r\n0123456789\r\n00\r\nTrailer: 1\r\nOther: 2\r\n\r\n",
    b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0;e\r\n\r\n",
];

#[test]
fn a_request_that_is_passed_on_has_one_reading() {
    fuzz::each(REQUESTS, WORDS, properties::request);
}

#[test]
fn a_response_that_is_passed_on_has_one_reading() {
    fuzz::each(RESPONSES, WORDS, properties::response);
}

#[test]
fn a_chunked_body_ends_where_others_see_its_end() {
    fuzz::each(BODIES, WORDS, properties::body);
}

#[test]
fn no_request_is_smuggled_behind_another() {
    fuzz::each(REQUESTS, WORDS, properties::stream);
}
