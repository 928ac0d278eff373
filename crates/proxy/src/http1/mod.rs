//! Carry HTTP/1 requests: one task for each client connection, upstream connections from the worker's pool.
//!
//! Heads are read and written anew ([`head`]), bodies pass as they are while their framing is checked ([`body`]), both
//! directions at once, so that early answers, 1xx responses and streams in both directions work. A buffer is held only
//! while a request is in flight.

mod body;
mod exchange;
mod head;
#[cfg(any(test, feature = "fuzzing"))]
pub mod properties;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::access_log::Entry;
use crate::captured::Captured;
use crate::settings::MOST_HEADERS;
use crate::telemetry::http::{Key, Series};
use crate::telemetry::{Flag, Limit, Side};
use crate::trace::Ended;
use crate::trace::context::Span;
use crate::{reply, request_id, tcp};
use exchange::{Exchange, Next, Outcome};
use head::Refusal;

/// Room that is made for reading a head: most fit.
const ROOM: usize = 4096;

/// Serves the HTTP/1 connection `client`, of which `buffer` has been read. The upstream connection `first`, or the
/// reason why there is none, serves the first request.
pub(crate) async fn serve(
    captured: &Captured,
    mut client: TcpStream,
    buffer: Vec<u8>,
    first: Option<io::Result<TcpStream>>,
) {
    let mut connection = Connection { captured, buffer, first, series: None };
    let (mut reader, mut writer) = client.split();
    match connection.run(&mut reader, &mut writer).await {
        End::Closed => {}
        End::Reset => tcp::reset(&client),
        End::Unread => linger(client).await,
        End::Tunnel(tunnel) => {
            let Tunnel { upstream, head, id, span, mut outcome, started } = *tunnel;
            // What a tunnel carries belongs to its request, not to the counters of TCP.
            let (side, buffer) = (Side::default(), std::mem::take(&mut connection.buffer));
            let carried = tcp::carry(client, upstream, buffer, &side, captured.live.limits.idle).await;
            outcome.flag = carried.flag;
            outcome.received += carried.received;
            outcome.sent += carried.sent;
            if let Ok(mut request) = head::request(&head, || id, MOST_HEADERS, None, &mut Vec::new()) {
                request.span = span;
                connection.record(Some(&request), &outcome, started);
            }
        }
    }
}

/// What is left to do with a client's connection.
enum End {
    Closed,
    /// The client has to learn that the response is not whole.
    Reset,
    /// The client may still be sending, and has to read our answer first.
    Unread,
    Tunnel(Box<Tunnel>),
}

struct Tunnel {
    upstream: TcpStream,
    /// The request's head.
    head: Vec<u8>,
    /// The id that it got, if it had none.
    id: String,
    span: Option<Span>,
    outcome: Outcome,
    started: Instant,
}

struct Connection<'a> {
    captured: &'a Captured,
    /// What has been read of the next request.
    buffer: Vec<u8>,
    first: Option<io::Result<TcpStream>>,
    /// The counters of the last request; the next one most often has the same.
    series: Option<(Key, Arc<Series>)>,
}

impl Connection<'_> {
    async fn run<'c>(&mut self, reader: &mut ReadHalf<'c>, writer: &mut WriteHalf<'c>) -> End {
        let limits = &self.captured.live.limits;
        let last = Cell::new(Instant::now());
        let mut idle = pin!(tokio::time::sleep_until(last.get() + limits.idle));
        let mut closing = pin!(self.captured.closing());
        loop {
            if self.buffer.is_empty() {
                self.buffer = Vec::new();
                tokio::select! {
                    biased;
                    ready = poll_fn(|context| reader.as_ref().poll_read_ready(context)) => {
                        if ready.is_err() {
                            return End::Closed;
                        }
                    }
                    () = &mut closing => return End::Closed,
                    () = expired(idle.as_mut(), &last, limits.idle) => return End::Closed,
                }
            }
            let end = match self.head(reader).await {
                Ok(Some(end)) => end,
                Ok(None) => return End::Closed,
                Err(refusal) => return self.refuse(writer, refusal).await,
            };
            let started = Instant::now();
            last.set(started);
            let rest = self.buffer.split_off(end);
            let bytes = std::mem::replace(&mut self.buffer, rest);
            let mut out = Vec::new();
            let sampling = self.captured.shared.tracer.as_ref().map(|tracer| tracer.ratio);
            let request = match head::request(&bytes, request_id::new, limits.headers, sampling, &mut out) {
                Ok(request) => request,
                Err(refusal) => return self.refuse(writer, refusal).await,
            };
            let mut framing = request.framing;
            match framing.advance(&self.buffer) {
                Ok(count) => {
                    out.extend_from_slice(&self.buffer[..count]);
                    self.buffer.drain(..count);
                }
                Err(body::BadChunk) => {
                    return self.refuse(writer, Refusal(400, "the body is not framed as it says")).await;
                }
            }
            let received = out.len() as u64;
            let exchange = Exchange {
                captured: self.captured,
                request: &request,
                out,
                framing,
                reader: &mut *reader,
                writer: &mut *writer,
                buffer: &mut self.buffer,
                last: &last,
                idle: idle.as_mut(),
            };
            let mut outcome = exchange.run(&mut self.first).await;
            outcome.received += received;
            if let Next::Tunnel(upstream) = outcome.next {
                let outcome = Outcome { next: Next::Close, ..outcome };
                let (id, span) = (String::from_utf8_lossy(&request.request_id).into_owned(), request.span);
                return End::Tunnel(Box::new(Tunnel { upstream, head: bytes, id, span, outcome, started }));
            }
            match outcome.flag {
                Flag::Idle => self.captured.side().met(Limit::Idle),
                Flag::UpstreamTimeout => self.captured.side().met(Limit::Request),
                _ => {}
            }
            self.record(Some(&request), &outcome, started);
            match outcome.next {
                Next::KeepAlive => {}
                Next::Close if outcome.unread || !self.buffer.is_empty() => return End::Unread,
                Next::Reset => return End::Reset,
                _ => return End::Closed,
            }
        }
    }

    /// Reads until the buffer holds a whole head and says where it ends; `None` if the client has gone.
    async fn head(&mut self, reader: &mut ReadHalf<'_>) -> Result<Option<usize>, Refusal> {
        let limits = &self.captured.live.limits;
        let mut seen = 0;
        let mut late = pin!(None);
        loop {
            // An empty line before a request is nothing (RFC 9112, section 2.2).
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.drain(..2);
                seen = 0;
            }
            if let Some(end) = head::end(&self.buffer, seen)? {
                return Ok(Some(end));
            }
            seen = self.buffer.len();
            if seen > limits.head_bytes {
                return Err(head::TOO_LONG);
            }
            self.buffer.reserve(ROOM);
            let read = reader.read_buf(&mut self.buffer);
            let count = if seen == 0 {
                read.await
            } else {
                // The timer is made only for a head that does not come in one piece.
                if late.is_none() {
                    late.set(Some(tokio::time::sleep(limits.head)));
                }
                let Some(late) = late.as_mut().as_pin_mut() else { return Ok(None) };
                tokio::select! {
                    biased;
                    count = read => count,
                    () = late => return Err(head::TOO_LATE),
                }
            };
            match count {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    async fn refuse(&mut self, writer: &mut WriteHalf<'_>, refusal: Refusal) -> End {
        let limits = [
            (head::TOO_LONG, Limit::HeadBytes),
            (head::TOO_MANY, Limit::Headers),
            (head::TOO_LATE, Limit::Head),
        ];
        if let Some((_, limit)) = limits.into_iter().find(|(met, _)| *met == refusal) {
            self.captured.side().met(limit);
        }
        let Refusal(code, reason) = refusal;
        let text = reply::http1(code, false, reason);
        // A client that has gone does not want to know.
        let _ = writer.write_all(&text).await;
        tracing::debug!(peer = %self.captured.peer, code, reason, "refused a request");
        let outcome = Outcome {
            code,
            flag: Flag::DownstreamProtocol,
            received: self.buffer.len() as u64,
            sent: text.len() as u64,
            service_time: None,
            unread: true,
            next: Next::Close,
        };
        self.record(None, &outcome, Instant::now());
        End::Unread
    }

    /// Counts and logs a request that ended; of one that was refused, nothing is known.
    fn record(&mut self, request: Option<&head::Request<'_>>, outcome: &Outcome, started: Instant) {
        let captured = self.captured;
        let duration = started.elapsed();
        let host = request.map_or("", |request| request.host);
        let fits = |key: &Key| &*key.host == host && key.code == outcome.code && key.flag == outcome.flag;
        if !self.series.as_ref().is_some_and(|(key, _)| fits(key)) {
            let (direction, code, flag) = (captured.direction, outcome.code, outcome.flag);
            let key = Key { direction, code, flag, grpc: None, host: host.into() };
            let series = captured.shared.shard.requests.series(key.clone());
            self.series = Some((key, series));
        }
        if let Some((_, series)) = &self.series {
            series.add(duration, outcome.received, outcome.sent);
        }
        if let (Some(request), Some(tracer)) = (request, &captured.shared.tracer)
            && let Some(span) = request.span
        {
            tracer.end(span, || Ended {
                span,
                direction: captured.direction,
                ended: SystemTime::now(),
                duration,
                method: request.method.to_owned(),
                path: request.target.to_owned(),
                host: host.to_owned(),
                protocol: if request.minor == 1 { "HTTP/1.1" } else { "HTTP/1.0" },
                code: outcome.code,
                flag: outcome.flag,
                request_id: String::from_utf8_lossy(&request.request_id).into_owned(),
                peer: captured.peer,
            });
        }
        captured.shared.access_log.write(&Entry {
            direction: captured.direction,
            method: request.map_or("", |request| request.method),
            path: request.map_or("", |request| request.target),
            protocol: request.map_or("", |request| if request.minor == 1 { "HTTP/1.1" } else { "HTTP/1.0" }),
            code: outcome.code,
            flag: outcome.flag,
            received: outcome.received,
            sent: outcome.sent,
            duration,
            service_time: outcome.service_time,
            forwarded_for: request.and_then(|request| request.forwarded_for).unwrap_or_default(),
            user_agent: request.and_then(|request| request.user_agent).unwrap_or_default(),
            request_id: request.map_or(b"", |request| &*request.request_id),
            authority: host,
            server_name: "",
            upstream: captured.route.address,
            peer: captured.peer,
        });
    }
}

/// Waits until nothing has happened since `last` for `limit`. `timer` is set again only when it fires.
async fn expired(mut timer: std::pin::Pin<&mut tokio::time::Sleep>, last: &Cell<Instant>, limit: Duration) {
    loop {
        timer.as_mut().await;
        if last.get().elapsed() >= limit {
            return;
        }
        timer.as_mut().reset(last.get() + limit);
    }
}

/// Lets the client read our last words: closing with unread bytes would reset the connection and take them away.
async fn linger(mut client: TcpStream) {
    const MOST: usize = 256 * 1024;
    let _ = SockRef::from(&client).shutdown(Shutdown::Write);
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        let mut piece = vec![0; ROOM];
        let mut total = 0;
        while let Ok(count @ 1..) = client.read(&mut piece).await {
            total += count;
            if total > MOST {
                return;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
