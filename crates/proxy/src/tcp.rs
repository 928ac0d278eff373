//! Carry bytes both ways between two TCP connections, with half-close and resets carried over.
//!
//! A connection that is idle owns no buffer: bytes pass through one scratch buffer of the worker, and only what the
//! receiver does not take at once is kept, so that a slow reader costs at most [`SCRATCH`] and stops its sender. While
//! bytes come in bulk they stay in the kernel and pass through a [`Pipe`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::pipe::Pipe;
use crate::telemetry::{Counter, Flag, Side};

/// Size in bytes of a worker's scratch buffer: the most that one read takes and one direction keeps.
pub(crate) const SCRATCH: usize = 64 * 1024;
/// So many bytes at once say that more come in bulk, and that a pipe pays. Measured: below it, copying costs less.
const BULK: usize = 32 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// How carrying ended, and how much there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    /// How the connection ended.
    pub flag: Flag,
    /// Bytes read from the client.
    pub received: u64,
    /// Bytes written to the client.
    pub sent: u64,
}

/// Carries bytes between `client` and `upstream` until both have finished, one breaks, or nothing moves for `idle`.
/// `prefix` was read from the client before and goes to the upstream first.
///
/// Half-close passes through: when one side ends its stream, the other sees the end and may go on sending. When one
/// side breaks, the other is reset, once it has been given what had arrived.
pub(crate) async fn carry(
    client: TcpStream,
    upstream: TcpStream,
    prefix: Vec<u8>,
    side: &Side,
    idle: Duration,
) -> Carried {
    let before = prefix.len() as u64;
    side.received.add(before);
    let (mut client, mut upstream) = (client, upstream);
    let (from_client, to_client) = client.split();
    let (from_upstream, to_upstream) = upstream.split();
    let mut out = Pump::new(from_client, to_upstream, Counts::Read(&side.received));
    out.kept = prefix;
    let mut back = Pump::new(from_upstream, to_client, Counts::Written(&side.sent));
    let mut last = Instant::now();
    let mut timer = std::pin::pin!(tokio::time::sleep_until(last + idle));
    let mut moved = 0;
    let flag = poll_fn(|context| {
        let polled_out = out.poll(context);
        back.broken = out.end == Some(End::WriteFailed);
        let polled = (polled_out, back.poll(context));
        out.broken = back.end == Some(End::WriteFailed);
        if let Some(flag) = ending(&out, &back, polled) {
            return Poll::Ready(flag);
        }
        let now = out.read + out.written + back.read + back.written;
        if now != moved {
            moved = now;
            last = Instant::now();
        }
        // The timer is only moved when it fires, so that it costs nothing for each message.
        while timer.as_mut().poll(context).is_ready() {
            if last.elapsed() >= idle {
                return Poll::Ready(Flag::Idle);
            }
            timer.as_mut().reset(last + idle);
        }
        Poll::Pending
    })
    .await;
    let (received, sent) = (before + out.read, back.written);
    if flag != Flag::None {
        reset(&client);
        reset(&upstream);
    }
    Carried { flag, received, sent }
}

/// Makes closing `stream` a reset, so that its peer learns that bytes may be missing.
pub(crate) fn reset(stream: &TcpStream) {
    // It fails only where the connection is gone already.
    let _ = stream.set_zero_linger();
}

fn ending(out: &Pump, back: &Pump, polled: (Poll<End>, Poll<End>)) -> Option<Flag> {
    match polled {
        // A sender that broke ends both ways at once.
        (Poll::Ready(End::ReadFailed), _) => Some(Flag::DownstreamReset),
        (_, Poll::Ready(End::ReadFailed)) => Some(Flag::UpstreamReset),
        // A receiver that broke may have said something before; that is read to its end first.
        (Poll::Ready(_), Poll::Ready(_)) if out.end == Some(End::WriteFailed) => Some(Flag::UpstreamReset),
        (Poll::Ready(_), Poll::Ready(_)) if back.end == Some(End::WriteFailed) => Some(Flag::DownstreamReset),
        (Poll::Ready(_), Poll::Ready(_)) => Some(Flag::None),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sender ended its stream, and the receiver has all of it.
    Finished,
    ReadFailed,
    WriteFailed,
}

/// What a direction counts while it runs.
enum Counts<'a> {
    Read(&'a Counter),
    Written(&'a Counter),
}

/// One direction.
struct Pump<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    /// What the receiver has not taken yet, from `start` on.
    kept: Vec<u8>,
    start: usize,
    /// Bytes come in bulk, as far as has been seen.
    bulk: bool,
    /// What the receiver has not taken yet of bytes that came in bulk.
    pipe: Option<Pipe>,
    counter: Counts<'a>,
    read: u64,
    written: u64,
    /// The sender does not take what it is sent: its connection was reset, and who hears of that first takes the error
    /// away, so that a read finds an end that looks like any other.
    broken: bool,
    end: Option<End>,
}

impl<'a> Pump<'a> {
    fn new(from: ReadHalf<'a>, to: WriteHalf<'a>, counter: Counts<'a>) -> Pump<'a> {
        Pump {
            from,
            to,
            kept: Vec::new(),
            start: 0,
            bulk: false,
            pipe: None,
            counter,
            read: 0,
            written: 0,
            broken: false,
            end: None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = self.end {
            return Poll::Ready(end);
        }
        let end = ready!(self.run(context));
        self.end = Some(end);
        Poll::Ready(end)
    }

    fn run(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.start < self.kept.len() {
                if ready!(self.flush(context)).is_err() {
                    return Poll::Ready(End::WriteFailed);
                }
                continue;
            }
            let pipe = self.pipe.take().or_else(|| if self.bulk { Pipe::borrow() } else { None });
            let moved = match pipe {
                Some(pipe) => self.splice(pipe, context),
                None => BUFFER.with_borrow_mut(|buffer| self.once(buffer, context)),
            };
            match ready!(moved) {
                Ok(true) => {}
                Ok(false) => {
                    // It fails only when the receiver has gone; then there is nobody to tell.
                    let _ = SockRef::from(self.to.as_ref()).shutdown(Shutdown::Write);
                    return Poll::Ready(End::Finished);
                }
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// Reads once and writes what was read; keeps what the receiver does not take. False at the end of the stream.
    fn once(&mut self, buffer: &mut [u8], context: &mut Context<'_>) -> Poll<Result<bool, End>> {
        let mut read = ReadBuf::new(buffer);
        if ready!(Pin::new(&mut self.from).poll_read(context, &mut read)).is_err() {
            return Poll::Ready(Err(End::ReadFailed));
        }
        let bytes = read.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(false));
        }
        count_read(&mut self.read, &self.counter, bytes.len());
        let written = match Pin::new(&mut self.to).poll_write(context, bytes) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(End::WriteFailed)),
            Poll::Pending => 0,
        };
        self.wrote(written);
        if written < bytes.len() {
            self.kept = bytes[written..].to_vec();
            self.start = 0;
        }
        self.bulk = bytes.len() >= BULK;
        Poll::Ready(Ok(true))
    }

    /// The same through a pipe, which is given back when it is empty.
    fn splice(&mut self, mut pipe: Pipe, context: &mut Context<'_>) -> Poll<Result<bool, End>> {
        if pipe.held() == 0 {
            let from = self.from.as_ref();
            match poll_io(Interest::READABLE, from, context, || pipe.fill(from)) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(count)) => {
                    self.bulk = count >= BULK;
                    count_read(&mut self.read, &self.counter, count);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::ReadFailed)),
                Poll::Pending => return Poll::Pending,
            }
        }
        while pipe.held() > 0 {
            let to = self.to.as_ref();
            match poll_io(Interest::WRITABLE, to, context, || pipe.drain(to)) {
                Poll::Ready(Ok(count)) => self.wrote(count),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::WriteFailed)),
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = ready!(Pin::new(&mut self.to).poll_write(context, &self.kept[self.start..]))?;
        self.start += written;
        self.wrote(written);
        if self.start == self.kept.len() {
            self.kept = Vec::new();
            self.start = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, count: usize) {
        self.written += count as u64;
        if let Counts::Written(counter) = self.counter {
            counter.add(count as u64);
        }
    }
}

fn count_read(read: &mut u64, counter: &Counts<'_>, count: usize) {
    *read += count as u64;
    if let Counts::Read(counter) = counter {
        counter.add(count as u64);
    }
}

/// Tries `work` on `stream` whenever it is ready for it, until it does not block.
fn poll_io(
    interest: Interest,
    stream: &TcpStream,
    context: &mut Context<'_>,
    mut work: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(match interest {
            Interest::READABLE => stream.poll_read_ready(context),
            _ => stream.poll_write_ready(context),
        })?;
        match stream.try_io(interest, &mut work) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A client and a server with `carry` between them.
    struct Line {
        client: TcpStream,
        server: TcpStream,
        carried: tokio::task::JoinHandle<(Flag, u64, u64)>,
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn line(prefix: &[u8], idle: Duration) -> Line {
        let (client, downstream) = pair().await;
        let (upstream, server) = pair().await;
        let prefix = prefix.to_vec();
        let carried = tokio::spawn(async move {
            let side = Side::default();
            let carried = carry(downstream, upstream, prefix, &side, idle).await;
            assert_eq!((carried.received, carried.sent), (side.received.get(), side.sent.get()));
            (carried.flag, carried.received, carried.sent)
        });
        Line { client, server, carried }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn half_close_passes_and_the_other_way_goes_on() {
        let mut line = line(b"he", LONG).await;
        line.client.write_all(b"llo").await.unwrap();
        line.client.shutdown().await.unwrap();
        let mut said = Vec::new();
        line.server.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"hello");
        line.server.write_all(b"later").await.unwrap();
        drop(line.server);
        let mut answer = Vec::new();
        line.client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"later");
        assert_eq!(line.carried.await.unwrap(), (Flag::None, 5, 5));
    }

    #[tokio::test]
    async fn a_client_that_resets_resets_the_server() {
        let mut line = line(b"", LONG).await;
        line.client.write_all(b"x").await.unwrap();
        assert_eq!(line.server.read_u8().await.unwrap(), b'x');
        line.client.set_zero_linger().unwrap();
        drop(line.client);
        let error = line.server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(line.carried.await.unwrap().0, Flag::DownstreamReset);
    }

    #[tokio::test]
    async fn a_server_that_resets_resets_the_client() {
        let mut line = line(b"", LONG).await;
        line.server.write_all(b"x").await.unwrap();
        assert_eq!(line.client.read_u8().await.unwrap(), b'x');
        line.server.set_zero_linger().unwrap();
        drop(line.server);
        let error = line.client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(line.carried.await.unwrap().0, Flag::UpstreamReset);
    }

    #[tokio::test]
    async fn megabytes_arrive_whole_through_a_slow_reader() {
        let Line { mut client, mut server, carried } = line(b"", LONG).await;
        let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            server.write_all(&copy).await.unwrap();
        });
        let mut got = Vec::new();
        let mut piece = vec![0; 777];
        loop {
            match client.read(&mut piece).await.unwrap() {
                0 => break,
                count => got.extend_from_slice(&piece[..count]),
            }
        }
        writer.await.unwrap();
        drop(client);
        assert!(got == sent);
        assert_eq!(carried.await.unwrap(), (Flag::None, 0, 8_000_000));
    }

    #[tokio::test]
    async fn bulk_both_ways_at_once_then_half_close() {
        let Line { mut client, mut server, carried } = line(b"", LONG).await;
        const BYTES: usize = 3_000_000;
        let exchange = async |stream: &mut TcpStream, byte: u8| {
            let (mut reader, mut writer) = stream.split();
            let send = async {
                writer.write_all(&vec![byte; BYTES]).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let (_, read) = tokio::join!(send, reader.read_to_end(&mut got));
            read.unwrap();
            got
        };
        let (got_back, got) = tokio::join!(exchange(&mut client, b'c'), exchange(&mut server, b's'));
        assert!(got == vec![b'c'; BYTES] && got_back == vec![b's'; BYTES]);
        assert_eq!(carried.await.unwrap(), (Flag::None, BYTES as u64, BYTES as u64));
    }

    #[tokio::test]
    async fn a_server_that_resets_in_the_middle_of_bulk_resets_the_client() {
        let Line { mut client, mut server, carried } = line(b"", LONG).await;
        let writer = tokio::spawn(async move {
            loop {
                if let Err(error) = client.write_all(&[b'x'; 100_000]).await {
                    return error.kind();
                }
            }
        });
        server.read_exact(&mut vec![0; 1_000_000]).await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        let known = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(known.contains(&writer.await.unwrap()));
        let (flag, received, sent) = carried.await.unwrap();
        assert!((flag, sent) == (Flag::UpstreamReset, 0) && received >= 1_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_a_word_postpones_it() {
        // Time is the test's: it passes only when everybody waits.
        let started = Instant::now();
        let Line { mut client, mut server, carried } = line(b"", Duration::from_secs(60)).await;
        tokio::time::advance(Duration::from_secs(45)).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        assert_eq!(carried.await.unwrap().0, Flag::Idle);
        assert!(started.elapsed() >= Duration::from_secs(105), "{:?}", started.elapsed());
    }
}
