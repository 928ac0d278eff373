use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;
use crate::connection::harness::{Harness, refusing, run};
use crate::destination::Direction;
use crate::local::LocalExecutor;
use crate::reply;
use crate::route::Declared;
use crate::settings::{Limits, Live};
use crate::telemetry::http::Key;
use crate::telemetry::{Flag, Limit};

type Sender<B> = SendRequest<B>;

async fn client<B>(harness: &Harness) -> Sender<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    handshake(harness.client(Declared::Nothing).await).await
}

async fn handshake<B>(stream: TcpStream) -> Sender<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

/// Serves connections one after the other with `answer`.
fn serve_with<F, A, B>(harness: &Rc<Harness>, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Result<Response<B>, Infallible>> + 'static,
    B: hyper::body::Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let harness = Rc::clone(harness);
    tokio::task::spawn_local(async move {
        loop {
            let stream = harness.accept().await;
            let server = hyper::server::conn::http2::Builder::new(LocalExecutor);
            let connection = server.serve_connection(TokioIo::new(stream), service_fn(answer.clone()));
            tokio::task::spawn_local(connection);
        }
    });
}

fn count(harness: &Harness, code: u16, flag: Flag, grpc: Option<Option<u16>>) -> u64 {
    let key = Key { direction: Direction::Inbound, code, flag, grpc, host: "shop".into() };
    harness.shared.shard.requests.series(key).count()
}

fn grpc(body: Bytes) -> Request<Full<Bytes>> {
    let request =
        Request::post("http://shop/s/m").header("content-type", "application/grpc").header("te", "trailers");
    request.body(Full::new(body)).unwrap()
}

async fn counted(harness: &Harness, code: u16, flag: Flag, grpc: Option<Option<u16>>) {
    while count(harness, code, flag, grpc) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn requests_pass_with_bodies_and_trailers() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        serve_with(&harness, |request: Request<Incoming>| async move {
            assert_eq!(request.uri().authority().unwrap(), "shop");
            assert_eq!(request.headers()["te"], "trailers");
            assert!(request.headers().contains_key("x-request-id"));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("5"));
            let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
            Ok(Response::new(StreamBody::new(tokio_stream(frames))))
        });
        let mut client = client(&harness).await;
        let payload = Bytes::from(vec![7; 3_000_000]);
        let response = client.send_request(grpc(payload.clone())).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "5");
        assert!(body.to_bytes() == payload);
        counted(&harness, 200, Flag::None, Some(Some(5))).await;
    });
}

/// The frames one after the other.
fn tokio_stream<T: Unpin, const N: usize>(items: [T; N]) -> impl futures_core::Stream<Item = T> + Unpin {
    struct Items<T>(std::vec::IntoIter<T>);
    impl<T: Unpin> futures_core::Stream for Items<T> {
        type Item = T;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<T>> {
            std::task::Poll::Ready(self.0.next())
        }
    }
    Items(Vec::from(items).into_iter())
}

#[test]
fn many_streams_share_one_upstream_connection() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        serve_with(&harness, |request: Request<Incoming>| async move {
            Ok(Response::new(Full::new(Bytes::from(request.uri().path().to_owned()))))
        });
        let client: Sender<Full<Bytes>> = client(&harness).await;
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let mut client = client.clone();
                tokio::task::spawn_local(async move {
                    let request =
                        Request::get(format!("http://shop/{number}")).body(Full::default()).unwrap();
                    let response = client.send_request(request).await.unwrap();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, format!("/{number}"));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        counted(&harness, 200, Flag::None, None).await;
        assert_eq!(count(&harness, 200, Flag::None, None), 200);
    });
}

#[test]
fn an_upstream_that_is_not_there_is_told_in_the_words_of_the_request() {
    run(async {
        let harness = Harness::new().await;
        let (_nobody, address) = refusing();
        let mut client = handshake(harness.client_to(address, Declared::Nothing).await).await;
        let response = client.send_request(grpc(Bytes::new())).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        let message = response.headers()["grpc-message"].to_str().unwrap().to_owned();
        assert!(message.starts_with("upstream connect error"), "{message}");
        let request = Request::get("http://shop/").body(Full::default()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 503);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"upstream connect error"), "{body:?}");
    });
}

#[test]
fn a_client_that_cancels_cancels_at_the_application() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        let (told, cancelled) = tokio::sync::mpsc::unbounded_channel::<&str>();
        serve_with(&harness, move |_| {
            let told = told.clone();
            async move {
                struct Tell(tokio::sync::mpsc::UnboundedSender<&'static str>);
                impl Drop for Tell {
                    fn drop(&mut self) {
                        let _ = self.0.send("cancelled");
                    }
                }
                let _tell = Tell(told.clone());
                told.send("asked").unwrap();
                std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>().await
            }
        });
        let mut cancelled = cancelled;
        let mut client = client(&harness).await;
        let asking = tokio::task::spawn_local(async move { client.send_request(grpc(Bytes::new())).await });
        assert_eq!(cancelled.recv().await, Some("asked"));
        asking.abort();
        assert_eq!(cancelled.recv().await, Some("cancelled"));
        counted(&harness, 0, Flag::DownstreamReset, Some(None)).await;
    });
}

#[test]
fn draining_says_goaway_and_open_streams_end_in_their_time() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        let (go, gone) = tokio::sync::watch::channel(false);
        let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
        serve_with(&harness, move |_| {
            let mut gone = gone.clone();
            told.send(()).unwrap();
            async move {
                gone.wait_for(|gone| *gone).await.unwrap();
                Ok(Response::new(Full::new(Bytes::from("late"))))
            }
        });
        let stream = harness.client(Declared::Nothing).await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
        let ended = tokio::task::spawn_local(connection);
        let answer = tokio::task::spawn_local(sender.send_request(grpc(Bytes::new())));
        asked.recv().await.unwrap();
        harness.shared.life.advance(Phase::Draining);
        go.send(true).unwrap();
        let answer = answer.await.unwrap().unwrap().into_body().collect().await.unwrap();
        assert_eq!(answer.to_bytes(), "late");
        // The client still holds its sender; that the connection ends is the sidecar's doing.
        ended.await.unwrap().unwrap();
        drop(sender);
    });
}

#[test]
fn an_application_that_closed_meanwhile_costs_no_request() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        let stream = harness.client(Declared::Nothing).await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        for _ in 0..3 {
            let answer = sender.send_request(grpc(Bytes::new()));
            let stream = harness.accept().await;
            let server = hyper::server::conn::http2::Builder::new(LocalExecutor);
            let mut served = pin!(server.serve_connection(
                TokioIo::new(stream),
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok")))) }),
            ));
            let answer = tokio::select! {
                answer = answer => answer,
                ended = &mut served => panic!("{ended:?}"),
            };
            assert_eq!(answer.unwrap().status(), 200);
            // The application leaves without a word; the next request opens another connection.
        }
    });
}

#[test]
fn what_is_not_http2_after_its_preface_is_closed() {
    run(async {
        let harness = Harness::new().await;
        let mut client = harness.client(Declared::Nothing).await;
        crate::connection::harness::say(
            &mut client,
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n nonsense that is no frame",
        )
        .await;
        let mut answer = Vec::new();
        // GOAWAY, and the end; or a reset, as bytes were left unread.
        let _ = client.read_to_end(&mut answer).await;
        assert!(answer.len() < 200);
    });
}

#[test]
fn a_stream_that_was_refused_goes_to_another_connection_with_its_whole_body() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        let mut client = client(&harness).await;
        let asking = client.send_request(grpc(Bytes::from("payload")));
        let server = async {
            let mut refusing = h2::server::handshake(harness.accept().await).await.unwrap();
            let (request, mut respond) = refusing.accept().await.unwrap().unwrap();
            let mut body = request.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "payload");
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            let refusing = async { while refusing.accept().await.is_some() {} };
            let serving = async {
                let stream = harness.accept().await;
                let echo = service_fn(|request: Request<Incoming>| async {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                });
                let server = hyper::server::conn::http2::Builder::new(LocalExecutor);
                server.serve_connection(TokioIo::new(stream), echo).await.unwrap();
            };
            tokio::join!(refusing, serving);
        };
        let response = tokio::select! {
            response = asking => response.unwrap(),
            () = server => panic!("the servers ended first"),
        };
        assert_eq!(response.status(), 200);
        assert_eq!(harness.shared.shard.inbound.retried.get(), 1);
    });
}

#[test]
fn a_stream_that_the_upstream_resets_is_told_from_a_connection_that_breaks() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        let mut client = client(&harness).await;
        let asking = client.send_request(grpc(Bytes::new()));
        let server = async {
            let mut resetting = h2::server::handshake(harness.accept().await).await.unwrap();
            let (_request, mut respond) = resetting.accept().await.unwrap().unwrap();
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            while resetting.accept().await.is_some() {}
        };
        let response = tokio::select! {
            response = asking => response.unwrap(),
            () = server => panic!("the server ended first"),
        };
        assert_eq!(response.headers()["grpc-status"], "14");
        assert!(response.headers()["grpc-message"].to_str().unwrap().ends_with("remote reset"));
        drop(response);
        counted(&harness, 200, Flag::UpstreamStreamReset, Some(Some(14))).await;
    });
}

/// A server that never answers.
fn silent(harness: &Rc<Harness>) {
    serve_with(harness, |_| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
}

#[test]
fn a_grpc_request_that_is_late_is_deadline_exceeded() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        silent(&harness);
        let mut client = client(&harness).await;
        let mut request = grpc(Bytes::new());
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("30m"));
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4");
        drop(response);
        counted(&harness, 200, Flag::UpstreamTimeout, Some(Some(4))).await;
        assert_eq!(harness.shared.shard.inbound.times_met(Limit::Request), 1);
    });
}

#[test]
fn a_client_with_as_many_streams_as_it_may_have_is_counted() {
    run(async {
        let limits = Limits { streams: 2, ..Limits::default() };
        let harness = Rc::new(Harness::with(Live { limits, ..Live::default() }, None).await);
        silent(&harness);
        let mut client = client(&harness).await;
        for streams in 1..=2 {
            tokio::task::spawn_local(client.send_request(grpc(Bytes::new())));
            let met = || harness.shared.shard.inbound.times_met(Limit::Streams);
            while streams == 2 && met() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(met(), u64::from(streams == 2));
        }
    });
}

#[test]
fn where_memory_is_full_each_connection_has_one_stream() {
    run(async {
        let harness = Rc::new(Harness::full().await);
        silent(&harness);
        let mut client = client(&harness).await;
        let first = client.send_request(grpc(Bytes::new()));
        let first = tokio::task::spawn_local(first);
        let request = Request::get("http://shop/").body(Full::default()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 503);
        assert_eq!(response.headers()[reply::OVERLOADED], "true");
        counted(&harness, 503, Flag::Overflow, None).await;
        assert_eq!(harness.shared.shard.inbound.times_met(Limit::Memory), 1);
        assert!(!first.is_finished());
    });
}

#[test]
fn a_sampled_request_goes_on_under_a_span_of_its_own() {
    run(async {
        let (tracer, mut spans) = crate::trace::Tracer::new(0.0, Default::default());
        let harness = Rc::new(Harness::with(Live::default(), Some(tracer)).await);
        serve_with(&harness, |request: Request<Incoming>| async move {
            Ok(Response::new(Full::new(Bytes::copy_from_slice(request.headers()["b3"].as_bytes()))))
        });
        let mut client = client(&harness).await;
        let mut request = grpc(Bytes::new());
        let b3 = HeaderValue::from_static("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1");
        request.headers_mut().insert("b3", b3);
        let response = client.send_request(request).await.unwrap();
        let seen = response.into_body().collect().await.unwrap().to_bytes();
        let ended = spans.recv().await.unwrap();
        let parent = 0xb7ad6b7169203331;
        assert_eq!((ended.span.parent, ended.path.as_str(), ended.protocol), (parent, "/s/m", "HTTP/2"));
        let goes_on = format!("0af7651916cd43dd8448eb211c80319c-{:016x}-1-{parent:016x}", ended.span.id);
        assert_eq!(seen, goes_on);
    });
}

#[test]
fn messages_of_grpc_are_counted_while_they_pass() {
    run(async {
        let harness = Rc::new(Harness::new().await);
        serve_with(&harness, |request: Request<Incoming>| async {
            request.into_body().collect().await.unwrap();
            let frames = [&b"\0\0\0\0\x01a\0\0"[..], b"\0\0\0\0\0\0\0\x02bc"].map(Bytes::from);
            Ok(Response::new(StreamBody::new(tokio_stream(frames.map(Frame::data).map(Ok::<_, Infallible>)))))
        });
        let mut client = client(&harness).await;
        let ask = |kind: &'static str, host: &str| {
            let request = Request::post(format!("http://{host}/s/m")).header("content-type", kind);
            request.body(Full::new(Bytes::from_static(b"\0\0\0\0\x03one\0\0\0\0\0"))).unwrap()
        };
        for (kind, host) in [
            ("application/grpc", "shop"),
            ("application/grpc+proto", "shop"),
            ("application/grpc;x", "till"),
            // Framed otherwise, or not at all.
            ("application/grpc-web-text", "web"),
            ("application/json", "web"),
        ] {
            let response = client.send_request(ask(kind, host)).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        let counted = |host: &str| {
            let messages = harness.shared.shard.requests.messages(Direction::Inbound, host);
            (messages.requests.get(), messages.responses.get())
        };
        assert_eq!([counted("shop"), counted("till"), counted("web")], [(4, 6), (2, 3), (0, 0)]);
    });
}

#[test]
fn the_upstreams_time_is_shown_unless_it_answers_before_the_request_is_whole() {
    run(async {
        let harness = Rc::new(Harness::telling().await);
        serve_with(&harness, |request: Request<Incoming>| async {
            if request.uri().path() != "/unfinished" {
                request.into_body().collect().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let theirs = Response::builder().header("x-envoy-upstream-service-time", "0");
            Ok(theirs.body(Full::new(Bytes::from("late"))).unwrap())
        });
        let mut whole = client(&harness).await;
        for body in [Bytes::new(), Bytes::from("body")] {
            let response = whole.send_request(grpc(body)).await.unwrap();
            let took: u64 =
                response.headers()["x-envoy-upstream-service-time"].to_str().unwrap().parse().unwrap();
            assert!((19..20_000).contains(&took), "{took} ms");
        }
        let mut unfinished = client(&harness).await;
        let body = StreamBody::new(Endless);
        let request = Request::post("http://shop/unfinished").body(body).unwrap();
        let response = unfinished.send_request(request).await.unwrap();
        assert_eq!(response.headers()["x-envoy-upstream-service-time"], "0", "the upstream's own");
    });
}

/// A body that never ends.
struct Endless;

impl futures_core::Stream for Endless {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Pending
    }
}
