use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::Reason;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};

use super::peers::{Ends, client, harness, server};
use crate::connection::harness::{Harness, run};
use crate::settings::Limits;
use crate::telemetry::Limit;

/// A request whose head has arrived, and that nobody has answered.
struct Asked {
    /// The client's side.
    answer: ResponseFuture,
    writes: h2::SendStream<Bytes>,
    /// The server's.
    seen: Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
}

/// The server's connection goes on in a task of its own.
async fn ask(harness: &Rc<Harness>, request: Request<()>) -> Asked {
    let client = client(harness).await;
    let (answer, writes) = client.ready().await.unwrap().send_request(request, false).unwrap();
    let mut connection = server(harness, false).await;
    let (seen, respond) = connection.accept().await.unwrap().unwrap();
    tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
    Asked { answer, writes, seen, respond }
}

impl Asked {
    /// What comes before the answer; nothing once that is there.
    async fn interim(&mut self) -> Option<(u16, HeaderMap)> {
        let interim = poll_fn(|context| self.answer.poll_informational(context)).await?;
        let (head, ()) = interim.unwrap().into_parts();
        Some((head.status.as_u16(), head.headers))
    }

    /// Answers; both sides then are open.
    async fn answered(self) -> (Ends, Ends) {
        let Asked { answer, writes, seen, mut respond } = self;
        let server = respond.send_response(Response::new(()), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let client = Ends { reads: answer.into_body(), writes };
        (client, Ends { reads: seen.into_body(), writes: server })
    }
}

fn post() -> Request<()> {
    Request::post("http://shop/s").body(()).unwrap()
}

fn interim(status: u16, link: &str) -> Response<()> {
    Response::builder().status(status).header("link", link).body(()).unwrap()
}

#[test]
fn a_client_that_expects_100_continue_is_told_so_by_the_upstream() {
    run(async {
        let harness = harness(Limits::default()).await;
        let mut request = post();
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        let mut asked = ask(&harness, request).await;
        assert_eq!(asked.seen.headers()["expect"], "100-continue");
        let go_on = Response::builder().status(100).body(()).unwrap();
        asked.respond.send_informational(go_on).unwrap();
        assert_eq!(asked.interim().await, Some((100, HeaderMap::new())));
        asked.writes.send_data(Bytes::from_static(b"body"), true).unwrap();
        let (mut client, mut server) = asked.answered().await;
        assert_eq!(server.hear(4).await, "body");
        server.writes.send_data(Bytes::from_static(b"done"), true).unwrap();
        assert_eq!(client.hear(4).await, "done");
        let line = harness.logged().await;
        assert_eq!((&line["response_code"], &line["response_flags"]), (&200.into(), &"-".into()), "{line}");
    });
}

#[test]
fn interim_answers_pass_in_their_order_before_the_answer() {
    run(async {
        let harness = harness(Limits::default()).await;
        let mut asked = ask(&harness, post()).await;
        for (status, link) in [(103, "</a.css>"), (102, "</b.css>"), (103, "</c.css>")] {
            asked.respond.send_informational(interim(status, link)).unwrap();
        }
        // HTTP/2 has none of these.
        asked.respond.send_informational(interim(101, "</d.css>")).unwrap();
        let mut to = asked.respond.send_response(Response::new(()), false).unwrap();
        for (status, link) in [(103, "</a.css>"), (102, "</b.css>"), (103, "</c.css>")] {
            let (said, fields) = asked.interim().await.unwrap();
            assert_eq!((said, fields["link"].to_str().unwrap(), fields.len()), (status, link, 1));
        }
        assert_eq!(asked.interim().await, None);
        let answer = asked.answer.await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("link")), (200, None));
        to.send_data(Bytes::from_static(b"end"), true).unwrap();
        assert_eq!(answer.into_body().data().await.unwrap().unwrap(), "end");
    });
}

#[test]
fn interim_answers_without_end_end_with_a_heads_length() {
    run(async {
        let harness = harness(Limits { head_bytes: 1024, ..Limits::default() }).await;
        let mut asked = ask(&harness, post()).await;
        let link = "x".repeat(400);
        for _ in 0..4 {
            asked.respond.send_informational(interim(103, &link)).unwrap();
        }
        asked.respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(asked.interim().await.unwrap().0, 103);
        assert_eq!(asked.interim().await.unwrap().0, 103);
        assert_eq!(asked.interim().await, None);
        assert_eq!(asked.answer.await.unwrap().status(), 200);
        assert_eq!(harness.shared.shard.inbound.times_met(Limit::HeadBytes), 2);
    });
}

#[test]
fn a_client_that_leaves_after_an_interim_answer_cancels() {
    run(async {
        let harness = harness(Limits::default()).await;
        let mut asked = ask(&harness, post()).await;
        asked.respond.send_informational(interim(103, "</a.css>")).unwrap();
        assert_eq!(asked.interim().await.unwrap().0, 103);
        asked.writes.send_reset(Reason::CANCEL);
        let reason = poll_fn(|context| asked.respond.poll_reset(context)).await.unwrap();
        assert_eq!(reason, Reason::CANCEL);
        let line = harness.logged().await;
        assert_eq!((&line["response_code"], &line["response_flags"]), (&0.into(), &"DC".into()), "{line}");
    });
}

#[test]
fn a_reset_of_one_side_is_a_reset_of_the_other_for_the_same_reason() {
    run(async {
        for reason in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
            let harness = harness(Limits::default()).await;
            let (mut client, mut server) = ask(&harness, post()).await.answered().await;
            server.say("x");
            assert_eq!(client.hear(1).await, "x");
            client.writes.send_reset(reason);
            assert_eq!(server.reset().await, reason);
            assert_eq!(harness.logged().await["response_flags"], "DC");

            let harness = self::harness(Limits::default()).await;
            let (mut client, mut server) = ask(&harness, post()).await.answered().await;
            server.say("x");
            assert_eq!(client.hear(1).await, "x");
            server.writes.send_reset(reason);
            assert_eq!(client.reset().await, reason);
            assert_eq!(harness.logged().await["response_flags"], "UR");
        }
    });
}

#[test]
fn a_response_that_is_cut_is_no_whole_one() {
    run(async {
        let harness = harness(Limits::default()).await;
        let (mut client, mut server) = ask(&harness, post()).await.answered().await;
        // Without an error, and without the end.
        server.writes.send_reset(Reason::NO_ERROR);
        assert_eq!(client.reset().await, Reason::INTERNAL_ERROR);
        assert_eq!(harness.logged().await["response_flags"], "UR");
    });
}

#[test]
fn an_upstream_need_not_want_the_whole_request() {
    run(async {
        let harness = harness(Limits::default()).await;
        let (mut client, mut server) = ask(&harness, post()).await.answered().await;
        client.say("one");
        assert_eq!(server.hear(3).await, "one");
        server.writes.send_data(Bytes::from_static(b"enough"), true).unwrap();
        // The rest of the request is refused with no error.
        drop(server);
        assert_eq!(client.hear(6).await, "enough");
        assert!(client.ended().await);
        assert_eq!(client.reset().await, Reason::NO_ERROR);
        let line = harness.logged().await;
        assert_eq!((&line["response_code"], &line["response_flags"]), (&200.into(), &"-".into()), "{line}");
    });
}

#[test]
fn the_end_of_a_request_needs_no_room() {
    run(async {
        let harness = harness(Limits::default()).await;
        let (mut client, mut server) = ask(&harness, post()).await.answered().await;
        // As much as the server takes, which gives no window back.
        let bytes = Bytes::from(vec![b'x'; 65_535]);
        client.writes.send_data(bytes, false).unwrap();
        let mut heard = 0;
        while heard < 65_535 {
            heard += server.reads.data().await.unwrap().unwrap().len();
        }
        client.writes.send_data(Bytes::new(), true).unwrap();
        assert!(server.ended().await);
    });
}

#[test]
fn a_refusal_has_length_and_date_and_to_head_no_body() {
    run(async {
        for (method, length) in [("GET", Some("111")), ("HEAD", None)] {
            let harness = harness(Limits::default()).await;
            let client = client(&harness).await;
            let mut request = Request::builder().method(method).uri("http://shop/").body(()).unwrap();
            request.headers_mut().insert("host", "till".parse().unwrap());
            let (answer, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), 400);
            assert!(answer.headers().contains_key("date"));
            let said = answer.headers()["content-length"].to_str().unwrap().to_owned();
            let body = answer.body_mut().data().await.map(|data| data.unwrap().len().to_string());
            assert_eq!(body, length.map(|_| said));
        }
    });
}
