//! CONNECT in HTTP/2: what the two streams carry after a 2xx is bytes, both ways.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::record::{Record, Recorded};
use super::{ResponseBody, answer};
use crate::reply;
use crate::telemetry::{Flag, Limit};

/// The most that one read takes: a frame.
const PIECE: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// The answer to a CONNECT that the upstream took; `client` is the stream that carries the bytes from then on.
pub(super) fn open(
    record: Rc<Record>,
    client: OnUpgrade,
    response: Response<Incoming>,
) -> Response<ResponseBody> {
    // hyper makes a tunnel of no other status; nobody is known to use one.
    if response.status() != StatusCode::OK {
        let text =
            reply::protocol_error("CONNECT is answered with a status that is neither 200 nor an error");
        return answer(record, 502, Flag::UpstreamProtocol, &text);
    }
    let mut response = response;
    let upstream = hyper::upgrade::on(&mut response);
    record.answered(response.status(), response.headers());
    tokio::task::spawn_local(carry(Rc::clone(&record), client, upstream));
    response.map(|_| Recorded::new(Either::Right(Full::default()), record))
}

/// Carries bytes both ways until both have ended, one breaks, or nothing moves for the idle time-out. hyper has no way to
/// reset a tunnel's stream at once: one that is given up ends first, and is reset if its peer goes on sending.
async fn carry(record: Rc<Record>, client: OnUpgrade, upstream: OnUpgrade) {
    // Either fails only with its connection.
    let (client, upstream) = match (client.await, upstream.await) {
        (Ok(client), Ok(upstream)) => (Stream::new(client), Stream::new(upstream)),
        (Err(_), _) => return record.failed(Flag::DownstreamReset),
        (_, Err(_)) => return record.failed(Flag::UpstreamReset),
    };
    let last = Cell::new(Instant::now());
    let there = async {
        let passed = pass(&client, &upstream, &last, |bytes| record.receive(bytes)).await;
        passed.map_err(|broken| broken.flag(Flag::DownstreamReset, Flag::UpstreamReset))
    };
    let back = async {
        let passed = pass(&upstream, &client, &last, |bytes| record.send(bytes)).await;
        passed.map_err(|broken| broken.flag(Flag::UpstreamReset, Flag::DownstreamReset))
    };
    let flag = tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.err(),
        () = silence(&last, record.captured().live.limits.idle) => Some(Flag::Idle),
    };
    if flag == Some(Flag::Idle) {
        record.captured().side().met(Limit::Idle);
    }
    if let Some(flag) = flag {
        record.failed(flag);
    }
}

/// One side of a tunnel; each direction borrows it only while it is polled.
struct Stream(RefCell<TokioIo<Upgraded>>);

impl Stream {
    fn new(upgraded: Upgraded) -> Stream {
        Stream(RefCell::new(TokioIo::new(upgraded)))
    }

    /// Nothing at the end. An idle tunnel owns no buffer.
    async fn read(&self) -> io::Result<Vec<u8>> {
        let read = |context: &mut Context<'_>, buffer: &mut Vec<u8>| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *self.0.borrow_mut()).poll_read(context, &mut read))?;
            Poll::Ready(Ok(read.filled().to_vec()))
        };
        poll_fn(|context| BUFFER.with_borrow_mut(|buffer| read(context, buffer))).await
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written =
                poll_fn(|context| Pin::new(&mut *self.0.borrow_mut()).poll_write(context, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Ends this side's stream; what it says is still read.
    async fn end(&self) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)).await
    }

    /// Whether this side, whose end was read, takes bytes no longer either: hyper makes an end of CANCEL.
    async fn was_reset(&self) -> bool {
        // Whoever writes to the stream hears of the reset in the same round.
        tokio::task::yield_now().await;
        poll_fn(|context| Pin::new(&mut *self.0.borrow_mut()).poll_flush(context)).await.is_err()
    }
}

/// Which side broke.
enum Broken {
    From,
    To,
}

impl Broken {
    fn flag(self, from: Flag, to: Flag) -> Flag {
        match self {
            Broken::From => from,
            Broken::To => to,
        }
    }
}

async fn pass(from: &Stream, to: &Stream, last: &Cell<Instant>, count: impl Fn(&[u8])) -> Result<(), Broken> {
    loop {
        let bytes = from.read().await.map_err(|_| Broken::From)?;
        last.set(Instant::now());
        if bytes.is_empty() {
            break;
        }
        count(&bytes);
        to.write(&bytes).await.map_err(|_| Broken::To)?;
        last.set(Instant::now());
    }
    if from.was_reset().await {
        return Err(Broken::From);
    }
    to.end().await.map_err(|_| Broken::To)
}

/// Waits until nothing has moved for `limit`.
async fn silence(last: &Cell<Instant>, limit: Duration) {
    while last.get().elapsed() < limit {
        tokio::time::sleep_until(last.get() + limit).await;
    }
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
