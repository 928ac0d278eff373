//! A pod's network namespace and that of a peer, joined by a veth pair, with capture by `outrigger-init`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Sidecar, ask, eventually};

pub(crate) const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
pub(crate) const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(crate) const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));
pub(crate) const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1));
/// A service address whose port 80 leads to the pod's port 8080, as kube-proxy on the node would do it.
pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

/// How a pod's traffic gets to the sidecar: `outrigger-init`'s words for it.
const REDIRECT: &str = "REDIRECT";
const TPROXY: &str = "TPROXY";

const SERVICE: &str = "
table ip service {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr 10.96.0.10 tcp dport 80 dnat to 10.9.0.2:8080
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip daddr 10.9.0.2 ip saddr 10.9.0.2 masquerade
  }
}";

/// One network namespace; dropping it removes it.
pub(crate) struct Namespace {
    pub name: String,
}

impl Namespace {
    fn new(name: String) -> Namespace {
        run("ip", &["netns", "add", &name]);
        let namespace = Namespace { name };
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// A command inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program inside and panics if it fails.
    pub(crate) fn run(&self, program: &str, args: &[&str]) {
        run("ip", &[&["netns", "exec", &self.name, program], args].concat());
    }

    /// Waits until the local IPv6 routes are there.
    fn await_routes(&self, wanted: &[&str]) {
        eventually("IPv6 is ready", || {
            let shown =
                Command::new("ip").args(["-n", &self.name, "-6", "route", "show", "table", "local"]).output();
            let routes = String::from_utf8(shown.unwrap().stdout).unwrap();
            wanted.iter().all(|route| routes.contains(route)).then_some(())
        });
    }

    /// Captures all as a pod's init container does, but for what kubelet and Prometheus ask the sidecar itself.
    fn capture(&self, mode: &str) {
        let all = ["-m", mode, "-i", "*", "-b", "*", "-d", "15020,15021,15090", "--backend", "nftables"];
        self.run(init(), &all);
        // The kernel finishes the address that outrigger-init adds on its own time, too.
        self.await_routes(&["local ::6 "]);
    }

    fn rules(&self, text: &str) {
        self.run("nft", &[text]);
    }

    /// Does `work` inside. A socket that is made inside stays there, wherever it is used.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // The namespace belongs to the thread, and the thread ends here.
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    pub(crate) fn listen(&self, address: IpAddr, port: u16) -> TcpListener {
        self.enter(|| TcpListener::bind((address, port))).unwrap()
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&address, super::PATIENCE))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A pod with capture rules, and a peer on the network.
pub(crate) struct Pod {
    pub inside: Namespace,
    pub peer: Namespace,
    /// The sidecar's program where its user can reach it.
    program: PathBuf,
}

impl Pod {
    pub(crate) fn new() -> Pod {
        Pod::captured(REDIRECT)
    }

    /// A pod whose inbound connections are captured by TPROXY.
    pub(crate) fn transparent() -> Pod {
        Pod::captured(TPROXY)
    }

    fn captured(mode: &str) -> Pod {
        assert!(
            rustix::process::geteuid().is_root(),
            "the feature netns-tests makes network namespaces: run these tests as root, or without the feature"
        );
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let inside = Namespace::new(format!("outrigger-pod-{id}"));
        let peer = Namespace::new(format!("outrigger-peer-{id}"));
        let pair = ["link", "add", "eth0", "netns", &inside.name, "type", "veth", "peer", "name", "eth0"];
        run("ip", &[&pair[..], &["netns", &peer.name]].concat());
        for (namespace, v4, v6) in
            [(&inside, "10.9.0.2/24", "fd09::2/64"), (&peer, "10.9.0.1/24", "fd09::1/64")]
        {
            namespace.run("ip", &["addr", "add", v4, "dev", "eth0"]);
            namespace.run("ip", &["addr", "add", v6, "dev", "eth0", "nodad"]);
            namespace.run("ip", &["link", "set", "eth0", "up"]);
        }
        inside.run("ip", &["route", "add", "default", "via", "10.9.0.1"]);
        // The kernel finishes IPv6 addresses on its own time.
        inside.await_routes(&["local fd09::2 ", "multicast ff00::/8 dev eth0 "]);
        peer.await_routes(&["local fd09::1 ", "multicast ff00::/8 dev eth0 "]);
        inside.capture(mode);
        peer.rules(SERVICE);
        peer.run("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
        let folder = std::env::temp_dir().join(format!("outrigger-netns-{id}"));
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join("outrigger-proxy");
        // By a process of its own: what is open for writing here may be open in a child that another test is just
        // starting, and a program that somebody has open for writing cannot be run.
        run("cp", &[env!("CARGO_BIN_EXE_outrigger-proxy"), program.to_str().unwrap()]);
        Pod { inside, peer, program }
    }

    /// Starts the sidecar as its own user, with `env`.
    pub(crate) fn sidecar(&self, env: &[(&str, &str)]) -> Sidecar {
        self.start(&self.inside, &[], env)
    }

    /// Makes the peer a pod with a sidecar, too.
    pub(crate) fn sidecar_of_peer(&self) -> Sidecar {
        self.peer.capture(REDIRECT);
        self.start(&self.peer, &[], &[])
    }

    /// Starts the sidecar as TPROXY wants it: as root, known by its group, and allowed to speak in others' names.
    pub(crate) fn transparent_sidecar(&self) -> Sidecar {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.inside.name, "setpriv", "--regid=1337", "--clear-groups"]);
        command.arg(&self.program).args(["proxy", "sidecar", "--concurrency=2"]);
        command.env("ISTIO_META_INTERCEPTION_MODE", "TPROXY");
        Sidecar::start(command)
    }

    /// Starts the sidecar in a control group of the v1 or v2 hierarchy that is mounted at /sys/fs/cgroup.
    pub(crate) fn sidecar_in(&self, group: &Path, env: &[(&str, &str)]) -> Sidecar {
        // `ip netns exec` would hide what is mounted there.
        let script = "echo $$ >\"$0/cgroup.procs\" && exec nsenter \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(group).arg(format!("--net=/run/netns/{}", self.inside.name));
        command.args(["setpriv", "--reuid=1337", "--regid=1337", "--clear-groups", "--inh-caps=-all"]);
        command.arg(&self.program).args(["proxy", "sidecar", "--concurrency=2"]).envs(env.iter().copied());
        Sidecar::start(command)
    }

    /// Starts the sidecar with at most `count` file descriptors.
    pub(crate) fn sidecar_with_descriptors(&self, count: u32) -> Sidecar {
        self.start(&self.inside, &["prlimit", &format!("--nofile={count}:{count}")], &[])
    }

    fn start(&self, namespace: &Namespace, before: &[&str], env: &[(&str, &str)]) -> Sidecar {
        let mut command = namespace.command("env");
        command.args(before);
        command.args(["setpriv", "--reuid=1337", "--regid=1337", "--clear-groups", "--inh-caps=-all"]);
        // The sidecar's alone: a library to be loaded is not for the programs before it.
        command.arg("env").args(env.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(&self.program).args(["proxy", "sidecar", "--concurrency=2"]);
        Sidecar::start(command)
    }

    /// The sidecar's own metrics, asked for from outside as Prometheus does.
    pub(crate) fn metrics(&self, sidecar: &Sidecar) -> String {
        let stream = self.peer.connect((POD_V4, sidecar.port("metrics")).into()).unwrap();
        ask(stream, "GET", "/stats/prometheus").1
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.program.parent().unwrap());
    }
}

/// The path of `outrigger-init`, which is built if it has not been: of another package's programs, cargo tells a test
/// nothing.
fn init() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--package", "outrigger-init", "--message-format", "json"]);
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let said = String::from_utf8_lossy(&built.stdout);
        let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut paths = messages.filter_map(|message| Some(message["executable"].as_str()?.to_owned()));
        let errors = String::from_utf8_lossy(&built.stderr);
        paths.next_back().unwrap_or_else(|| panic!("cargo built no outrigger-init: {errors}"))
    })
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {} failed: {said}", args.join(" "));
}
