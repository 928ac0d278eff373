//! A client and an upstream that the tests hold frame by frame.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use crate::connection::harness::Harness;
use crate::route::Declared;
use crate::settings::Limits;

/// A harness that logs.
pub(super) async fn harness(limits: Limits) -> Rc<Harness> {
    Rc::new(Harness::logging(limits).await)
}

/// A client whose connection was captured, once it has heard that it may use extended CONNECT.
pub(super) async fn client(harness: &Harness) -> h2::client::SendRequest<Bytes> {
    let stream = harness.client(Declared::Nothing).await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    while !sender.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    sender
}

pub(super) type Server = h2::server::Connection<tokio::net::TcpStream, Bytes>;

pub(super) async fn server(harness: &Harness, extended: bool) -> Server {
    let mut builder = h2::server::Builder::new();
    if extended {
        builder.enable_connect_protocol();
    }
    builder.handshake(harness.accept().await).await.unwrap()
}

/// One side of a stream.
pub(super) struct Ends {
    pub(super) reads: RecvStream,
    pub(super) writes: SendStream<Bytes>,
}

impl Ends {
    pub(super) fn say(&mut self, text: &'static str) {
        self.writes.send_data(Bytes::from_static(text.as_bytes()), false).unwrap();
    }

    pub(super) async fn hear(&mut self, count: usize) -> String {
        let mut heard = Vec::new();
        while heard.len() < count {
            let data = self.reads.data().await.unwrap().unwrap();
            self.reads.flow_control().release_capacity(data.len()).unwrap();
            heard.extend_from_slice(&data);
        }
        String::from_utf8(heard).unwrap()
    }

    /// Whether nothing more comes; an end may be an empty frame.
    pub(super) async fn ended(&mut self) -> bool {
        match self.reads.data().await {
            Some(data) => data.unwrap().is_empty() && self.reads.is_end_stream(),
            None => true,
        }
    }

    pub(super) async fn reset(&mut self) -> h2::Reason {
        poll_fn(|context| self.writes.poll_reset(context)).await.unwrap()
    }
}
