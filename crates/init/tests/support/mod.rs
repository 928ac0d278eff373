//! A pod and a peer in network namespaces of their own, listeners that say who reached them, and the program
//! under test.

#![allow(dead_code)]

pub(crate) mod scenario;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_res_gid, set_thread_res_uid};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub(crate) const BACKENDS: [&str; 3] = ["nftables", "iptables-nft", "iptables-legacy"];
/// Longer than anything here takes, so that only what hangs runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const PROXY: Who = Who { uid: 1337, gid: 1337 };
pub(crate) const APP: Who = Who { uid: 1000, gid: 1000 };

/// Options as the injector passes them, and others that say something of everything.
pub(crate) const DEFAULT: &str = "-u 1337 -g 1337 -m REDIRECT -b * -i * -d 15090,15021,15020";
pub(crate) const OTHER: &str = "-u 1337 -g 1337 -m TPROXY -b 80,8080 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16 -o 25 -c net9 -k vm9 \
                     --redirect-dns --capture-all-dns --drop-invalid";

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// User and group of whoever dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub uid: u32,
    pub gid: u32,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Addresses of the two namespaces.
impl Family {
    fn pick(self, v4: &str, v6: &str) -> IpAddr {
        (if self == Family::V4 { v4 } else { v6 }).parse().unwrap()
    }
    pub(crate) fn pod(self) -> IpAddr {
        self.pick("10.9.0.2", "fd09::2")
    }
    pub(crate) fn peer(self) -> IpAddr {
        self.pick("10.9.0.1", "fd09::1")
    }
    /// A service: routed to the peer, which has it.
    pub(crate) fn vip(self) -> IpAddr {
        self.pick("10.96.0.10", "fd96::10")
    }
    pub(crate) fn loopback(self) -> IpAddr {
        self.pick("127.0.0.1", "::1")
    }
    pub(crate) fn inbound_source(self) -> IpAddr {
        self.pick("127.0.0.6", "::6")
    }
    pub(crate) fn any(self) -> IpAddr {
        self.pick("0.0.0.0", "::")
    }
}

/// Where a connection arrived, as the listener saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Landing {
    pub name: String,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub original: Option<SocketAddr>,
}

/// A network namespace that goes away with this value.
pub(crate) struct Namespace {
    pub name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Namespace {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("oi-{}-{serial}-{role}", std::process::id());
        must(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Namespace { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments.split(' '));
        must(&mut command)
    }

    /// Waits until the local IPv6 routes are there.
    pub(crate) fn await_routes(&self, wanted: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let routes = self.ip("-6 route show table local");
            if wanted.iter().all(|route| routes.contains(route)) {
                return;
            }
            assert!(Instant::now() < deadline, "{wanted:?} are missing: {routes}");
        }
    }

    /// A command inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `work` in a thread that is inside, as root.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    /// The same as another user. Users are per thread, and this one ends.
    pub(crate) fn inside_as<T: Send>(&self, who: Who, work: impl FnOnce() -> T + Send) -> T {
        self.inside(|| {
            let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        })
    }

    /// Everything that capture could change, without counts of packets and without what makes no difference:
    /// built-in chains of iptables that are empty, and comments with the time of day.
    pub(crate) fn state(&self) -> String {
        let mut text = String::new();
        for command in
            ["iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"]
        {
            let output = self.command(command).output().unwrap();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if line.starts_with("-A") || line.starts_with(':') && line.contains(" - ") {
                    text.push_str(&format!("{command} {}\n", line.split(" [").next().unwrap()));
                }
            }
        }
        let ruleset = must(self.command("nft").args(["-s", "list", "ruleset"]));
        let mut table = String::new();
        for line in ruleset.lines() {
            if line.starts_with("table") {
                table = line.to_owned();
            }
            // iptables-nft's own tables have been seen above.
            if !table.contains("table ip ") && !table.contains("table ip6 ") {
                text.push_str(line);
                text.push('\n');
            }
        }
        for question in
            ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "-o addr"]
        {
            text.push_str(&self.ip(question));
        }
        text
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Runs a command that has to succeed.
pub(crate) fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A pod and a peer on one wire. The pod's default route is the peer.
pub(crate) struct World {
    pub pod: Namespace,
    pub peer: Namespace,
}

impl World {
    pub(crate) fn new() -> World {
        let world = World { pod: Namespace::new("pod"), peer: Namespace::new("peer") };
        let (pod, peer) = (&world.pod, &world.peer);
        pod.ip(&format!("link add eth0 type veth peer name eth0 netns {}", peer.name));
        for (namespace, last) in [(pod, 2), (peer, 1)] {
            namespace.ip("link set eth0 addrgenmode none");
            namespace.ip("link set eth0 up");
            namespace.ip(&format!("addr add 10.9.0.{last}/24 dev eth0"));
            namespace.ip(&format!("addr add fd09::{last}/64 dev eth0 nodad"));
        }
        peer.ip("addr add 10.96.0.10/32 dev lo");
        peer.ip("addr add fd96::10/128 dev lo nodad");
        peer.ip("route add 10.8.0.0/24 via 10.9.0.2");
        peer.ip("route add fd08::/64 via fd09::2");
        pod.ip("route add default via 10.9.0.1");
        pod.ip("route add default via fd09::1");
        // The kernel finishes IPv6 addresses on its own time.
        pod.await_routes(&["local fd09::2 ", "multicast ff00::/8 dev eth0 "]);
        peer.await_routes(&["local fd09::1 ", "local fd96::10 ", "multicast ff00::/8 dev eth0 "]);
        world
    }

    /// Listeners as in a pod with its sidecar: the proxy's ports, an application, and the peer's servers.
    pub(crate) fn listen(&self, transparent: bool) {
        for family in FAMILIES {
            for port in [15001, 15006, 15008, 15020, 8080] {
                let own = transparent && port == 15006;
                listen(&self.pod, PROXY, SocketAddr::new(family.any(), port), &port.to_string(), own);
            }
            for port in [80, 81, 53] {
                listen(
                    &self.peer,
                    APP_ROOT,
                    SocketAddr::new(family.any(), port),
                    &format!("peer:{port}"),
                    false,
                );
            }
            // Each address by itself, so that answers come from the one that was asked.
            for (address, port) in [(family.peer(), 53), (family.peer(), 123), (family.vip(), 53)] {
                answer(&self.peer, APP_ROOT, SocketAddr::new(address, port), &format!("peer:{port}"));
            }
            let dns = SocketAddr::new(family.loopback(), 15053);
            listen(&self.pod, PROXY, dns, "15053", false);
            answer(&self.pod, PROXY, dns, "15053");
        }
    }

    /// A pod with its listeners, captured by a back end with these options.
    pub(crate) fn captured(flags: &str, backend: &str) -> World {
        let world = World::new();
        world.listen(flags.contains("TPROXY"));
        world.apply(&format!("-u 1337 -g 1337 {flags} --backend {backend}"));
        world
    }

    /// The program in the pod, with arguments separated by spaces.
    pub(crate) fn init(&self, arguments: &str) -> Command {
        let mut command = self.pod.command(env!("CARGO_BIN_EXE_outrigger-init"));
        command.args(arguments.split(' ').filter(|argument| !argument.is_empty()));
        command.env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The program has to succeed; gives what it logged.
    pub(crate) fn apply(&self, arguments: &str) -> String {
        succeeded(self.init(arguments).output().unwrap())
    }
}

/// Root, who may bind low ports.
pub(crate) const APP_ROOT: Who = Who { uid: 0, gid: 0 };

pub(crate) fn succeeded(output: Output) -> String {
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    log
}

/// Whether a run found nothing to do.
pub(crate) fn is_in_place(log: &str) -> bool {
    log.contains("capture is in place already")
}

fn domain(address: SocketAddr) -> Domain {
    if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

fn socket(address: SocketAddr, kind: Type, transparent: bool) -> Socket {
    let socket = Socket::new(domain(address), kind, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.set_reuse_address(true).unwrap();
    if transparent && address.is_ipv4() {
        socket.set_ip_transparent_v4(true).unwrap();
    } else if transparent {
        socket.set_ip_transparent_v6(true).unwrap();
    }
    socket
}

/// Listens until the tests end. Each connection is told where it landed, then how many bytes it sent.
pub(crate) fn listen(namespace: &Namespace, who: Who, address: SocketAddr, name: &str, transparent: bool) {
    // What needs a capability is done by root; only the owner of the socket is who it shall be.
    let who = if address.port() < 1024 || transparent { APP_ROOT } else { who };
    let listener = namespace.inside_as(who, || {
        let socket = socket(address, Type::STREAM, transparent);
        socket.bind(&address.into()).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.listen(64).unwrap();
        socket
    });
    let name = name.to_owned();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let name = name.clone();
            std::thread::spawn(move || tell(stream, &name));
        }
    });
}

fn tell(stream: Socket, name: &str) -> Option<()> {
    let peer = stream.peer_addr().ok()?.as_socket()?;
    let local = stream.local_addr().ok()?.as_socket()?;
    let original = if local.is_ipv4() { stream.original_dst_v4() } else { stream.original_dst_v6() };
    let original = original.ok().and_then(|address| address.as_socket()).map(plain);
    let original = original.map_or("-".to_owned(), |address| address.to_string());
    let mut stream = TcpStream::from(stream);
    stream.write_all(format!("{name} {} {} {original}\n", plain(peer), plain(local)).as_bytes()).ok()?;
    let count = std::io::copy(&mut stream, &mut std::io::sink()).ok()?;
    stream.write_all(format!("{count}\n").as_bytes()).ok()
}

/// Without flow label and scope.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// Answers every datagram with its name.
pub(crate) fn answer(namespace: &Namespace, who: Who, address: SocketAddr, name: &str) {
    let who = if address.port() < 1024 { APP_ROOT } else { who };
    let socket = namespace.inside_as(who, || {
        let socket = socket(address, Type::DGRAM, false);
        socket.bind(&address.into()).unwrap_or_else(|error| panic!("{address}: {error}"));
        UdpSocket::from(socket)
    });
    let name = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// How somebody dials.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dial {
    pub source: Option<SocketAddr>,
    pub mark: Option<u32>,
    pub transparent: bool,
}

/// A connection that landed somewhere.
pub(crate) struct Connection {
    pub landing: Landing,
    pub stream: TcpStream,
}

impl Connection {
    /// Sends so many bytes and gives back how many arrived.
    pub(crate) fn transfer(mut self, bytes: usize) -> usize {
        let chunk = vec![0x5a; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(chunk.len());
            self.stream.write_all(&chunk[..part]).unwrap();
            left -= part;
        }
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        self.stream.read_to_string(&mut text).unwrap();
        text.trim().parse().unwrap()
    }
}

/// Connects and reads where it landed.
pub(crate) fn dial(namespace: &Namespace, who: Who, to: SocketAddr, how: Dial) -> Result<Connection, String> {
    let special = how.transparent || how.mark.is_some();
    let connected = move || -> std::io::Result<TcpStream> {
        let socket = Socket::new(domain(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(mark) = how.mark {
            socket.set_mark(mark)?;
        }
        if how.transparent && to.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else if how.transparent {
            socket.set_ip_transparent_v6(true)?;
        }
        if let Some(source) = how.source {
            socket.bind(&SockAddr::from(source))?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_nonblocking(false)?;
        Ok(socket.into())
    };
    let who = if special { Who { uid: 0, gid: who.gid } } else { who };
    let mut stream = namespace.inside_as(who, connected).map_err(|error| error.kind().to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        match stream.read(&mut byte) {
            Ok(1) => line.push(byte[0]),
            Ok(_) => return Err("closed".to_owned()),
            Err(error) => return Err(error.kind().to_string()),
        }
    }
    let line = String::from_utf8(line).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, peer, local, original] = fields[..] else { panic!("{line:?}") };
    let landing = Landing {
        name: name.to_owned(),
        peer: peer.parse().unwrap(),
        local: local.parse().unwrap(),
        original: original.parse().ok(),
    };
    Ok(Connection { landing, stream })
}

/// Sends a datagram and reads who answered. The socket is connected, so only the address that was asked counts.
pub(crate) fn ask(namespace: &Namespace, who: Who, to: SocketAddr) -> Result<String, String> {
    let asked = move || -> std::io::Result<String> {
        let socket =
            UdpSocket::bind(SocketAddr::new(if to.is_ipv4() { Family::V4 } else { Family::V6 }.any(), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"who are you?")?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    namespace.inside_as(who, asked).map_err(|error| error.kind().to_string())
}
