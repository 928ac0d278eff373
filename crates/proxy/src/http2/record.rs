//! What is counted and logged of a request while its bodies pass.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Buf;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::{Body, Frame, SizeHint};

use crate::access_log::Entry;
use crate::connection::Captured;
use crate::telemetry::Flag;
use crate::telemetry::http::Key;

/// One request. It is counted and logged when nobody holds it any longer: then both bodies are over.
pub(super) struct Record {
    captured: Rc<Captured>,
    started: Instant,
    method: Method,
    uri: Uri,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    grpc: bool,
    grpc_status: Cell<Option<u16>>,
    code: Cell<u16>,
    flag: Cell<Flag>,
    /// The whole response went to the client.
    whole: Cell<bool>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Record {
    pub(super) fn new<B>(captured: Rc<Captured>, request: &Request<B>) -> Record {
        let field = |name: &str| request.headers().get(name).cloned();
        let kind = request.headers().get(header::CONTENT_TYPE);
        Record {
            captured,
            started: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            user_agent: field("user-agent"),
            request_id: field("x-request-id"),
            forwarded_for: field("x-forwarded-for"),
            grpc: kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")),
            grpc_status: Cell::default(),
            code: Cell::new(0),
            flag: Cell::new(Flag::None),
            whole: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
        }
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.grpc
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
    pub(super) fn receive(&self, count: usize) {
        self.received.set(self.received.get() + count as u64);
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
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
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
            forwarded_for: &bytes(&self.forwarded_for),
            user_agent: &bytes(&self.user_agent),
            request_id: &bytes(&self.request_id),
            authority: host,
            upstream: captured.route.address,
            peer: captured.peer,
        });
    }
}

/// A response's body, counted; and its end is looked at.
pub(super) struct Recorded<B> {
    body: B,
    record: Rc<Record>,
}

impl<B: Body> Recorded<B> {
    pub(super) fn new(body: B, record: Rc<Record>) -> Recorded<B> {
        record.whole.set(body.is_end_stream());
        Recorded { body, record }
    }
}

impl<B: Body + Unpin> Body for Recorded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let record = &self.record;
        match &frame {
            None => record.whole.set(true),
            Some(Err(_)) => record.failed(Flag::UpstreamReset),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    record.sent.set(record.sent.get() + data.remaining() as u64);
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
