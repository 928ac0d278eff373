//! Who may hold file descriptors. A connection is served only when it has a place, and a place is worth two descriptors:
//! so the upstream's can be had, too, and no client is taken in and then sent away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::destination::Direction;
use crate::pipe;
use crate::settings::Descriptors;
use crate::telemetry::{Limit, Side};

/// Descriptors that are left for status connections, DNS and probes: so many, or a quarter of what there is.
const RESERVE: usize = 256;
/// What each worker holds itself: its event queues, and one connection of each of its listeners that waits for a place.
const OF_A_WORKER: usize = 8;
/// Most idle upstream connections of a worker, unless it is set.
const IDLE_OF_A_WORKER: usize = 4096;
/// Where the kernel has no limit.
const PLENTY: usize = 1 << 24;

/// How many there may be of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of each direction. Each direction has its own: what the application opens to itself passes both.
    pub connections: usize,
    /// Idle upstream connections of all workers.
    pub idle: usize,
    /// Pipes of each worker for bytes in bulk.
    pub pipes: usize,
}

/// Divides `limit` descriptors, of which `open` are in use, among `workers` workers. What is `given` is kept as far as it
/// fits.
pub(crate) fn share(limit: usize, open: usize, workers: usize, given: Descriptors) -> Shares {
    let free = limit.saturating_sub(open + OF_A_WORKER * workers);
    let free = free - RESERVE.min(free / 4);
    let idle = given.idle.unwrap_or_else(|| (free / 8).min(IDLE_OF_A_WORKER * workers)).min(free / 2);
    // A pipe takes two.
    let pipes = (free / 32 / workers.max(1)).min(pipe::MOST);
    let fits = (free.saturating_sub(idle + 2 * pipes * workers) / 4).clamp(1, Semaphore::MAX_PERMITS);
    Shares { connections: given.connections.unwrap_or(fits).min(fits), idle, pipes }
}

/// Raises the limit of file descriptors as far as this process may, and says what it is: each connection takes two, and
/// the soft limit is often 1,024.
pub(crate) fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = ?limit.current, "cannot raise the limit of file descriptors");
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(PLENTY, |limit| usize::try_from(limit).unwrap_or(PLENTY))
}

/// Descriptors that are open now.
pub(crate) fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The places of connections, shared by all workers. It is asked once for each connection, not for each byte.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    inbound: Arc<Semaphore>,
    outbound: Arc<Semaphore>,
    said: Arc<AtomicBool>,
}

impl Places {
    /// Places for `connections` connections of each direction.
    pub(crate) fn new(connections: usize) -> Places {
        let places = || Arc::new(Semaphore::new(connections));
        Places { inbound: places(), outbound: places(), said: Arc::default() }
    }

    /// A place for one connection. Without one this waits, and the kernel keeps those that follow.
    pub(crate) async fn take(&self, direction: Direction, side: &Side) -> Option<OwnedSemaphorePermit> {
        let places = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Some(place);
        }
        side.met(Limit::Connections);
        if !self.said.swap(true, Relaxed) {
            tracing::warn!(
                ?direction,
                "as many connections as maxConnections and the limit of file descriptors allow; more wait"
            );
        }
        // It is never closed.
        Arc::clone(places).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Descriptors = Descriptors { connections: None, idle: None };

    #[test]
    fn shares_never_exceed_the_limit() {
        for limit in [20, 64, 256, 1024, 65_536, 1 << 20] {
            for workers in [1, 2, 4] {
                let Shares { connections, idle, pipes } = share(limit, 30, workers, NOTHING);
                assert!(connections >= 1, "{limit}");
                if limit > 128 {
                    let all = 30 + idle + 4 * connections + 2 * pipes * workers;
                    assert!(all <= limit, "{limit}: {connections} {idle} {pipes}");
                    assert!(4 * connections > limit / 2 - 100, "{limit}: {connections} {idle} {pipes}");
                }
            }
        }
        assert_eq!(share(1024, 30, 2, NOTHING), Shares { connections: 149, idle: 91, pipes: 11 });
        assert_eq!(share(1 << 20, 30, 2, NOTHING).pipes, pipe::MOST);
    }

    #[test]
    fn what_is_given_is_kept_as_far_as_it_fits() {
        let given = Descriptors { connections: Some(10), idle: Some(0) };
        assert_eq!(share(1024, 30, 2, given), Shares { connections: 10, idle: 0, pipes: 11 });
        let given = Descriptors { connections: Some(1_000_000), idle: Some(1_000_000) };
        let Shares { connections, idle, .. } = share(1024, 30, 2, given);
        assert!(30 + idle + 4 * connections <= 1024, "{connections} {idle}");
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let (places, side) = (Places::new(1), Side::default());
        let first = places.take(Direction::Inbound, &side).await;
        assert!(first.is_some());
        // The other direction has its own.
        let other = places.take(Direction::Outbound, &side).await;
        assert!(other.is_some());
        let mut second = std::pin::pin!(places.take(Direction::Inbound, &side));
        let waits = std::future::poll_fn(|context| {
            std::task::Poll::Ready(second.as_mut().poll(context).is_pending())
        });
        assert!(waits.await);
        assert_eq!(side.times_met(Limit::Connections), 1);
        drop(first);
        assert!(second.await.is_some());
    }
}
