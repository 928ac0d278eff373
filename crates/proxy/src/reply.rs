//! What the sidecar says in the upstream's place. The words are Envoy's, which people and tools search for, followed by
//! the cause.

use std::io;

use crate::telemetry::Flag;
use crate::upstream;

/// How many milliseconds the upstream took (Envoy's name).
pub(crate) const SERVICE_TIME: &str = "x-envoy-upstream-service-time";
/// That the answer is ours for want of room (Envoy's name).
pub(crate) const OVERLOADED: &str = "x-envoy-overloaded";

/// A whole HTTP/1 response with status `code` and the line `text`, after which the connection ends.
pub(crate) fn http1(code: u16, overloaded: bool, text: &str) -> Vec<u8> {
    let reason =
        http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default();
    let length = text.len();
    let overloaded = if overloaded { format!("{OVERLOADED}: true\r\n") } else { String::new() };
    format!(
        "HTTP/1.1 {code} {reason}\r\ncontent-length: {length}\r\ncontent-type: text/plain\r\n{overloaded}connection: close\r\n\r\n{text}"
    )
    .into_bytes()
}

/// The upstream connection could not be opened.
pub(crate) fn unreachable(error: &io::Error) -> String {
    let reason = match (error.kind(), upstream::flag(error)) {
        (_, Flag::Overflow) => "overflow",
        (io::ErrorKind::TimedOut, _) => "connection timeout",
        _ => "remote connection failure",
    };
    format!(
        "upstream connect error or disconnect/reset before headers. reset reason: {reason}, \
         transport failure reason: {error}"
    )
}

/// There is no memory for another request.
pub(crate) const NO_MEMORY: &str = "upstream connect error or disconnect/reset before headers. reset reason: overflow, \
     transport failure reason: three quarters of the container's memory limit are in use";

/// The upstream went away before it answered.
pub(crate) fn disconnected(error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionReset => "remote reset",
        _ => "connection termination",
    };
    format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}")
}

/// The upstream ended a stream before it answered.
pub(crate) fn broken(flag: Flag) -> String {
    match flag {
        Flag::UpstreamStreamReset => disconnected(&io::ErrorKind::ConnectionReset.into()),
        _ => disconnected(&io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The upstream does not keep to its protocol.
pub(crate) fn protocol_error(reason: &str) -> String {
    format!(
        "upstream connect error or disconnect/reset before headers. reset reason: protocol error, \
         transport failure reason: {reason}"
    )
}

/// The upstream did not answer in time.
pub(crate) const TIMEOUT: &str = "upstream request timeout";

/// gRPC's status for an HTTP status, as Envoy maps them.
pub(crate) fn grpc_status(code: u16) -> u16 {
    match code {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 => 4,
        429 | 502 | 503 => 14,
        // Ours, and then it is the deadline.
        504 => 4,
        501 => 12,
        _ => 2,
    }
}

/// `text` as gRPC's message: percent-encoded where it is not printable ASCII (gRPC over HTTP/2, `Percent-Encoded`).
pub(crate) fn grpc_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(byte as char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_percent_encoded() {
        assert_eq!(grpc_message("100% of\n\u{e4}"), "100%25 of%0A%C3%A4");
    }
}
