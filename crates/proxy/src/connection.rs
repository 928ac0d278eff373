//! One captured connection, from accepting it to closing it.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::access_log::Entry;
use crate::captured::Captured;
use crate::client_hello::{self, ServerName};
use crate::destination::{self, Direction};
use crate::detect::{Protocol, SETTINGS, detect, is_http2_server};
use crate::route::Declared;
use crate::shared::Shared;
use crate::tcp::Carried;
use crate::telemetry::connections::Open;
use crate::telemetry::{Flag, Limit};
use crate::{http1, http2, tcp, upstream};

/// How long a client whose upstream cannot be reached may take to show what it speaks, and so how it can be told.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long a TLS client's first message may take from its first packet to its last.
const WHOLE_HELLO: Duration = Duration::from_secs(1);

/// Serves the captured connection `stream` from `peer`.
pub(crate) async fn serve(shared: Rc<Shared>, direction: Direction, stream: TcpStream, peer: SocketAddr) {
    let side = shared.shard.side(direction);
    let Ok(original) = destination::original(&stream) else { return };
    let listener = match direction {
        Direction::Inbound => shared.ports.inbound,
        Direction::Outbound => shared.ports.outbound,
    };
    if let Some(reason) = destination::is_loop(direction, peer.ip(), original, listener, &shared.ports) {
        side.refuse(reason);
        tracing::debug!(?direction, %peer, %original, reason = reason.reason(), "refused a connection");
        shared.access_log.write(&Entry { flag: Flag::NoRoute, ..Entry::bytes(direction, peer, original) });
        return;
    }
    let _active = side.accept();
    upstream::tune(&stream);
    let live = shared.live();
    let route = live.routes.route(direction, original);
    let open = Open::new(&shared.shard, direction, peer, route.address);
    carry(Captured { shared: Rc::clone(&shared), live, direction, peer, route, open }, stream).await;
}

/// Finds out what is spoken, and hands over to those who speak it.
async fn carry(captured: Captured, stream: TcpStream) {
    if captured.route.declared == Declared::Opaque {
        captured.open.speaks("tcp");
        let upstream = captured.connect().await;
        return bytes(&captured, stream, Vec::new(), upstream).await;
    }
    let mut seen = Vec::new();
    let (protocol, upstream) = look(&captured, &stream, &mut seen).await;
    // What is declared to be TLS is not taken for HTTP.
    let protocol = match (captured.route.declared, protocol) {
        (Declared::Tls, Some(Protocol::Http1 | Protocol::Http2)) => Some(Protocol::Opaque),
        (_, protocol) => protocol,
    };
    captured.open.speaks(match protocol {
        Some(Protocol::Http1) => "http/1",
        Some(Protocol::Http2) => "http/2",
        Some(Protocol::Tls) => "tls",
        Some(Protocol::Opaque) | None => "tcp",
    });
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

/// Carries bytes, of which `seen` came first.
async fn bytes(captured: &Captured, stream: TcpStream, seen: Vec<u8>, upstream: io::Result<TcpStream>) {
    let side = captured.side();
    let started = Instant::now();
    side.opened.add(1);
    let server_name = match client_hello::server_name(&seen) {
        ServerName::Name(name) => name.to_owned(),
        ServerName::Incomplete | ServerName::None => String::new(),
    };
    let carried = match upstream {
        Ok(upstream) => tcp::carry(stream, upstream, seen, side, captured.live.limits.idle).await,
        Err(error) => {
            let (peer, address) = (captured.peer, captured.route.address);
            tracing::debug!(direction = ?captured.direction, %peer, %address, %error, "cannot connect upstream");
            // A reset is what the client would have seen, had it been refused itself.
            tcp::reset(&stream);
            Carried { flag: upstream::flag(&error), received: 0, sent: 0 }
        }
    };
    if carried.flag == Flag::Idle {
        side.met(Limit::Idle);
    }
    side.close(carried.flag);
    captured.shared.access_log.write(&Entry {
        flag: carried.flag,
        received: carried.received,
        sent: carried.sent,
        duration: started.elapsed(),
        server_name: &server_name,
        ..Entry::bytes(captured.direction, captured.peer, captured.route.address)
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
    let ahead =
        captured.route.declared != Declared::Http && !pool.knows(captured.source(), captured.route.address);
    let mut connecting = pin!(captured.connect());
    let mut upstream: Option<io::Result<TcpStream>> = None;
    let mut patience = pin!(tokio::time::sleep(captured.live.limits.idle));
    // An HTTP/2 server may send its settings before it has read anything. That decides nothing: what the client says does.
    let mut greeted = false;
    let protocol = loop {
        let server_speaks = async {
            match &upstream {
                // Whatever it says is left for those who carry it.
                Some(Ok(upstream)) if !greeted => {
                    let mut bytes = [0; SETTINGS];
                    let mut seen = ReadBuf::new(&mut bytes);
                    poll_fn(|context| upstream.poll_peek(context, &mut seen)).await?;
                    Ok(is_http2_server(seen.filled()))
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
                match detect(seen) {
                    // Whole, it says whom the client wants. It comes at once, or what it looked like was chance.
                    Some(Protocol::Tls) if client_hello::server_name(seen) == ServerName::Incomplete => {
                        patience.as_mut().reset(tokio::time::Instant::now() + WHOLE_HELLO);
                    }
                    Some(protocol) => break Some(protocol),
                    None => {}
                }
            }
            result = &mut connecting, if ahead && upstream.is_none() => {
                if result.is_err() {
                    patience.as_mut().reset(tokio::time::Instant::now() + LAST_WORDS);
                }
                upstream = Some(result);
            }
            http2 = server_speaks => match http2 {
                Ok(true) => greeted = true,
                Ok(false) => break None,
                // The error is told once; whoever carries the bytes would see an end like any other.
                Err(error) => {
                    upstream = Some(Err(error));
                    break None;
                }
            },
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
mod tests;

#[cfg(test)]
pub(crate) mod harness {
    //! A client and, behind the sidecar, a server, without capture and without root.

    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::access_log;
    use crate::descriptors::Places;
    use crate::life::Life;
    use crate::memory::{self, Group};
    use crate::ports::Ports;
    use crate::route::{Declared, Route};
    use crate::settings::{Limits, Live};
    use crate::shared::Worker;
    use crate::telemetry::Shard;
    use crate::trace::Tracer;
    use socket2::{Domain, Socket, Type};

    /// A worker with a server behind it.
    pub(crate) struct Harness {
        pub(crate) shared: Rc<Shared>,
        pub(crate) server: TcpListener,
    }

    impl Harness {
        pub(crate) async fn new() -> Harness {
            Harness::with(Live::default(), None).await
        }

        /// With these settings, and spans.
        pub(crate) async fn with(live: Live, tracer: Option<Tracer>) -> Harness {
            Harness::made(live, tracer, false, None).await
        }

        /// One that logs all as JSON.
        pub(crate) async fn logging(limits: Limits) -> Harness {
            let access_log = (access_log::Policy::All, access_log::Format::Json);
            Harness::with(Live { access_log, limits, ..Live::default() }, None).await
        }

        /// The one line of its log, once it is there.
        pub(crate) async fn logged(&self) -> serde_json::Value {
            while self.shared.access_log.waiting().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            serde_json::from_str(&self.shared.access_log.waiting()).unwrap()
        }

        /// One whose responses say how long the upstream took; without, they are what the test's server sent.
        pub(crate) async fn telling() -> Harness {
            Harness::made(Live::default(), None, true, None).await
        }

        /// One whose memory is full.
        pub(crate) async fn full() -> Harness {
            Harness::made(Live::default(), None, true, Some(memory::tests::full())).await
        }

        async fn made(
            live: Live,
            tracer: Option<Tracer>,
            debug_headers: bool,
            memory: Option<Group>,
        ) -> Harness {
            let worker = Worker {
                ports: Ports::default(),
                transparent: false,
                debug_headers,
                shard: Arc::new(Shard::default()),
                life: Arc::new(Life::default()),
                live: watch::Sender::new(Arc::new(live)).subscribe(),
                places: Places::new(1000),
                idle: 1000,
                pipes: 1,
                windows: 64 << 20,
                memory,
                output: crate::access_log::Output::nowhere(),
                tracer,
            };
            let shared = Rc::new(Shared::new(worker));
            Harness { shared, server: TcpListener::bind("127.0.0.1:0").await.unwrap() }
        }

        /// A client whose connection was captured on its way to the server.
        pub(crate) async fn client(&self, declared: Declared) -> TcpStream {
            self.client_to(self.server.local_addr().unwrap(), declared).await
        }

        /// A client whose connection was captured on its way to `address`.
        pub(crate) async fn client_to(&self, address: SocketAddr, declared: Declared) -> TcpStream {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            let route = Route { address, declared };
            let shared = Rc::clone(&self.shared);
            let live = shared.live();
            let (direction, open) =
                (Direction::Inbound, Open::new(&shared.shard, Direction::Inbound, peer, route.address));
            let captured = Captured { shared, live, direction, peer, route, open };
            tokio::task::spawn_local(carry(captured, stream));
            client
        }

        pub(crate) async fn accept(&self) -> TcpStream {
            self.server.accept().await.unwrap().0
        }

        /// A client that sent `request`, and the server that has read its head.
        pub(crate) async fn asked(&self, request: &str) -> (TcpStream, TcpStream) {
            let mut client = self.client(Declared::Nothing).await;
            say(&mut client, request).await;
            let mut server = self.accept().await;
            head(&mut server).await;
            (client, server)
        }
    }

    /// An address that refuses connections while its socket is held: it is taken, and nobody listens. That of a listener
    /// which was closed would be anybody's, such as another test's.
    pub(crate) fn refusing() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    /// Runs a test on a local runtime.
    pub(crate) fn run(test: impl Future<Output = ()>) {
        let options = tokio::runtime::LocalOptions::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
        let limit = Duration::from_secs(30);
        runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test took too long") });
    }

    /// A request, and its answer.
    pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Answers a request whose head has been read.
    pub(crate) async fn answer(server: &mut TcpStream, client: &mut TcpStream) {
        say(server, OK).await;
        assert_eq!(until(client, "ok").await, OK);
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
