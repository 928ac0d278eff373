//! Connections that are open before the first rule. Where nothing has tracked connections yet, the next packet
//! of an open one would look like the first of a new one, be turned to the proxy, and be answered with a
//! reset. So they are made known to connection tracking first (linux/sock_diag.h, nfnetlink_conntrack.h).

use std::net::{IpAddr, Ipv6Addr};

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SOCK_DIAG};

use crate::kernel_file::read_small;
use crate::netlink::{CREATE, DUMP, EXCL, Messages, Socket};
use crate::values::Family;

const SOCKETS_BY_FAMILY: u16 = 20;
const NEW_CONNECTION: u16 = 1 << 8;
const TCP: u8 = 6;
/// Established, and on the way to closing: states in which packets still pass.
const STATES: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// Confirmed, assured, and seen in both directions.
const STATUS: u32 = 8 | 4 | 2;
const ESTABLISHED: u8 = 3;
/// The window is not known, so it is not checked.
const LIBERAL: u8 = 8;
/// Seconds; the kernel's own for an established connection.
const TIMEOUT: u32 = 432_000;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
}

/// Whether this namespace has any TCP socket. The kernel's list of them is that of the whole machine, and
/// takes longer to go through than everything else here together; the count is the namespace's own.
fn any_socket() -> bool {
    let in_use = |file: &str| read_small(file).map_or(true, |content| counts_sockets(&content));
    in_use("/proc/self/net/sockstat") || in_use("/proc/self/net/sockstat6")
}

/// Whether a sockstat file, as `TCP: inuse 3 orphan 0 …`, counts any.
fn counts_sockets(content: &str) -> bool {
    let line = content
        .lines()
        .find_map(|line| line.strip_prefix("TCP: inuse ").or(line.strip_prefix("TCP6: inuse ")));
    line.and_then(|rest| rest.split(' ').next()).is_some_and(|count| count != "0")
}

/// Makes every open TCP connection of this namespace known to connection tracking.
pub(crate) fn keep() -> Result<(), Errno> {
    if !any_socket() {
        return Ok(());
    }
    let mut sockets = Socket::open(Some(SOCK_DIAG))?;
    let mut open = Vec::new();
    for family in Family::ALL {
        match sockets.dump(&question(family), read) {
            Ok(found) => open.extend(found),
            // This kernel has no such family.
            Err(Errno::NOENT | Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    let mut tracking = Socket::open(Some(NETFILTER))?;
    for ends in &open {
        match tracking.request(&announcement(ends)) {
            Ok(()) => {}
            Err(refusals) => match refusals.first().map(|refusal| refusal.errno) {
                Some(Errno::EXIST) | None => {}
                Some(errno) => return Err(errno),
            },
        }
    }
    Ok(())
}

fn question(family: Family) -> Messages {
    let mut header = vec![family.number(), TCP, 0, 0];
    header.extend_from_slice(&STATES.to_ne_bytes());
    // No particular socket.
    header.resize(56, 0);
    let mut message = Messages::default();
    message.begin(SOCKETS_BY_FAMILY, DUMP, &header);
    message
}

fn read(body: &[u8]) -> Option<Ends> {
    let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let address = |at: usize| {
        let bytes: &[u8; 16] = body.get(at..)?.first_chunk()?;
        let v6 = Ipv6Addr::from(*bytes);
        Some(match *body.first()? {
            2 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            // A socket for both families, in use for IPv4.
            _ => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        })
    };
    Some(Ends { local: (address(8)?, port(4)?), remote: (address(24)?, port(6)?) })
}

fn announcement(ends: &Ends) -> Messages {
    let mut message = Messages::default();
    message.begin(NEW_CONNECTION, CREATE | EXCL, &[Family::of(ends.local.0).number(), 0, 0, 0]);
    tuple(&mut message, 1, ends.local, ends.remote);
    tuple(&mut message, 2, ends.remote, ends.local);
    message.number(3, STATUS).number(7, TIMEOUT);
    message.nested(4, |to| {
        to.nested(1, |to| {
            to.attribute(1, &[ESTABLISHED]);
            to.attribute(4, &[LIBERAL, LIBERAL]).attribute(5, &[LIBERAL, LIBERAL]);
        });
    });
    message.acknowledge();
    message
}

fn tuple(message: &mut Messages, kind: u16, from: (IpAddr, u16), to: (IpAddr, u16)) {
    message.nested(kind, |tuple| {
        tuple.nested(1, |addresses| match (from.0, to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                addresses.attribute(1, &from.octets()).attribute(2, &to.octets());
            }
            (from, to) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                addresses.attribute(3, &octets(from)).attribute(4, &octets(to));
            }
        });
        tuple.nested(2, |protocol| {
            protocol.attribute(1, &[TCP]);
            protocol.attribute(2, &from.1.to_be_bytes()).attribute(3, &to.1.to_be_bytes());
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_sockets() {
        assert!(!counts_sockets(
            "sockets: used 3\nTCP: inuse 0 orphan 0 tw 0 alloc 8 mem 0\nUDP: inuse 2 mem 0\n"
        ));
        assert!(counts_sockets("sockets: used 3\nTCP: inuse 12 orphan 0\n"));
        assert!(counts_sockets("TCP6: inuse 1\nUDP6: inuse 0\n"));
        assert!(!counts_sockets("TCP6: inuse 0\n"));
    }

    #[test]
    fn a_socket_for_both_families_in_use_for_ipv4() {
        let mut body = vec![10, 1, 0, 0, 0x1f, 0x90, 0x9c, 0x40];
        for last in [2, 1] {
            body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, last]);
        }
        let ends = read(&body).unwrap();
        assert_eq!(ends.local, (IpAddr::from([10, 9, 0, 2]), 8080));
        assert_eq!(ends.remote, (IpAddr::from([10, 9, 0, 1]), 40_000));
        assert_eq!(read(&body[..30]), None);
    }
}
