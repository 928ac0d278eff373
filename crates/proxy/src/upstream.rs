//! Connect onwards.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::destination::{Direction, inbound_source};
use crate::system;

/// Opens a connection to `destination`, within `limit`.
///
/// Towards the application it comes from 127.0.0.6 or ::6, which capture lets through: from any other address
/// the connection would be captured again. The application must listen on the pod's address or on all.
///
/// # Errors
///
/// connect(2)'s, `TimedOut` after `limit`, or `AddrNotAvailable` where ::6 is not an address of `lo` (`outrigger-init`
/// adds it).
pub async fn connect(
    direction: Direction,
    destination: SocketAddr,
    limit: Duration,
) -> io::Result<TcpStream> {
    let socket = match destination {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if direction == Direction::Inbound {
        system::choose_port_on_connect(&socket)?;
        socket.bind((inbound_source(destination.ip()), 0).into())?;
    }
    let stream = tokio::time::timeout(limit, socket.connect(destination)).await??;
    tune(&stream);
    Ok(stream)
}

/// Sends small messages at once, and notices a peer that vanished: the first probe after 3 minutes of silence, as a
/// long-lived idle connection costs little and NAT tables forget after 5 minutes at the earliest.
pub(crate) fn tune(stream: &TcpStream) {
    // Both fail only on a socket that is gone already; the next read tells.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(180))
        .with_interval(Duration::from_secs(15))
        .with_retries(6);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
