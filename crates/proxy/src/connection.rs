//! One captured connection, from accepting it to closing it.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::access_log::Entry;
use crate::destination::{self, Direction};
use crate::detect::{Protocol, detect};
use crate::life::Phase;
use crate::route::{Declared, Route};
use crate::tcp::Carried;
use crate::telemetry::Flag;
use crate::worker::Shared;
use crate::{http1, http2, tcp, upstream};

/// How long a client whose upstream cannot be reached may take to show what it speaks, and so how it can be told.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A captured connection.
pub(crate) struct Captured {
    pub(crate) shared: Rc<Shared>,
    pub(crate) direction: Direction,
    pub(crate) peer: SocketAddr,
    pub(crate) route: Route,
}

impl Captured {
    /// Waits until idle connections of this direction have to end ([`Phase::Closing`]). Outbound ones never have to:
    /// the application may need the world until its end.
    pub(crate) async fn closing(&self) {
        match self.direction {
            Direction::Inbound => self.shared.life.reached(Phase::Closing).await,
            Direction::Outbound => pending().await,
        }
    }

    /// Opens an upstream connection.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        upstream::connect(self.direction, self.route.address, self.shared.limits.connect).await
    }
}

/// Serves the captured connection `stream` from `peer`.
pub async fn serve(shared: Rc<Shared>, direction: Direction, stream: TcpStream, peer: SocketAddr) {
    let side = shared.shard.side(direction);
    let Ok(original) = destination::original(&stream) else { return };
    let listener = match direction {
        Direction::Inbound => shared.ports.inbound,
        Direction::Outbound => shared.ports.outbound,
    };
    if let Some(reason) = destination::is_loop(direction, peer.ip(), original, listener, &shared.ports) {
        side.refuse(reason);
        tracing::debug!(?direction, %peer, %original, reason = reason.reason(), "refused a connection");
        return;
    }
    let _active = side.accept();
    upstream::tune(&stream);
    let route = shared.routes.route(direction, original);
    carry(Captured { shared: Rc::clone(&shared), direction, peer, route }, stream).await;
}

/// Finds out what is spoken, and hands over to those who speak it.
async fn carry(captured: Captured, stream: TcpStream) {
    if captured.route.declared == Declared::Opaque {
        let upstream = captured.connect().await;
        return bytes(&captured, stream, Vec::new(), upstream).await;
    }
    let mut seen = Vec::new();
    let (protocol, upstream) = look(&captured, &stream, &mut seen).await;
    match (protocol, upstream) {
        (Some(Protocol::Http1), upstream) => http1::serve(&captured, stream, seen, upstream).await,
        (Some(Protocol::Http2), upstream) => http2::serve(Rc::new(captured), stream, seen, upstream).await,
        (_, Some(upstream)) => bytes(&captured, stream, seen, upstream).await,
        (_, None) => {
            let upstream = captured.connect().await;
            bytes(&captured, stream, seen, upstream).await;
        }
    }
}

/// Carries bytes.
async fn bytes(captured: &Captured, stream: TcpStream, seen: Vec<u8>, upstream: io::Result<TcpStream>) {
    let side = captured.shared.shard.side(captured.direction);
    let started = Instant::now();
    side.opened.add(1);
    let carried = match upstream {
        Ok(upstream) => tcp::carry(stream, upstream, seen, side, captured.shared.limits.idle).await,
        Err(error) => {
            let (peer, address) = (captured.peer, captured.route.address);
            tracing::debug!(direction = ?captured.direction, %peer, %address, %error, "cannot connect upstream");
            // A reset is what the client would have seen, had it been refused itself.
            tcp::reset(&stream);
            Carried { flag: Flag::UpstreamFailed, received: 0, sent: 0 }
        }
    };
    side.close(carried.flag);
    captured.shared.access_log.write(&Entry {
        direction: captured.direction,
        method: "",
        path: "",
        protocol: "",
        code: 0,
        flag: carried.flag,
        received: carried.received,
        sent: carried.sent,
        duration: started.elapsed(),
        forwarded_for: b"",
        user_agent: b"",
        request_id: b"",
        authority: "",
        upstream: captured.route.address,
        peer: captured.peer,
    });
}

/// Looks at the client's first bytes until they say what it speaks. Meanwhile the upstream connection opens: if the
/// server speaks first, the connection is bytes, and no time was lost. To a destination that is known to speak HTTP,
/// and on a port that is declared to, no connection is opened ahead: the pool may have one.
async fn look(
    captured: &Captured,
    stream: &TcpStream,
    seen: &mut Vec<u8>,
) -> (Option<Protocol>, Option<io::Result<TcpStream>>) {
    let pool = &captured.shared.pool;
    let ahead = captured.route.declared == Declared::Nothing
        && !pool.knows(captured.direction, captured.route.address);
    let mut connecting = pin!(captured.connect());
    let mut upstream: Option<io::Result<TcpStream>> = None;
    let mut patience = pin!(tokio::time::sleep(captured.shared.limits.idle));
    let protocol = loop {
        let server_speaks = async {
            match &upstream {
                // Whatever it says is left for those who carry it.
                Some(Ok(upstream)) => {
                    let _ = poll_fn(|context| upstream.poll_read_ready(context)).await;
                }
                _ => pending().await,
            }
        };
        tokio::select! {
            biased;
            ready = poll_fn(|context| stream.poll_read_ready(context)) => {
                let read = ready.and_then(|()| {
                    seen.reserve(4096);
                    stream.try_read_buf(seen)
                });
                match read {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => break None,
                }
                if let Some(protocol) = detect(seen) {
                    break Some(protocol);
                }
            }
            result = &mut connecting, if ahead && upstream.is_none() => {
                if result.is_err() {
                    patience.as_mut().reset(tokio::time::Instant::now() + LAST_WORDS);
                }
                upstream = Some(result);
            }
            () = server_speaks => break None,
            () = &mut patience => break None,
        }
    };
    // What has begun is not given up: the server would see a connection that nobody uses.
    if ahead && upstream.is_none() {
        upstream = Some(connecting.await);
    }
    (protocol, upstream)
}

#[cfg(test)]
pub(crate) mod harness {
    //! A client and, behind the sidecar, a server, without capture and without root.

    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::life::Life;
    use crate::route::Declared;
    use crate::settings::{Limits, Ports};
    use crate::telemetry::Shard;
    use crate::worker::Worker;

    /// A worker with a server behind it.
    pub(crate) struct Harness {
        pub(crate) shared: Rc<Shared>,
        pub(crate) server: TcpListener,
    }

    impl Harness {
        pub(crate) async fn new() -> Harness {
            let worker = Worker {
                ports: Ports::default(),
                limits: Limits::default(),
                shard: Arc::new(Shard::default()),
                life: Arc::new(Life::default()),
                routes: Arc::default(),
                access_log: Default::default(),
            };
            let shared = Rc::new(Shared::new(worker));
            Harness { shared, server: TcpListener::bind("127.0.0.1:0").await.unwrap() }
        }

        /// A client whose connection was captured on its way to the server.
        pub(crate) async fn client(&self, declared: Declared) -> TcpStream {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            let route = Route { address: self.server.local_addr().unwrap(), declared };
            let shared = Rc::clone(&self.shared);
            let captured = Captured { shared, direction: Direction::Inbound, peer, route };
            tokio::task::spawn_local(carry(captured, stream));
            client
        }

        pub(crate) async fn accept(&self) -> TcpStream {
            self.server.accept().await.unwrap().0
        }
    }

    /// Runs a test on a local runtime.
    pub(crate) fn run(test: impl Future<Output = ()>) {
        let options = tokio::runtime::LocalOptions::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
        let limit = Duration::from_secs(30);
        runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test took too long") });
    }

    /// Reads up to and including `end`.
    pub(crate) async fn until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match stream.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    pub(crate) async fn head(stream: &mut TcpStream) -> String {
        until(stream, "\r\n\r\n").await
    }

    pub(crate) async fn rest(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    pub(crate) async fn say(stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
    }
}
