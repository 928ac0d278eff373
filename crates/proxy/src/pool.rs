//! Idle HTTP/1 connections to upstreams, kept by each worker for itself.
//!
//! Applications close idle connections, some after 5 s, and a request that crosses the close is lost. So a connection
//! is kept for less than that, looked at before it is used again, and a request that nobody read is sent again (see
//! [`crate::http1`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::upstream::Source;

/// How long a connection is kept. Node.js closes after 5 s, most others much later.
pub(crate) const IDLE: Duration = Duration::from_secs(4);
type Key = (Source, SocketAddr);

/// One worker's idle connections.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Key, Vec<(Instant, TcpStream)>>>,
    count: Cell<usize>,
    most: usize,
}

impl Pool {
    /// A pool of at most `most` connections.
    pub(crate) fn new(most: usize) -> Pool {
        Pool { idle: RefCell::default(), count: Cell::new(0), most }
    }

    /// The connection to `address` that was used last, if one is alive.
    pub(crate) fn take(&self, source: Source, address: SocketAddr) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&(source, address))?;
        while let Some((_, stream)) = list.pop() {
            self.count.set(self.count.get() - 1);
            if alive(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Whether a connection to `address` is kept: then it is known to speak HTTP/1.
    pub(crate) fn knows(&self, source: Source, address: SocketAddr) -> bool {
        self.idle.borrow().get(&(source, address)).is_some_and(|list| !list.is_empty())
    }

    /// Keeps `stream`, of which the last response has been read to its end; false if there is no room, and it is closed.
    /// Must run on a local runtime.
    pub(crate) fn keep(self: &Rc<Self>, source: Source, address: SocketAddr, stream: TcpStream) -> bool {
        if self.count.get() >= self.most {
            return false;
        }
        self.count.set(self.count.get() + 1);
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            tokio::task::spawn_local(sweep(Rc::clone(self)));
        }
        idle.entry((source, address)).or_default().push((Instant::now(), stream));
        true
    }
}

/// Closes what has been kept long enough, as long as anything is kept.
async fn sweep(pool: Rc<Pool>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = Instant::now();
        let mut idle = pool.idle.borrow_mut();
        idle.retain(|_, list| {
            list.retain(|(since, stream)| now - *since < IDLE && alive(stream));
            !list.is_empty()
        });
        pool.count.set(idle.values().map(Vec::len).sum());
        if idle.is_empty() {
            idle.shrink_to_fit();
            return;
        }
    }
}

/// Whether the upstream has said nothing since: neither the end of the connection nor bytes that nobody asked for.
fn alive(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
