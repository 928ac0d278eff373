//! What is counted and logged of a request while its bodies pass.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request};
use tokio::time::Instant;

use super::messages::Counting;
use super::upstream::Upstream;
use crate::access_log::Entry;
use crate::telemetry::http::Key;
use crate::telemetry::{Flag, Limit};
use crate::trace::Ended;
use crate::trace::context::Span;

/// One request. It is counted and logged when it is dropped: then both bodies are over.
pub(super) struct Record {
    upstream: Rc<Upstream>,
    /// Its part of a trace, where traces are.
    span: Option<Span>,
    started: Instant,
    /// When the response has to be whole.
    deadline: Option<Instant>,
    method: Method,
    uri: Uri,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    grpc: bool,
    grpc_status: Cell<Option<u16>>,
    /// Counts the messages of gRPC.
    messages: Option<Counting>,
    /// When the whole request had gone to the upstream.
    uploaded: Cell<Option<Instant>>,
    /// Milliseconds from then to the upstream's answer.
    service_time: Cell<Option<u64>>,
    code: Cell<u16>,
    flag: Cell<Flag>,
    /// The whole response went to the client.
    whole: Cell<bool>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Record {
    /// The request with this head, of which nothing more comes if it is `whole`.
    pub(super) fn new(
        upstream: Rc<Upstream>,
        span: Option<Span>,
        request: &request::Parts,
        whole: bool,
    ) -> Record {
        let started = Instant::now();
        let field = |name: &str| request.headers.get(name).cloned();
        let kind = request.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let asked = request.headers.get("grpc-timeout").and_then(|value| grpc_timeout(value.as_bytes()));
        let limit = [upstream.captured.live.limits.request, asked].into_iter().flatten().min();
        Record {
            span,
            started,
            deadline: limit.map(|limit| started + limit),
            method: request.method.clone(),
            uri: request.uri.clone(),
            user_agent: field("user-agent"),
            request_id: field("x-request-id"),
            forwarded_for: field("x-forwarded-for"),
            grpc: kind.starts_with(b"application/grpc"),
            grpc_status: Cell::default(),
            messages: framed(kind).then(|| Counting::new(upstream.messages(host(&request.uri)))),
            uploaded: Cell::new(whole.then_some(started)),
            service_time: Cell::default(),
            code: Cell::new(0),
            flag: Cell::new(Flag::None),
            whole: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
            upstream,
        }
    }

    /// Where the request goes.
    pub(super) fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }

    /// Waits until the response should have been whole.
    pub(super) async fn late(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => pending().await,
        }
    }

    /// Whether the response to it has no content, whatever its fields say.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// The upstream's answer came: how many milliseconds after the whole request. One that came before that says
    /// nothing about the upstream.
    pub(super) fn service_time(&self) -> Option<u64> {
        self.service_time.set(self.uploaded.get().map(|uploaded| uploaded.elapsed().as_millis() as u64));
        self.service_time.get()
    }

    /// The response's head goes to the client.
    pub(super) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        self.code.set(status.as_u16());
        self.grpc_status_of(headers);
    }

    pub(super) fn failed(&self, flag: Flag) {
        self.flag.set(flag);
    }

    /// Bytes of the request came.
    pub(super) fn receive(&self, bytes: &[u8]) {
        self.received.set(self.received.get() + bytes.len() as u64);
        if let Some(messages) = &self.messages {
            messages.request(bytes);
        }
    }

    /// The whole request went to the upstream.
    pub(super) fn uploaded(&self) {
        if self.uploaded.get().is_none() {
            self.uploaded.set(Some(Instant::now()));
        }
    }

    /// The whole response went to the client.
    pub(super) fn finished(&self) {
        self.whole.set(true);
    }

    /// How many bytes have passed, both ways.
    pub(super) fn moved(&self) -> u64 {
        self.received.get() + self.sent.get()
    }

    /// Bytes of the response go to the client.
    pub(super) fn send(&self, bytes: &[u8]) {
        self.sent.set(self.sent.get() + bytes.len() as u64);
        if let Some(messages) = &self.messages {
            messages.response(bytes);
        }
    }

    /// Fields of the response that may hold gRPC's status.
    pub(super) fn grpc_status_of(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok())
        {
            self.grpc_status.set(Some(status));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let flag = match self.flag.get() {
            // Nobody but the client ends a response in the middle without an error.
            Flag::None if !self.whole.get() => Flag::DownstreamReset,
            flag => flag,
        };
        let captured = &self.upstream.captured;
        self.upstream.end();
        if flag == Flag::UpstreamTimeout {
            captured.side().met(Limit::Request);
        }
        let host = host(&self.uri);
        let duration = self.started.elapsed();
        let key = Key {
            direction: captured.direction,
            code: self.code.get(),
            flag,
            grpc: self.grpc.then(|| self.grpc_status.get()),
            host: host.into(),
        };
        captured.shared.shard.requests.series(key).add(duration, self.received.get(), self.sent.get());
        if let (Some(span), Some(tracer)) = (self.span, &captured.shared.tracer) {
            tracer.end(span, || Ended {
                span,
                direction: captured.direction,
                ended: SystemTime::now(),
                duration,
                method: self.method.to_string(),
                path: self.uri.path().to_owned(),
                host: host.to_owned(),
                protocol: "HTTP/2",
                code: self.code.get(),
                flag,
                request_id: String::from_utf8_lossy(bytes(self.request_id.as_ref())).into_owned(),
                peer: captured.peer,
            });
        }
        captured.shared.access_log.write(&Entry {
            direction: captured.direction,
            method: self.method.as_str(),
            path: self.uri.path_and_query().map_or("", |path| path.as_str()),
            protocol: "HTTP/2",
            code: self.code.get(),
            flag,
            received: self.received.get(),
            sent: self.sent.get(),
            duration,
            service_time: self.service_time.get(),
            forwarded_for: bytes(self.forwarded_for.as_ref()),
            user_agent: bytes(self.user_agent.as_ref()),
            request_id: bytes(self.request_id.as_ref()),
            authority: host,
            server_name: "",
            upstream: captured.route.address,
            peer: captured.peer,
        });
    }
}

fn bytes(value: Option<&HeaderValue>) -> &[u8] {
    value.map(HeaderValue::as_bytes).unwrap_or_default()
}

fn host(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

/// Whether the content type is gRPC's own, whose messages can be counted; gRPC-Web's are framed otherwise.
fn framed(kind: &[u8]) -> bool {
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// gRPC's time-out: up to eight digits and a unit (gRPC over HTTP/2, `Timeout`).
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let number: u64 = std::str::from_utf8(digits).ok().filter(|digits| digits.len() <= 8)?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}
