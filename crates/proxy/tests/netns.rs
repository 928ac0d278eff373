//! The sidecar in a pod's network namespace, with real redirects. Needs root, nft and ip.
#![cfg(feature = "netns-tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use support::namespace::{PEER_V4, PEER_V6, POD_V4, POD_V6, Pod, VIP};
use support::{ask, each, eventually, head, metric, patient, read_byte};

/// Accepts one connection, reads to its end, answers `said: …` and closes. Gives the peer's address.
fn answer_after_the_end(listener: TcpListener) -> thread::JoinHandle<SocketAddr> {
    thread::spawn(move || {
        let (stream, peer) = listener.accept().unwrap();
        let mut stream = patient(stream);
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        write!(stream, "said: {said}").unwrap();
        peer
    })
}

/// Sends `text`, ends its stream and reads the answer.
fn say(stream: TcpStream, text: &str) -> String {
    let mut stream = patient(stream);
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn outbound_is_carried_to_where_it_was_going() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    for (address, client) in [(PEER_V4, POD_V4), (PEER_V6, POD_V6)] {
        let listener = pod.peer.listen(address, 80);
        let server = answer_after_the_end(listener);
        let stream = pod.inside.connect((address, 80).into()).unwrap();
        assert_eq!(say(stream, "hello"), "said: hello");
        assert_eq!(server.join().unwrap().ip(), client, "the peer sees the pod's address");
    }
    eventually("both connections are counted", || {
        let text = pod.metrics(&sidecar);
        let count = |name: &str| metric(&text, name, &["reporter=\"source\""]);
        let closed = count("istio_tcp_connections_closed_total") == 2.0;
        (closed && count("outrigger_connections_active") == 0.0).then(|| {
            assert_eq!(count("istio_tcp_connections_opened_total"), 2.0);
            assert_eq!(count("istio_tcp_received_bytes_total"), 10.0);
            assert_eq!(count("istio_tcp_sent_bytes_total"), 22.0);
        })
    });
}

#[test]
fn inbound_is_carried_to_the_application_from_the_inbound_source() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    for (address, source) in [(POD_V4, "127.0.0.6"), (POD_V6, "::6")] {
        let server = answer_after_the_end(pod.inside.listen(address, 8080));
        let stream = pod.peer.connect((address, 8080).into()).unwrap();
        assert_eq!(say(stream, "hello"), "said: hello");
        assert_eq!(server.join().unwrap().ip(), source.parse::<IpAddr>().unwrap());
    }
    eventually("both connections are counted", || {
        let text = pod.metrics(&sidecar);
        let count = |name: &str| metric(&text, name, &["reporter=\"destination\""]);
        (count("istio_tcp_connections_closed_total") == 2.0).then(|| {
            assert_eq!(count("istio_tcp_received_bytes_total"), 10.0);
            assert_eq!(count("istio_tcp_sent_bytes_total"), 22.0);
        })
    });
}

#[test]
fn a_call_to_oneself_by_way_of_a_service_passes_both_directions() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    let server = answer_after_the_end(pod.inside.listen(POD_V4, 8080));
    let stream = pod.inside.connect((VIP, 80).into()).unwrap();
    assert_eq!(say(stream, "me"), "said: me");
    assert_eq!(server.join().unwrap().ip().to_string(), "127.0.0.6");
    eventually("both directions are counted", || {
        let text = pod.metrics(&sidecar);
        (metric(&text, "istio_tcp_connections_closed_total", &[]) == 2.0).then_some(())
    });
    let text = pod.metrics(&sidecar);
    assert_eq!(metric(&text, "istio_tcp_connections_opened_total", &["reporter=\"source\""]), 1.0);
    assert_eq!(metric(&text, "istio_tcp_connections_opened_total", &["reporter=\"destination\""]), 1.0);
}

#[test]
fn what_would_loop_is_closed_and_counted() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    // From the peer every port is turned to 15006, the capture ports themselves too.
    for (address, port) in
        [(POD_V4, 15006), (POD_V4, 15001), (POD_V6, 15006), (POD_V4, 15000), (POD_V4, 15053)]
    {
        let mut stream = patient(pod.peer.connect((address, port).into()).unwrap());
        assert_eq!(read_byte(&mut stream).unwrap(), 0, "{address} {port}");
    }
    let mut stream = patient(pod.inside.connect(([127, 0, 0, 1], 15001).into()).unwrap());
    assert_eq!(read_byte(&mut stream).unwrap(), 0);
    let text = pod.metrics(&sidecar);
    let refused = |labels: &[&str]| metric(&text, "outrigger_connections_refused_total", labels);
    assert_eq!(refused(&["reporter=\"destination\"", "reason=\"direct\""]), 2.0);
    assert_eq!(refused(&["reporter=\"destination\"", "reason=\"own_listener\""]), 3.0);
    assert_eq!(refused(&["reporter=\"source\"", "reason=\"direct\""]), 1.0);
    assert_eq!(metric(&text, "istio_tcp_connections_opened_total", &[]), 0.0);
}

#[test]
fn nobody_from_outside_may_end_the_sidecar() {
    let pod = Pod::new();
    let mut sidecar = pod.sidecar(&[]);
    for address in [POD_V4, POD_V6] {
        for path in ["/quitquitquit", "/drain"] {
            let (code, _) = ask(pod.peer.connect((address, 15020).into()).unwrap(), "POST", path);
            assert_eq!(code, 403, "{path}");
        }
    }
    let loopback = SocketAddr::from(([127, 0, 0, 1], 15020));
    assert_eq!(ask(pod.inside.connect(loopback).unwrap(), "POST", "/quitquitquit").0, 200);
    assert!(sidecar.ended().success());
}

#[test]
fn a_refused_destination_is_a_reset() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    // The reset may be here before connect has returned.
    let read = pod.inside.connect((PEER_V4, 81).into()).and_then(|stream| read_byte(&mut patient(stream)));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let flags = ["reporter=\"source\"", "response_flags=\"UF\""];
    eventually("it is counted", || {
        (metric(&pod.metrics(&sidecar), "istio_tcp_connections_closed_total", &flags) == 1.0).then_some(())
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    let pod = Pod::new();
    let _sidecar = pod.sidecar(&[]);
    let listener = pod.peer.listen(PEER_V4, 3306);
    let server = thread::spawn(move || {
        let mut stream = patient(listener.accept().unwrap().0);
        stream.write_all(b"mysql 8").unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).unwrap();
        said
    });
    let mut stream = patient(pod.inside.connect((PEER_V4, 3306).into()).unwrap());
    let mut greeting = [0; 7];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"mysql 8");
    stream.write_all(b"login").unwrap();
    assert_eq!(&server.join().unwrap(), b"login");
}

/// Answers every request with its own head as the body.
fn mirror(listener: TcpListener) {
    each(listener, |mut stream| {
        loop {
            let head = head(&mut stream)?;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
            stream.write_all(answer.as_bytes()).ok()?;
        }
    });
}

#[test]
fn http_is_seen_in_both_directions() {
    let pod = Pod::new();
    let sidecar = pod.sidecar(&[]);
    for (address, from) in
        [(PEER_V4, &pod.inside), (PEER_V6, &pod.inside), (POD_V4, &pod.peer), (POD_V6, &pod.peer)]
    {
        let server = if from.name == pod.inside.name { &pod.peer } else { &pod.inside };
        mirror(server.listen(address, 8080));
        let (code, body) = ask(from.connect((address, 8080).into()).unwrap(), "GET", "/shop?x=1");
        assert_eq!(code, 200);
        assert!(
            body.starts_with("GET /shop?x=1 HTTP/1.1\r\n") && body.contains("\r\nx-request-id: "),
            "{body}"
        );
    }
    let text = pod.metrics(&sidecar);
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        let labels =
            [reporter, "response_code=\"200\"", "request_protocol=\"http\"", "destination_service=\"test\""];
        assert_eq!(metric(&text, "istio_requests_total", &labels), 2.0, "{text}");
    }
}

#[test]
fn an_http_destination_that_refuses_is_503_with_the_cause() {
    let pod = Pod::new();
    // Of a port that says what it speaks; on another, a client that takes its time to speak is reset.
    let ports = r#"[{"name": "http-shop", "containerPort": 81}]"#;
    let _sidecar = pod.sidecar(&[("ISTIO_META_POD_PORTS", ports)]);
    let (code, body) = ask(pod.peer.connect((POD_V4, 81).into()).unwrap(), "GET", "/");
    assert_eq!(code, 503);
    assert!(body.contains("remote connection failure") && body.contains("refused"), "{body}");
}

#[test]
fn sigterm_lets_what_is_in_flight_finish() {
    let pod = Pod::new();
    let env = [("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"), ("MINIMUM_DRAIN_DURATION", "0s")];
    let mut sidecar = pod.sidecar(&env);
    let listener = pod.inside.listen(POD_V4, 8080);
    let mut client = patient(pod.peer.connect((POD_V4, 8080).into()).unwrap());
    let mut server = patient(listener.accept().unwrap().0);
    sidecar.terminate();
    eventually("readiness ends", || {
        let (code, _) = ask(pod.peer.connect((POD_V4, 15021).into()).unwrap(), "GET", "/healthz/ready");
        (code == 503).then_some(())
    });
    // The application may still call out until its end, and the open connection still carries.
    let outside = answer_after_the_end(pod.peer.listen(PEER_V4, 80));
    assert_eq!(say(pod.inside.connect((PEER_V4, 80).into()).unwrap(), "bye"), "said: bye");
    outside.join().unwrap();
    server.write_all(b"the rest").unwrap();
    drop(server);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "the rest");
    drop(client);
    assert!(sidecar.ended().success());
}

#[test]
fn with_few_descriptors_connections_wait_and_the_sidecar_answers() {
    let pod = Pod::new();
    let sidecar = pod.sidecar_with_descriptors(128);
    let listener = pod.peer.listen(PEER_V4, 80);
    let held: Vec<TcpStream> =
        (0..80).map(|_| patient(pod.inside.connect((PEER_V4, 80).into()).unwrap())).collect();
    // Descriptors are left for whoever asks, and none was missing.
    let text = eventually("connections wait", || {
        let text = pod.metrics(&sidecar);
        let limit = ["reporter=\"source\"", "limit=\"maxConnections\""];
        (metric(&text, "outrigger_limits_met_total", &limit) >= 1.0).then_some(text)
    });
    assert_eq!(metric(&text, "outrigger_accept_errors_total", &[]), 0.0, "{text}");
    assert_eq!(metric(&text, "istio_tcp_connections_closed_total", &[]), 0.0, "{text}");
    // The server's end ends them all, also those that the sidecar has yet to accept. Once the last has ended, none of
    // them holds a descriptor, nor stands in a queue before the next.
    drop(listener);
    for mut stream in held {
        let ended = read_byte(&mut stream);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let server = answer_after_the_end(pod.peer.listen(PEER_V4, 8081));
    assert_eq!(say(pod.inside.connect((PEER_V4, 8081).into()).unwrap(), "again"), "said: again");
    server.join().unwrap();
    assert_eq!(metric(&pod.metrics(&sidecar), "outrigger_accept_errors_total", &[]), 0.0);
}

/// Reads one response: whether the connection goes on. `None` if there is no whole response.
fn response(stream: &mut TcpStream) -> Option<bool> {
    let head = head(stream)?.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    stream.read_exact(&mut vec![0; length]).ok()?;
    head.starts_with("http/1.1 200 ").then(|| !head.contains("connection: close"))
}

#[test]
fn a_rolling_restart_loses_no_request() {
    let pod = Pod::new();
    // It stays until every client has been told to go elsewhere; when it leaves by itself, other tests show.
    let env = [("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"), ("MINIMUM_DRAIN_DURATION", "1h")];
    let mut sidecar = pod.sidecar(&env);
    mirror(pod.inside.listen(POD_V4, 8080));
    let (served, failed, gone) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // A client that goes elsewhere when it is asked to, once it knows that there is an elsewhere.
                while !gone.load(Ordering::Relaxed) {
                    let Ok(stream) = pod.peer.connect((POD_V4, 8080).into()) else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    let mut stream = patient(stream);
                    loop {
                        let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
                        match sent.ok().and_then(|()| response(&mut stream)) {
                            Some(goes_on) => {
                                served.fetch_add(1, Ordering::Relaxed);
                                if !goes_on {
                                    break;
                                }
                            }
                            None => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                        }
                    }
                }
            });
        }
        eventually("traffic flows", || (served.load(Ordering::Relaxed) > 200).then_some(()));
        sidecar.terminate();
        eventually("readiness ends", || {
            let (code, _) = ask(pod.peer.connect((POD_V4, 15021).into()).unwrap(), "GET", "/healthz/ready");
            (code == 503).then_some(())
        });
        // New connections are served all the while.
        let seen = served.load(Ordering::Relaxed);
        eventually("traffic still flows", || (served.load(Ordering::Relaxed) > seen + 200).then_some(()));
        gone.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.into_inner(), 0, "of {} requests", served.into_inner());
    let loopback = SocketAddr::from(([127, 0, 0, 1], 15020));
    assert_eq!(ask(pod.inside.connect(loopback).unwrap(), "POST", "/quitquitquit").0, 200);
    assert!(sidecar.ended().success());
}
