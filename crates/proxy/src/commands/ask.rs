//! One HTTP request to the sidecar next to us, without a runtime.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longest answer that is read, in bytes.
const LIMIT: u64 = 64 << 20;

/// Sends `method path` with `body` to `authority` (`host:port`) and returns status and body, all within `limit`.
///
/// # Errors
///
/// Nobody listens, the time is over, or the answer is not HTTP.
pub(super) fn ask(
    authority: &str,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> io::Result<(u16, Vec<u8>)> {
    let deadline = Instant::now() + limit;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = connect(authority, &left)?;
    stream.set_write_timeout(Some(left()?))?;
    // HTTP/1.0 has no chunks, and the end of the connection is the end of the answer.
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece)? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
        if answer.len() as u64 > LIMIT {
            return Err(io::Error::other("the answer is too long"));
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    match (head.parse(&answer), head.code) {
        (Ok(httparse::Status::Complete(end)), Some(code)) => Ok((code, answer.split_off(end))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")),
    }
}

/// `localhost` may be two addresses, of which only one is served.
fn connect(authority: &str, left: &dyn Fn() -> io::Result<Duration>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left()?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
