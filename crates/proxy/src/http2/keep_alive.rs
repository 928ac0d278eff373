//! A peer that has vanished: after some silence it is asked for a sign of life.

use std::future::pending;
use std::time::Duration;

use h2::{Ping, PingPong};

use super::stream::Heard;

/// A peer that says nothing for so long is pinged. Servers of gRPC end the connection of a client that asks more often than
/// every five minutes while no data flows, though a stream is open.
const INTERVAL: Duration = Duration::from_secs(360);
/// A peer that does not answer a ping in this time has gone.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until the peer has gone. While it is not `busy`, it is left in peace: without a stream, servers of gRPC
/// suffer even fewer.
pub(super) async fn gone(ping: Option<PingPong>, heard: Heard, busy: impl Fn() -> bool) {
    let Some(mut ping) = ping else { return pending().await };
    loop {
        tokio::time::sleep_until(heard.get() + INTERVAL).await;
        if heard.get().elapsed() < INTERVAL {
            continue;
        }
        if !busy() {
            tokio::time::sleep(INTERVAL).await;
            continue;
        }
        match tokio::time::timeout(TIMEOUT, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended, and says so itself.
            Ok(Err(_)) => return pending().await,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    /// Seconds until a peer that answers nothing is said to have gone, of an hour. It was heard 100 seconds ago.
    async fn seconds(busy: bool) -> Option<u64> {
        tokio::time::pause();
        let (ours, mut theirs) = duplex(1 << 16);
        let (_sender, mut connection) = h2::client::handshake(ours).await.unwrap();
        let ping = connection.ping_pong();
        let heard = Rc::new(Cell::new(Instant::now()));
        tokio::time::advance(Duration::from_secs(100)).await;
        let start = Instant::now();
        tokio::select! {
            () = async { while theirs.read_u8().await.is_ok() {} } => panic!("the peer has ended"),
            ended = connection => panic!("{ended:?}"),
            () = gone(ping, heard, || busy) => Some(start.elapsed().as_secs()),
            () = tokio::time::sleep(Duration::from_secs(3600)) => None,
        }
    }

    #[tokio::test]
    async fn a_peer_that_answers_no_ping_has_gone() {
        assert_eq!(seconds(true).await, Some(360 - 100 + 20));
    }

    #[tokio::test]
    async fn without_a_stream_a_peer_is_not_asked() {
        assert_eq!(seconds(false).await, None);
    }
}
