//! Idle HTTP/1 connections to upstreams, kept by each worker for itself.
//!
//! Applications close idle connections, some after 5 s, and a request that crosses the close is lost. So a connection
//! is kept for less than that, looked at before it is used again, and a request that nobody read is sent again (see
//! [`crate::http1`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::destination::Direction;

/// How long a connection is kept. Node.js closes after 5 s, most others much later.
pub const IDLE: Duration = Duration::from_secs(4);
/// Most idle connections to one destination.
const MOST: usize = 4096;

type Key = (Direction, SocketAddr);

/// One worker's idle connections.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<Key, Vec<(Instant, TcpStream)>>>,
}

impl Pool {
    /// The connection to `address` that was used last, if one is alive.
    pub fn take(&self, direction: Direction, address: SocketAddr) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&(direction, address))?;
        while let Some((_, stream)) = list.pop() {
            if alive(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Whether a connection to `address` is kept: then it is known to speak HTTP/1.
    pub fn knows(&self, direction: Direction, address: SocketAddr) -> bool {
        self.idle.borrow().get(&(direction, address)).is_some_and(|list| !list.is_empty())
    }

    /// Keeps `stream`, of which the last response has been read to its end. Must run on a local runtime.
    pub fn keep(self: &Rc<Self>, direction: Direction, address: SocketAddr, stream: TcpStream) {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            tokio::task::spawn_local(sweep(Rc::clone(self)));
        }
        let list = idle.entry((direction, address)).or_default();
        if list.len() < MOST {
            list.push((Instant::now(), stream));
        }
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
