//! The system calls that no crate wraps safely.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Lets the kernel choose a bound socket's source port when it connects (`IP_BIND_ADDRESS_NO_PORT`, ip(7)): the
/// port then has to be free for that destination only, instead of for the whole machine.
pub(crate) fn choose_port_on_connect(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the length of the call, and the pointer and length describe `on`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many bytes of a TCP connection the peer's kernel has acknowledged (`tcpi_bytes_acked` of `TCP_INFO`, tcp(7)). It
/// can still be asked for after the connection broke. `None` where the kernel does not say.
pub(crate) fn bytes_acknowledged(socket: &impl AsFd) -> Option<u64> {
    // `struct tcp_info` of the kernel's <linux/tcp.h>, which only ever grows at its end; libc's lacks the field.
    const OFFSET: usize = 120;
    let mut info = [0_u64; 32];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open for the length of the call, and pointer and length describe `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize >= OFFSET + 8).then(|| info[OFFSET / 8])
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// The two ends of a connection.
    pub(crate) fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_an_open_connection_takes_is_acknowledged_and_what_a_closed_one_gets_is_not() {
        let (mut near, far) = pair();
        let before = bytes_acknowledged(&near).unwrap();
        near.write_all(b"hello").unwrap();
        // On loopback the acknowledgement is there when the write returns, or a moment later.
        while bytes_acknowledged(&near).unwrap() != before + 5 {
            std::thread::yield_now();
        }
        drop(far);

        let (mut near, far) = pair();
        drop(far);
        let before = bytes_acknowledged(&near).unwrap();
        near.write_all(b"too late").unwrap();
        // The end of the stream came first, the reset after it.
        while near.read(&mut [0]).is_ok() && near.write(b"x").is_ok() {}
        assert_eq!(bytes_acknowledged(&near), Some(before));
    }
}
