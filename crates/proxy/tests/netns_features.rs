//! What settings and modes change of the sidecar in a pod's network namespace. Needs root, nft and ip.
#![cfg(feature = "netns-tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use support::namespace::{PEER_V4, POD_V4, POD_V6, Pod, VIP};
use support::{ask, each, eventually, metric, patient};

/// Answers each connection with its peer's address, by HTTP if HTTP is spoken, else as a line for a line.
fn who_asks(listener: TcpListener) {
    each(listener, |mut stream| {
        let peer = stream.peer_addr().unwrap().ip().to_string();
        let mut said = Vec::new();
        let mut byte = [0];
        loop {
            stream.read_exact(&mut byte).ok()?;
            said.push(byte[0]);
            if said.ends_with(b"\r\n\r\n") {
                let length = peer.len();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{peer}").unwrap();
                if String::from_utf8_lossy(&said).contains("connection: close") {
                    return None;
                }
                said.clear();
            } else if said.ends_with(b"who?") {
                stream.write_all(format!("{peer}\n").as_bytes()).unwrap();
                said.clear();
            }
        }
    });
}

/// Reads up to the end of a line.
fn line(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

#[test]
fn with_tproxy_the_application_sees_its_clients() {
    let pod = Pod::transparent();
    let sidecar = pod.transparent_sidecar();
    // A second address of the same peer: kept connections are each client's own.
    pod.peer.run("ip", &["addr", "add", "10.9.0.3/24", "dev", "eth0"]);
    let from = |source: &str, destination: SocketAddr| {
        let source: IpAddr = source.parse().unwrap();
        pod.peer.enter(|| {
            let domain = socket2::Domain::for_address(destination);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
            socket.connect_timeout(&destination.into(), support::PATIENCE).unwrap();
            patient(socket.into())
        })
    };
    who_asks(pod.inside.listen(POD_V4, 8080));
    who_asks(pod.inside.listen(POD_V6, 8080));
    for (source, destination) in
        [("10.9.0.1", POD_V4), ("10.9.0.3", POD_V4), ("10.9.0.1", POD_V4), ("fd09::1", POD_V6)]
    {
        let destination = (destination, 8080).into();
        assert_eq!(ask(from(source, destination), "GET", "/"), (200, source.to_owned()));
        let mut stream = from(source, destination);
        stream.write_all(b"who?").unwrap();
        assert_eq!(line(&mut stream), source);
    }
    let text = pod.metrics(&sidecar);
    let counted = |name: &str| metric(&text, name, &["reporter=\"destination\""]);
    assert_eq!(counted("istio_requests_total"), 4.0, "{text}");
    assert_eq!(counted("istio_tcp_connections_opened_total"), 4.0, "{text}");
    // What the application opens goes on as before, a call to itself too.
    who_asks(pod.peer.listen(PEER_V4, 80));
    let mut stream = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    stream.write_all(b"who?").unwrap();
    assert_eq!(line(&mut stream), POD_V4.to_string());
}

/// The folder of a mounted ConfigMap, as the kubelet lays it out and changes it.
struct ConfigMap {
    folder: PathBuf,
    version: u32,
}

impl ConfigMap {
    fn new(text: &str) -> ConfigMap {
        let folder = std::env::temp_dir().join(format!("outrigger-settings-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut map = ConfigMap { folder, version: 0 };
        map.change(text);
        std::os::unix::fs::symlink("..data/proxy.yaml", map.path()).unwrap();
        map
    }

    fn path(&self) -> PathBuf {
        self.folder.join("proxy.yaml")
    }

    /// Writes a new version beside the old one, and swaps the link `..data`.
    fn change(&mut self, text: &str) {
        self.version += 1;
        let version = format!("..version_{}", self.version);
        std::fs::create_dir(self.folder.join(&version)).unwrap();
        std::fs::write(self.folder.join(&version).join("proxy.yaml"), text).unwrap();
        let link = self.folder.join("..data_tmp");
        std::os::unix::fs::symlink(&version, &link).unwrap();
        std::fs::rename(&link, self.folder.join("..data")).unwrap();
    }
}

impl Drop for ConfigMap {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn settings_follow_their_file_and_no_connection_notices() {
    let pod = Pod::new();
    let mut map = ConfigMap::new("opaquePorts: []\n");
    let sidecar = pod.sidecar(&[("OUTRIGGER_CONFIG", map.path().to_str().unwrap())]);
    who_asks(pod.peer.listen(PEER_V4, 8080));
    let mut kept = patient(pod.inside.connect((PEER_V4, 8080).into()).unwrap());
    let mut asked = || {
        kept.write_all(b"who?").unwrap();
        assert_eq!(line(&mut kept), POD_V4.to_string());
    };
    asked();
    // How many connections were carried as bytes; that is counted before anything is carried.
    let opened =
        || metric(&pod.metrics(&sidecar), "istio_tcp_connections_opened_total", &["reporter=\"source\""]);
    let get_as_bytes = || {
        let before = opened();
        assert_eq!(ask(pod.inside.connect((PEER_V4, 8080).into()).unwrap(), "GET", "/").0, 200);
        (opened() == before + 1.0).then_some(())
    };
    assert_eq!(get_as_bytes(), None, "HTTP is seen as HTTP");

    let reloads = |result: &str| {
        let text = pod.metrics(&sidecar);
        metric(&text, "outrigger_reloads_total", &[&format!("result=\"{result}\"")])
    };
    map.change("opaquePorts: [8080]\nidleTimeout: 2h\n");
    eventually("the change is taken", || (reloads("taken") == 1.0).then_some(()));
    asked();
    eventually("a new connection is opaque now", get_as_bytes);

    // Two mistakes are both named; what was good stays.
    map.change("idleTimeout: soon\nopaquePort: [1]\n");
    let refused =
        sidecar.logged("refused the changed settings; the last good ones stay")["error"].to_string();
    assert!(refused.contains("opaquePort") && refused.contains("line 2"), "{refused}");
    eventually("the change is refused", || (reloads("refused") == 1.0).then_some(()));
    asked();
    eventually("the port is still opaque", get_as_bytes);
    map.change("idleTimeout: 2h\n");
    eventually("the next good one is taken", || (reloads("taken") == 2.0).then_some(()));
    asked();
}

#[test]
fn what_finds_no_place_waits_and_is_served_in_its_turn() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[("OUTRIGGER_MAX_CONNECTIONS", "3")]);
    who_asks(pod.peer.listen(PEER_V4, 8080));
    who_asks(pod.inside.listen(POD_V4, 8080));
    let connect = || patient(pod.inside.connect((PEER_V4, 8080).into()).unwrap());
    let mut served: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
    for stream in &mut served {
        stream.write_all(b"who?").unwrap();
        assert_eq!(line(stream), POD_V4.to_string());
    }
    // They are taken in by the kernel, and nobody answers or resets them.
    let mut waiting: Vec<TcpStream> = (0..5).map(|_| connect()).collect();
    for stream in &mut waiting {
        stream.write_all(b"who?").unwrap();
    }
    eventually("the limit is met", || {
        let limit = ["reporter=\"source\"", "limit=\"maxConnections\""];
        (metric(&pod.metrics(&sidecar), "outrigger_limits_met_total", &limit) >= 1.0).then_some(())
    });
    let active = ["reporter=\"source\""];
    assert_eq!(metric(&pod.metrics(&sidecar), "outrigger_connections_active", &active), 3.0);
    // The other direction has places of its own.
    let mut inbound = patient(pod.peer.connect((POD_V4, 8080).into()).unwrap());
    inbound.write_all(b"who?").unwrap();
    assert_eq!(line(&mut inbound), "127.0.0.6");
    // As places come free, one after the other is served, none is lost.
    drop(served);
    while !waiting.is_empty() {
        let ready = eventually("one of those that wait is answered", || {
            waiting.iter().position(|stream| {
                stream.set_nonblocking(true).unwrap();
                let ready = stream.peek(&mut [0]).is_ok();
                stream.set_nonblocking(false).unwrap();
                ready
            })
        });
        let mut stream = waiting.remove(ready);
        assert_eq!(line(&mut stream), POD_V4.to_string());
    }
}

#[test]
fn a_call_to_oneself_passes_when_each_direction_is_full_but_for_one() {
    let pod = Pod::new();
    let _sidecar = pod.sidecar(&[("OUTRIGGER_MAX_CONNECTIONS", "1")]);
    who_asks(pod.inside.listen(POD_V4, 8080));
    let mut stream = patient(pod.inside.connect((VIP, 80).into()).unwrap());
    stream.write_all(b"who?").unwrap();
    assert_eq!(line(&mut stream), "127.0.0.6");
}
