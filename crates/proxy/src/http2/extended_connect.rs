//! Whether an upstream takes extended CONNECT (RFC 8441). It says so in its first frame, and h2 does not say when that
//! has come; so the frame is read on its way.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

/// SETTINGS_ENABLE_CONNECT_PROTOCOL.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
/// Length of a frame's head.
const HEAD: usize = 9;
/// Settings that are looked at; there are a dozen.
const MOST: usize = HEAD + 6 * 100;

/// What an upstream says about extended CONNECT: nothing yet, yes or no.
#[derive(Debug, Clone)]
pub(super) struct Extended(Rc<watch::Receiver<Option<bool>>>);

impl Extended {
    /// Waits until the upstream has said; it has not if it says nothing within `limit`.
    pub(super) async fn wait(&self, limit: Duration) -> bool {
        let mut says = watch::Receiver::clone(&self.0);
        let said = tokio::time::timeout(limit, says.wait_for(Option::is_some)).await;
        matches!(said, Ok(Ok(said)) if *said == Some(true))
    }
}

/// What has come of an upstream's first frame, and who wants to know.
pub(super) struct First {
    seen: Vec<u8>,
    say: watch::Sender<Option<bool>>,
}

impl First {
    pub(super) fn new() -> (First, Extended) {
        let (say, extended) = watch::channel(None);
        (First { seen: Vec::new(), say }, Extended(Rc::new(extended)))
    }

    /// Looks at what `came`; true when the frame is whole, and nothing more has to be looked at.
    pub(super) fn look(&mut self, came: &[u8]) -> bool {
        self.seen.extend_from_slice(&came[..came.len().min(MOST - self.seen.len())]);
        let extended = extended(&self.seen);
        if extended.is_some() {
            self.say.send_replace(extended);
        }
        extended.is_some()
    }
}

/// Whether the frame at the beginning of `bytes` allows extended CONNECT; `None` as long as it is not whole.
fn extended(bytes: &[u8]) -> Option<bool> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    // What is no SETTINGS frame is an error that h2 will see.
    if head[3] != 4 || HEAD + length > MOST {
        return Some(false);
    }
    let settings = rest.get(..length)?.chunks_exact(6);
    let mut values = settings
        .filter(|setting| u16::from_be_bytes([setting[0], setting[1]]) == ENABLE_CONNECT_PROTOCOL)
        .map(|setting| setting[2..] == [0, 0, 0, 1]);
    Some(values.next_back().unwrap_or(false))
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
