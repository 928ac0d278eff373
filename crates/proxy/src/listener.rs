//! Bind and accept.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::telemetry::Counter;

/// Connections that the kernel keeps for a worker that is busy; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds `port` on each of `addresses`, once for each of `workers`: the kernel spreads connections over them. One list
/// of listeners for each worker. With port 0 the kernel chooses one port, the same for all.
///
/// IPv6 is left out where the kernel does not have it, as long as another address binds.
///
/// # Errors
///
/// The first address that cannot be bound, with its name; a port that is in use is an error although workers share it.
pub(crate) fn bind(
    addresses: &[IpAddr],
    port: u16,
    workers: usize,
) -> Result<Vec<Vec<std::net::TcpListener>>, String> {
    let mut lists: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    let mut port = port;
    let mut missing = None;
    for address in addresses {
        let wanted = SocketAddr::new(*address, port);
        // A socket that does not share finds out whether somebody else has the port.
        match open(wanted, false) {
            Ok(probe) => port = bound(&probe).unwrap_or(port),
            Err(error) if address.is_ipv6() && absent(&error) => {
                missing = Some(describe(wanted, &error));
                continue;
            }
            Err(error) => return Err(describe(wanted, &error)),
        }
        let wanted = SocketAddr::new(*address, port);
        for list in &mut lists {
            let socket = open(wanted, true).map_err(|error| describe(wanted, &error))?;
            socket.listen(BACKLOG).map_err(|error| describe(wanted, &error))?;
            list.push(socket.into());
        }
    }
    match missing {
        Some(error) if lists.iter().all(Vec::is_empty) => Err(error),
        _ => Ok(lists),
    }
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of a predecessor in TIME_WAIT must not keep a restarted sidecar from its port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    // TPROXY delivers to transparent sockets only; without NET_ADMIN there is no TPROXY
    // either. After binding: before, it would let us bind addresses that are not ours.
    let _ = match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    Ok(socket)
}

fn bound(socket: &Socket) -> Option<u16> {
    socket.local_addr().ok()?.as_socket().map(|address| address.port())
}

/// IPv6 is not in the kernel, or it is off by sysctl.
fn absent(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(libc::EAFNOSUPPORT) || code == Some(libc::EADDRNOTAVAIL)
}

fn describe(address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another container of the pod listens there: give one of them another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; the pod has no such address: leave OUTRIGGER_BIND out for all that it has"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one"
        }
        _ => "",
    };
    format!("cannot listen on {address}: {error}{remedy}")
}

/// The next connection of `listener`. Errors are counted and waited out: without file descriptors an accept that is
/// tried again at once would burn a core, and the connections that could free some would never be served.
pub(crate) async fn accept(listener: &TcpListener, errors: &Counter) -> (TcpStream, SocketAddr) {
    let mut pause = Duration::from_millis(5);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // That one peer has gone; the next may be there already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                errors.add(1);
                tracing::warn!(%error, ?pause, "accept failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_and_strangers_do_not() {
        let lists = bind(&["127.0.0.1".parse().unwrap()], 0, 3).unwrap();
        let ports: Vec<u16> = lists.iter().map(|list| list[0].local_addr().unwrap().port()).collect();
        assert_eq!(ports, [ports[0]; 3]);
        let error = bind(&["127.0.0.1".parse().unwrap()], ports[0], 1).unwrap_err();
        assert!(error.contains(&format!("127.0.0.1:{}", ports[0])), "{error}");
        assert!(error.contains("in use"), "{error}");
    }

    #[test]
    fn an_address_that_is_not_ours_is_an_error_that_names_it() {
        let addresses = ["192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert!(bind(&addresses, 0, 1).unwrap_err().contains("192.0.2.1"));
    }

    #[test]
    fn ipv6_is_left_out_where_it_is_missing_and_something_else_binds() {
        // An IPv6 address that this machine does not have answers as a kernel without IPv6 does.
        let addresses = ["2001:db8::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(bind(&addresses, 0, 1).unwrap()[0].len(), 1);
        assert!(bind(&addresses[..1], 0, 1).unwrap_err().contains("2001:db8::1"));
    }
}
