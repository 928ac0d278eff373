//! Memory for a run of 3 ms: pieces of a block of fixed size, each of the next power of two, and given out again when
//! they are free. Nothing is looked for and nothing is joined, which with musl's allocator is half of all instructions of
//! a run; and pages that were touched before, each of which costs as much as a thousand instructions, are touched again.
//! What does not fit comes from the C library.

// An allocator is made of pointers.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the block. What is not handed out is never touched.
const SIZE: usize = 256 * 1024;
/// Bytes of the smallest piece: a pointer has room in it, and any usual alignment is kept.
const SMALLEST: usize = 16;
/// Powers of two from the smallest piece to the largest.
const CLASSES: usize = 12;

#[global_allocator]
static BLOCK: Block = Block {
    bytes: Bytes(UnsafeCell::new([0; SIZE])),
    state: UnsafeCell::new(State { used: 0, free: [null_mut(); CLASSES] }),
    locked: AtomicBool::new(false),
};

/// From the start of a page, so that no more pages are touched than need be.
#[repr(align(4096))]
struct Bytes(UnsafeCell<[u8; SIZE]>);

struct Block {
    bytes: Bytes,
    state: UnsafeCell<State>,
    locked: AtomicBool,
}

struct State {
    /// How many bytes at the front have been handed out.
    used: usize,
    /// The first free piece of each class; each holds the pointer to the next.
    free: [*mut u8; CLASSES],
}

// SAFETY: of `bytes` nothing but the address is used without the lock, and `state` is only used with it.
unsafe impl Sync for Block {}

/// Which power of two a piece has: `None` if it is none of the block's.
fn class(layout: Layout) -> Option<usize> {
    let bits = layout.size().max(SMALLEST).next_power_of_two().trailing_zeros() - SMALLEST.trailing_zeros();
    Some(bits as usize).filter(|class| *class < CLASSES && layout.align() <= SMALLEST)
}

impl Block {
    /// Runs `with` alone. The self-test has threads; nobody else has, so nobody waits.
    fn locked<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: whoever has set `locked` is alone, and `with` does not call back.
        let result = with(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    fn holds(&self, piece: *mut u8) -> bool {
        piece.addr().wrapping_sub(self.bytes.0.get().addr()) < SIZE
    }

    fn piece(&self, class: usize) -> Option<*mut u8> {
        self.locked(|state| {
            let free = state.free[class];
            if !free.is_null() {
                // SAFETY: a free piece holds the pointer to the next, and is long and aligned enough for it.
                state.free[class] = unsafe { free.cast::<*mut u8>().read() };
                return Some(free);
            }
            let (start, end) = (state.used, state.used + (SMALLEST << class));
            (end <= SIZE).then(|| {
                state.used = end;
                // SAFETY: `end` is within the block.
                unsafe { self.bytes.0.get().cast::<u8>().add(start) }
            })
        })
    }
}

// SAFETY: pieces lie in the block or are the C library's. No two overlap: one comes from the front, which moves past it,
// or was given back. All begin at a multiple of the smallest piece.
unsafe impl GlobalAlloc for Block {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout).and_then(|class| self.piece(class)) {
            Some(piece) => piece,
            // SAFETY: the caller's promises are the same.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match class(layout) {
            Some(class) if self.holds(piece) => self.locked(|state| {
                // SAFETY: the piece is nobody's now, and has room for a pointer.
                unsafe { piece.cast::<*mut u8>().write(state.free[class]) };
                state.free[class] = piece;
            }),
            // SAFETY: what is not of the block is the C library's.
            _ => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.holds(piece) {
            // SAFETY: what is not of the block is the C library's.
            return unsafe { System.realloc(piece, layout, size) };
        }
        // SAFETY: the caller promises that `size` makes a layout with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if class(wanted) == class(layout) {
            return piece;
        }
        // SAFETY: the new piece is another one, and both have this many bytes.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(piece, size.min(layout.size()));
                self.dealloc(piece, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of many lengths, each filled with a byte of its own, grown, shrunk and given back in an order that is no
    /// order: more of them at once than the block has room for.
    fn shuffle(seed: u32) -> usize {
        let (mut pieces, mut state, mut outside) = (Vec::<Vec<u8>>::new(), seed, 0);
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for step in 0..4000 {
            let exponent = random(17);
            let length = 1 + random(1 << exponent);
            let at = random(pieces.len() + 1);
            match (random(4), pieces.get_mut(at)) {
                (0, Some(_)) => drop(pieces.swap_remove(at)),
                (1, Some(piece)) => {
                    piece.resize(length, piece[0]);
                    piece.shrink_to_fit();
                    outside += usize::from(!BLOCK.holds(piece.as_mut_ptr()));
                }
                _ => pieces.push(vec![(step % 251) as u8; length]),
            }
        }
        for piece in &pieces {
            assert!(piece.iter().all(|byte| *byte == piece[0]), "a piece holds what was put into another");
        }
        outside
    }

    #[test]
    fn pieces_do_not_overlap_and_what_does_not_fit_is_found_elsewhere() {
        assert!(shuffle(1) > 0);
    }

    #[test]
    fn threads_share_it() {
        std::thread::scope(|scope| (0..4).for_each(|seed| _ = scope.spawn(move || shuffle(seed))));
    }

    #[test]
    fn a_piece_is_the_next_power_of_two() {
        let class = |size, align| class(Layout::from_size_align(size, align).unwrap());
        for (size, wanted) in [(1, 0), (16, 0), (17, 1), (4096, 8), (32_768, 11)] {
            assert_eq!(class(size, 8), Some(wanted), "{size} bytes");
        }
        assert_eq!((class(32_769, 8), class(64, 32)), (None, None));
    }
}
