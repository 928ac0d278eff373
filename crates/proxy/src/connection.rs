//! One captured connection, from accepting it to closing it.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::destination::{self, Direction};
use crate::telemetry::Flag;
use crate::worker::Worker;
use crate::{tcp, upstream};

/// Serves the captured connection `stream` from `peer`.
pub async fn serve(worker: Rc<Worker>, direction: Direction, stream: TcpStream, peer: SocketAddr) {
    let side = worker.shard.side(direction);
    let Ok(original) = destination::original(&stream) else { return };
    let listener = match direction {
        Direction::Inbound => worker.ports.inbound,
        Direction::Outbound => worker.ports.outbound,
    };
    if let Some(reason) = destination::is_loop(direction, peer.ip(), original, listener, &worker.ports) {
        side.refuse(reason);
        tracing::debug!(?direction, %peer, %original, reason = reason.reason(), "refused a connection");
        return;
    }
    side.opened.add(1);
    let flag = opened(&worker, direction, stream, peer, original).await;
    side.close(flag);
}

async fn opened(
    worker: &Worker,
    direction: Direction,
    stream: TcpStream,
    peer: SocketAddr,
    original: SocketAddr,
) -> Flag {
    upstream::tune(&stream);
    match upstream::connect(direction, original, worker.limits.connect).await {
        Ok(upstream) => {
            let side = worker.shard.side(direction);
            tcp::carry(stream, upstream, Vec::new(), side, worker.limits.idle).await
        }
        Err(error) => {
            tracing::debug!(?direction, %peer, %original, %error, "cannot connect upstream");
            // A reset is what the client would have seen, had it been refused itself.
            tcp::reset(&stream);
            Flag::UpstreamFailed
        }
    }
}
