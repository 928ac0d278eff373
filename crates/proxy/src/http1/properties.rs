//! What holds whatever is sent: what is passed on has one reading, and in pieces it is what it is as a whole. Each function
//! says whether the bytes were taken, and panics where something does not hold.

use super::body::{BadChunk, Framing};
use super::head;

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

/// A request that is passed on has one reading.
pub fn request(bytes: &[u8]) -> bool {
    let whole = head_end(bytes, bytes.len().max(1));
    for size in [1, 3] {
        assert_eq!(head_end(bytes, size), whole, "in pieces of {size}");
    }
    let Ok(Some(end)) = whole else { return false };
    let mut out = Vec::new();
    let Ok(first) = head::request(&bytes[..end], || "ID".to_owned(), 100, None, &mut out) else {
        return false;
    };
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
    match head::request(&out, || "ID".to_owned(), 100, None, &mut again) {
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
}

/// A response that is passed on has one reading.
pub fn response(bytes: &[u8]) -> bool {
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

/// A chunked body ends where others see its end.
pub fn body(bytes: &[u8]) -> bool {
    let whole = body_end(bytes, bytes.len());
    for size in [1, 2, 7] {
        assert_eq!(body_end(bytes, size), whole, "in pieces of {size}");
    }
    let Ok((end, true)) = whole else { return false };
    if let Some(elsewhere) = body_end_elsewhere(bytes) {
        assert_eq!(end, elsewhere);
    }
    true
}

/// A request as the stream has it: method, target and the bytes of the body.
type Read = (String, String, Vec<u8>);

/// The requests of a stream, passed on one after the other, are those that another reader finds in what was passed on:
/// none is smuggled behind another.
pub fn stream(bytes: &[u8]) -> bool {
    let (mut passed, mut out, mut rest) = (Vec::<Read>::new(), Vec::new(), bytes);
    while let Ok(Some(end)) = head::end(rest, 0) {
        let mut head = Vec::new();
        let Ok(request) = head::request(&rest[..end], || "ID".to_owned(), 100, None, &mut head) else {
            break;
        };
        let mut framing = request.framing;
        let Ok(length) = framing.advance(&rest[end..]) else { break };
        if !framing.done() {
            break;
        }
        let body = &rest[end..end + length];
        let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
        passed.push((request.method.to_owned(), target, body.to_vec()));
        out.extend_from_slice(&head);
        out.extend_from_slice(body);
        rest = &rest[end + length..];
        if request.upgrade || !request.keep_alive {
            break;
        }
    }
    assert_eq!(read_elsewhere(&out), Some(passed.clone()));
    !passed.is_empty()
}

/// What a strict reader of its own finds in a stream (RFC 9112, section 6.3); `None`: something is left over or has
/// another reading.
fn read_elsewhere(mut stream: &[u8]) -> Option<Vec<Read>> {
    let mut found = Vec::new();
    while !stream.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 200];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(stream) else { return None };
        let all = |name: &str| {
            let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value.to_vec()).collect::<Vec<_>>()
        };
        let length = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
            ([], []) => 0,
            ([length], []) if length.iter().all(u8::is_ascii_digit) => {
                std::str::from_utf8(length).ok()?.parse().ok()?
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => {
                body_end_elsewhere(&stream[head..])?
            }
            _ => return None,
        };
        let body = stream.get(head..head.checked_add(length)?)?.to_vec();
        found.push((request.method?.to_owned(), request.path?.to_owned(), body));
        stream = &stream[head + length..];
    }
    Some(found)
}
