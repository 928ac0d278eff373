//! Netlink: sockets, messages and attributes, both ways (RFC 3549; linux/netlink.h). What the messages
//! mean is known to `nftables` and `routes`.

use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const ERROR: u16 = 0x2;
const DONE: u16 = 0x3;
const DUMP_INTERRUPTED: u16 = 0x10;
const NESTED: u16 = 0x8000;
/// An attribute's type without the flags in its upper bits.
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;
/// What a socket sends without being asked to take more: the kernel's default.
const DEFAULT_SEND_BUFFER: usize = 200 * 1024;
/// What is received at once. The kernel makes its answers to the size that it has been asked with.
const BUFFER: usize = 16 * 1024;
/// How often a dump is begun again when the state changed under it.
const DUMP_ATTEMPTS: usize = 20;

/// Messages under construction, one after the other.
#[derive(Default)]
pub(crate) struct Messages {
    pub(crate) bytes: Vec<u8>,
    start: usize,
    /// Sequence number of the last message; the first has 1.
    pub(crate) last: u32,
}

impl Messages {
    /// Begins a message with the header of its kind after netlink's own.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) -> &mut Messages {
        self.start = self.bytes.len();
        self.last += 1;
        self.put(&0u32.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(&(flags | REQUEST).to_ne_bytes());
        self.put(&self.last.to_ne_bytes());
        self.put(&0u32.to_ne_bytes());
        self.put(header);
        self.end();
        self
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Pads, and writes the length of the message so far.
    fn end(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Messages {
        self.put(&((value.len() + 4) as u16).to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.end();
        self
    }

    /// An attribute with a final zero, as most names have.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Messages {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A number in network order, as all of nftables' are.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Messages {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute that holds attributes.
    pub(crate) fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Messages)) -> &mut Messages {
        let at = self.bytes.len();
        self.put(&[0; 2]);
        self.put(&(kind | NESTED).to_ne_bytes());
        inside(self);
        // An attribute's length has 16 bits. Nothing that is nested here comes near: one rule's tests.
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.end();
        self
    }

    /// Asks for an acknowledgement of the last message.
    pub(crate) fn acknowledge(&mut self) {
        self.bytes[self.start + 6] |= ACK as u8;
    }
}

/// The attributes in `bytes`: their types without flags, and their values. Ends at the first that is cut short.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk::<2>()?) & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the attribute of this type, empty if it is not there.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> &[u8] {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value).unwrap_or_default()
}

/// A name up to its final zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A number in network order; 0 if it is not there.
pub(crate) fn number(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// A number in this machine's order; 0 if it is not there.
pub(crate) fn native(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// A message that the kernel did not accept, by its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) sequence: u32,
    pub(crate) errno: Errno,
}

impl From<Errno> for Refusal {
    /// Not about one message: sequence 0.
    fn from(errno: Errno) -> Refusal {
        Refusal { sequence: 0, errno }
    }
}

/// A netlink socket.
pub(crate) struct Socket {
    fd: OwnedFd,
    /// What was received last. Of its memory only what the kernel writes to is ever touched.
    buffer: Vec<u8>,
}

impl Socket {
    /// `None` is routing (`NETLINK_ROUTE`).
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Socket, Errno> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Socket { fd, buffer: Vec::with_capacity(BUFFER) })
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > DEFAULT_SEND_BUFFER {
            // The kernel counts its own bookkeeping too, hence the double.
            let _ = sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() * 2)
                .or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, bytes.len() * 2));
        }
        send(&self.fd, bytes, SendFlags::empty()).map(|_| ())
    }

    /// Receives once and calls `each` with type, flags, sequence number and body of every message.
    fn receive(&mut self, flags: RecvFlags, mut each: impl FnMut(u16, u16, u32, &[u8])) -> Result<(), Errno> {
        self.buffer.clear();
        while let Err(errno) = recv(&self.fd, spare_capacity(&mut self.buffer), flags) {
            if errno != Errno::INTR {
                return Err(errno);
            }
        }
        let mut rest = &self.buffer[..];
        while let Some((header, body)) = rest.split_first_chunk::<HEADER>() {
            let total = native(&header[..4]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let flags = u16::from_ne_bytes([header[6], header[7]]);
            let Some(body) = total.checked_sub(HEADER).and_then(|length| body.get(..length)) else { break };
            each(kind, flags, native(&header[8..12]), body);
            rest = rest.get(total.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends messages of which the last asks for an acknowledgement, and waits for that. The kernel works
    /// before sending returns, so all refusals are there by then; they come back in order.
    pub(crate) fn request(&mut self, messages: &Messages) -> Result<(), Vec<Refusal>> {
        self.send(&messages.bytes).map_err(|errno| vec![errno.into()])?;
        let (mut refusals, mut done) = (Vec::new(), false);
        loop {
            let flags = if done || !refusals.is_empty() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            let received = self.receive(flags, |kind, _, sequence, body| {
                if kind != ERROR {
                    return;
                }
                match native(body) as i32 {
                    0 => done |= sequence == messages.last,
                    code => refusals.push(Refusal { sequence, errno: Errno::from_raw_os_error(-code) }),
                }
            });
            match received {
                Ok(()) => {}
                Err(Errno::AGAIN) if refusals.is_empty() => return Ok(()),
                Err(Errno::AGAIN) => return Err(refusals),
                Err(errno) => return Err(vec![errno.into()]),
            }
        }
    }

    /// Sends one message that asks for a dump, and gives what `each` makes of the body of each answer. Begins again if the
    /// state changed meanwhile.
    pub(crate) fn dump<T>(
        &mut self,
        message: &Messages,
        mut each: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Errno> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(&message.bytes)?;
            let (mut found, mut interrupted, mut end) = (Vec::new(), false, None);
            while end.is_none() {
                self.receive(RecvFlags::empty(), |kind, flags, _, body| {
                    interrupted |= flags & DUMP_INTERRUPTED != 0;
                    match kind {
                        DONE => end = Some(Ok(())),
                        ERROR => end = Some(Err(Errno::from_raw_os_error(-(native(body) as i32)))),
                        _ => found.extend(each(body)),
                    }
                })?;
            }
            match end {
                Some(Err(Errno::INTR)) => {}
                Some(Err(errno)) => return Err(errno),
                _ if interrupted => {}
                _ => return Ok(found),
            }
        }
        Err(Errno::BUSY)
    }

    /// Sends one message that has one answer, and gives back its body.
    pub(crate) fn ask(&mut self, message: &Messages) -> Result<Vec<u8>, Errno> {
        self.send(&message.bytes)?;
        let mut answer = Ok(Vec::new());
        self.receive(RecvFlags::empty(), |kind, _, _, body| {
            answer = match kind {
                ERROR => Err(Errno::from_raw_os_error(-(native(body) as i32))),
                _ => Ok(body.to_vec()),
            };
        })?;
        answer
    }
}
