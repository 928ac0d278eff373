//! Heads of HTTP/1 messages: read strictly, and written anew for the other side with order and case as they came.
//!
//! Whatever two readers could frame differently is refused (RFC 9112, sections 2.2, 5 and 6.3), so that nothing can
//! be smuggled through.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::body::Framing;
use crate::reply::SERVICE_TIME;
use crate::settings::MOST_HEADERS;
use crate::trace::context::{self, Span};

/// Why a request is refused: status code and reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str);

/// The limits that a head can meet.
pub(crate) const TOO_LONG: Refusal = Refusal(431, "the head is longer than maxHeadBytes allows");
pub(crate) const TOO_MANY: Refusal = Refusal(431, "the head has more fields than maxHeaders allows");
pub(crate) const TOO_LATE: Refusal = Refusal(408, "the head did not come within headTimeout");

/// Finds the end of a head: the position after the first empty line. `seen` bytes have been looked at before.
pub(crate) fn end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
    // The three bytes before may begin the empty line.
    let from = seen.saturating_sub(3);
    for at in memchr::memchr_iter(b'\n', &bytes[from..]) {
        let at = from + at;
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Refusal(400, "a line ends without CR"));
        }
        if at >= 3 && &bytes[at - 3..at] == b"\r\n\r" {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// What has to be known of a request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// 0 or 1, of HTTP/1.x.
    pub(crate) minor: u8,
    pub(crate) host: &'a str,
    pub(crate) framing: Framing,
    /// The client keeps the connection.
    pub(crate) keep_alive: bool,
    /// The client asks for another protocol, or for a tunnel.
    pub(crate) upgrade: bool,
    /// The id that it came with, or got.
    pub(crate) request_id: Cow<'a, [u8]>,
    pub(crate) user_agent: Option<&'a [u8]>,
    pub(crate) forwarded_for: Option<&'a [u8]>,
    /// Its part of a trace, where traces are.
    pub(crate) span: Option<Span>,
}

impl Request<'_> {
    /// RFC 9110, section 9.2.2: doing it twice is doing it once.
    pub(crate) fn idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }
}

/// Header fields that mean something on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Connection,
    KeepAlive,
    ProxyConnection,
    TransferEncoding,
    ContentLength,
    Upgrade,
    Te,
    Host,
    RequestId,
    ForwardedProto,
    ForwardedFor,
    UserAgent,
    Http2Settings,
    ServiceTime,
    Other,
}

fn field(name: &str) -> Field {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is("te") => Field::Te,
        4 if is("host") => Field::Host,
        7 if is("upgrade") => Field::Upgrade,
        10 if is("connection") => Field::Connection,
        10 if is("keep-alive") => Field::KeepAlive,
        10 if is("user-agent") => Field::UserAgent,
        12 if is("x-request-id") => Field::RequestId,
        14 if is("content-length") => Field::ContentLength,
        14 if is("http2-settings") => Field::Http2Settings,
        15 if is("x-forwarded-for") => Field::ForwardedFor,
        16 if is("proxy-connection") => Field::ProxyConnection,
        17 if is("transfer-encoding") => Field::TransferEncoding,
        17 if is("x-forwarded-proto") => Field::ForwardedProto,
        29 if is(SERVICE_TIME) => Field::ServiceTime,
        _ => Field::Other,
    }
}

/// The items of a comma-separated list.
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// What the `Connection` fields of a message say.
#[derive(Debug, Default)]
struct Connection<'a> {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Fields that end here.
    named: Vec<&'a [u8]>,
}

impl<'a> Connection<'a> {
    fn read(&mut self, value: &'a [u8]) {
        for item in items(value) {
            if item.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if item.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if item.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.named.push(item);
            }
        }
    }

    /// Whether field `name` goes no further. Fields that frame or address a message cannot be named away.
    fn ends(&self, kind: Field, name: &str) -> bool {
        kind == Field::Other && self.named.iter().any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// What the framing fields of a message say.
#[derive(Debug, Default)]
struct Lengths {
    length: Option<u64>,
    /// The same length was given again.
    repeated: bool,
    chunked: bool,
}

impl Lengths {
    fn content_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
            return Err("content-length is not a number");
        }
        let length = value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        match self.length {
            Some(before) if before != length => return Err("content-length is given twice"),
            before => self.repeated = before.is_some(),
        }
        self.length = Some(length);
        Ok(())
    }
}

/// Reads the request head `bytes` and appends the head that goes to the upstream to `out`. `id` makes the request
/// id that it gets if it has none; `most` is the number of fields that it may have, up to [`MOST_HEADERS`]; `sampling` is there
/// where traces are.
pub(crate) fn request<'a>(
    bytes: &'a [u8],
    id: impl FnOnce() -> String,
    most: usize,
    sampling: Option<f64>,
    out: &mut Vec<u8>,
) -> Result<Request<'a>, Refusal> {
    let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut headers[..most.min(MOST_HEADERS)]) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY),
        Err(httparse::Error::Version) => return Err(Refusal(505, "the version of HTTP is not 1.0 or 1.1")),
        _ => return Err(Refusal(400, "the head is not HTTP/1")),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal(400, "the request line is not HTTP/1"));
    };
    let mut connection = Connection::default();
    let mut lengths = Lengths::default();
    let (mut host, mut upgrade, mut te_trailers) = (None, None, false);
    let mut incoming = context::Incoming::default();
    let (mut request_id, mut user_agent, mut forwarded_for, mut has_proto) = (None, None, None, false);
    for header in parsed.headers.iter() {
        let value = header.value;
        match field(header.name) {
            Field::Connection => connection.read(value),
            Field::ContentLength => {
                lengths.content_length(value).map_err(|reason| Refusal(400, reason))?;
                if lengths.repeated {
                    return Err(Refusal(400, "content-length is given twice"));
                }
            }
            Field::TransferEncoding if lengths.chunked => {
                return Err(Refusal(400, "transfer-encoding is given twice"));
            }
            Field::TransferEncoding if value.eq_ignore_ascii_case(b"chunked") => lengths.chunked = true,
            Field::TransferEncoding => return Err(Refusal(501, "transfer-encoding is not `chunked`")),
            Field::Host if host.is_some() => return Err(Refusal(400, "host is given twice")),
            Field::Host => host = Some(authority(value).ok_or(Refusal(400, "host is not host:port"))?),
            Field::Upgrade => upgrade = Some(value),
            Field::Te => te_trailers |= items(value).any(|item| item.eq_ignore_ascii_case(b"trailers")),
            Field::RequestId => request_id = Some(value),
            Field::UserAgent => user_agent = Some(value),
            Field::ForwardedFor => forwarded_for = Some(value),
            Field::ForwardedProto => has_proto = true,
            Field::Other if sampling.is_some() => {
                if let Some(header) = context::Header::named(header.name) {
                    incoming.note(header, value);
                }
            }
            _ => {}
        }
    }
    if lengths.chunked && lengths.length.is_some() {
        return Err(Refusal(400, "content-length beside transfer-encoding"));
    }
    if lengths.chunked && minor == 0 {
        return Err(Refusal(400, "transfer-encoding in HTTP/1.0"));
    }
    if host.is_none() && minor == 1 {
        return Err(Refusal(400, "host is missing"));
    }
    let connect = method == "CONNECT";
    if connect && (lengths.chunked || lengths.length.is_some_and(|length| length > 0)) {
        return Err(Refusal(400, "CONNECT with a body"));
    }
    // A target with an authority stands above the host field (RFC 9112, section 3.2.2).
    let host_is_field = host.is_some();
    let (path, host) = match absolute(target) {
        Some((authority, path)) if !connect => (path, Some(authority)),
        _ => (target, host),
    };
    if !connect && !path.starts_with('/') && path != "*" {
        return Err(Refusal(400, "the request target is not a path"));
    }
    // HTTP/2 by upgrade (h2c) is gone from the standard; the request goes on as what it is.
    let upgrade = upgrade.filter(|value| connection.upgrade && !items(value).any(|item| item == b"h2c"));

    let span = sampling.map(|ratio| Span::begin(&incoming, ratio));
    let traced = |name: &str| span?.header(&incoming, context::Header::named(name)?);

    out.reserve(bytes.len() + 128);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(if minor == 1 { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" });
    for header in parsed.headers.iter() {
        let kind = field(header.name);
        match kind {
            Field::Connection
            | Field::KeepAlive
            | Field::ProxyConnection
            | Field::Te
            | Field::Http2Settings => {}
            Field::Upgrade if upgrade.is_none() => {}
            Field::Host => line(out, header.name, host.unwrap_or_default().as_bytes()),
            _ if connection.ends(kind, header.name) => {}
            Field::Other => match traced(header.name) {
                Some(value) => line(out, header.name, value.as_bytes()),
                None => line(out, header.name, header.value),
            },
            _ => line(out, header.name, header.value),
        }
    }
    if let Some(begins) = span.and_then(|span| span.begins(&incoming)) {
        line(out, "traceparent", begins.as_bytes());
    }
    if let Some(host) = host
        && !host_is_field
    {
        line(out, "host", host.as_bytes());
    }
    if te_trailers {
        out.extend_from_slice(if upgrade.is_some() {
            b"TE: trailers\r\n"
        } else {
            b"TE: trailers\r\nConnection: TE\r\n"
        });
    }
    if upgrade.is_some() {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    }
    let request_id = request_id.map(Cow::Borrowed).unwrap_or_else(|| {
        let id = id().into_bytes();
        line(out, "x-request-id", &id);
        Cow::Owned(id)
    });
    if !has_proto {
        out.extend_from_slice(b"x-forwarded-proto: http\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let framing = match lengths.length {
        _ if lengths.chunked => Framing::CHUNKED,
        Some(length) => Framing::Length(length),
        None => Framing::NONE,
    };
    Ok(Request {
        method,
        target,
        minor,
        host: host.unwrap_or_default(),
        framing,
        keep_alive: minor == 1 && !connection.close,
        upgrade: upgrade.is_some() || connect,
        request_id,
        user_agent,
        forwarded_for,
        span,
    })
}

/// The value of a host field, if it can be one: nothing in it that a reader might split at.
fn authority(value: &[u8]) -> Option<&str> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    value.iter().all(fits).then(|| std::str::from_utf8(value).ok()).flatten()
}

/// Splits an absolute target into its authority and its path.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let path = if rest[end..].starts_with('/') { &rest[end..] } else { "/" };
    authority(&rest.as_bytes()[..end])
        .filter(|authority| !authority.is_empty())
        .map(|authority| (authority, path))
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What has to be known of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The upstream keeps the connection.
    pub(crate) keep_alive: bool,
    /// After this head both sides speak another protocol.
    pub(crate) tunnel: bool,
}

/// Reads the response head `bytes` of at most `most` fields to a request with `method`, and appends the head that goes to
/// the client to `out`, with `connection: close` if it has to `close`, and the milliseconds that the upstream took if they
/// are to be shown.
pub(crate) fn response(
    bytes: &[u8],
    method: &str,
    most: usize,
    close: bool,
    took: Option<u64>,
    out: &mut Vec<u8>,
) -> Result<Response, &'static str> {
    let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let fields = &mut headers[..most.min(MOST_HEADERS)];
    match config.parse_response_with_uninit_headers(&mut parsed, bytes, fields) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY.1),
        _ => return Err("the head is not HTTP/1"),
    }
    let (Some(minor), Some(status)) = (parsed.version, parsed.code) else {
        return Err("the status line is not HTTP/1");
    };
    let mut connection = Connection::default();
    let mut lengths = Lengths::default();
    let mut coded = false;
    for header in parsed.headers.iter() {
        match field(header.name) {
            Field::Connection => connection.read(header.value),
            Field::ContentLength => lengths.content_length(header.value)?,
            Field::TransferEncoding if coded => return Err("transfer-encoding is given twice"),
            Field::TransferEncoding => {
                coded = true;
                lengths.chunked =
                    items(header.value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
    }
    if coded && (lengths.length.is_some() || !lengths.chunked) {
        return Err(
            "content-length beside transfer-encoding, or a transfer-encoding that does not end in `chunked`",
        );
    }
    let tunnel = status == 101 || (method == "CONNECT" && (200..300).contains(&status));
    let bodyless = tunnel || method == "HEAD" || matches!(status, 100..200 | 204 | 304);
    let framing = match lengths.length {
        _ if bodyless => Framing::NONE,
        _ if lengths.chunked => Framing::CHUNKED,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    let close = close || framing == Framing::UntilClose;
    let took = took.filter(|_| status >= 200 && !tunnel);

    out.reserve(bytes.len() + 64);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[
        b'0' + (status / 100) as u8,
        b'0' + (status / 10 % 10) as u8,
        b'0' + (status % 10) as u8,
    ]);
    out.push(b' ');
    out.extend_from_slice(parsed.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut length_written = false;
    for header in parsed.headers.iter() {
        let kind = field(header.name);
        match kind {
            Field::Connection | Field::KeepAlive | Field::ProxyConnection => {}
            Field::Upgrade if !connection.upgrade => {}
            Field::ContentLength if std::mem::replace(&mut length_written, true) => {}
            Field::ServiceTime if took.is_some() => {}
            _ if connection.ends(kind, header.name) => {}
            _ => line(out, header.name, header.value),
        }
    }
    if let Some(took) = took {
        line(out, SERVICE_TIME, took.to_string().as_bytes());
    }
    if connection.upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    } else if close && status >= 200 && !tunnel {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let keep_alive = if minor == 1 { !connection.close } else { connection.keep_alive && !connection.close };
    Ok(Response { status, framing, keep_alive: keep_alive && framing != Framing::UntilClose, tunnel })
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
