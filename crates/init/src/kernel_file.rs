//! Small files that the kernel writes as they are read, under /proc.

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};

/// More than any of the files that are read has.
const SIZE: usize = 4096;

/// All of a file of at most 4 KiB, in three system calls: the standard library asks for the size first, which is 0, and
/// then reads by doubling.
pub(crate) fn read_small(path: &str) -> Result<String, Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::with_capacity(SIZE);
    while content.len() < SIZE && read(&file, spare_capacity(&mut content))? > 0 {}
    Ok(String::from_utf8_lossy(&content).into_owned())
}
