//! One connection: handshake, requests, and an end in time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::{Limits, Phase};
use crate::certificates::Served;
use crate::telemetry::Metrics;

/// How the connections of a port are served; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Server {
    tls: Option<watch::Receiver<Served>>,
    router: Router,
    http: Builder<TokioExecutor>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Server {
    pub(super) fn new(
        tls: Option<watch::Receiver<Served>>,
        router: Router,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        // hyper's own timer for heads also runs between requests; `Activity` tells the two apart.
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(limits.head.max(MIN_BUFFER));
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
            .keep_alive_interval(limits.idle_time / 4)
            .keep_alive_timeout(limits.close_time);
        Self { tls, router, http, limits, metrics }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Serves one connection to its end.
    pub(super) async fn connection(self, stream: TcpStream, peer: SocketAddr, phase: watch::Receiver<Phase>) {
        // Answers are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.requests(stream, Version::Http1, peer, phase).await };
        let Some(config) = tls.borrow().clone() else {
            self.metrics.handshake_failures.inc("no_certificate");
            return tracing::debug!(%peer, "no TLS handshake: there is no certificate yet");
        };
        self.metrics.connections.inc();
        match self.handshake(stream, config).await {
            Ok(stream) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let version = if h2 { Version::Http2 } else { Version::Http1 };
                self.requests(stream, version, peer, phase).await;
            }
            Err((reason, error)) => {
                self.metrics.handshake_failures.inc(reason);
                tracing::debug!(%peer, reason, %error, "no TLS handshake");
            }
        }
        self.metrics.connections.dec();
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<TlsStream<TcpStream>, (&'static str, io::Error)> {
        let handshake = async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(0) => return Err(("closed", io::ErrorKind::UnexpectedEof.into())),
                Ok(_) if first[0].is_ascii_alphabetic() => {
                    let told = tell_plain_http(stream).await;
                    return Err(("plain_http", told.err().unwrap_or(io::ErrorKind::InvalidData.into())));
                }
                Ok(_) => {}
                Err(error) => return Err(("closed", error)),
            }
            TlsAcceptor::from(config).accept(stream).await.map_err(|error| ("tls", error))
        };
        let late = |_| Err(("timeout", io::ErrorKind::TimedOut.into()));
        tokio::time::timeout(self.limits.handshake_time, handshake).await.unwrap_or_else(late)
    }

    async fn requests<S>(
        &self,
        stream: S,
        version: Version,
        peer: SocketAddr,
        mut phase: watch::Receiver<Phase>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let http = match version {
            Version::Http1 => self.http.clone().http1_only(),
            Version::Http2 => self.http.clone().http2_only(),
        };
        let activity = Arc::new(Activity::new(version));
        let router = TowerToHyperService::new(self.router.clone());
        let service = {
            let activity = activity.clone();
            service_fn(move |request: hyper::Request<Incoming>| {
                let turn = Turn::take(activity.clone());
                let answer = hyper::service::Service::call(&router, request);
                async move {
                    let answer = answer.await;
                    drop(turn);
                    answer
                }
            })
        };
        let stream = TokioIo::new(Watched { stream, activity: activity.clone(), unread: None });
        let serving = http.serve_connection(stream, service);
        tokio::pin!(serving);
        let mut closing = false;
        loop {
            let wait = if closing { self.limits.close_time } else { activity.check_in(&self.limits) };
            tokio::select! {
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, error, "connection ended");
                    }
                    return;
                }
                // Requests in flight may take their time: the whole of it is bounded elsewhere.
                () = draining(&mut phase), if !closing => {
                    serving.as_mut().graceful_shutdown();
                    closing = true;
                }
                () = tokio::time::sleep(wait) => {
                    if closing && !activity.busy() {
                        return;
                    }
                    if !closing && let Some(late) = activity.late(&self.limits) {
                        tracing::debug!(%peer, "closing: {late}");
                        serving.as_mut().graceful_shutdown();
                        closing = true;
                    }
                }
            }
        }
    }
}

/// Which HTTP the two sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// Waits until the server accepts nothing new. A sender that is gone says so too.
pub(super) async fn draining(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}

/// hyper panics below this.
const MIN_BUFFER: usize = 8192;

/// Answers plain HTTP in its own words, and lets the client read them before the connection closes.
async fn tell_plain_http(mut stream: TcpStream) -> io::Result<()> {
    const BODY: &str = "This port speaks HTTPS; write https:// where http:// stands.\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would reset the connection, and the answer with it.
    tokio::io::copy(&mut stream.take(MAX_UNREAD), &mut tokio::io::sink()).await.map(drop)
}

/// Bytes of a request that was refused early which are read for the sake of its answer.
const MAX_UNREAD: u64 = 256 << 10;

/// What a connection does: works on requests, reads a head, or nothing.
#[derive(Debug)]
struct Activity(Mutex<State>);

#[derive(Debug, Clone, Copy)]
struct State {
    /// Requests in flight.
    requests: usize,
    /// When the last request was answered; none yet: when the connection began.
    since: Instant,
    /// Whether there was a request at all.
    used: bool,
    /// When the first byte came that belongs to no request yet. Not so for HTTP/2, whose pings and window
    /// updates belong to none.
    head: Option<Instant>,
    version: Version,
}

impl Activity {
    fn new(version: Version) -> Self {
        Self(Mutex::new(State { requests: 0, since: Instant::now(), used: false, head: None, version }))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn busy(&self) -> bool {
        self.with(|state| state.requests > 0)
    }

    /// When it is worth looking again. A head may begin at any time, and a request end, so never later than
    /// what comes after them may take.
    fn check_in(&self, limits: &Limits) -> Duration {
        let now = Instant::now();
        let due = self.with(|state| state.due(limits).map(|(due, _)| due.saturating_duration_since(now)));
        let soonest = limits.head_time.min(limits.idle_time);
        due.unwrap_or(soonest).min(soonest)
    }

    /// Why the connection is to be closed by now.
    fn late(&self, limits: &Limits) -> Option<&'static str> {
        let (due, why) = self.with(|state| state.due(limits))?;
        (Instant::now() >= due).then_some(why)
    }
}

impl State {
    fn due(&self, limits: &Limits) -> Option<(Instant, &'static str)> {
        if self.requests > 0 {
            None
        } else if let Some(head) = self.head {
            Some((head + limits.head_time, "a request's head takes too long"))
        } else if !self.used {
            Some((self.since + limits.head_time, "no request came"))
        } else {
            Some((self.since + limits.idle_time, "idle"))
        }
    }
}

/// A request in flight.
struct Turn(Arc<Activity>);

impl Turn {
    fn take(activity: Arc<Activity>) -> Self {
        activity
            .with(|state| *state = State { requests: state.requests + 1, used: true, head: None, ..*state });
        Self(activity)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let end = |state: &mut State| {
            *state = State { requests: state.requests - 1, since: Instant::now(), head: None, ..*state };
        };
        self.0.with(end);
    }
}

/// A stream that tells its [`Activity`] when bytes come, and does not close on a client that is still sending a head
/// which has been refused.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// Once our side has ended: how many bytes may still be read.
    unread: Option<u64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.with(|state| {
                if state.version == Version::Http1 && state.requests == 0 && state.head.is_none() {
                    state.head = Some(Instant::now());
                }
            });
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        slices: &[io::IoSlice],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut left = match this.unread {
            Some(left) => left,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                let unfinished = this.activity.with(|state| state.head.is_some());
                if unfinished { MAX_UNREAD } else { 0 }
            }
        };
        let mut bytes = [0; 4096];
        while left > 0 {
            this.unread = Some(left);
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len() as u64);
                }
                // What the client does after our answer is no error of this connection.
                Ok(()) | Err(_) => left = 0,
            }
        }
        this.unread = Some(0);
        Poll::Ready(Ok(()))
    }
}
