//! Spans to the collector: OTLP over HTTP, as JSON (OTLP 1.0, "OTLP/HTTP"; the trace conventions of OpenTelemetry).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::context::Span;
use super::{Counts, Settings};

/// Most spans of one export, and how long the first of them waits for company. OpenTelemetry's defaults.
const BATCH: usize = 512;
const PERIOD: Duration = Duration::from_secs(5);
/// Time that an export has.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer of a collector that is read.
const ANSWER: usize = 64 * 1024;

/// Whose spans these are. What the operator says in [`Settings`] stands above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The program that makes the spans, and its version.
    pub program: (&'static str, &'static str),
    /// `service.name`.
    pub name: String,
    /// More attributes of the resource.
    pub attributes: Vec<(&'static str, String)>,
}

/// A span that has ended, as OTLP has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its place in the trace.
    pub span: Span,
    /// What it is called.
    pub name: String,
    /// Whether it is the request's receiver, or its sender.
    pub server: bool,
    /// When it ended.
    pub ended: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed, and what is said of it; that may be nothing.
    pub failure: Option<String>,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
    /// Several texts.
    Texts(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

/// Exports `spans` until nobody makes any.
pub(super) async fn run<E: Into<Record>>(
    settings: Settings,
    service: Service,
    mut spans: Receiver<E>,
    counts: Arc<Counts>,
) {
    let resource = resource(&settings, &service);
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
        let body = export(&service, &resource, batch).to_string();
        let sent = timeout(PATIENCE, send(&settings, body)).await;
        match sent.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}"))) {
            Ok(()) => counts.exported.fetch_add(count, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(collector = %settings.endpoint, spans = count, error, "cannot export spans");
                counts.dropped.fetch_add(count, Ordering::Relaxed)
            }
        };
    }
}

async fn send(settings: &Settings, body: String) -> Result<(), String> {
    let uri = &settings.endpoint;
    let port = uri.port_u16().unwrap_or(if settings.tls.is_some() { 443 } else { 80 });
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
    let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
    let host = host.trim_matches(['[', ']']);
    let stream = connect(host, port).await.map_err(|error| error.to_string())?;
    let stream: Box<dyn Stream> = match &settings.tls {
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let connector = TlsConnector::from(Arc::clone(tls));
            Box::new(connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?)
        }
        None => Box::new(stream),
    };
    let (status, answer) = ask(stream, request).await?;
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("HTTP status {status}: {}", String::from_utf8_lossy(&answer)))
    }
}

/// With TLS or without: one type, so that a program has hyper's client once.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Asks on a connection that is for this request alone. Of an answer that is too long nothing is kept.
async fn ask(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| describe(&e))?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await.map_err(|e| describe(&e))?.into_parts();
        let read = Limited::new(body, ANSWER).collect().await;
        Ok((head.status, read.map(|body| body.to_bytes()).unwrap_or_default()))
    };
    tokio::join!(answer, connection).0
}

/// hyper says what it was doing; the reason is its source.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
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

fn attribute(key: &str, value: &Value) -> serde_json::Value {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        // As in all JSON of Protobuf, 64 bits are text.
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Flag(flag) => json!({"boolValue": flag}),
        Value::Texts(texts) => {
            let values: Vec<_> = texts.iter().map(|text| json!({"stringValue": text})).collect();
            json!({"arrayValue": {"values": values}})
        }
    };
    json!({"key": key, "value": value})
}

fn resource(settings: &Settings, service: &Service) -> serde_json::Value {
    let mut attributes = settings.attributes.clone();
    let named = settings.service.clone().or_else(|| attributes.remove("service.name"));
    for (key, value) in &service.attributes {
        attributes.entry((*key).to_owned()).or_insert_with(|| value.clone());
    }
    attributes.insert("service.name".to_owned(), named.unwrap_or_else(|| service.name.clone()));
    let attributes: Vec<_> =
        attributes.into_iter().map(|(key, value)| attribute(&key, &value.into())).collect();
    json!({"attributes": attributes})
}

/// An `ExportTraceServiceRequest`.
fn export<E: Into<Record>>(
    service: &Service,
    resource: &serde_json::Value,
    batch: Vec<E>,
) -> serde_json::Value {
    let (program, version) = service.program;
    let scope = json!({"name": program, "version": version});
    let spans: Vec<_> = batch.into_iter().map(|ended| span(&ended.into())).collect();
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

fn span(record: &Record) -> serde_json::Value {
    let nanoseconds =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let attributes: Vec<_> = record.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let status = match record.failure.as_deref() {
        None => json!({}),
        Some("") => json!({"code": 2}),
        Some(message) => json!({"code": 2, "message": message}),
    };
    let mut span = json!({
        "traceId": format!("{:032x}", record.span.trace),
        "spanId": format!("{:016x}", record.span.id),
        "name": record.name,
        "kind": if record.server { 2 } else { 3 },
        "startTimeUnixNano": nanoseconds(record.ended.checked_sub(record.duration).unwrap_or(UNIX_EPOCH)),
        "endTimeUnixNano": nanoseconds(record.ended),
        "attributes": attributes,
        "status": status,
    });
    if record.span.parent != 0 {
        span["parentSpanId"] = format!("{:016x}", record.span.parent).into();
    }
    span
}

#[cfg(test)]
mod tests;
