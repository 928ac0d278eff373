//! One request and its response.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep};

use super::body::Framing;
use super::{ROOM, expired, head};
use crate::captured::Captured;
use crate::destination::Direction;
use crate::telemetry::{Flag, Limit};
use crate::{reply, system, upstream};

/// Room that is made for reading a body.
const BODY_ROOM: usize = 32 * 1024;
/// Most bytes of pipelined requests that are read ahead.
const AHEAD: usize = 64 * 1024;

/// One request, of which head and first bytes have been read.
pub(super) struct Exchange<'a, 'c> {
    pub(super) captured: &'a Captured,
    pub(super) request: &'a head::Request<'a>,
    /// What goes to the upstream first: the head, and what came with it of the body.
    pub(super) out: Vec<u8>,
    /// What is still to come of the body.
    pub(super) framing: Framing,
    pub(super) reader: &'a mut ReadHalf<'c>,
    pub(super) writer: &'a mut WriteHalf<'c>,
    /// What has been read of the client's next bytes.
    pub(super) buffer: &'a mut Vec<u8>,
    /// When anything was last read.
    pub(super) last: &'a Cell<Instant>,
    pub(super) idle: Pin<&'a mut Sleep>,
}

/// How a request ended.
pub(super) struct Outcome {
    /// The status that the client got, 0 if none.
    pub(super) code: u16,
    pub(super) flag: Flag,
    /// Bytes of the request beyond [`Exchange::out`], and of the response.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Milliseconds from the whole request to the upstream's answer.
    pub(super) service_time: Option<u64>,
    /// The client may still be sending what nobody will read.
    pub(super) unread: bool,
    pub(super) next: Next,
}

/// What becomes of the client's connection.
pub(super) enum Next {
    KeepAlive,
    Close,
    Reset,
    Tunnel(TcpStream),
}

/// Why there is no whole response.
enum Failed {
    /// The upstream went away without a word.
    NoAnswer(io::Error),
    /// The upstream went away in the middle of its response.
    Cut,
    /// The upstream's response is not HTTP.
    Upstream(&'static str),
    /// The client went away.
    Client,
    /// The client's body is not framed as it says.
    Body,
    Idle,
    /// The response was not whole in time.
    Late,
}

struct Finished {
    response: head::Response,
    /// The client was told that its connection ends.
    close: bool,
    /// The upstream sent more than its response.
    excess: bool,
    uploaded: bool,
}

/// What has gone by, seen by both directions.
#[derive(Default)]
struct Progress {
    /// Status that went to the client.
    code: Cell<u16>,
    received: Cell<u64>,
    sent: Cell<u64>,
    /// When the whole request had come.
    uploaded: Cell<Option<Instant>>,
    service_time: Cell<Option<u64>>,
}

impl Exchange<'_, '_> {
    /// Carries the request to the upstream and the response back. The first request of a connection may find its
    /// upstream connection, or why there is none, in `first`.
    pub(super) async fn run(mut self, first: &mut Option<io::Result<TcpStream>>) -> Outcome {
        let captured = self.captured;
        let side = captured.side();
        let whole = self.framing.done();
        let deadline = captured.live.limits.request.map(|limit| Instant::now() + limit);
        let mut retried = false;
        loop {
            let pooled = match first {
                None if !retried => captured.shared.pool.take(captured.source(), captured.route.address),
                _ => None,
            };
            let reused = pooled.is_some();
            let connected = match (pooled, first.take()) {
                (Some(stream), _) => Ok(stream),
                (None, Some(result)) => result,
                (None, None) => captured.connect().await,
            };
            let mut upstream = match connected {
                Ok(upstream) => upstream,
                Err(error) => {
                    return self.answer(503, upstream::flag(&error), &reply::unreachable(&error)).await;
                }
            };
            if reused {
                side.reused.add(1);
            }
            let acknowledged = if reused { system::bytes_acknowledged(&upstream) } else { None };
            let progress = Progress::default();
            let result = self.attempt(&mut upstream, deadline, &progress).await;
            // On a connection that was used before, silence most often means that the upstream had just closed it. If
            // its kernel acknowledged nothing of the request, its program cannot have read any (and a request that may
            // be done twice can be sent again in any case).
            if let Err(Failed::NoAnswer(_)) = result
                && reused
                && whole
                && !retried
                && (self.request.idempotent()
                    || (acknowledged.is_some() && acknowledged == system::bytes_acknowledged(&upstream)))
            {
                side.retried.add(1);
                retried = true;
                continue;
            }
            return self.finish(result, progress, upstream).await;
        }
    }

    /// Sends the request and reads the response, at the same time: a response may begin, or end, before the request
    /// does.
    async fn attempt(
        &mut self,
        upstream: &mut TcpStream,
        deadline: Option<Instant>,
        progress: &Progress,
    ) -> Result<Finished, Failed> {
        let Exchange { captured, request, out, framing, reader, writer, buffer, last, idle } = self;
        let (mut from, mut to) = upstream.split();
        progress.uploaded.set(framing.done().then(|| last.get()));
        let upload = async {
            // When the upstream reads no more it may still have answered; that decides.
            if to.write_all(out).await.is_err() {
                pending::<()>().await;
            }
            while !framing.done() {
                if buffer.is_empty() {
                    buffer.reserve(BODY_ROOM);
                    match reader.read_buf(buffer).await {
                        Ok(0) | Err(_) => return Failed::Client,
                        Ok(_) => last.set(Instant::now()),
                    }
                }
                let Ok(count) = framing.advance(buffer) else { return Failed::Body };
                progress.received.set(progress.received.get() + count as u64);
                if to.write_all(&buffer[..count]).await.is_err() {
                    pending::<()>().await;
                }
                buffer.drain(..count);
            }
            progress.uploaded.set(Some(last.get()));
            // A client that goes away takes its request with it.
            loop {
                if buffer.len() >= AHEAD {
                    pending::<()>().await;
                }
                buffer.reserve(ROOM);
                if let Ok(0) | Err(_) = reader.read_buf(buffer).await {
                    return Failed::Client;
                }
            }
        };
        let download = download(captured, request, &mut from, writer, last, progress);
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            finished = download => finished,
            failed = upload => Err(failed),
            () = late => Err(Failed::Late),
            () = expired(idle.as_mut(), last, captured.live.limits.idle) => Err(Failed::Idle),
        }
    }

    async fn finish(
        mut self,
        result: Result<Finished, Failed>,
        progress: Progress,
        upstream: TcpStream,
    ) -> Outcome {
        let mut outcome = Outcome {
            code: progress.code.get(),
            flag: Flag::None,
            received: progress.received.get(),
            sent: progress.sent.get(),
            service_time: progress.service_time.get(),
            unread: false,
            next: Next::Reset,
        };
        let failed = match result {
            Ok(finished) => {
                let captured = self.captured;
                let close = finished.close || !self.request.keep_alive || !finished.uploaded;
                outcome.unread = !finished.uploaded;
                if finished.response.tunnel {
                    outcome.next = Next::Tunnel(upstream);
                    return outcome;
                }
                if finished.response.keep_alive
                    && finished.uploaded
                    && !finished.excess
                    && self.request.minor == 1
                {
                    let pool = &captured.shared.pool;
                    if !pool.keep(captured.source(), captured.route.address, upstream) {
                        captured.side().met(Limit::IdleUpstreams);
                    }
                }
                outcome.next = if close { Next::Close } else { Next::KeepAlive };
                return outcome;
            }
            Err(failed) => failed,
        };
        let (code, flag, text) = match failed {
            Failed::Client => {
                // The upstream learns it by a reset: nobody wants its answer.
                crate::tcp::reset(&upstream);
                outcome.flag = Flag::DownstreamReset;
                return outcome;
            }
            Failed::NoAnswer(error) => (503, Flag::UpstreamReset, reply::disconnected(&error)),
            Failed::Cut => (503, Flag::UpstreamReset, String::new()),
            Failed::Upstream(reason) => (502, Flag::UpstreamProtocol, reply::protocol_error(reason)),
            Failed::Body => (400, Flag::DownstreamProtocol, "the body is not framed as it says".to_owned()),
            Failed::Idle => (408, Flag::Idle, "stream timeout".to_owned()),
            Failed::Late => (504, Flag::UpstreamTimeout, reply::TIMEOUT.to_owned()),
        };
        crate::tcp::reset(&upstream);
        if outcome.code != 0 {
            // The response has begun; only a reset can say that it is not whole.
            outcome.flag = flag;
            return outcome;
        }
        let answered = self.answer(code, flag, &text).await;
        Outcome { received: outcome.received, sent: outcome.sent + answered.sent, ..answered }
    }

    /// Answers in the upstream's place.
    async fn answer(&mut self, code: u16, flag: Flag, text: &str) -> Outcome {
        let overloaded = flag == Flag::Overflow && self.captured.shared.debug_headers;
        let text = reply::http1(code, overloaded, text);
        // A client that has gone does not want to know.
        let _ = self.writer.write_all(&text).await;
        let sent = text.len() as u64;
        Outcome { code, flag, received: 0, sent, service_time: None, unread: true, next: Next::Close }
    }
}

/// Reads the response and passes it on.
async fn download(
    captured: &Captured,
    request: &head::Request<'_>,
    from: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    last: &Cell<Instant>,
    progress: &Progress,
) -> Result<Finished, Failed> {
    let mut buffer = Vec::new();
    let mut out = Vec::new();
    let (mut response, close) = loop {
        let end = response_head(captured, from, &mut buffer).await?;
        let now = Instant::now();
        last.set(now);
        out.clear();
        let draining = captured.direction == Direction::Inbound && captured.shared.life.draining();
        let close = draining || !request.keep_alive || progress.uploaded.get().is_none();
        // An answer that came before the whole request says nothing about the upstream.
        let took = progress.uploaded.get().map(|uploaded| (now - uploaded).as_millis() as u64);
        let shown = took.filter(|_| captured.shared.debug_headers);
        let most = captured.live.limits.headers;
        let response = head::response(&buffer[..end], request.method, most, close, shown, &mut out)
            .map_err(Failed::Upstream)?;
        buffer.drain(..end);
        if response.status == 101 && !request.upgrade {
            return Err(Failed::Upstream("101 without a request to upgrade"));
        }
        if response.status >= 200 || response.tunnel {
            let close = close || response.framing == Framing::UntilClose;
            progress.service_time.set(took);
            break (response, close);
        }
        // HTTP/1.0 knows no 1xx.
        if request.minor == 1 {
            send(writer, &out, progress).await?;
        }
    };
    let count = match response.tunnel {
        true => buffer.len(),
        false => response
            .framing
            .advance(&buffer)
            .map_err(|_| Failed::Upstream("the body is not framed as it says"))?,
    };
    out.extend_from_slice(&buffer[..count]);
    let mut excess = count < buffer.len();
    progress.code.set(response.status);
    send(writer, &out, progress).await?;
    while !response.framing.done() && !response.tunnel {
        buffer.clear();
        buffer.reserve(BODY_ROOM);
        match from.read_buf(&mut buffer).await {
            Ok(0) if response.framing == Framing::UntilClose => break,
            Ok(0) | Err(_) => return Err(Failed::Cut),
            Ok(_) => last.set(Instant::now()),
        }
        let count = response
            .framing
            .advance(&buffer)
            .map_err(|_| Failed::Upstream("the body is not framed as it says"))?;
        excess = count < buffer.len();
        send(writer, &buffer[..count], progress).await?;
    }
    Ok(Finished { response, close, excess, uploaded: progress.uploaded.get().is_some() })
}

async fn send(writer: &mut WriteHalf<'_>, bytes: &[u8], progress: &Progress) -> Result<(), Failed> {
    writer.write_all(bytes).await.map_err(|_| Failed::Client)?;
    progress.sent.set(progress.sent.get() + bytes.len() as u64);
    Ok(())
}

/// Reads until `buffer` holds a whole head, and says where it ends.
async fn response_head(
    captured: &Captured,
    from: &mut ReadHalf<'_>,
    buffer: &mut Vec<u8>,
) -> Result<usize, Failed> {
    let mut seen = 0;
    loop {
        match head::end(buffer, seen) {
            Ok(Some(end)) => return Ok(end),
            Ok(None) => seen = buffer.len(),
            Err(_) => return Err(Failed::Upstream("a line ends without CR")),
        }
        if seen > captured.live.limits.head_bytes {
            captured.side().met(Limit::HeadBytes);
            return Err(Failed::Upstream(head::TOO_LONG.1));
        }
        buffer.reserve(ROOM);
        match from.read_buf(buffer).await {
            Ok(0) => return Err(Failed::NoAnswer(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(Failed::NoAnswer(error)),
            Ok(_) => {}
        }
    }
}
