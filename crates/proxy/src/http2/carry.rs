//! One request: its head goes on, what the upstream says before its answer comes back, then both bodies pass, each as fast
//! as its receiver takes it. A tunnel is a request whose bodies are over when its sides say so.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Error, Reason, RecvStream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use tokio::time::Instant;

use super::answer::{self, Refusal};
use super::body::{Body, Part};
use super::fields;
use super::pump::{Broken, Pump};
use super::record::Record;
use super::upstream::Upstream;
use crate::telemetry::{Flag, Limit};
use crate::{reply, upstream as connect};

/// How often a request is sent that the upstream does not look at.
const ATTEMPTS: usize = 3;

/// Carries one request, which `client` has answered to it.
pub(super) async fn carry(upstream: Rc<Upstream>, request: Request<RecvStream>, client: SendResponse<Bytes>) {
    let (mut head, body) = request.into_parts();
    fields::forwarded(&mut head.headers);
    let addressed = fields::address(&mut head);
    let tracer = upstream.captured.shared.tracer.as_ref();
    let span = tracer.map(|tracer| fields::traced(&mut head.headers, tracer.ratio));
    let connect = head.method == Method::CONNECT;
    let streams = upstream.begin();
    let record = Record::new(upstream, span, &head, body.is_end_stream());
    let client = RefCell::new(client);
    let asking = async {
        addressed.map_err(|reason| Refusal::new(400, Flag::DownstreamProtocol, reason))?;
        let captured = &record.upstream().captured;
        // Each connection may always have one, so that no client is shut out for what others keep.
        if streams > 1 && captured.shared.room.full(captured.side()) {
            return Err(Refusal::new(503, Flag::Overflow, reply::NO_MEMORY));
        }
        ask(&record, head, body, &client).await
    };
    let asked = tokio::select! {
        biased;
        asked = asking => asked,
        // The upstream's stream ends with the request that nobody waits for.
        _ = poll_fn(|context| client.borrow_mut().poll_reset(context)) => return,
        () = record.late() => Err(Refusal::new(504, Flag::UpstreamTimeout, reply::TIMEOUT)),
    };
    let mut client = client.into_inner();
    match asked {
        Ok((response, upload)) => pass(&record, client, response, upload, connect).await,
        Err(refusal) => answer::refuse(&record, &mut client, &refusal),
    }
}

/// Sends the request until an upstream answers it: that answer, and what is left of the request.
async fn ask(
    record: &Record,
    head: request::Parts,
    body: RecvStream,
    client: &RefCell<SendResponse<Bytes>>,
) -> Result<(Response<RecvStream>, Pump), Refusal> {
    let upstream = record.upstream();
    let captured = &upstream.captured;
    let extended = head.extensions.get::<Protocol>().is_some();
    let mut body = Body::kept(body, Rc::clone(captured));
    for attempt in 0..ATTEMPTS {
        let mut sender = match upstream.sender().await {
            Ok(sender) => sender,
            Err(error) => return Err(Refusal::new(503, connect::flag(&error), reply::unreachable(&error))),
        };
        // RFC 8441, section 3: to nobody who has not said so.
        if extended && !Box::pin(sender.extended.wait(captured.live.limits.connect)).await {
            let text = "the upstream takes no extended CONNECT";
            return Err(Refusal::new(501, Flag::DownstreamProtocol, text));
        }
        if attempt > 0 {
            captured.side().retried.add(1);
        }
        let empty = body.is_over();
        let error = match sender.requests.send_request(Request::from_parts(head.clone(), ()), empty) {
            Err(error) => error,
            Ok((response, to)) => {
                let mut upload = Pump::new(body, to, empty);
                let error = match answered(record, response, &mut upload, client).await {
                    Ok(response) => {
                        upload.body().settle();
                        return Ok((response, upload));
                    }
                    Err(error) => error,
                };
                body = upload.into_body();
                // What the upstream says it never looked at cannot have been done.
                if !refused(&error) || !body.again() {
                    let flag = broken(&error);
                    return Err(Refusal::new(503, flag, reply::broken(flag)));
                }
                error
            }
        };
        tracing::debug!(%error, "an HTTP/2 upstream did not look at a request");
        upstream.leave(&sender);
    }
    let flag = Flag::UpstreamStreamReset;
    Err(Refusal::new(503, flag, reply::broken(flag)))
}

/// Sends the request's body until the head of the answer is there. Interim answers (1xx) go to the client as they come; all of
/// a request may be as long as one head, as a client that does not read would have them kept.
async fn answered(
    record: &Record,
    mut response: ResponseFuture,
    upload: &mut Pump,
    client: &RefCell<SendResponse<Bytes>>,
) -> Result<Response<RecvStream>, Error> {
    let captured = &record.upstream().captured;
    let mut room = captured.live.limits.head_bytes;
    poll_fn(|context| {
        // That one side broke is told by the answer, or the client's own stream.
        if let Poll::Ready(Ok(())) = upload.poll(context, |part| received(record, part)) {
            record.uploaded();
        }
        while let Some(interim) = ready!(response.poll_informational(context)) {
            let interim = interim?;
            let length = length(&interim);
            if length > room {
                captured.side().met(Limit::HeadBytes);
                room = 0;
            } else if interim.status() != StatusCode::SWITCHING_PROTOCOLS {
                // HTTP/2 has no 101 (RFC 9113, section 8.6).
                room -= length;
                let _ = client.borrow_mut().send_informational(interim);
            }
        }
        Pin::new(&mut response).poll(context)
    })
    .await
}

/// How long a head is, as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113, section 6.5.2).
fn length(response: &Response<()>) -> usize {
    let fields = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    ":status103".len() + 32 + fields.sum::<usize>()
}

/// How both bodies ended.
enum Ended {
    Whole,
    /// The client's stream broke.
    Client(Error),
    /// The upstream's.
    Upstream(Error),
    Late,
}

/// Answers, and carries both bodies to their ends.
async fn pass(
    record: &Record,
    mut client: SendResponse<Bytes>,
    response: Response<RecvStream>,
    mut upload: Pump,
    connect: bool,
) {
    let captured = &record.upstream().captured;
    let (mut head, body) = response.into_parts();
    let took = record.service_time();
    if let Some(took) = took.filter(|_| captured.shared.debug_headers) {
        head.headers.insert(reply::SERVICE_TIME, HeaderValue::from(took));
    }
    answer::date(&mut head.headers);
    let tunnel = connect && head.status.is_success();
    if tunnel {
        // What follows is no content (RFC 9110, section 9.3.6).
        head.headers.remove(header::CONTENT_LENGTH);
    }
    record.answered(head.status, &head.headers);
    let empty = body.is_end_stream();
    if empty {
        record.finished();
    }
    // It fails only where the client has gone.
    let Ok(to) = client.send_response(Response::from_parts(head, ()), empty) else { return };
    let mut download = Pump::new(Body::once(body), to, empty);
    let patience = async {
        if tunnel { silence(|| record.moved(), captured.live.limits.idle).await } else { record.late().await }
    };
    let mut patience = pin!(patience);
    let ended = poll_fn(|context| {
        match download.poll(context, |part| sent(record, part)) {
            Poll::Ready(Ok(())) => record.finished(),
            Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(Ended::Upstream(error)),
            Poll::Ready(Err(Broken::To(error))) => return Poll::Ready(Ended::Client(error)),
            Poll::Pending => {}
        }
        match upload.poll(context, |part| received(record, part)) {
            Poll::Ready(Ok(())) => record.uploaded(),
            Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(Ended::Client(error)),
            Poll::Ready(Err(Broken::To(error))) if tunnel => return Poll::Ready(Ended::Upstream(error)),
            // An upstream need not want the whole request; whether its answer is whole, that will say.
            Poll::Ready(Err(Broken::To(_))) | Poll::Pending => {}
        }
        // Nobody wants the bytes of a tunnel that was refused.
        if download.is_over() && (upload.is_over() || connect != tunnel) {
            return Poll::Ready(Ended::Whole);
        }
        if (tunnel || !download.is_over()) && patience.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ended::Late);
        }
        Poll::Pending
    })
    .await;
    // A stream that breaks on one side breaks on the other, and in the same way.
    let abnormal = if tunnel { Reason::CONNECT_ERROR } else { Reason::INTERNAL_ERROR };
    match ended {
        Ended::Whole => {}
        Ended::Client(error) => {
            if tunnel {
                record.failed(Flag::DownstreamReset);
            }
            upload.reset(reason(&error, Reason::CANCEL));
        }
        Ended::Upstream(error) => {
            record.failed(broken(&error));
            download.reset(reason(&error, abnormal));
        }
        Ended::Late => {
            record.failed(if tunnel { Flag::Idle } else { Flag::UpstreamTimeout });
            if tunnel {
                captured.side().met(Limit::Idle);
            }
            download.reset(abnormal);
            upload.reset(Reason::CANCEL);
        }
    }
}

fn received(record: &Record, part: &Part) {
    if let Part::Data(data) = part {
        record.receive(data);
    }
}

fn sent(record: &Record, part: &Part) {
    match part {
        Part::Data(data) => record.send(data),
        Part::Trailers(trailers) => record.grpc_status_of(trailers),
    }
}

/// Waits until nothing has `moved` for `limit`. It has to be polled when something may have.
async fn silence(moved: impl Fn() -> u64, limit: Duration) {
    let (mut last, mut seen) = (Instant::now(), moved());
    let mut timer = pin!(tokio::time::sleep_until(last + limit));
    poll_fn(|context| {
        if seen != moved() {
            (last, seen) = (Instant::now(), moved());
        }
        // The timer is only moved when it fires, so that it costs nothing for each piece.
        while timer.as_mut().poll(context).is_ready() {
            if last.elapsed() >= limit {
                return Poll::Ready(());
            }
            timer.as_mut().reset(last + limit);
        }
        Poll::Pending
    })
    .await;
}

/// Whether the upstream says that it did not process a stream: it refused it, or it goes away and the stream came
/// after its last one (RFC 9113, sections 6.8 and 8.7).
fn refused(error: &Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// How a stream ended that the upstream broke: by resetting it, or with its connection.
fn broken(error: &Error) -> Flag {
    if is_reset(error) && !error.is_library() { Flag::UpstreamStreamReset } else { Flag::UpstreamReset }
}

/// Why a stream was reset. One that broke with its connection was not, and none breaks for no error.
fn reason(error: &Error, otherwise: Reason) -> Reason {
    error.reason().filter(|reason| is_reset(error) && *reason != Reason::NO_ERROR).unwrap_or(otherwise)
}

/// Whether a stream broke, and not its connection. The writing side knows no more of a reset than its reason.
fn is_reset(error: &Error) -> bool {
    error.reason().is_some() && !error.is_go_away()
}
