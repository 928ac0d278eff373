//! What goes wrong on a network, and how much memory it may cost. Needs root, nft and ip.
#![cfg(feature = "netns-tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use support::namespace::{PEER_V4, POD_V4, Pod};
use support::{PLAIN, Sidecar, ask, each, eventually, head, metric, patient, read_byte};

/// Accepts one connection, reads its request, and says what the client did next while it got no answer.
fn never_answers(listener: TcpListener) -> Receiver<std::io::Result<usize>> {
    let (say, heard) = channel();
    each(listener, move |mut stream| {
        head(&mut stream)?;
        say.send(read_byte(&mut stream)).ok()
    });
    heard
}

/// A number of kilobytes from /proc/PID/status.
fn kilobytes(sidecar: &Sidecar, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse().unwrap()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_byte_at_a_time_is_carried_both_ways() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[PLAIN]);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    each(pod.peer.listen(PEER_V4, 80), move |mut stream| {
        stream.set_nodelay(true).ok()?;
        while head(&mut stream)?.starts_with("POST /slow HTTP/1.1\r\n") {
            let mut body = [0; 10];
            stream.read_exact(&mut body).ok()?;
            assert_eq!(&body, b"0123456789");
            for byte in answer {
                stream.write_all(&[*byte]).ok()?;
            }
        }
        None
    });
    let mut client = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    client.set_nodelay(true).unwrap();
    for _ in 0..3 {
        for byte in b"POST /slow HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n0123456789" {
            client.write_all(&[*byte]).unwrap();
        }
        let mut got = vec![0; answer.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, answer);
    }
    drop(client);
    eventually("the requests are counted", || {
        let labels = ["reporter=\"source\"", "response_code=\"200\""];
        (metric(&pod.metrics(&sidecar), "istio_requests_total", &labels) == 3.0).then_some(())
    });
}

#[test]
fn a_client_that_gives_up_takes_its_request_with_it() {
    let pod = Pod::new();
    let _sidecar = pod.sidecar(&[]);
    let heard = never_answers(pod.peer.listen(PEER_V4, 80));
    let mut client = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    client.write_all(GET).unwrap();
    drop(client);
    assert!(matches!(heard.recv_timeout(support::PATIENCE).unwrap(), Ok(0) | Err(_)));
}

#[test]
fn a_server_that_closes_after_its_head_is_a_reset() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    each(pod.peer.listen(PEER_V4, 80), |mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").ok()
    });
    let mut client = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    client.write_all(GET).unwrap();
    assert!(head(&mut client).unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(read_byte(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually("it is counted", || {
        let labels = ["reporter=\"source\"", "response_code=\"200\"", "response_flags=\"UC\""];
        (metric(&pod.metrics(&sidecar), "istio_requests_total", &labels) == 1.0).then_some(())
    });
}

#[test]
fn an_address_that_swallows_everything_is_503() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    pod.peer.run(
        "nft",
        &["table inet hole {\n chain input {\n type filter hook input priority 0\n tcp dport 81 drop\n }\n}"],
    );
    let (code, body) = ask(pod.inside.connect((PEER_V4, 81).into()).unwrap(), "GET", "/");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("timed out") || body.contains("timeout"), "{body}");
    eventually("it is counted", || {
        let labels = ["reporter=\"source\"", "response_flags=\"UF\""];
        (metric(&pod.metrics(&sidecar), "istio_requests_total", &labels) == 1.0).then_some(())
    });
}

/// A connection from the pod whose own port is `port`, which is not one of those that the kernel chooses from.
fn connect_from(pod: &Pod, port: u16, destination: SocketAddr) -> std::io::Result<TcpStream> {
    pod.inside.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(POD_V4, port).into()).unwrap();
        socket.connect_timeout(&destination.into(), support::PATIENCE)?;
        Ok(patient(socket.into()))
    })
}

#[test]
fn a_pod_without_a_free_port_says_that_it_is_overloaded() {
    let pod = Pod::new();
    let sidecar =
        pod.sidecar(&[("OUTRIGGER_OUTBOUND_PROTOCOLS", "80=http"), ("OUTRIGGER_OPAQUE_PORTS", "9000")]);
    pod.inside.run("sysctl", &["-q", "-w", "net.ipv4.ip_local_port_range=40000 40001"]);
    let http = pod.peer.listen(PEER_V4, 80);
    let bytes = pod.peer.listen(PEER_V4, 9000);
    // Two of each kind hold both ports.
    let mut held = Vec::new();
    for port in [50_001, 50_002] {
        let mut client = connect_from(&pod, port, (PEER_V4, 80).into()).unwrap();
        client.write_all(GET).unwrap();
        held.push((client, http.accept().unwrap()));
        let client = connect_from(&pod, port + 10, (PEER_V4, 9000).into()).unwrap();
        held.push((client, bytes.accept().unwrap()));
    }
    let mut client = connect_from(&pod, 50_003, (PEER_V4, 80).into()).unwrap();
    client.write_all(GET).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("reset reason: overflow"), "{answer}");
    assert!(answer.contains("\r\nx-envoy-overloaded: true\r\n"), "{answer}");
    // The reset may be here before connect has returned.
    let read =
        connect_from(&pod, 50_013, (PEER_V4, 9000).into()).and_then(|mut client| read_byte(&mut client));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually("both are counted", || {
        let text = pod.metrics(&sidecar);
        let labels = ["reporter=\"source\"", "response_flags=\"UO\""];
        let counted = |name: &str| metric(&text, name, &labels) == 1.0;
        (counted("istio_requests_total") && counted("istio_tcp_connections_closed_total")).then_some(())
    });
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_keep_alive() {
    let pod = Pod::new();
    let _sidecar = pod.sidecar(&[]);
    let listener = pod.peer.listen(PEER_V4, 80);
    let mut client = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    client.write_all(b"\0").unwrap();
    let mut server = patient(listener.accept().unwrap().0);
    server.read_exact(&mut [0]).unwrap();
    // The sidecar's ends: what it accepted on 15001, and what it opened to 80.
    eventually("both connections have a keep-alive timer", || {
        let filter = "( sport = :15001 or dport = :80 )";
        let shown =
            pod.inside.command("ss").args(["-Htno", "state", "established", filter]).output().unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        (text.matches("timer:(keepalive,").count() == 2).then_some(())
    });
}

#[test]
fn silent_clients_do_not_keep_others_waiting() {
    let pod = Pod::new();
    let _sidecar = pod.sidecar(&[]);
    each(pod.peer.listen(PEER_V4, 80), |mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").ok()
    });
    // Half a head, and nothing at all.
    let connect = || patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    let mut slow: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    for stream in slow.iter_mut().step_by(2) {
        stream.write_all(&GET[..20]).unwrap();
    }
    assert_eq!(ask(connect(), "GET", "/"), (200, "ok".to_owned()));
    // Those who come to their end are served, too.
    for stream in slow.iter_mut().step_by(2) {
        stream.write_all(&GET[20..]).unwrap();
        assert!(head(stream).unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[test]
fn after_sigkill_clients_know_and_the_next_sidecar_serves() {
    let pod = Pod::new();
    let mut sidecar = pod.sidecar(&[PLAIN]);
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    each(pod.peer.listen(PEER_V4, 80), move |mut stream| {
        loop {
            head(&mut stream)?;
            stream.write_all(ok.as_bytes()).ok()?;
        }
    });
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
            let (say, served) = channel();
            let client = thread::spawn(move || {
                let mut got = vec![0; ok.len()];
                loop {
                    let asked = stream.write_all(GET).and_then(|()| stream.read_exact(&mut got));
                    match asked {
                        Ok(()) => {
                            assert_eq!(got, ok.as_bytes());
                            let _ = say.send(());
                        }
                        Err(error) => return error.kind(),
                    }
                }
            });
            (served, client)
        })
        .collect();
    for (served, _) in &clients {
        for _ in 0..50 {
            served.recv_timeout(support::PATIENCE).unwrap();
        }
    }
    sidecar.child.kill().unwrap();
    sidecar.child.wait().unwrap();
    for (_, client) in clients {
        let kind = client.join().unwrap();
        let known = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe];
        assert!(known.contains(&kind), "{kind}");
    }
    let _next = pod.sidecar(&[]);
    let mut client = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    client.write_all(GET).unwrap();
    assert!(head(&mut client).unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
}

/// Every server sends 4 MB at once, as bytes and as HTTP; one client after the other reads them.
#[test]
fn slow_readers_cost_a_bound_each() {
    const CLIENTS: usize = 150;
    const BYTES: usize = 4_000_000;
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    each(pod.peer.listen(PEER_V4, 80), |mut stream| {
        head(&mut stream)?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").ok()?;
        stream.write_all(&vec![b'x'; BYTES]).ok()
    });
    each(pod.peer.listen(PEER_V4, 9000), |mut stream| stream.write_all(&vec![b'x'; BYTES]).ok());
    for port in [80, 9000] {
        let mut clients: Vec<TcpStream> =
            (0..CLIENTS).map(|_| patient(pod.inside.connect((PEER_V4, port).into()).unwrap())).collect();
        for stream in clients.iter_mut().filter(|_| port == 80) {
            stream.write_all(GET).unwrap();
        }
        for mut stream in clients {
            if port == 80 {
                assert!(head(&mut stream).unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
            }
            let mut piece = vec![0; 8192];
            let mut left = BYTES;
            while left > 0 {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0 && piece[..count].iter().all(|byte| *byte == b'x'), "{left} are missing");
                left -= count;
            }
        }
    }
    let peak = kilobytes(&sidecar, "VmHWM");
    assert!(peak < 40_000, "{CLIENTS} slow readers cost {peak} kB");
}

/// Five thousand, or as many as a sidecar with this process's limit of descriptors carries in each direction, and this
/// process may hold both ends of, beside the other tests.
fn many() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most >= 4096, "{most} descriptors are too few for this test");
    5000.min((most - 2000) / 4) as u32
}

/// Ten thousand connections, half of them inbound; fewer where there are fewer than 22,000 descriptors.
#[test]
fn idle_connections_fit_into_memory() {
    let connections = many();
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[("OUTRIGGER_MAX_IDLE_UPSTREAMS", "0")]);
    let idle = kilobytes(&sidecar, "VmRSS");
    let mut ends: Vec<(TcpStream, TcpStream)> = Vec::new();
    for namespace in [&pod.inside, &pod.peer] {
        // Many ports, and none of those that somebody listens on.
        let ports = ["ip_local_port_range=1024 65000", "ip_local_reserved_ports=9000,15000-15100"];
        namespace.run(
            "sysctl",
            &["-q", "-w", &format!("net.ipv4.{}", ports[0]), &format!("net.ipv4.{}", ports[1])],
        );
    }
    for (from, to, address) in [(&pod.inside, &pod.peer, PEER_V4), (&pod.peer, &pod.inside, POD_V4)] {
        let listener = to.listen(address, 9000);
        // One after the other: the kernel's queue of a listener is short.
        let both = |_| {
            let mut client = patient(TcpStream::connect((address, 9000)).unwrap());
            client.write_all(b"\0").unwrap();
            let mut server = patient(listener.accept().unwrap().0);
            server.read_exact(&mut [0]).unwrap();
            (client, server)
        };
        ends.extend(from.enter(|| (0..connections).map(both).collect::<Vec<_>>()));
    }
    let active = metric(&pod.metrics(&sidecar), "outrigger_connections_active", &[]);
    assert_eq!(active, f64::from(2 * connections));
    let full = kilobytes(&sidecar, "VmRSS");
    println!("idle {idle} kB, with {active} connections {full} kB");
    assert!(full < idle + 12 * u64::from(2 * connections), "{active} connections cost {full} kB");
    // The first and the last still carry.
    let last = ends.len() - 1;
    for place in [0, last] {
        let (client, server) = &mut ends[place];
        server.write_all(b"ok").unwrap();
        let mut said = [0; 2];
        client.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"ok");
    }
}

/// The soak: `OUTRIGGER_SOAK_CONNECTIONS=2000000 cargo test … --test netns_faults -- thousands` is a day's worth.
#[test]
fn thousands_of_connections_leave_nothing_behind() {
    let count =
        std::env::var("OUTRIGGER_SOAK_CONNECTIONS").map_or(8000, |count| count.parse::<u32>().unwrap());
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    for namespace in [&pod.inside, &pod.peer] {
        // A port must be free again at once.
        namespace.run(
            "sysctl",
            &["-q", "-w", "net.ipv4.tcp_tw_reuse=1", "net.ipv4.ip_local_port_range=1024 65000"],
        );
    }
    each(pod.peer.listen(PEER_V4, 80), |mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").ok()
    });
    each(pod.peer.listen(PEER_V4, 9000), |mut stream| {
        let mut said = [0; 5];
        stream.read_exact(&mut said).ok()?;
        stream.write_all(&said).ok()
    });
    let one = |number: u32| {
        let (port, said, answer) = match number % 2 {
            0 => (80, GET, &b"HTTP/1.1 200 OK\r\n"[..]),
            _ => (9000, &b"\0echo"[..], &b"\0echo"[..]),
        };
        let mut stream = patient(TcpStream::connect((PEER_V4, port)).unwrap());
        stream.write_all(said).unwrap();
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, answer);
        // Nothing of this connection is left at this end.
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    };
    let run = |count: u32| {
        pod.inside.enter(|| (0..count).for_each(one));
        eventually("all have ended", || {
            (metric(&pod.metrics(&sidecar), "outrigger_connections_active", &[]) == 0.0).then_some(())
        });
        kilobytes(&sidecar, "VmRSS")
    };
    let warm = run(2000);
    let after = run(count);
    println!("{warm} kB after 2000 connections, {after} kB after {count} more");
    assert!(after < warm + 3000, "{count} connections left {} kB behind", after - warm);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", sidecar.child.id())).unwrap().count();
    assert!(descriptors < 100, "{descriptors} descriptors are open");
}

#[test]
fn ends_pass_in_both_directions_through_real_capture() {
    let pod = Pod::new();
    let _sidecar = pod.sidecar(&[]);
    let outbound = (&pod.inside, &pod.peer, SocketAddr::new(PEER_V4, 9000));
    let inbound = (&pod.peer, &pod.inside, SocketAddr::new(POD_V4, 9000));
    for (from, to, address) in [outbound, inbound] {
        let listener = to.listen(address.ip(), address.port());
        for client_breaks in [true, false] {
            let mut client = patient(from.connect(address).unwrap());
            client.write_all(b"\0").unwrap();
            let mut server = patient(listener.accept().unwrap().0);
            server.read_exact(&mut [0]).unwrap();
            let (breaks, mut stays) = if client_breaks { (client, server) } else { (server, client) };
            socket2::SockRef::from(&breaks).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(breaks);
            assert_eq!(read_byte(&mut stays).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
}
