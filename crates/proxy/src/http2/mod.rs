//! Carry HTTP/2 requests, gRPC among them: to each client connection belongs one upstream connection, so that streams
//! queue nowhere but where they would without us, and who resets or leaves is told apart.

mod messages;
mod record;
mod request_body;
mod settings;
mod stream;
mod tunnel;
pub(crate) mod windows;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::connection::Captured;
use crate::destination::Direction;
use crate::life::Phase;
use crate::local::LocalExecutor;
use crate::telemetry::Flag;
use crate::telemetry::http::Messages;
use crate::trace::context::{self, Incoming as Context, Span};
use crate::{reply, request_id, upstream};
use record::{Record, Recorded};
use request_body::RequestBody;
use settings::Extended;
use stream::Stream;

/// A peer that does not answer a ping in this time has gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a request is sent that the upstream does not look at.
const ATTEMPTS: usize = 3;
const PING_INTERVAL: Duration = Duration::from_secs(180);

type ResponseBody = Recorded<Either<Incoming, Full<Bytes>>>;

/// Serves the HTTP/2 connection `client`, of which `seen` has been read. Its upstream connection, or the reason why
/// there is none, may be there already.
pub(crate) async fn serve(
    captured: Rc<Captured>,
    client: TcpStream,
    seen: Vec<u8>,
    first: Option<io::Result<TcpStream>>,
) {
    let upstream = Rc::new(Upstream {
        captured: Rc::clone(&captured),
        sender: RefCell::default(),
        number: Cell::new(0),
        streams: Cell::new(0),
        messages: RefCell::default(),
        first: Mutex::new(first),
    });
    let limits = captured.live.limits;
    let share = captured.shared.windows.share(&limits);
    let service = service_fn(|request| {
        let upstream = Rc::clone(&upstream);
        async move { Ok::<_, Infallible>(carry(&upstream, request).await) }
    });
    let mut connection = pin!(
        hyper::server::conn::http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(share.stream())
            .initial_connection_window_size(share.connection())
            .max_send_buf_size(share.sending())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_bytes as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(Stream::of_client(seen, client)), service)
    );
    let draining = async {
        match captured.direction {
            Direction::Inbound => captured.shared.life.reached(Phase::Draining).await,
            Direction::Outbound => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = draining => {
            // GOAWAY: new streams go elsewhere, those that are open end in their own time.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %captured.peer, %error, "an HTTP/2 connection broke");
    }
}

/// The upstream connection of one client connection.
struct Upstream {
    captured: Rc<Captured>,
    /// The connection that takes streams, and the how many-th it is.
    sender: RefCell<Option<Sender>>,
    number: Cell<u64>,
    /// Requests that are being carried.
    streams: Cell<u32>,
    /// The counters of the last gRPC request's messages, by its host; the next one most often has the same.
    messages: RefCell<Option<(String, Arc<Messages>)>>,
    /// Held while connecting, so that one connection is opened for all streams that wait.
    first: Mutex<Option<io::Result<TcpStream>>>,
}

/// An upstream connection that takes streams.
#[derive(Clone)]
struct Sender {
    requests: SendRequest<RequestBody>,
    /// What the upstream says about extended CONNECT.
    extended: Extended,
}

impl Upstream {
    /// Connection `number` takes no more streams; the next stream opens another, if none has yet.
    fn leave(&self, number: u64) {
        if self.number.get() == number {
            self.sender.borrow_mut().take();
        }
    }

    fn open(&self) -> Option<Sender> {
        self.sender.borrow().as_ref().filter(|sender| !sender.requests.is_closed()).cloned()
    }

    /// The counters of gRPC messages to `host`.
    fn messages(&self, host: &str) -> Arc<Messages> {
        let mut last = self.messages.borrow_mut();
        if let Some((of, messages)) = &*last
            && of == host
        {
            return Arc::clone(messages);
        }
        let messages = self.captured.shared.shard.requests.messages(self.captured.direction, host);
        *last = Some((host.to_owned(), Arc::clone(&messages)));
        messages
    }

    async fn sender(&self) -> io::Result<Sender> {
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let mut first = self.first.lock().await;
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let stream = match first.take() {
            Some(result) => result?,
            None => self.captured.connect().await?,
        };
        let limits = &self.captured.live.limits;
        let share = self.captured.shared.windows.share(limits);
        let (stream, extended) = Stream::of_upstream(stream);
        let (requests, connection) = hyper::client::conn::http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(share.stream())
            .initial_connection_window_size(share.connection())
            .max_send_buf_size(share.sending())
            .max_header_list_size(limits.head_bytes as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            let ended = connection.await;
            drop(share);
            ended
        });
        let sender = Sender { requests, extended };
        *self.sender.borrow_mut() = Some(sender.clone());
        self.number.set(self.number.get() + 1);
        Ok(sender)
    }
}

/// Carries one request.
async fn carry(upstream: &Rc<Upstream>, request: Request<Incoming>) -> Response<ResponseBody> {
    let captured = &upstream.captured;
    let mut request = request;
    forwarded(request.headers_mut());
    let addressed = address(&mut request);
    let span = captured.shared.tracer.as_ref().map(|tracer| traced(request.headers_mut(), tracer.ratio));
    let record = Rc::new(Record::new(upstream, span, &request));
    if let Err(reason) = addressed {
        return answer(record, 400, Flag::DownstreamProtocol, reason);
    }
    // Each connection may always have one, so that no client is shut out for what others keep.
    if upstream.streams.get() > 1 && captured.shared.room.full(captured.side()) {
        return answer(record, 503, Flag::Overflow, reply::NO_MEMORY);
    }
    let client = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let extended = request.extensions().get::<Protocol>().is_some();
    let (head, body) = request.into_parts();
    let mut body = RequestBody::new(body, Rc::clone(&record));
    let source = body.source();
    let side = captured.side();
    for attempt in 0..ATTEMPTS {
        let mut sender = match upstream.sender().await {
            Ok(sender) => sender,
            Err(error) => return answer(record, 503, upstream::flag(&error), &reply::unreachable(&error)),
        };
        let number = upstream.number.get();
        // RFC 8441, section 3: to nobody who has not said so.
        if extended && !sender.extended.wait(captured.live.limits.connect).await {
            return answer(record, 501, Flag::DownstreamProtocol, "the upstream takes no extended CONNECT");
        }
        if attempt > 0 {
            side.retried.add(1);
        }
        let sending = sender.requests.try_send_request(Request::from_parts(head.clone(), body));
        let sent = match record.deadline() {
            None => sending.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, sending).await {
                Ok(sent) => sent,
                // The stream ends with the request that nobody waits for.
                Err(_) => return answer(record, 504, Flag::UpstreamTimeout, reply::TIMEOUT),
            },
        };
        let error = match sent {
            Ok(response) => {
                source.borrow_mut().settle();
                if let Some(client) = client
                    && response.status().is_success()
                {
                    return tunnel::open(record, client, response);
                }
                let (mut head, body) = response.into_parts();
                let took = record.service_time();
                if let Some(took) = took.filter(|_| captured.shared.debug_headers) {
                    head.headers.insert(reply::SERVICE_TIME, HeaderValue::from(took));
                }
                record.answered(head.status, &head.headers);
                return Response::from_parts(head, Recorded::new(Either::Left(body), record));
            }
            Err(error) => error,
        };
        // What was never sent, and what the upstream says it never looked at, cannot have been done.
        let unsent = error.message().is_some();
        let error = error.into_error();
        if !(unsent || refused(&error)) || !source.borrow().again() {
            let flag = record::broken(&error);
            return answer(record, 503, flag, &reply::broken(flag));
        }
        upstream.leave(number);
        body = RequestBody::again(&source);
    }
    answer(record, 503, Flag::UpstreamStreamReset, &reply::broken(Flag::UpstreamStreamReset))
}

/// Whether the upstream says that it did not process a stream: it refused it, or it goes away and the stream came
/// after its last one (RFC 9113, sections 6.8 and 8.7).
fn refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// The fields that a request gets if it has none.
fn forwarded(headers: &mut HeaderMap) {
    if !headers.contains_key("x-request-id")
        && let Ok(mut id) = HeaderValue::try_from(request_id::new())
    {
        // Not to be kept for the next request, which has another: the upstream's table would hold nothing else.
        id.set_sensitive(true);
        headers.insert("x-request-id", id);
    }
    headers.entry("x-forwarded-proto").or_insert(HeaderValue::from_static("http"));
}

/// The request's part of a trace, for which it goes on as its child.
fn traced(headers: &mut HeaderMap, ratio: f64) -> Span {
    let came = headers.clone();
    let mut incoming = Context::default();
    for header in context::Header::all() {
        if let Some(value) = came.get(header.name()) {
            incoming.note(header, value.as_bytes());
        }
    }
    let span = Span::begin(&incoming, ratio);
    let changed = context::Header::all().filter_map(|header| Some((header, span.header(&incoming, header)?)));
    let begins = span.begins(&incoming).map(|value| (context::Header::Traceparent, value));
    for (header, value) in changed.chain(begins) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(header.name(), value);
        }
    }
    span
}

/// A request without `:authority` has it in its host field; one with both must not disagree (RFC 9113, section 8.3.1).
fn address(request: &mut Request<Incoming>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, more) = (hosts.next().cloned(), hosts.next().is_some());
    let bad = "host is not host:port, is given twice, or differs from :authority";
    match (request.uri().authority(), host) {
        _ if more => Err(bad),
        (Some(_), None) => Ok(()),
        (Some(authority), Some(host)) if host.as_bytes() == authority.as_str().as_bytes() => Ok(()),
        (None, Some(host)) => {
            let mut parts = request.uri().clone().into_parts();
            parts.authority = Some(host.as_bytes().try_into().map_err(|_| bad)?);
            parts.scheme = parts.scheme.or(Some(http::uri::Scheme::HTTP));
            *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad)?;
            Ok(())
        }
        _ => Err(bad),
    }
}

/// Answers in the upstream's place, in the words of the request: gRPC has its status in fields of its own.
fn answer(record: Rc<Record>, code: u16, flag: Flag, text: &str) -> Response<ResponseBody> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = Bytes::copy_from_slice(text.as_bytes());
    let headers = response.headers_mut();
    if record.is_grpc() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(reply::grpc_status(code)));
        if let Ok(message) = HeaderValue::try_from(reply::grpc_message(text)) {
            headers.insert("grpc-message", message);
        }
        body = Bytes::new();
        *response.status_mut() = StatusCode::OK;
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    if flag == Flag::Overflow && record.captured().shared.debug_headers {
        response.headers_mut().insert(reply::OVERLOADED, HeaderValue::from_static("true"));
    }
    record.failed(flag);
    record.answered(response.status(), response.headers());
    response.map(|()| Recorded::new(Either::Right(Full::new(body)), record))
}

#[cfg(test)]
mod tests;
