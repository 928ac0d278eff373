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
