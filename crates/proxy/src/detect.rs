//! Which protocol a client speaks, by its first bytes. Pure.

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0 or HTTP/1.1: a request line.
    Http1,
    /// HTTP/2 with prior knowledge: the connection preface.
    Http2,
    /// TLS: a ClientHello. Passed on untouched.
    Tls,
    /// Anything else.
    Opaque,
}

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that is taken for one; the longest that is registered (`UPDATEREDIRECTREF`) has 17 letters.
const LONGEST_METHOD: usize = 24;
/// A request line that is longer than this without an end is HTTP already: nothing else begins so.
const LONG_ENOUGH: usize = 4096;

/// Looks at the first bytes of a connection; `None` as long as they could still become several things.
pub(crate) fn detect(bytes: &[u8]) -> Option<Protocol> {
    if bytes.is_empty() {
        return None;
    }
    if bytes.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    match bytes[0] {
        0x16 => client_hello(bytes),
        _ => request_line(bytes),
    }
}

/// Length of the head of a frame of HTTP/2, which is what a server's first bytes are looked at for.
pub(crate) const SETTINGS: usize = 9;

/// Whether a server that speaks before its client speaks HTTP/2: its first frame is SETTINGS, and no acknowledgement
/// (RFC 9113, sections 3.4, 4.1 and 6.5).
pub(crate) fn is_http2_server(bytes: &[u8]) -> bool {
    let [high, middle, low, kind, flags, stream @ ..] = bytes else { return false };
    let length = u32::from_be_bytes([0, *high, *middle, *low]);
    length.is_multiple_of(6) && length <= 600 && *kind == 4 && *flags == 0 && *stream == [0; 4]
}

/// RFC 8446, sections 5.1 and 4: a handshake record whose first message is a ClientHello.
fn client_hello(bytes: &[u8]) -> Option<Protocol> {
    let expected: [fn(u8) -> bool; 6] =
        [|b| b == 0x16, |b| b == 3, |b| b <= 4, |_| true, |_| true, |b| b == 1];
    for (byte, fits) in bytes.iter().zip(expected) {
        if !fits(*byte) {
            return Some(Protocol::Opaque);
        }
    }
    (bytes.len() >= expected.len()).then_some(Protocol::Tls)
}

/// RFC 9112, section 3: `method SP target SP HTTP/1.x`.
fn request_line(bytes: &[u8]) -> Option<Protocol> {
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    if method == 0 || method > LONGEST_METHOD {
        return Some(Protocol::Opaque);
    }
    let target = match bytes[method..].split_first() {
        None => return None,
        Some((b' ', rest)) => rest,
        Some(_) => return Some(Protocol::Opaque),
    };
    let length = target.iter().take_while(|byte| byte.is_ascii_graphic() || **byte >= 0x80).count();
    let version = match target[length..].split_first() {
        None if target.len() > LONG_ENOUGH => return Some(Protocol::Http1),
        None => return None,
        Some((b' ', rest)) if length > 0 => rest,
        Some(_) => return Some(Protocol::Opaque),
    };
    let known = [&b"HTTP/1.1\r"[..], b"HTTP/1.0\r", b"HTTP/1.1\n", b"HTTP/1.0\n"];
    if known.iter().any(|known| version.starts_with(known)) {
        return Some(Protocol::Http1);
    }
    if known.iter().any(|known| known.starts_with(version)) { None } else { Some(Protocol::Opaque) }
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::decided;

    #[test]
    fn http_is_a_request_line() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.0\r\n",
            "CONNECT a:1 HTTP/1.1\r\n",
            "M-SEARCH http://a/ HTTP/1.1\r\n",
        ] {
            assert_eq!(decided(text.as_bytes()), Some(Protocol::Http1), "{text}");
        }
        let long = format!("GET /{}", "a".repeat(5000));
        assert_eq!(decided(long.as_bytes()), Some(Protocol::Http1));
    }

    #[test]
    fn http2_is_its_whole_preface() {
        assert_eq!(decided(PREFACE), Some(Protocol::Http2));
        assert_eq!(decided(&PREFACE[..23]), None);
        assert_eq!(decided(b"PRI * HTTP/2.1\r\n"), Some(Protocol::Opaque));
    }

    #[test]
    fn tls_is_a_client_hello() {
        assert_eq!(decided(&[0x16, 3, 1, 2, 0, 1, 0, 1]), Some(Protocol::Tls));
        assert_eq!(decided(&[0x16, 3, 1, 2, 0]), None);
        assert_eq!(decided(&[0x16, 3, 1, 2, 0, 2]), Some(Protocol::Opaque));
        assert_eq!(decided(&[0x16, 2]), Some(Protocol::Opaque));
    }

    #[test]
    fn other_protocols_are_opaque_at_the_first_byte_that_says_so() {
        for (text, enough) in [
            ("*1\r\n$4\r\nPING\r\n", 3),
            ("PING\r\n", 5),
            ("SET key value\r\n", 9),
            ("EHLO mail.example\r\n", 18),
            ("SSH-2.0-OpenSSH\r\n", 16),
            ("\0\0\0\x08\x04\x52\x16\x2f", 1),
            ("GET / HTTP/3", 12),
            ("GET  /", 5),
        ] {
            assert_eq!(decided(text.as_bytes()), Some(Protocol::Opaque), "{text:?}");
            assert_eq!(detect(&text.as_bytes()[..enough]), Some(Protocol::Opaque), "{text:?}");
        }
    }

    #[test]
    fn any_bytes_have_an_answer_that_stays() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
            if random.bool() {
                bytes = PREFACE.to_vec();
            }
            for _ in 0..random.usize(0..3) {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }
            decided(&bytes);
        }
    }

    #[test]
    fn an_http2_server_is_known_by_its_settings() {
        assert!(is_http2_server(b"\0\0\x06\x04\0\0\0\0\0"));
        assert!(is_http2_server(b"\0\0\0\x04\0\0\0\0\0"));
        for other in
            [&b"\0\0\x06\x04\x01\0\0\0\0"[..], b"\0\0\x06\x04", b"", b"220 mail ESM", b"\x4a\0\0\0\x0a10.1"]
        {
            assert!(!is_http2_server(other), "{other:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_change_its_mind() {
        let corpus: [&[u8]; 5] = [
            b"GET /path?query HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\x03",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
        ];
        let words: [&[u8]; 5] = [b" HTTP/1.0\r", b" HTTP/1.1\n", b"\x16\x03", b"PRI * ", &[b'x'; 300]];
        crate::fuzz::each(&corpus, &words, crate::properties::detection);
    }
}
