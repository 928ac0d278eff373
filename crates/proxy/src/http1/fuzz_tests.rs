//! Framing holds whatever is sent: what is passed on has one reading, and in pieces it is what it is as a whole.

use super::body::{BadChunk, Framing};
use super::head;
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

/// Where the head ends when its bytes come in pieces of `size`.
fn head_end(bytes: &[u8], size: usize) -> Result<Option<usize>, head::Refusal> {
    let mut seen = 0;
    for end in (size..bytes.len()).step_by(size).chain([bytes.len()]) {
        if let Some(end) = head::end(&bytes[..end], seen)? {
            return Ok(Some(end));
        }
        seen = end;
    }
    Ok(None)
}

/// The values of the fields called `name`.
fn values(head: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let lines =
        text.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_request_that_is_passed_on_has_one_reading() {
    fuzz::each(REQUESTS, WORDS, |bytes| {
        let whole = head_end(bytes, bytes.len().max(1));
        for size in [1, 3] {
            assert_eq!(head_end(bytes, size), whole, "in pieces of {size}");
        }
        let Ok(Some(end)) = whole else { return false };
        let mut out = Vec::new();
        let Ok(first) = head::request(&bytes[..end], "ID", 100, None, &mut out) else { return false };
        assert_eq!(head::end(&out, 0), Ok(Some(out.len())), "one head became several");
        let (lengths, codings) = (values(&out, "content-length"), values(&out, "transfer-encoding"));
        match first.framing {
            Framing::Length(0) if lengths.is_empty() => assert!(codings.is_empty()),
            Framing::Length(length) => {
                assert!(codings.is_empty() && lengths.len() == 1 && lengths[0].parse() == Ok(length));
            }
            _ => assert!(lengths.is_empty() && codings == ["chunked"]),
        }
        assert!(values(&out, "host").len() <= 1);
        let mut again = Vec::new();
        match head::request(&out, "ID", 100, None, &mut again) {
            Ok(second) => {
                assert_eq!(
                    (first.method, first.host, first.framing),
                    (second.method, second.host, second.framing)
                );
                assert_eq!(first.upgrade, second.upgrade);
            }
            // What was added were fields too many.
            Err(refusal) => assert_eq!(refusal.0, 431, "{refusal:?}"),
        }
        true
    });
}

#[test]
fn a_response_that_is_passed_on_has_one_reading() {
    fuzz::each(RESPONSES, WORDS, |bytes| {
        let Ok(Some(end)) = head::end(bytes, 0) else { return false };
        let mut taken = false;
        for method in ["GET", "HEAD", "CONNECT"] {
            let mut out = Vec::new();
            let Ok(first) = head::response(&bytes[..end], method, 100, false, Some(1), &mut out) else {
                continue;
            };
            taken = true;
            assert_eq!(head::end(&out, 0), Ok(Some(out.len())), "one head became several");
            assert!(values(&out, "content-length").len() <= 1);
            let mut again = Vec::new();
            match head::response(&out, method, 100, false, Some(1), &mut again) {
                Ok(second) => assert_eq!(
                    (first.status, first.framing, first.tunnel),
                    (second.status, second.framing, second.tunnel)
                ),
                Err(reason) => assert!(reason.contains("fields"), "{reason}"),
            }
        }
        taken
    });
}

/// How many bytes belong to the body that comes in pieces of `size`, and whether it is whole.
fn body_end(bytes: &[u8], size: usize) -> Result<(usize, bool), BadChunk> {
    let mut framing = Framing::CHUNKED;
    let mut total = 0;
    for piece in bytes.chunks(size.max(1)) {
        total += framing.advance(piece)?;
        if framing.done() {
            break;
        }
    }
    Ok((total, framing.done()))
}

/// Where httparse, that many others use, sees the end of a chunked body.
fn body_end_elsewhere(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((length, size))) = httparse::parse_chunk_size(&bytes[at..]) else {
            return None;
        };
        at += length;
        if size == 0 {
            let mut headers = [httparse::EMPTY_HEADER; 1000];
            return match httparse::parse_headers(&bytes[at..], &mut headers) {
                Ok(httparse::Status::Complete((length, _))) => Some(at + length),
                _ => None,
            };
        }
        at += usize::try_from(size).ok()?;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
}

#[test]
fn a_chunked_body_ends_where_others_see_its_end() {
    fuzz::each(BODIES, WORDS, |bytes| {
        let whole = body_end(bytes, bytes.len());
        for size in [1, 2, 7] {
            assert_eq!(body_end(bytes, size), whole, "in pieces of {size}");
        }
        let Ok((end, true)) = whole else { return false };
        if let Some(elsewhere) = body_end_elsewhere(bytes) {
            assert_eq!(end, elsewhere);
        }
        true
    });
}
