//! What is counted and logged of a request while its bodies pass.

use std::cell::Cell;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::Upstream;
use super::messages::Counting;
use crate::access_log::Entry;
use crate::connection::Captured;
use crate::telemetry::http::Key;
use crate::telemetry::{Flag, Limit};
use crate::trace::Ended;
use crate::trace::context::Span;

/// One request. It is counted and logged when nobody holds it any longer: then both bodies are over.
pub(super) struct Record {
    captured: Rc<Captured>,
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
    /// When the whole request had come.
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
    pub(super) fn new<B: Body>(upstream: &Rc<Upstream>, span: Option<Span>, request: &Request<B>) -> Record {
        let (captured, started) = (Rc::clone(&upstream.captured), Instant::now());
        let whole = request.body().is_end_stream();
        let streams = upstream.streams.get() + 1;
        upstream.streams.set(streams);
        if streams == captured.live.limits.streams {
            captured.side().met(Limit::Streams);
        }
        let field = |name: &str| request.headers().get(name).cloned();
        let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let asked = request.headers().get("grpc-timeout").and_then(|value| grpc_timeout(value.as_bytes()));
        let limit = [captured.live.limits.request, asked].into_iter().flatten().min();
        Record {
            captured,
            upstream: Rc::clone(upstream),
            span,
            started,
            deadline: limit.map(|limit| started + limit),
            method: request.method().clone(),
            uri: request.uri().clone(),
            user_agent: field("user-agent"),
            request_id: field("x-request-id"),
            forwarded_for: field("x-forwarded-for"),
            grpc: kind.starts_with(b"application/grpc"),
            grpc_status: Cell::default(),
            messages: framed(kind).then(|| Counting::new(upstream.messages(host(request.uri())))),
            uploaded: Cell::new(whole.then_some(started)),
            service_time: Cell::default(),
            code: Cell::new(0),
            flag: Cell::new(Flag::None),
            whole: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
        }
    }

    /// The request's captured connection.
    pub(super) fn captured(&self) -> &Captured {
        &self.captured
    }

    /// When the response has to be whole, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
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

    /// The whole request has come.
    pub(super) fn uploaded(&self) {
        self.uploaded.set(Some(Instant::now()));
    }

    /// Bytes of the response go to the client.
    pub(super) fn send(&self, bytes: &[u8]) {
        self.sent.set(self.sent.get() + bytes.len() as u64);
        if let Some(messages) = &self.messages {
            messages.response(bytes);
        }
    }

    fn grpc_status_of(&self, headers: &HeaderMap) {
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
        let captured = &self.captured;
        self.upstream.streams.set(self.upstream.streams.get() - 1);
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
        let bytes = |value: &Option<HeaderValue>| {
            value.as_ref().map(|value| value.as_bytes().to_vec()).unwrap_or_default()
        };
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
                request_id: String::from_utf8_lossy(&bytes(&self.request_id)).into_owned(),
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
            forwarded_for: &bytes(&self.forwarded_for),
            user_agent: &bytes(&self.user_agent),
            request_id: &bytes(&self.request_id),
            authority: host,
            server_name: "",
            upstream: captured.route.address,
            peer: captured.peer,
        });
    }
}

fn host(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

/// Whether the content type is gRPC's own, whose messages can be counted; gRPC-Web's are framed otherwise.
fn framed(kind: &[u8]) -> bool {
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Why a body ends before its end.
type Broken = Box<dyn Error + Send + Sync>;

/// How a stream ended that the upstream broke: by resetting it, or with its connection.
pub(super) fn broken(error: &(dyn Error + 'static)) -> Flag {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let reset = causes
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .any(|h2| h2.is_reset() && h2.is_remote());
    if reset { Flag::UpstreamStreamReset } else { Flag::UpstreamReset }
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

/// A response's body, counted; and its end is looked at.
pub(super) struct Recorded<B> {
    body: B,
    record: Rc<Record>,
    late: Option<Pin<Box<Sleep>>>,
}

impl<B: Body> Recorded<B> {
    pub(super) fn new(body: B, record: Rc<Record>) -> Recorded<B> {
        record.whole.set(body.is_end_stream());
        let late = record.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Recorded { body, record, late }
    }
}

impl<B> Body for Recorded<B>
where
    B: Body<Data = Bytes, Error = Broken> + Unpin,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            // A body that is late is cut: the stream is reset on both sides.
            let late = self.late.as_mut().is_some_and(|late| late.as_mut().poll(context).is_ready());
            if !late {
                return Poll::Pending;
            }
            self.record.failed(Flag::UpstreamTimeout);
            return Poll::Ready(Some(Err(crate::reply::TIMEOUT.into())));
        };
        let record = &self.record;
        match &frame {
            None => record.whole.set(true),
            Some(Err(error)) => record.failed(broken(error.as_ref())),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    record.send(data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    record.grpc_status_of(trailers);
                    record.whole.set(true);
                }
            }
        }
        if self.body.is_end_stream() {
            self.record.whole.set(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
