//! gRPC's messages, counted as they pass.

use std::cell::Cell;
use std::sync::Arc;

use crate::telemetry::Counter;
use crate::telemetry::http::Messages;

/// Counts the messages of one stream.
pub(super) struct Counting {
    counters: Arc<Messages>,
    request: Cell<Frames>,
    response: Cell<Frames>,
}

impl Counting {
    pub(super) fn new(counters: Arc<Messages>) -> Counting {
        Counting { counters, request: Cell::default(), response: Cell::default() }
    }

    /// Bytes of the client came.
    pub(super) fn request(&self, bytes: &[u8]) {
        count(&self.request, &self.counters.requests, bytes);
    }

    /// Bytes of the server came.
    pub(super) fn response(&self, bytes: &[u8]) {
        count(&self.response, &self.counters.responses, bytes);
    }
}

fn count(frames: &Cell<Frames>, counter: &Counter, bytes: &[u8]) {
    let mut state = frames.get();
    match state.begun(bytes) {
        0 => {}
        begun => counter.add(begun),
    }
    frames.set(state);
}

/// Where one direction of a stream stands. A message is a byte of flags, its length in four bytes, and so many bytes
/// (gRPC over HTTP/2, `Length-Prefixed-Message`).
#[derive(Debug, Clone, Copy, Default)]
struct Frames {
    /// How many bytes of a message's head have come.
    head: u8,
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

impl Frames {
    /// How many messages begin in `bytes`.
    fn begun(&mut self, mut bytes: &[u8]) -> u64 {
        let mut count = 0;
        loop {
            let skipped = bytes.len().min(self.left as usize);
            self.left -= skipped as u32;
            let Some((byte, rest)) = bytes[skipped..].split_first() else { return count };
            bytes = rest;
            match self.head {
                0 => count += 1,
                _ => self.length = self.length << 8 | u32::from(*byte),
            }
            self.head += 1;
            if self.head == 5 {
                *self = Frames { left: self.length, ..Frames::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of these lengths, one after the other.
    fn messages(lengths: &[u32]) -> Vec<u8> {
        let message = |length: &u32| {
            let mut bytes = vec![1];
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.resize(5 + *length as usize, b'x');
            bytes
        };
        lengths.iter().flat_map(message).collect()
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = messages(&[0, 7, 70_000, 0, 0, 1, 256]);
        for piece in [1, 2, 4, 5, 6, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let count: u64 = bytes.chunks(piece).map(|piece| frames.begun(piece)).sum();
            assert_eq!((count, frames.left, frames.head), (7, 0, 0), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_message_of_the_greatest_length_is_one() {
        let mut frames = Frames::default();
        assert_eq!(frames.begun(&[0, 0xff, 0xff, 0xff, 0xff]), 1);
        assert_eq!(frames.begun(&[0; 100]), 0);
        assert_eq!(frames.left, u32::MAX - 100);
    }
}
