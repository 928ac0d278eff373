//! The upstream connection of a client connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::extended_connect::Extended;
use super::keep_alive;
use super::stream::Stream;
use crate::captured::Captured;
use crate::telemetry::Limit;
use crate::telemetry::http::Messages;

/// Streams that are opened before the upstream has said how many it takes: the least that RFC 9113, section 6.5.2,
/// recommends to allow.
const STREAMS_BEFORE_SETTINGS: usize = 100;

/// Where the streams of one client connection go.
pub(super) struct Upstream {
    pub(super) captured: Rc<Captured>,
    /// The connection that takes streams.
    sender: RefCell<Option<Sender>>,
    /// How many connections were opened.
    opened: Cell<u64>,
    /// Requests that are being carried.
    streams: Cell<u32>,
    /// The counters of the last gRPC request's messages, by its host; the next one most often has the same.
    messages: RefCell<Option<(String, Arc<Messages>)>>,
    /// Held while connecting, so that one connection is opened for all streams that wait.
    first: Mutex<Option<io::Result<TcpStream>>>,
}

/// A connection that takes streams.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) requests: SendRequest<Bytes>,
    /// What the upstream says about extended CONNECT.
    pub(super) extended: Extended,
    /// The how many-th it is.
    number: u64,
}

impl Upstream {
    /// `first` is the first connection, or the reason why there is none, if that is known already.
    pub(super) fn new(captured: Rc<Captured>, first: Option<io::Result<TcpStream>>) -> Rc<Upstream> {
        Rc::new(Upstream {
            captured,
            sender: RefCell::default(),
            opened: Cell::new(0),
            streams: Cell::new(0),
            messages: RefCell::default(),
            first: Mutex::new(first),
        })
    }

    /// A request begins; how many there are with it.
    pub(super) fn begin(&self) -> u32 {
        let streams = self.streams.get() + 1;
        self.streams.set(streams);
        if streams == self.captured.live.limits.streams {
            self.captured.side().met(Limit::Streams);
        }
        streams
    }

    /// A request has ended.
    pub(super) fn end(&self) {
        self.streams.set(self.streams.get() - 1);
    }

    /// `sender` takes no more streams; the next stream opens another connection, if none has yet.
    pub(super) fn leave(&self, sender: &Sender) {
        self.sender.borrow_mut().take_if(|present| present.number == sender.number);
    }

    /// The counters of gRPC messages to `host`.
    pub(super) fn messages(&self, host: &str) -> Arc<Messages> {
        let mut last = self.messages.borrow_mut();
        if let Some((of, messages)) = &*last
            && of == host
        {
            return Arc::clone(messages);
        }
        let messages = self.captured.shared.shard.requests.messages(self.captured.direction, host);
        *last = Some((host.to_owned(), Arc::clone(&messages)));
        messages
    }

    /// A connection that takes streams, opened if there is none.
    pub(super) async fn sender(self: &Rc<Upstream>) -> io::Result<Sender> {
        match self.open() {
            Some(sender) => Ok(sender),
            // In a box: one stream of many connects, and the others need not keep the room for it.
            None => Box::pin(self.connect()).await,
        }
    }

    /// The connection, if it has neither ended nor said that it will.
    fn open(&self) -> Option<Sender> {
        let mut sender = self.sender.borrow().clone()?;
        let ended = sender.requests.poll_ready(&mut Context::from_waker(Waker::noop())).map_err(drop);
        (ended != Poll::Ready(Err(()))).then_some(sender)
    }

    async fn connect(self: &Rc<Upstream>) -> io::Result<Sender> {
        let mut first = self.first.lock().await;
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let stream = match first.take() {
            Some(result) => result?,
            None => self.captured.connect().await?,
        };
        let limits = &self.captured.live.limits;
        let share = self.captured.shared.windows.share(limits);
        let (stream, extended) = Stream::of_upstream(stream);
        let heard = stream.heard();
        let (requests, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .initial_window_size(share.stream())
            .initial_connection_window_size(share.connection())
            .max_send_buffer_size(share.sending())
            .max_header_list_size(limits.head_bytes as u32)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        let ping = connection.ping_pong();
        // It holds nothing of ours: without a client, the upstream connection ends.
        let upstream = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let busy = || Weak::upgrade(&upstream).is_some_and(|upstream| upstream.streams.get() > 0);
            tokio::select! {
                biased;
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP/2 upstream connection broke");
                },
                () = keep_alive::gone(ping, heard, busy) => {
                    tracing::debug!("an HTTP/2 upstream answers no ping");
                }
            }
            drop(share);
        });
        let number = self.opened.get() + 1;
        self.opened.set(number);
        let sender = Sender { requests, extended, number };
        *self.sender.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }
}
