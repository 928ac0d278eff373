//! A connection to a server, and one exchange on it.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Unconnected {
    /// The host has no address, or nobody could be asked for it.
    Resolve,
    /// No address took the connection; the reason of the last.
    Connect(io::Error),
}

/// A connection, and when its server's address was known.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) resolved: Instant,
}

/// Connects to the first address of `host` that takes the connection.
pub(crate) async fn connect(host: &str, port: u16) -> Result<Connected, Unconnected> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|_| Unconnected::Resolve)?;
    let resolved = Instant::now();
    let mut last = Unconnected::Resolve;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(Connected { stream, address, resolved }),
            Err(error) => last = Unconnected::Connect(error),
        }
    }
    Err(last)
}

/// Sends a request, and waits for the head of the answer. The request's target and `host` are sent as they are.
pub(crate) async fn exchange(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it is what goes wrong with the answer.
    tokio::spawn(connection);
    sender.send_request(request).await
}
