use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request};
use tokio::time::Instant;

use super::peers::{Ends, client, harness, server};
use crate::connection::harness::{Harness, run};
use crate::settings::Limits;
use crate::telemetry::Limit;

fn connect() -> Request<()> {
    Request::builder().method(Method::CONNECT).uri("shop:443").body(()).unwrap()
}

fn websocket() -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri("http://shop/chat?x").body(()).unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// A tunnel that is open: the client's end, the server's, and the request as the server saw it. The server's connection
/// goes on in a task of its own.
async fn tunnel(harness: &Rc<Harness>, request: Request<()>) -> (Ends, Ends, Request<()>) {
    let client = client(harness).await;
    let (response, writes) = client.ready().await.unwrap().send_request(request, false).unwrap();
    let mut connection = server(harness, true).await;
    let (seen, mut respond) = connection.accept().await.unwrap().unwrap();
    let (seen, reads) = seen.into_parts();
    let server = Ends { reads, writes: respond.send_response(http::Response::new(()), false).unwrap() };
    tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let client = Ends { reads: response.into_body(), writes };
    (client, server, Request::from_parts(seen, ()))
}

#[test]
fn a_tunnel_carries_both_ways_until_both_have_ended() {
    run(async {
        for request in [connect(), websocket()] {
            let harness = harness(Limits::default()).await;
            let asked = (request.uri().clone(), request.extensions().get::<Protocol>().cloned());
            let (mut client, mut server, seen) = tunnel(&harness, request).await;
            assert_eq!(seen.method(), Method::CONNECT);
            assert_eq!((seen.uri().clone(), seen.extensions().get::<Protocol>().cloned()), asked);
            client.say("hello");
            assert_eq!(server.hear(5).await, "hello");
            server.say("and back");
            assert_eq!(client.hear(8).await, "and back");
            // One end is not the other's.
            client.writes.send_data(Bytes::from_static(b"."), true).unwrap();
            assert_eq!(server.hear(1).await, ".");
            assert!(server.ended().await);
            server.writes.send_data(Bytes::from_static(b"!!"), true).unwrap();
            assert_eq!(client.hear(2).await, "!!");
            assert!(client.ended().await);
            let line = harness.logged().await;
            assert_eq!(
                (&line["method"], &line["response_flags"]),
                (&"CONNECT".into(), &"-".into()),
                "{line}"
            );
            assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&6.into(), &10.into()), "{line}");
        }
    });
}

#[test]
fn more_than_a_window_passes_and_a_slow_reader_stops_its_sender() {
    const BYTES: usize = 3_000_000;
    run(async {
        let harness = harness(Limits::default()).await;
        let (mut client, mut server, _) = tunnel(&harness, connect()).await;
        let sending = async {
            let mut left = BYTES;
            while left > 0 {
                client.writes.reserve_capacity(left);
                let room = poll_fn(|context| client.writes.poll_capacity(context)).await.unwrap().unwrap();
                client.writes.send_data(Bytes::from(vec![b'x'; room]), left == room).unwrap();
                left -= room;
            }
        };
        let (_, heard) = tokio::join!(sending, server.hear(BYTES));
        assert_eq!((heard.len(), heard.bytes().all(|byte| byte == b'x')), (BYTES, true));
        assert!(server.ended().await);
    });
}

#[test]
fn a_client_that_resets_its_stream_resets_the_upstreams() {
    run(async {
        for reason in [h2::Reason::CANCEL, h2::Reason::CONNECT_ERROR] {
            let harness = harness(Limits::default()).await;
            let (mut client, mut server, _) = tunnel(&harness, connect()).await;
            client.say("x");
            assert_eq!(server.hear(1).await, "x");
            client.writes.send_reset(reason);
            assert_eq!(server.reset().await, reason);
            let line = harness.logged().await;
            assert_eq!(
                (&line["response_flags"], &line["response_code"]),
                (&"DC".into(), &200.into()),
                "{line}"
            );
        }
    });
}

#[test]
fn an_upstream_that_resets_its_stream_resets_the_clients() {
    run(async {
        for reason in [h2::Reason::CANCEL, h2::Reason::CONNECT_ERROR] {
            let harness = harness(Limits::default()).await;
            let (mut client, mut server, _) = tunnel(&harness, connect()).await;
            server.say("x");
            assert_eq!(client.hear(1).await, "x");
            server.writes.send_reset(reason);
            assert_eq!(client.reset().await, reason);
            let line = harness.logged().await;
            assert_eq!(line["response_flags"], "UR", "{line}");
        }
    });
}

#[test]
fn a_connect_that_is_refused_is_an_answer_like_any_other() {
    run(async {
        let harness = harness(Limits::default()).await;
        let client = client(&harness).await;
        let (response, _writes) = client.ready().await.unwrap().send_request(connect(), false).unwrap();
        let mut connection = server(&harness, true).await;
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let refusal = http::Response::builder().status(403).body(()).unwrap();
        let mut writes = respond.send_response(refusal, false).unwrap();
        writes.send_data(Bytes::from_static(b"not for you"), true).unwrap();
        tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
        let response = response.await.unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.into_body().data().await.unwrap().unwrap(), "not for you");
        assert_eq!(harness.logged().await["response_code"], 403);
    });
}

#[test]
fn extended_connect_is_refused_where_the_upstream_does_not_take_it() {
    run(async {
        let harness = harness(Limits::default()).await;
        let client = client(&harness).await;
        let (response, _writes) = client.ready().await.unwrap().send_request(websocket(), false).unwrap();
        let mut connection = server(&harness, false).await;
        let response = tokio::select! {
            response = response => response.unwrap(),
            request = connection.accept() => panic!("{request:?}"),
        };
        assert_eq!(response.status(), 501);
        let line = harness.logged().await;
        assert_eq!(line["response_flags"], "DPE", "{line}");
    });
}

#[test]
fn silence_ends_a_tunnel() {
    let options = tokio::runtime::LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
    runtime.block_on(async {
        let minutes = Duration::from_secs(600);
        let harness = harness(Limits { idle: minutes, ..Limits::default() }).await;
        let (mut client, mut server, _) = tunnel(&harness, connect()).await;
        client.say("x");
        assert_eq!(server.hear(1).await, "x");
        // Time passes as fast as it can.
        tokio::time::pause();
        let begun = Instant::now();
        assert_eq!(client.reset().await, h2::Reason::CONNECT_ERROR);
        assert!(begun.elapsed() >= minutes - Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(server.reset().await, h2::Reason::CANCEL);
        assert_eq!(harness.shared.shard.inbound.times_met(Limit::Idle), 1);
    });
}
