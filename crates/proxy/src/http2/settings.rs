//! Whether an upstream takes extended CONNECT (RFC 8441). It says so in its first frame, and hyper does not say when that
//! has come; so the frame is read on its way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// SETTINGS_ENABLE_CONNECT_PROTOCOL.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
/// Length of a frame's head.
const HEAD: usize = 9;
/// Settings that are looked at; there are a dozen.
const MOST: usize = HEAD + 6 * 100;

/// What an upstream says about extended CONNECT: nothing yet, yes or no.
#[derive(Debug, Clone)]
pub(super) struct Extended(watch::Receiver<Option<bool>>);

impl Extended {
    /// Waits until the upstream has said; it has not if it says nothing within `limit`.
    pub(super) async fn wait(&mut self, limit: Duration) -> bool {
        let said = tokio::time::timeout(limit, self.0.wait_for(Option::is_some)).await;
        matches!(said, Ok(Ok(said)) if *said == Some(true))
    }
}

/// An upstream's stream, whose first frame is looked at.
pub(super) struct Watched {
    stream: TcpStream,
    /// What has come of the first frame, and who wants to know; `None` when it is whole.
    first: Option<(Vec<u8>, watch::Sender<Option<bool>>)>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> (Watched, Extended) {
        let (say, extended) = watch::channel(None);
        (Watched { stream, first: Some((Vec::new(), say)) }, Extended(extended))
    }

    fn look(&mut self, came: &[u8]) {
        let Some((seen, say)) = &mut self.first else { return };
        seen.extend_from_slice(&came[..came.len().min(MOST - seen.len())]);
        if let Some(extended) = extended(seen) {
            say.send_replace(Some(extended));
            self.first = None;
        }
    }
}

/// Whether the frame at the beginning of `bytes` allows extended CONNECT; `None` as long as it is not whole.
fn extended(bytes: &[u8]) -> Option<bool> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    // What is no SETTINGS frame is an error that hyper will see.
    if head[3] != 4 || HEAD + length > MOST {
        return Some(false);
    }
    let settings = rest.get(..length)?.chunks_exact(6);
    let mut values = settings
        .filter(|setting| u16::from_be_bytes([setting[0], setting[1]]) == ENABLE_CONNECT_PROTOCOL)
        .map(|setting| setting[2..] == [0, 0, 0, 1]);
    Some(values.next_back().unwrap_or(false))
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.first.is_some() {
            self.look(&buffer.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_says_it_once_it_is_whole() {
        let frame = |settings: &[[u8; 6]]| {
            let mut bytes = vec![0, 0, 6 * settings.len() as u8, 4, 0, 0, 0, 0, 0];
            bytes.extend(settings.iter().flatten());
            bytes
        };
        let (streams, yes, no) = ([0, 3, 0, 0, 1, 0], [0, 8, 0, 0, 0, 1], [0, 8, 0, 0, 0, 0]);
        for (settings, says) in [
            (&[][..], false),
            (&[streams], false),
            (&[yes], true),
            (&[streams, yes, streams], true),
            (&[no], false),
            (&[yes, no], false),
        ] {
            let mut bytes = frame(settings);
            for end in 0..bytes.len() {
                assert_eq!(extended(&bytes[..end]), None, "{settings:?} to {end}");
            }
            assert_eq!(extended(&bytes), Some(says), "{settings:?}");
            bytes.push(0);
            assert_eq!(extended(&bytes), Some(says), "{settings:?} and more");
        }
        assert_eq!(extended(b"HTTP/1.1 400 Bad Request"), Some(false));
    }
}
