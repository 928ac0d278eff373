//! HTTP/2, which is what an API server speaks when it may.

use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::client::{pod, review};
use crate::server::Server;

#[tokio::test]
async fn reviews_share_a_connection() {
    let server = Server::start("");
    let mut tls = (*server.tls).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::from(server.address.ip());
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = http.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..100 {
        let mut sender = sender.clone();
        asked.spawn(async move {
            let mut review = review(&pod("cart"));
            review["request"]["uid"] = Value::from(format!("u-{n}"));
            let request = Request::post("https://webhook/inject").header("content-type", "application/json");
            let request = request.body(Full::new(Bytes::from(review.to_string()))).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let answer: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(answer["response"]["uid"], format!("u-{n}"));
            assert!(answer["response"]["patch"].is_string());
        });
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
    assert_eq!(server.metric("outrigger_connections_open"), 1.0);
    // SIGTERM: the connection is told to go (GOAWAY), and goes.
    server.signal("TERM");
    drop(sender);
    connection.await.unwrap().unwrap();
    let mut server = server;
    assert!(server.wait().success());
}
