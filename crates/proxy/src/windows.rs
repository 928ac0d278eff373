//! How far senders may be ahead of their readers. What all connections of a worker may have to keep for that is bounded
//! together: each gets its share of what is left, and gives it back.

use std::cell::Cell;
use std::rc::Rc;

use crate::settings::Limits;

/// The smallest share in bytes: what a connection has by RFC 9113, section 6.9.2, before anything is said.
const LEAST: i64 = 65_535;
/// A share is this part of what is left.
const PART: i64 = 8;

/// Bytes that are left to a worker. Below 0, the smallest shares are more than there was.
#[derive(Debug)]
pub(crate) struct Windows(Cell<i64>);

impl Windows {
    pub(crate) fn new(bytes: u64) -> Windows {
        Windows(Cell::new(i64::try_from(bytes).unwrap_or(i64::MAX)))
    }

    /// A connection's share.
    pub(crate) fn share(self: &Rc<Windows>, limits: &Limits) -> Share {
        let connection = (self.0.get() / PART).clamp(LEAST, limits.connection_window.into());
        self.0.set(self.0.get() - connection);
        Share { windows: Rc::clone(self), connection, most: limits.stream_window }
    }
}

/// A connection's share, until it is dropped.
pub(super) struct Share {
    windows: Rc<Windows>,
    connection: i64,
    most: u32,
}

impl Share {
    /// The window of the connection in bytes.
    pub(super) fn connection(&self) -> u32 {
        self.connection as u32
    }

    /// The window of each of its streams in bytes.
    pub(super) fn stream(&self) -> u32 {
        self.connection().min(self.most)
    }

    /// What is kept of each stream for a peer that takes it slower than its window allows, in bytes: at least a frame.
    pub(super) fn sending(&self) -> usize {
        (self.connection as usize / 16).clamp(16 * 1024, 256 * 1024)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.windows.0.set(self.windows.0.get() + self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_to_no_more_than_there_is_and_are_given_back() {
        let limits = Limits::default();
        let windows = Rc::new(Windows::new(64 << 20));
        let few: Vec<Share> = (0..4).map(|_| windows.share(&limits)).collect();
        assert!(few.iter().all(|share| (share.connection(), share.stream()) == (4 << 20, 1 << 20)));
        let many: Vec<Share> = (0..100).map(|_| windows.share(&limits)).collect();
        assert!(many.is_sorted_by(|one, next| one.connection() >= next.connection()));
        let least = many.last().unwrap();
        assert_eq!((least.connection(), least.stream(), least.sending()), (65_535, 65_535, 16_384));
        assert_eq!(few[0].sending(), 256 * 1024);
        let sum: u64 = few.iter().chain(&many).map(|share| u64::from(share.connection())).sum();
        assert!(sum <= (64 << 20) + 100 * 65_535, "{sum}");
        drop((few, many));
        assert_eq!(windows.0.get(), 64 << 20);
        assert_eq!(Rc::new(Windows::new(0)).share(&limits).connection(), 65_535);
    }
}
