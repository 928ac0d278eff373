//! Accepts connections: not more than may be, patiently when the system has no more files, until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::connection::{Server, draining};
use super::{Limits, Phase};
use crate::certificates::Served;
use crate::telemetry::Metrics;

/// Connections that the kernel keeps for us until we accept them.
const BACKLOG: u32 = 1024;
/// Waits after an error of accept(2), doubled from the first to the last.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// A port, and how it is served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    server: Server,
    metrics: Arc<Metrics>,
}

/// Listens on an address.
///
/// # Errors
/// As listen(2), with the address and what to do about it.
pub fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "end what listens there (ss -ltnp 'sport = :{}' names it), or choose another address",
                    address.port()
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; ip address lists its own".to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one".to_owned()
            }
            _ => "choose another address".to_owned(),
        };
        format!("cannot listen on {address}: {error}; {remedy}")
    })
}

impl Listener {
    /// Serves `router` over TLS, with the configuration that `tls` holds when a connection comes.
    pub fn tls(
        socket: TcpListener,
        tls: watch::Receiver<Served>,
        router: Router,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { socket, server: Server::new(Some(tls), router, limits, metrics.clone()), metrics }
    }

    /// Serves `router` over plain HTTP.
    pub fn plain(socket: TcpListener, router: Router, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { socket, server: Server::new(None, router, limits, metrics.clone()), metrics }
    }

    /// Serves until `phase` is [`Phase::Draining`], and then until the last connection has closed, which may
    /// be never: the caller has a deadline.
    pub async fn serve(self, mut phase: watch::Receiver<Phase>) {
        let Self { socket, server, metrics } = self;
        let most = server.limits().connections;
        let room = Arc::new(Semaphore::new(most));
        let mut back_off = BACK_OFF[0];
        loop {
            let accepted = tokio::select! {
                () = draining(&mut phase) => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    back_off = BACK_OFF[0];
                    match room.clone().try_acquire_owned() {
                        Ok(place) => {
                            let serving = server.clone().connection(stream, peer, phase.clone());
                            tokio::spawn(async move {
                                serving.await;
                                drop(place);
                            });
                        }
                        Err(_) => turn_away(stream, peer, &metrics),
                    }
                }
                Err(error) if of_the_connection(&error) => {
                    metrics.accept_errors.inc();
                }
                Err(error) => {
                    metrics.accept_errors.inc();
                    tracing::error!(%error, wait = ?back_off, "cannot accept connections");
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF[1]);
                }
            }
        }
        drop(socket);
        let all = u32::try_from(most).unwrap_or(u32::MAX);
        let _ = room.acquire_many(all).await;
    }
}

fn turn_away(stream: TcpStream, peer: SocketAddr, metrics: &Metrics) {
    drop(stream);
    metrics.rejected_connections.inc("too_many");
    tracing::debug!(%peer, "closed at once: too many connections");
}

/// Errors that concern one connection, which is gone; the next may do better.
fn of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
