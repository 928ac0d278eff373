//! Carry HTTP/2 requests, gRPC among them, and tunnels: to each client connection belongs one upstream connection, so that
//! streams queue nowhere but where they would without us, and who resets or leaves is told apart.

mod answer;
mod body;
mod carry;
mod extended_connect;
mod fields;
mod keep_alive;
mod messages;
mod pump;
mod record;
mod stream;
mod upstream;

use std::io;
use std::pin::pin;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::captured::Captured;
use crate::life::Phase;
use stream::Stream;
use upstream::Upstream;

/// Serves the HTTP/2 connection `client`, of which `seen` has been read. Its upstream connection, or the reason why
/// there is none, may be there already.
pub(crate) async fn serve(
    captured: Rc<Captured>,
    client: TcpStream,
    seen: Vec<u8>,
    first: Option<io::Result<TcpStream>>,
) {
    if let Err(error) = accept(&captured, Stream::of_client(seen, client), first).await {
        tracing::debug!(peer = %captured.peer, %error, "an HTTP/2 connection broke");
    }
}

/// Accepts requests until the client has left.
async fn accept(
    captured: &Rc<Captured>,
    client: Stream,
    first: Option<io::Result<TcpStream>>,
) -> Result<(), h2::Error> {
    let limits = captured.live.limits;
    let share = captured.shared.windows.share(&limits);
    let heard = client.heard();
    let handshake = h2::server::Builder::new()
        .initial_window_size(share.stream())
        .initial_connection_window_size(share.connection())
        .max_send_buffer_size(share.sending())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes as u32)
        .enable_connect_protocol()
        .handshake(client);
    let mut connection = Box::pin(handshake).await?;
    let upstream = Upstream::new(Rc::clone(captured), first);
    let mut draining = pin!(captured.shared.life.reached_in(captured.direction, Phase::Draining));
    let mut drained = false;
    let mut gone = pin!(keep_alive::gone(connection.ping_pong(), heard, || true));
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(accepted) => {
                    let (request, answer) = accepted?;
                    tokio::task::spawn_local(carry::carry(Rc::clone(&upstream), request, answer));
                }
                None => return Ok(()),
            },
            () = &mut draining, if !drained => {
                // GOAWAY: new streams go elsewhere, those that are open end in their own time.
                drained = true;
                connection.graceful_shutdown();
            }
            () = &mut gone => {
                tracing::debug!(peer = %captured.peer, "an HTTP/2 client answers no ping");
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod peers;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnel_tests;
