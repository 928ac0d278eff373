//! Where a captured connection was going, and whether carrying it there would be a loop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use outrigger_contract as contract;

use crate::ports::Ports;

/// Which way a captured connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// To the application in this pod, by way of [`contract::INBOUND_PORT`].
    Inbound,
    /// From the application in this pod, by way of [`contract::OUTBOUND_PORT`].
    Outbound,
}

impl Direction {
    /// The value of the metric label `reporter`.
    pub(crate) fn reporter(self) -> &'static str {
        match self {
            Direction::Inbound => "destination",
            Direction::Outbound => "source",
        }
    }
}

/// Why a connection is closed instead of carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    /// Somebody connected to the capture port itself; nothing was captured.
    Direct,
    /// The destination is one of the sidecar's own listeners.
    OwnListener,
    /// The connection comes from the sidecar's own inbound side: capture has no exception for it.
    OwnSource,
}

impl Loop {
    /// The value of the metric label `reason`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Loop::Direct => "direct",
            Loop::OwnListener => "own_listener",
            Loop::OwnSource => "own_source",
        }
    }
}

/// The destination that a connection had before capture.
///
/// REDIRECT leaves it with the kernel's connection tracking (`SO_ORIGINAL_DST`, which exists per family); with TPROXY
/// it is the accepted socket's local address. Both occur in one pod, so the first is asked first.
///
/// # Errors
///
/// The socket is gone, so that it has no local address.
pub(crate) fn original(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let local = socket_address(rustix::net::getsockname(socket)?)?;
    let tracked = match local {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_original_dst(socket).map(SocketAddr::V4),
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_original_dst(socket).map(SocketAddr::V6),
    };
    Ok(tracked.unwrap_or(local))
}

fn socket_address(address: rustix::net::SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(address).map_err(|_| io::Error::other("not an IP socket"))
}

/// The address that connections to the application come from; capture lets it through.
pub(crate) fn inbound_source(destination: IpAddr) -> IpAddr {
    match destination {
        IpAddr::V4(_) => contract::INBOUND_SOURCE_V4.into(),
        IpAddr::V6(_) => contract::INBOUND_SOURCE_V6.into(),
    }
}

/// Says whether carrying a connection from `peer` to `destination` would be a loop. `listener` is the port that
/// accepted it.
pub(crate) fn is_loop(
    direction: Direction,
    peer: IpAddr,
    destination: SocketAddr,
    listener: u16,
    ports: &Ports,
) -> Option<Loop> {
    if destination.port() == listener && is_here(destination.ip()) {
        return Some(Loop::Direct);
    }
    if peer.to_canonical() == inbound_source(peer.to_canonical()) {
        return Some(Loop::OwnSource);
    }
    // An inbound destination is this pod's by definition. Outbound, another pod's 15090 is a fair destination.
    let own = ports.own(destination.port());
    (own && (direction == Direction::Inbound || is_here(destination.ip()))).then_some(Loop::OwnListener)
}

/// Whether `address` is one of this pod's. The kernel answers: it would send from the address itself.
fn is_here(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket sends nothing.
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((address, 9)).and_then(|()| socket.local_addr()))
        .is_ok_and(|local| local.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn check(direction: Direction, peer: IpAddr, destination: &str) -> Option<Loop> {
        let ports = Ports::default();
        let listener = match direction {
            Direction::Inbound => ports.inbound,
            Direction::Outbound => ports.outbound,
        };
        is_loop(direction, peer, destination.parse().unwrap(), listener, &ports)
    }

    #[test]
    fn a_direct_connection_is_a_loop() {
        assert_eq!(check(Direction::Outbound, PEER, "127.0.0.1:15001"), Some(Loop::Direct));
        assert_eq!(check(Direction::Inbound, PEER, "[::1]:15006"), Some(Loop::Direct));
    }

    #[test]
    fn own_listeners_are_no_destination_in_this_pod() {
        for port in [15000, 15001, 15020, 15021, 15053, 15090] {
            assert_eq!(
                check(Direction::Inbound, PEER, &format!("192.0.2.1:{port}")),
                Some(Loop::OwnListener)
            );
            assert_eq!(
                check(Direction::Outbound, PEER, &format!("127.0.0.1:{port}")),
                if port == 15001 { Some(Loop::Direct) } else { Some(Loop::OwnListener) }
            );
        }
    }

    #[test]
    fn another_pods_listeners_are_a_fair_destination() {
        assert_eq!(check(Direction::Outbound, PEER, "192.0.2.1:15090"), None);
        assert_eq!(check(Direction::Outbound, PEER, "192.0.2.1:15001"), None);
    }

    #[test]
    fn what_the_inbound_side_sent_must_not_come_back() {
        let own = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
        assert_eq!(check(Direction::Inbound, own, "192.0.2.1:8080"), Some(Loop::OwnSource));
        assert_eq!(check(Direction::Outbound, own, "192.0.2.1:8080"), Some(Loop::OwnSource));
    }

    #[test]
    fn ordinary_traffic_is_no_loop() {
        assert_eq!(check(Direction::Inbound, PEER, "192.0.2.1:8080"), None);
        assert_eq!(check(Direction::Outbound, PEER, "192.0.2.1:443"), None);
    }
}
