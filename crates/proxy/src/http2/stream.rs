//! The TCP streams under HTTP/2 connections. Of a client's, the beginning has been read already; an upstream's is looked at.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::extended_connect::{Extended, First};

/// When the peer was heard last.
pub(super) type Heard = Rc<Cell<Instant>>;

/// Gives what was read first, then what is still to come.
pub(super) struct Stream {
    /// What was read, of which the part before `start` has been given.
    seen: Vec<u8>,
    start: usize,
    stream: TcpStream,
    /// Who looks at what comes first, as long as he does.
    first: Option<First>,
    heard: Heard,
}

impl Stream {
    /// A client's, of which `seen` has been read.
    pub(super) fn of_client(seen: Vec<u8>, stream: TcpStream) -> Stream {
        Stream { seen, start: 0, stream, first: None, heard: Rc::new(Cell::new(Instant::now())) }
    }

    /// An upstream's, and what it says about extended CONNECT.
    pub(super) fn of_upstream(stream: TcpStream) -> (Stream, Extended) {
        let (first, extended) = First::new();
        (Stream { first: Some(first), ..Stream::of_client(Vec::new(), stream) }, extended)
    }

    /// When its peer was heard last.
    pub(super) fn heard(&self) -> Heard {
        Rc::clone(&self.heard)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.start < self.seen.len() {
            let count = buffer.remaining().min(self.seen.len() - self.start);
            buffer.put_slice(&self.seen[self.start..self.start + count]);
            self.start += count;
            if self.start == self.seen.len() {
                self.seen = Vec::new();
                self.start = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            self.heard.set(Instant::now());
        }
        if let Some(first) = &mut self.first
            && first.look(&buffer.filled()[before..])
        {
            self.first = None;
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
