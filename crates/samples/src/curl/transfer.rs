//! A request, and what comes back.

use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::options::Options;
use super::url::{Target, target};
use super::write_out::Record;
use super::{Failure, tell, unwritten};
use crate::client::{self, Connected, Unconnected};

const AGENT: &str = concat!("outrigger-samples-curl/", env!("CARGO_PKG_VERSION"));

/// Sends one request, and writes the answer where it belongs. What is known meanwhile is in `record`.
pub(super) async fn transfer(
    options: &Options,
    url: &str,
    output: Option<&str>,
    start: Instant,
    record: &mut Record,
) -> Result<(), Failure> {
    let target = target(url)?;
    let request = request(options, &target)?;
    record.method = request.method().to_string();
    let Target { host, port, .. } = &target;
    let Connected { stream, address, resolved } =
        client::connect(host, *port).await.map_err(|error| match error {
            Unconnected::Resolve => Failure::new(6, format!("Could not resolve host: {host}")),
            Unconnected::Connect(error) => {
                Failure::new(7, format!("Failed to connect to {host} port {port}: {error}"))
            }
        })?;
    record.resolved = resolved.duration_since(start);
    record.connected = start.elapsed();
    record.remote = Some(address);
    record.local = stream.local_addr().ok();
    if options.verbose {
        tell(&format!("* Connected to {host} ({}) port {port}", address.ip()));
        let line = format!("{} {} HTTP/1.1", request.method(), request.uri());
        tell_head('>', &line, request.headers());
    }
    let answer = client::exchange(stream, request).await.map_err(|error| broken(&error, true))?;
    record.answered = start.elapsed();
    record.status = Some(answer.status());
    record.headers = answer.headers().clone();
    if options.verbose {
        tell_head('<', &status_line(&answer), answer.headers());
    }
    let mut out: Box<dyn Write> = match output {
        None | Some("-") => Box::new(io::stdout()),
        Some(file) => {
            Box::new(File::create(file).map_err(|error| Failure::new(23, format!("{file}: {error}")))?)
        }
    };
    if options.include || options.head {
        write_head(&mut out, &answer).map_err(unwritten)?;
    }
    if options.fail && answer.status().as_u16() >= 400 {
        let status = answer.status().as_u16();
        return Err(Failure::new(22, format!("The requested URL returned error: {status}")));
    }
    write_body(&mut out, answer.into_body(), record).await
}

/// What is sent.
fn request(options: &Options, target: &Target) -> Result<Request<Full<Bytes>>, Failure> {
    let usual = match (&options.data, options.head) {
        (Some(_), _) => Method::POST,
        (None, true) => Method::HEAD,
        (None, false) => Method::GET,
    };
    let host = HeaderValue::try_from(&target.authority)
        .map_err(|error| Failure::new(3, format!("URL rejected: {}: {error}", target.authority)))?;
    let mut request = Request::new(Full::new(options.data.clone().unwrap_or_default()));
    *request.method_mut() = options.method.clone().unwrap_or(usual);
    *request.uri_mut() = target.path.clone().into();
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    if options.data.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    // The first of a name stands instead of the usual one, the next beside it.
    let mut given = HeaderMap::new();
    for (name, value) in &options.headers {
        match value {
            Some(value) => {
                given.append(name, value.clone());
            }
            None => {
                headers.remove(name);
            }
        }
    }
    headers.extend(given);
    Ok(request)
}

/// What went wrong with a connection, before the head of the answer or behind it.
fn broken(error: &hyper::Error, before_head: bool) -> Failure {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause {
        _ if error.is_parse() => Failure::new(8, format!("Weird server reply: {error}")),
        Some(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => {
            Failure::new(56, format!("Recv failure: {cause}"))
        }
        _ if before_head => Failure::new(52, "Empty reply from server"),
        _ => Failure::new(18, "end of response with bytes missing"),
    }
}

fn status_line(answer: &Response<Incoming>) -> String {
    let reason = answer.status().canonical_reason().unwrap_or_default();
    format!("{:?} {} {reason}", answer.version(), answer.status().as_u16())
}

/// A head's lines on stderr.
fn tell_head(mark: char, line: &str, headers: &HeaderMap) {
    tell(&format!("{mark} {line}"));
    for (name, value) in headers {
        tell(&format!("{mark} {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    tell(&mark.to_string());
}

fn write_head(out: &mut dyn Write, answer: &Response<Incoming>) -> io::Result<()> {
    write!(out, "{}\r\n", status_line(answer))?;
    for (name, value) in answer.headers() {
        write!(out, "{name}: ")?;
        out.write_all(value.as_bytes())?;
        out.write_all(b"\r\n")?;
    }
    out.write_all(b"\r\n")?;
    out.flush()
}

/// Writes what comes when it comes.
async fn write_body(out: &mut dyn Write, mut body: Incoming, record: &mut Record) -> Result<(), Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error, false))?;
        if let Some(data) = frame.data_ref() {
            out.write_all(data).and_then(|()| out.flush()).map_err(unwritten)?;
            record.received += data.len() as u64;
        }
    }
    Ok(())
}
