//! What settings change of HTTP/1: limits that are met, and spans.

use crate::connection::harness::{GET, Harness, answer, head, rest, run, say, until};
use crate::route::Declared;
use crate::settings::{Limits, Live};
use crate::telemetry::Limit;
use crate::trace::Tracer;

async fn limited(limits: Limits) -> Harness {
    Harness::with(Live { limits, ..Live::default() }, None).await
}

fn met(harness: &Harness, limit: Limit) -> u64 {
    harness.shared.shard.inbound.times_met(limit)
}

#[test]
fn a_head_has_as_many_fields_and_bytes_as_it_may() {
    run(async {
        let harness = limited(Limits { headers: 3, head_bytes: 2000, ..Limits::default() }).await;
        let (mut client, mut server) =
            harness.asked("GET / HTTP/1.1\r\nHost: a\r\nb: 1\r\nc: 2\r\n\r\n").await;
        answer(&mut server, &mut client).await;
        say(&mut client, "GET / HTTP/1.1\r\nHost: a\r\nb: 1\r\nc: 2\r\nd: 3\r\n\r\n").await;
        let refused = rest(&mut client).await;
        assert!(refused.starts_with("HTTP/1.1 431 ") && refused.contains("maxHeaders"), "{refused}");
        assert_eq!((met(&harness, Limit::Headers), met(&harness, Limit::HeadBytes)), (1, 0));

        let mut client = harness.client(Declared::Http).await;
        say(&mut client, &format!("GET / HTTP/1.1\r\nHost: {}\r\n", "a".repeat(8000))).await;
        let refused = rest(&mut client).await;
        assert!(refused.starts_with("HTTP/1.1 431 ") && refused.contains("maxHeadBytes"), "{refused}");
        assert_eq!((met(&harness, Limit::Headers), met(&harness, Limit::HeadBytes)), (1, 1));
    });
}

/// Runs `test` without a limit of time: it moves the clock.
fn at_leisure(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build_local(Default::default()).unwrap().block_on(test);
}

/// What the client gets in the end. Time passes as fast as it can.
async fn in_the_end(client: &mut tokio::net::TcpStream) -> std::io::Result<String> {
    tokio::time::pause();
    let mut text = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(client, &mut text).await;
    tokio::time::resume();
    read.map(|_| text)
}

const MINUTES: std::time::Duration = std::time::Duration::from_secs(600);

#[test]
fn a_response_that_is_late_is_504_and_one_that_is_cut_is_a_reset() {
    at_leisure(async {
        let harness = limited(Limits { request: Some(MINUTES), ..Limits::default() }).await;
        let (mut client, server) = harness.asked(GET).await;
        let answer = in_the_end(&mut client).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("upstream request timeout"),
            "{answer}"
        );
        assert_eq!(met(&harness, Limit::Request), 1);
        drop(server);

        let (mut client, mut server) = harness.asked(GET).await;
        say(&mut server, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal").await;
        until(&mut client, "hal").await;
        let cut = in_the_end(&mut client).await.unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(met(&harness, Limit::Request), 2);
    });
}

#[test]
fn a_head_that_never_ends_is_408_and_so_is_silence() {
    at_leisure(async {
        let harness = limited(Limits { head: MINUTES, idle: MINUTES * 2, ..Limits::default() }).await;
        let mut client = harness.client(Declared::Http).await;
        say(&mut client, "GET / HTTP/1.1\r\nHost").await;
        let listed = || harness.shared.shard.connections.all();
        while !listed().iter().any(|open| open.protocol == "http/1") {
            tokio::task::yield_now().await;
        }
        assert!(in_the_end(&mut client).await.unwrap().starts_with("HTTP/1.1 408 "));
        assert_eq!((met(&harness, Limit::Head), met(&harness, Limit::Idle)), (1, 0));

        let (mut client, _server) = harness.asked(GET).await;
        assert!(in_the_end(&mut client).await.unwrap().starts_with("HTTP/1.1 408 "));
        assert_eq!((met(&harness, Limit::Head), met(&harness, Limit::Idle)), (1, 1));
    });
}

#[test]
fn a_sampled_request_goes_on_under_a_span_of_its_own() {
    run(async {
        let (tracer, mut spans) = Tracer::new(0.0, Default::default());
        let harness = Harness::with(Live::default(), Some(tracer)).await;
        let mut client = harness.client(Declared::Http).await;
        let came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        say(
            &mut client,
            &format!("GET /a HTTP/1.1\r\nHost: a\r\ntraceparent: {came}\r\ntracestate: x=1\r\n\r\n"),
        )
        .await;
        let mut server = harness.accept().await;
        let seen = head(&mut server).await;
        answer(&mut server, &mut client).await;
        let ended = spans.recv().await.unwrap();
        assert_eq!((ended.span.parent, ended.code, ended.path.as_str()), (0xb7ad6b7169203331, 200, "/a"));
        let goes_on =
            format!("\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-{:016x}-01\r\n", ended.span.id);
        assert!(seen.contains(&goes_on) && seen.contains("\r\ntracestate: x=1\r\n"), "{seen}");

        // What is not sampled goes on as it came, and makes no span; what has no trace gets the decision.
        say(
            &mut client,
            &format!("GET /b HTTP/1.1\r\nHost: a\r\nb3: 0\r\ntraceparent: {}00\r\n\r\n", &came[..53]),
        )
        .await;
        let seen = head(&mut server).await;
        assert!(seen.contains(&came[..53]) && seen.contains("\r\nb3: 0\r\n"), "{seen}");
        answer(&mut server, &mut client).await;
        say(&mut client, GET).await;
        let seen = head(&mut server).await;
        assert!(seen.contains("\r\ntraceparent: 00-") && seen.contains("-00\r\n"), "{seen}");
        answer(&mut server, &mut client).await;
        assert!(spans.try_recv().is_err());
    });
}

#[test]
fn the_upstreams_time_is_shown_unless_it_answers_before_the_request_is_whole() {
    at_leisure(async {
        let harness = Harness::telling().await;
        for (request, rest) in [
            (GET, ""),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", "dy"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", ""),
        ] {
            let (mut client, mut server) = harness.asked(request).await;
            say(&mut client, rest).await;
            let body = request.split_once("\r\n\r\n").unwrap().1.to_owned() + rest;
            until(&mut server, &body).await;
            tokio::time::pause();
            tokio::time::advance(std::time::Duration::from_millis(1500)).await;
            tokio::time::resume();
            say(
                &mut server,
                "HTTP/1.1 200 OK\r\nX-Envoy-Upstream-Service-Time: 7\r\nContent-Length: 0\r\n\r\n",
            )
            .await;
            let answer = head(&mut client).await;
            let shown = answer.to_ascii_lowercase();
            let shown = shown.split("\r\nx-envoy-upstream-service-time: ").nth(1).unwrap();
            let shown: u64 = shown.split("\r\n").next().unwrap().parse().unwrap();
            match body.len() {
                2 => assert_eq!(shown, 7, "the upstream's own: {answer}"),
                _ => assert!((1500..30_000).contains(&shown), "{answer}"),
            }
        }
    });
}

#[test]
fn without_a_collector_traces_pass_untouched() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Http).await;
        let trace =
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-B3-TraceId: 1\r\n";
        say(&mut client, &format!("GET / HTTP/1.1\r\nHost: a\r\n{trace}\r\n")).await;
        let mut server = harness.accept().await;
        assert!(head(&mut server).await.contains(trace));
        answer(&mut server, &mut client).await;
    });
}
