//! What is being carried now, for whoever asks admin.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Shard;
use crate::destination::Direction;

/// One worker's connections. The lock is free except for the moment that somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    next: u64,
    open: HashMap<u64, Connection>,
}

/// A connection that is being carried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    /// Which way it goes.
    pub direction: Direction,
    /// Who opened it.
    pub peer: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    /// What is spoken, as far as it is known.
    pub protocol: &'static str,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, in the order in which they were accepted.
    pub(crate) fn all(&self) -> Vec<Connection> {
        let all = self.lock();
        let mut open: Vec<(u64, Connection)> = all.open.iter().map(|(id, open)| (*id, *open)).collect();
        drop(all);
        open.sort_by_key(|(id, _)| *id);
        open.into_iter().map(|(_, open)| open).collect()
    }
}

/// A place in [`Connections`], until it is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    shard: Arc<Shard>,
    id: u64,
}

impl Open {
    /// Puts a connection from `peer` to `destination` among those of `shard`.
    pub(crate) fn new(
        shard: &Arc<Shard>,
        direction: Direction,
        peer: SocketAddr,
        destination: SocketAddr,
    ) -> Open {
        let connection = Connection { direction, peer, destination, since: Instant::now(), protocol: "" };
        let mut all = shard.connections.lock();
        let id = all.next;
        all.next += 1;
        all.open.insert(id, connection);
        drop(all);
        Open { shard: Arc::clone(shard), id }
    }

    /// Says what is spoken.
    pub(crate) fn speaks(&self, protocol: &'static str) {
        if let Some(open) = self.shard.connections.lock().open.get_mut(&self.id) {
            open.protocol = protocol;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shard.connections.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_listed_in_its_order() {
        let shard = Arc::new(Shard::default());
        let address = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let open: Vec<Open> =
            (1..=3).map(|port| Open::new(&shard, Direction::Inbound, address(port), address(80))).collect();
        open[1].speaks("http/1");
        let mut open = open.into_iter();
        drop(open.next());
        let listed = shard.connections.all();
        let seen: Vec<_> = listed.iter().map(|open| (open.peer.port(), open.protocol)).collect();
        assert_eq!(seen, [(2, "http/1"), (3, "")]);
        drop(open);
        assert!(shard.connections.all().is_empty());
    }
}
