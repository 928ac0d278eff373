//! Kernel pipes, through which bytes go from one socket to another without being copied to this process (splice(2)).
//!
//! A pipe costs two descriptors and a move through it one more system call than a read and a write, so a direction of a
//! connection borrows one only while bytes come in bulk. Each worker keeps a few and lends them to whoever is busy.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Most bytes that one pipe holds, and so the most that a slow reader costs.
const ROOM: usize = 256 * 1024;
/// Most pipes of one worker. With these, kernel memory for them ends at 16 MiB a worker; whoever gets none copies.
pub(crate) const MOST: usize = 64;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { idle: Vec::new(), lent: 0, most: MOST }) };
}

struct Pool {
    idle: Vec<(OwnedFd, OwnedFd)>,
    lent: usize,
    most: usize,
}

/// Lets this worker have `most` pipes, and not [`MOST`].
pub(crate) fn allow(most: usize) {
    POOL.with_borrow_mut(|pool| pool.most = most);
}

/// A pipe on loan, with what is in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Both ends, for reading and for writing; none once they are given back.
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// Borrows a pipe of this worker's. `None` if all are lent, or there are no descriptors for another.
    pub(crate) fn borrow() -> Option<Pipe> {
        POOL.with_borrow_mut(|pool| {
            if pool.lent >= pool.most {
                return None;
            }
            let ends = pool.idle.pop().or_else(make)?;
            pool.lent += 1;
            Some(Pipe { ends: Some(ends), held: 0 })
        })
    }

    /// How many bytes are in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves what `from` has, as far as there is room, into the empty pipe. 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if `from` has nothing, or its error.
    pub(crate) fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let Some((_, write)) = &self.ends else { return Ok(0) };
        let moved = splice(from, None, write, None, ROOM, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves to `to` what is in the pipe, as far as it takes it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if `to` takes nothing, or its error.
    pub(crate) fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let Some((read, _)) = &self.ends else { return Ok(0) };
        let moved = splice(read, None, to, None, self.held, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.held -= moved;
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // One thread's locals are gone when the thread ends; so is the need to give anything back.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.lent -= 1;
            // What somebody else's bytes are in is of no use.
            if self.held == 0 {
                pool.idle.extend(self.ends.take());
            }
        });
    }
}

fn make() -> Option<(OwnedFd, OwnedFd)> {
    let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    // Beyond the user's share of memory for pipes (pipe(7)) it stays as small as it is, and works.
    let _ = fcntl_setpipe_size(&ends.1, ROOM);
    Some(ends)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::system::tests::pair;

    #[test]
    fn what_goes_in_comes_out() {
        let (mut client, downstream) = pair();
        let (upstream, mut server) = pair();
        downstream.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::borrow().unwrap();
        assert_eq!(pipe.fill(&downstream).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"hello").unwrap();
        downstream.set_nonblocking(false).unwrap();
        assert_eq!((pipe.fill(&downstream).unwrap(), pipe.held()), (5, 5));
        assert_eq!((pipe.drain(&upstream).unwrap(), pipe.held()), (5, 0));
        let mut said = [0; 5];
        server.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
        drop(client);
        assert_eq!(pipe.fill(&downstream).unwrap(), 0);
    }

    #[test]
    fn pipes_are_lent_again_unless_something_is_in_them_and_there_are_only_so_many() {
        let idle = || POOL.with_borrow(|pool| (pool.idle.len(), pool.lent));
        let pipes: Vec<Pipe> = std::iter::from_fn(Pipe::borrow).collect();
        assert_eq!((pipes.len(), idle()), (MOST, (0, MOST)));
        drop(pipes);
        assert_eq!(idle(), (MOST, 0));
        let (mut client, downstream) = pair();
        client.write_all(b"x").unwrap();
        let mut pipe = Pipe::borrow().unwrap();
        // Waits for the byte.
        assert_eq!(pipe.fill(&downstream).unwrap(), 1);
        drop(pipe);
        assert_eq!(idle(), (MOST - 1, 0));
    }
}
