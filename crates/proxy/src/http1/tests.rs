use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::harness::{GET, Harness, OK, answer, head, refusing, rest, run, say, until};
use crate::destination::Direction;
use crate::life::Phase;
use crate::route::Declared;
use crate::settings::Limits;
use crate::telemetry::Flag;
use crate::telemetry::http::Key;

impl Harness {
    /// How many requests were counted with this status and flag.
    fn counted(&self, code: u16, flag: Flag, host: &str) -> u64 {
        let key = Key { direction: Direction::Inbound, code, flag, grpc: None, host: host.into() };
        self.shared.shard.requests.series(key).count()
    }
}

#[test]
fn requests_share_upstream_connections_and_are_counted() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        say(&mut client, GET).await;
        let mut server = harness.accept().await;
        for _ in 0..3 {
            let asked = head(&mut server).await;
            assert!(asked.starts_with("GET / HTTP/1.1\r\nHost: a\r\nx-request-id: "), "{asked}");
            assert!(asked.ends_with("\r\nx-forwarded-proto: http\r\n\r\n"), "{asked}");
            answer(&mut server, &mut client).await;
            say(&mut client, GET).await;
        }
        head(&mut server).await;
        answer(&mut server, &mut client).await;
        // Another client gets the same connection.
        let mut other = harness.client(Declared::Nothing).await;
        say(&mut other, GET).await;
        head(&mut server).await;
        answer(&mut server, &mut other).await;
        assert_eq!(harness.counted(200, Flag::None, "a"), 5);
        assert_eq!(harness.shared.shard.inbound.reused.get(), 4);
        assert_eq!(harness.shared.shard.inbound.opened.get(), 0, "HTTP is not counted as TCP");
    });
}

#[test]
fn bodies_pass_as_they_are() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        let body = "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n";
        say(&mut client, &format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
            .await;
        let mut server = harness.accept().await;
        head(&mut server).await;
        assert_eq!(until(&mut server, "X-T: 1\r\n\r\n").await, body);
        say(&mut server, chunked).await;
        assert_eq!(until(&mut client, "X-Sum: 1\r\n\r\n").await, chunked);
        // HEAD has a length and no body; the connection goes on.
        say(&mut client, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        head(&mut server).await;
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        say(&mut server, length).await;
        assert_eq!(head(&mut client).await, length);
        // Without a length the end of the connection is the end of the body, on both sides.
        say(&mut client, GET).await;
        head(&mut server).await;
        say(&mut server, "HTTP/1.0 200 OK\r\n\r\nto the end").await;
        drop(server);
        assert_eq!(rest(&mut client).await, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end");
    });
}

#[test]
fn a_byte_at_a_time_is_the_same_as_all_at_once() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        client.set_nodelay(true).unwrap();
        let script = async {
            for byte in "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".bytes() {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            until(&mut client, "ok").await
        };
        let server = async {
            let mut server = harness.accept().await;
            head(&mut server).await;
            assert_eq!(until(&mut server, "abc").await, "abc");
            for byte in OK.bytes() {
                server.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(tokio::join!(script, server).0, OK);
    });
}

#[test]
fn informational_responses_pass_in_their_order() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        say(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            .await;
        let mut server = harness.accept().await;
        assert!(head(&mut server).await.contains("\r\nExpect: 100-continue\r\n"));
        say(&mut server, "HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
        say(&mut client, "body").await;
        assert_eq!(until(&mut server, "body").await, "body");
        say(&mut server, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        assert_eq!(head(&mut client).await, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        answer(&mut server, &mut client).await;
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        let post = "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        say(&mut client, &format!("{GET}{post}\r\n{GET}")).await;
        let mut server = harness.accept().await;
        for answer in ["1", "2", "3"] {
            assert!(head(&mut server).await.contains(" HTTP/1.1\r\n"));
            if answer == "2" {
                assert_eq!(until(&mut server, "abc").await, "abc");
            }
            say(&mut server, &format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{answer}")).await;
            assert!(until(&mut client, answer).await.ends_with(answer));
        }
    });
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        say(&mut client, "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            .await;
        let mut server = harness.accept().await;
        assert!(head(&mut server).await.contains("\r\nUpgrade: websocket\r\n"));
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        say(&mut server, &format!("{switch}first")).await;
        assert_eq!(until(&mut client, "first").await, format!("{switch}first"));
        say(&mut client, "ping").await;
        assert_eq!(until(&mut server, "ping").await, "ping");
        say(&mut server, "pong").await;
        drop(server);
        assert_eq!(rest(&mut client).await, "pong");
        drop(client);
    });
}

#[test]
fn a_tunnel_is_recorded_under_the_id_that_its_upstream_saw() {
    for (given, of_client) in [("", None), ("X-Request-Id: mine\r\n", Some("mine"))] {
        run(async {
            let harness = Harness::logging(Limits::default()).await;
            let mut client = harness.client(Declared::Nothing).await;
            let upgrade = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            say(&mut client, &format!("GET /ws HTTP/1.1\r\n{upgrade}{given}\r\n")).await;
            let mut server = harness.accept().await;
            let asked = head(&mut server).await.to_ascii_lowercase();
            let (_, id) = asked.split_once("x-request-id: ").unwrap();
            let id = id.lines().next().unwrap();
            assert_eq!(of_client.unwrap_or(id), id);
            say(&mut server, &format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n")).await;
            head(&mut client).await;
            drop((client, server));
            assert_eq!(harness.logged().await["request_id"], id);
        });
    }
}

#[test]
fn connect_becomes_a_tunnel() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        say(&mut client, "CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n").await;
        let mut server = harness.accept().await;
        assert!(head(&mut server).await.starts_with("CONNECT far.example:443 HTTP/1.1\r\n"));
        say(&mut server, "HTTP/1.1 200 Connection established\r\n\r\n").await;
        head(&mut client).await;
        say(&mut client, "\x16\x03").await;
        assert_eq!(until(&mut server, "\x03").await, "\x16\x03");
    });
}

#[test]
fn a_request_that_crosses_the_close_of_an_idle_connection_is_sent_again() {
    run(async {
        let harness = Harness::new().await;
        let (mut client, mut server) = harness.asked(GET).await;
        answer(&mut server, &mut client).await;
        // The application closes; the request is on its way already when the sidecar could learn it. Even a POST may be
        // sent again, for nobody has acknowledged a byte of it.
        server.set_zero_linger().unwrap();
        drop(server);
        client.try_write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        let mut server = harness.accept().await;
        head(&mut server).await;
        assert_eq!(until(&mut server, "hi").await, "hi");
        answer(&mut server, &mut client).await;
        assert_eq!(harness.counted(200, Flag::None, "a"), 2);
    });
}

#[test]
fn only_what_may_be_done_twice_is_sent_again_after_it_was_read() {
    for (method, retried) in [("GET", true), ("POST", false)] {
        run(async {
            let harness = Harness::new().await;
            let (mut client, mut server) = harness.asked(GET).await;
            answer(&mut server, &mut client).await;
            say(&mut client, &format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            head(&mut server).await;
            drop(server);
            if retried {
                let mut server = harness.accept().await;
                head(&mut server).await;
                answer(&mut server, &mut client).await;
            } else {
                assert!(head(&mut client).await.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
            }
            assert_eq!(harness.shared.shard.inbound.retried.get(), u64::from(retried));
        });
    }
}

#[test]
fn upstream_failures_are_told_by_status_cause_and_flag() {
    run(async {
        let harness = Harness::new().await;
        let (mut client, server) = harness.asked(GET).await;
        drop(server);
        let text = rest(&mut client).await;
        assert!(
            text.starts_with("HTTP/1.1 503 ") && text.contains("reset reason: connection termination"),
            "{text}"
        );
        assert_eq!(harness.counted(503, Flag::UpstreamReset, "a"), 1);

        let (mut client, mut server) = harness.asked(GET).await;
        say(&mut server, "garbage\r\n\r\n").await;
        let text = rest(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 502 ") && text.contains("protocol error"), "{text}");
        assert_eq!(harness.counted(502, Flag::UpstreamProtocol, "a"), 1);

        // A body that is cut must not look whole.
        let (mut client, mut server) = harness.asked(GET).await;
        say(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        until(&mut client, "half").await;
        drop(server);
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(harness.counted(200, Flag::UpstreamReset, "a"), 1);

        let (_nobody, address) = refusing();
        let mut client = harness.client_to(address, Declared::Http).await;
        say(&mut client, GET).await;
        let text = rest(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("refused"), "{text}");
        assert_eq!(harness.counted(503, Flag::UpstreamFailed, "a"), 1);
    });
}

#[test]
fn ambiguous_requests_reach_nobody() {
    for attack in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\n123456",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    ] {
        run(async {
            let harness = Harness::new().await;
            let mut client = harness.client(Declared::Http).await;
            say(&mut client, attack).await;
            let text = rest(&mut client).await;
            assert!(text.starts_with("HTTP/1.1 400 "), "{attack:?} got {text:?}");
            assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
            assert_eq!(harness.counted(400, Flag::DownstreamProtocol, ""), 1);
            let nobody = tokio::time::timeout(std::time::Duration::ZERO, harness.server.accept()).await;
            assert!(nobody.is_err(), "{attack:?} reached the application");
        });
    }
}

#[test]
fn a_bad_chunk_in_the_middle_is_refused_and_resets_the_application() {
    run(async {
        let harness = Harness::new().await;
        let (mut client, mut server) = harness
            .asked("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        until(&mut server, "abc\r\n").await;
        say(&mut client, "zz\r\n").await;
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 400 "));
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_head_that_is_too_long_is_431() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Http).await;
        say(&mut client, &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000))).await;
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 431 "));
    });
}

#[test]
fn an_early_answer_ends_the_upload() {
    run(async {
        let harness = Harness::new().await;
        let (mut client, mut server) =
            harness.asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nbegin").await;
        say(&mut server, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
        let text = rest(&mut client).await;
        assert!(
            text.starts_with("HTTP/1.1 413 ") && text.ends_with("\r\nconnection: close\r\n\r\nbig"),
            "{text}"
        );
    });
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        let size = 4_000_000;
        say(&mut client, &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).await;
        let mut server = harness.accept().await;
        head(&mut server).await;
        say(&mut server, &format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
        head(&mut client).await;
        let echo = async {
            let (mut from, mut to) = server.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap()
        };
        let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let exchange = async {
            let (mut from, mut to) = client.split();
            let mut got = vec![0; size];
            let (written, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut got));
            written.unwrap();
            read.unwrap();
            got
        };
        let got = tokio::select! {
            got = exchange => got,
            _ = echo => panic!("the server ended first"),
        };
        assert!(got == sent);
    });
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    run(async {
        let harness = Harness::new().await;
        let (client, mut server) = harness.asked(GET).await;
        drop(client);
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        tokio::task::yield_now().await;
        assert_eq!(harness.counted(0, Flag::DownstreamReset, "a"), 1);
    });
}

#[test]
fn draining_asks_clients_to_go_elsewhere() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        harness.shared.life.advance(Phase::Draining);
        say(&mut client, GET).await;
        let mut server = harness.accept().await;
        head(&mut server).await;
        say(&mut server, OK).await;
        assert_eq!(
            rest(&mut client).await,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok"
        );
    });
}

#[test]
fn idle_connections_end_when_inbound_closes() {
    run(async {
        let harness = Harness::new().await;
        let (mut client, mut server) = harness.asked(GET).await;
        answer(&mut server, &mut client).await;
        harness.shared.life.advance(Phase::Closing);
        assert_eq!(rest(&mut client).await, "");
    });
}

#[test]
fn http_1_0_is_served_as_it_asks() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        say(&mut client, "GET /old HTTP/1.0\r\n\r\n").await;
        let mut server = harness.accept().await;
        assert!(head(&mut server).await.starts_with("GET /old HTTP/1.0\r\n"));
        say(&mut server, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(
            rest(&mut client).await,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok"
        );
    });
}

#[test]
fn a_server_that_speaks_first_is_bytes() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        let mut server = harness.accept().await;
        say(&mut server, "220 ready\r\n").await;
        assert_eq!(until(&mut client, "\r\n").await, "220 ready\r\n");
        // What looks like HTTP afterwards is still bytes.
        say(&mut client, GET).await;
        assert_eq!(head(&mut server).await, GET);
        assert_eq!(harness.shared.shard.inbound.opened.get(), 1);
    });
}

#[test]
fn whatever_is_sent_nothing_panics_and_nothing_hangs() {
    run(async {
        let harness = Harness::new().await;
        let server = async {
            loop {
                let mut stream = harness.accept().await;
                tokio::task::spawn_local(async move {
                    let mut piece = [0; 1024];
                    while let Ok(1..) = stream.read(&mut piece).await {
                        if stream.write_all(OK.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        };
        let clients = async {
            let mut random = fastrand::Rng::with_seed(1);
            let seed = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
            for _ in 0..300 {
                let mut bytes = seed.as_bytes().to_vec();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(0..bytes.len());
                    match random.u8(0..3) {
                        0 => bytes[at] = random.u8(..),
                        1 => bytes.insert(at, *random.choice(b"\r\n :;,\0a0").unwrap()),
                        _ => {
                            bytes.remove(at);
                        }
                    }
                }
                let mut client = harness.client(Declared::Http).await;
                // The sidecar may refuse before it has read everything.
                let _ = client.write_all(&bytes).await;
                let _ = client.shutdown().await;
                let _ = client.read_to_end(&mut Vec::new()).await;
            }
        };
        tokio::select! {
            () = clients => {}
            () = server => {}
        }
    });
}

#[test]
fn an_application_that_closes_idle_connections_costs_no_request() {
    run(async {
        let harness = std::rc::Rc::new(Harness::new().await);
        let server = async {
            loop {
                let mut stream = harness.accept().await;
                tokio::task::spawn_local(async move {
                    // Two answers, and then it leaves without having said so: at once, so that the next request may
                    // find it open, closing or closed.
                    for _ in 0..2 {
                        let mut piece = [0; 1024];
                        match stream.read(&mut piece).await {
                            Ok(1..) => say(&mut stream, OK).await,
                            _ => return,
                        }
                    }
                });
            }
        };
        let clients = async {
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let harness = std::rc::Rc::clone(&harness);
                    tokio::task::spawn_local(async move {
                        let mut client = harness.client(Declared::Nothing).await;
                        for _ in 0..300 {
                            say(&mut client, GET).await;
                            assert_eq!(until(&mut client, "ok").await, OK);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        };
        tokio::select! {
            () = clients => {}
            () = server => {}
        }
        assert_eq!(harness.counted(200, Flag::None, "a"), 8 * 300);
    });
}
