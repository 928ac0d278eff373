//! What is found out about a connection before anything is carried, and what is said of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Harness, run};
use super::*;
use crate::access_log::{Format, Policy};
use crate::client_hello::tests::hello;
use crate::settings::Live;

/// Carries `pieces` to a server and gives the line that is logged.
async fn logged(declared: Declared, pieces: &[&[u8]]) -> String {
    let live = Live { access_log: (Policy::All, Format::Json), ..Live::default() };
    let harness = Harness::with(live, None).await;
    let mut client = harness.client(declared).await;
    let mut server = harness.accept().await;
    for piece in pieces {
        client.write_all(piece).await.unwrap();
        // Another packet, not more of the first.
        tokio::task::yield_now().await;
    }
    client.shutdown().await.unwrap();
    let mut came = Vec::new();
    server.read_to_end(&mut came).await.unwrap();
    assert!(came == pieces.concat(), "the bytes pass as they came");
    drop(server);
    client.read_to_end(&mut Vec::new()).await.unwrap();
    while harness.shared.access_log.waiting().is_empty() {
        tokio::task::yield_now().await;
    }
    harness.shared.access_log.waiting()
}

#[test]
fn the_name_that_a_tls_client_asks_for_is_logged_and_its_bytes_pass() {
    run(async {
        let hello = hello("shop.example");
        for declared in [Declared::Nothing, Declared::Tls] {
            for cut in [1, 5, 6, 60, hello.len() - 1, hello.len()] {
                let (start, end) = hello.split_at(cut);
                let line = logged(declared, &[start, end, b"more"]).await;
                assert!(
                    line.contains(r#""requested_server_name":"shop.example""#),
                    "{declared:?} {cut}: {line}"
                );
            }
        }
    });
}

#[test]
fn http_on_a_port_that_is_declared_to_be_tls_is_bytes() {
    run(async {
        let line = logged(Declared::Tls, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]).await;
        assert!(
            line.contains(r#""protocol":null"#) && line.contains(r#""requested_server_name":null"#),
            "{line}"
        );
    });
}

#[test]
fn a_hello_that_is_never_whole_is_passed_on_after_a_moment() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        let mut server = harness.accept().await;
        let started = tokio::time::Instant::now();
        client.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).await.unwrap();
        let mut came = [0; 8];
        server.read_exact(&mut came).await.unwrap();
        assert_eq!(came, [0x16, 3, 1, 2, 0, 1, 0, 1]);
        assert!(started.elapsed() >= WHOLE_HELLO, "{:?}", started.elapsed());
    });
}

#[test]
fn what_is_carried_is_listed_with_what_is_spoken() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        let listed = || harness.shared.shard.connections.all();
        while listed().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            (listed()[0].protocol, listed()[0].destination),
            ("", harness.server.local_addr().unwrap())
        );
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        while listed()[0].protocol.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(listed()[0].protocol, "http/1");
        drop(client);
        while !listed().is_empty() {
            tokio::task::yield_now().await;
        }
    });
}
