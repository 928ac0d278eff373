//! Connect onwards.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use outrigger_contract as contract;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::destination::inbound_source;
use crate::system;
use crate::telemetry::Flag;

/// The address that a connection onwards comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Whichever the kernel chooses.
    Any,
    /// 127.0.0.6 or ::6, which capture lets through: from any other address, a connection to the application would be
    /// captured again. The application must listen on the pod's address or on all.
    Inbound,
    /// The client's own, under TPROXY: the application sees who asks. Capture knows these packets by their mark.
    Client(IpAddr),
}

/// Opens a connection to `destination`, within `limit`.
///
/// # Errors
///
/// connect(2)'s; `TimedOut` after `limit`; `AddrNotAvailable` where ::6 is not an address of `lo` (`outrigger-init` adds
/// it); `PermissionDenied` without NET_ADMIN, which [`Source::Client`] needs.
pub(crate) async fn connect(
    source: Source,
    destination: SocketAddr,
    limit: Duration,
) -> io::Result<TcpStream> {
    let socket = match destination {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let from = match source {
        Source::Any => None,
        Source::Inbound => Some(inbound_source(destination.ip())),
        Source::Client(client) => {
            let socket = SockRef::from(&socket);
            match destination {
                SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
            socket.set_mark(contract::TPROXY_MARK)?;
            Some(client)
        }
    };
    if let Some(from) = from {
        system::choose_port_on_connect(&socket)?;
        socket.bind((from, 0).into())?;
    }
    let stream = tokio::time::timeout(limit, socket.connect(destination)).await??;
    tune(&stream);
    Ok(stream)
}

/// How a connection ends that could not be opened onwards.
pub(crate) fn flag(error: &io::Error) -> Flag {
    match error.raw_os_error() {
        // Too many open files, no free port, no memory: ours, not the upstream's.
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM) => {
            Flag::Overflow
        }
        _ => Flag::UpstreamFailed,
    }
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
