//! DNS on 15053, where capture turns the application's queries when it is told to: forwarded to the pod's own resolvers
//! and kept as long as answers may be. Names of the mesh will come from a control plane.
//!
//! Served on loopback only: answers from another address would not find their way back through capture.

mod message;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use message::properties;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::listener;
use crate::telemetry::{Counter, Dns};

/// Queries and connections that are served at a time.
const AT_ONCE: usize = 1024;
/// Answers that are kept.
const KEPT: usize = 4096;
/// Time that a TCP client has for its next query.
const IDLE: Duration = Duration::from_secs(10);
/// Longest message over UDP.
const LONGEST: usize = 65_535;

/// What is configured of DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// UDP and TCP port.
    pub port: u16,
    /// Where queries are forwarded to.
    pub servers: Vec<SocketAddr>,
    /// Time that each server has, 5 s (`DNS_FORWARD_TIMEOUT`).
    pub patience: Duration,
}

/// The servers that `resolv.conf` names (resolv.conf(5)); what stands behind an address is not read.
pub(crate) fn servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next()).flatten()?;
        Some(SocketAddr::new(address.parse().ok()?, 53))
    };
    text.lines().filter_map(server).collect()
}

/// Binds UDP and TCP on loopback and serves both until the program ends. Must run on a local runtime.
///
/// # Errors
///
/// A port cannot be bound, with its address.
pub(crate) fn start(settings: Settings, counters: Arc<Dns>) -> Result<(), String> {
    let resolver = Rc::new(Resolver {
        settings,
        counters,
        kept: RefCell::default(),
        places: Arc::new(Semaphore::new(AT_ONCE)),
    });
    let port = resolver.settings.port;
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(address, port);
        let failed = |error: io::Error| format!("cannot listen on {address} for DNS: {error}");
        let udp = match std::net::UdpSocket::bind(address) {
            Err(_) if address.is_ipv6() => continue,
            result => result.map_err(failed)?,
        };
        udp.set_nonblocking(true).map_err(failed)?;
        let udp = UdpSocket::from_std(udp).map_err(failed)?;
        tokio::task::spawn_local(serve_udp(Rc::clone(&resolver), Rc::new(udp)));
        for tcp in listener::bind(&[address.ip()], port, 1)?.into_iter().flatten() {
            let tcp = TcpListener::from_std(tcp).map_err(failed)?;
            tokio::task::spawn_local(serve_tcp(Rc::clone(&resolver), tcp));
        }
    }
    Ok(())
}

struct Resolver {
    settings: Settings,
    counters: Arc<Dns>,
    kept: RefCell<HashMap<Vec<u8>, Kept>>,
    places: Arc<Semaphore>,
}

/// An answer, and from when to when it holds.
struct Kept {
    reply: Vec<u8>,
    since: Instant,
    until: Instant,
}

/// How a query came, and so how it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
}

async fn serve_udp(resolver: Rc<Resolver>, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok(place) = Arc::clone(&resolver.places).acquire_owned().await else { return };
        // An error here is a client's that did not wait for its answer.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let query = buffer[..length].to_vec();
        let (resolver, socket) = (Rc::clone(&resolver), Rc::clone(&socket));
        tokio::task::spawn_local(async move {
            if let Some(reply) = resolver.resolve(&query, Over::Udp).await {
                let _ = socket.send_to(&reply, client).await;
            }
            drop(place);
        });
    }
}

async fn serve_tcp(resolver: Rc<Resolver>, listener: TcpListener) {
    let errors = Counter::default();
    loop {
        let Ok(place) = Arc::clone(&resolver.places).acquire_owned().await else { return };
        let (mut stream, _) = listener::accept(&listener, &errors).await;
        let resolver = Rc::clone(&resolver);
        tokio::task::spawn_local(async move {
            while let Ok(Ok(query)) = timeout(IDLE, read(&mut stream)).await {
                let Some(reply) = resolver.resolve(&query, Over::Tcp).await else { break };
                if write(&mut stream, &reply).await.is_err() {
                    break;
                }
            }
            drop(place);
        });
    }
}

impl Resolver {
    /// The answer to `query`; `None` if it is none that can be answered.
    async fn resolve(&self, query: &[u8], over: Over) -> Option<Vec<u8>> {
        let key = message::key(query)?;
        self.counters.queries.add(1);
        let id = [query[0], query[1]];
        if let Some(reply) = self.kept(&key, id, over) {
            self.counters.kept.add(1);
            return Some(reply);
        }
        // An id and a port that nobody can guess, whatever the client's were.
        let mut asked = query.to_vec();
        asked[..2].copy_from_slice(&fastrand::u16(..).to_be_bytes());
        let servers = &self.settings.servers;
        let first = if servers.is_empty() { 0 } else { fastrand::usize(..servers.len()) };
        for server in servers.iter().cycle().skip(first).take(servers.len()) {
            let answer = async {
                match over {
                    Over::Udp => ask_udp(*server, &asked).await,
                    Over::Tcp => ask_tcp(*server, &asked).await,
                }
            };
            match timeout(self.settings.patience, answer).await {
                Ok(Ok(mut reply)) => {
                    reply[..2].copy_from_slice(&id);
                    self.keep(key, &reply);
                    return Some(reply);
                }
                Ok(Err(error)) => tracing::debug!(%server, %error, "a DNS server failed"),
                Err(_) => tracing::debug!(%server, "a DNS server did not answer"),
            }
        }
        self.counters.failures.add(1);
        Some(message::failure(query))
    }

    fn kept(&self, key: &[u8], id: [u8; 2], over: Over) -> Option<Vec<u8>> {
        let kept = self.kept.borrow();
        let found = kept.get(key).filter(|found| Instant::now() < found.until)?;
        // What came over TCP may be too long for UDP; then the server has to say so.
        if over == Over::Udp && found.reply.len() > 512 {
            return None;
        }
        let mut reply = found.reply.clone();
        message::renew(&mut reply, id, found.since.elapsed().as_secs() as u32);
        Some(reply)
    }

    fn keep(&self, key: Vec<u8>, reply: &[u8]) {
        let Some(seconds) = message::lifetime(reply) else { return };
        let mut kept = self.kept.borrow_mut();
        let now = Instant::now();
        if kept.len() >= KEPT {
            kept.retain(|_, one| now < one.until);
        }
        if kept.len() < KEPT {
            let until = now + Duration::from_secs(seconds.into());
            kept.insert(key, Kept { reply: reply.to_vec(), since: now, until });
        }
    }
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else may be somebody's guess; the answer is still to come.
        if message::answers(query, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write(&mut stream, query).await?;
    let reply = read(&mut stream).await?;
    match message::answers(query, &reply) {
        true => Ok(reply),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question")),
    }
}

/// RFC 1035, section 4.2.2: a length before each message.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests {
    use super::message::tests::{query, reply};
    use super::*;
    use crate::connection::harness::run;

    fn resolver(servers: Vec<SocketAddr>) -> Rc<Resolver> {
        let settings = Settings { port: 0, servers, patience: Duration::from_secs(5) };
        let (counters, kept) = (Arc::default(), RefCell::default());
        Rc::new(Resolver { settings, counters, kept, places: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    async fn server() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    /// Answers one query with records of `ttls`, after one answer that is somebody's guess.
    async fn answer(socket: &UdpSocket, ttls: &[u32]) {
        let mut buffer = [0; 512];
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = &buffer[..length];
        let mut guess = reply(asked, ttls);
        guess[0] ^= 1;
        socket.send_to(&guess, client).await.unwrap();
        socket.send_to(&reply(asked, ttls), client).await.unwrap();
    }

    #[test]
    fn servers_are_read_from_resolv_conf() {
        let text = "# comment\nsearch ns.svc.cluster.local\nnameserver 10.96.0.10\nnameserver\tfd00::a  # of the node\nnameserver x\noptions ndots:5\n";
        let expected: Vec<SocketAddr> =
            vec!["10.96.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()];
        assert_eq!(servers(text), expected);
    }

    #[test]
    fn an_answer_is_asked_for_once_and_kept() {
        run(async {
            let (socket, address) = server().await;
            let resolver = resolver(vec![address]);
            let asked = query(7, "a.example");
            let (first, ()) = tokio::join!(resolver.resolve(&asked, Over::Udp), answer(&socket, &[60]));
            assert_eq!(first.unwrap(), reply(&asked, &[60]));
            // Nobody answers now.
            let asked = query(8, "A.example");
            let second = resolver.resolve(&asked, Over::Udp).await.unwrap();
            assert!(message::answers(&asked, &second));
            assert_eq!(resolver.counters.kept.get(), 1);
            assert_eq!(resolver.counters.queries.get(), 2);
        });
    }

    #[test]
    fn when_one_server_fails_the_next_is_asked() {
        run(async {
            let (socket, address) = server().await;
            // Nobody is there: the kernel says so at once.
            let (gone, nobody) = server().await;
            drop(gone);
            let resolver = resolver(vec![nobody, address]);
            for id in 0..8 {
                let asked = query(id, &format!("n{id}.example"));
                let (got, ()) = tokio::join!(resolver.resolve(&asked, Over::Udp), answer(&socket, &[0]));
                assert_eq!(got.unwrap(), reply(&asked, &[0]));
            }
        });
    }

    #[test]
    fn when_all_fail_it_is_servfail() {
        run(async {
            let (gone, nobody) = server().await;
            drop(gone);
            let asked = query(7, "a.example");
            for over in [Over::Udp, Over::Tcp] {
                let got = resolver(vec![nobody]).resolve(&asked, over).await.unwrap();
                assert_eq!(got, message::failure(&asked));
            }
            let resolver = resolver(Vec::new());
            assert_eq!(resolver.resolve(&asked, Over::Udp).await.unwrap(), message::failure(&asked));
            assert_eq!(resolver.counters.failures.get(), 1);
            assert_eq!(resolver.resolve(b"nonsense", Over::Udp).await, None);
        });
    }

    #[test]
    fn tcp_queries_are_forwarded_by_tcp() {
        run(async {
            let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let resolver = resolver(vec![upstream.local_addr().unwrap()]);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tokio::task::spawn_local(serve_tcp(resolver, listener));
            for id in 0..2 {
                let asked = query(id, &format!("n{id}.example"));
                write(&mut client, &asked).await.unwrap();
                let (mut stream, _) = upstream.accept().await.unwrap();
                let forwarded = read(&mut stream).await.unwrap();
                write(&mut stream, &reply(&forwarded, &[5])).await.unwrap();
                assert_eq!(read(&mut client).await.unwrap(), reply(&asked, &[5]));
            }
        });
    }
}
