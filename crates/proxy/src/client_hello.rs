//! The name that a TLS client asks for, read from its ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3). Pure;
//! the bytes are passed on as they came.

/// What a ClientHello says of the server's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerName<'a> {
    /// More bytes are needed.
    Incomplete,
    /// It names none, or it is no ClientHello that we read.
    None,
    /// The name.
    Name(&'a str),
}

/// A ClientHello that is longer than this is not waited for; those with post-quantum keys have some 2 KB.
pub(crate) const LONGEST: usize = 16 * 1024;

/// Header of a record: type, version, length. Header of a handshake message: type, length.
const RECORD: usize = 5;
const MESSAGE: usize = 4;

/// Reads the beginning of a TLS connection. A ClientHello that is spread over several records is not put together: no
/// client does that but to hide its name.
pub(crate) fn server_name(bytes: &[u8]) -> ServerName<'_> {
    let Some(record) = bytes.get(..RECORD) else { return ServerName::Incomplete };
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    if record[0] != 0x16 || !(MESSAGE..=LONGEST).contains(&length) {
        return ServerName::None;
    }
    let Some(message) = bytes.get(RECORD..RECORD + length) else { return ServerName::Incomplete };
    let size = usize::from(message[1]) << 16 | usize::from(message[2]) << 8 | usize::from(message[3]);
    match message.get(MESSAGE..MESSAGE + size) {
        Some(hello) if message[0] == 1 => find(hello).map_or(ServerName::None, ServerName::Name),
        _ => ServerName::None,
    }
}

/// The host name in the body of a ClientHello.
fn find(hello: &[u8]) -> Option<&str> {
    let mut hello = Bytes(hello);
    // Version and random.
    hello.take(2 + 32)?;
    let _session = hello.short_block()?;
    let _cipher_suites = hello.block()?;
    let _compression = hello.short_block()?;
    let mut extensions = Bytes(hello.block()?);
    loop {
        let kind = extensions.take(2)?;
        let body = extensions.block()?;
        if kind == [0, 0] {
            let mut names = Bytes(Bytes(body).block()?);
            loop {
                let kind = names.take(1)?;
                let name = names.block()?;
                if kind == [0] {
                    return host(name);
                }
            }
        }
    }
}

/// A DNS name in ASCII, as the RFC wants it; anything else is not repeated in a log.
fn host(name: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let fits = !name.is_empty() && name.len() <= 255 && name.iter().all(plain);
    std::str::from_utf8(name).ok().filter(|_| fits)
}

/// Bytes that are taken from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// What stands behind its length in two bytes.
    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.take(2)?;
        self.take(usize::from(u16::from_be_bytes([length[0], length[1]])))
    }

    /// What stands behind its length in one byte.
    fn short_block(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?;
        self.take(usize::from(length[0]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName as Asked;

    use super::*;

    /// What rustls sends to a server that it calls `name`.
    pub(crate) fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = Asked::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_found_and_every_shorter_hello_is_incomplete() {
        let bytes = hello("shop.example");
        assert_eq!(server_name(&bytes), ServerName::Name("shop.example"));
        for end in 0..bytes.len() {
            assert_eq!(server_name(&bytes[..end]), ServerName::Incomplete, "{end}");
        }
        let more = [&bytes[..], b"early data"].concat();
        assert_eq!(server_name(&more), ServerName::Name("shop.example"));
    }

    #[test]
    fn a_client_that_asks_for_an_address_names_nobody() {
        assert_eq!(server_name(&hello("192.0.2.1")), ServerName::None);
    }

    #[test]
    fn what_is_no_hello_has_no_name() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[0x16, 3, 1, 0, 0],
            &[0x16, 3, 1, 0xff, 0xff, 1],
            &[0x17, 3, 3, 0, 9],
        ] {
            assert_eq!(server_name(bytes), ServerName::None, "{bytes:?}");
        }
    }

    #[test]
    fn names_that_are_no_names_are_not_repeated() {
        let bytes = hello("shop.example");
        let at = bytes.windows(4).position(|window| window == b"shop").unwrap();
        for odd in [b' ', b'"', b'\n', 0, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = odd;
            assert_eq!(server_name(&bytes), ServerName::None, "{odd}");
        }
    }

    #[test]
    fn changed_hellos_are_read_without_harm() {
        let (long, short) = (hello("shop.example"), hello("a"));
        let corpus = [&long[..], &short, b"GET / HTTP/1.1\r\n", &[0x16, 3, 1, 0, 8, 1, 0, 0, 4, 3, 3, 0, 0]];
        let words: [&[u8]; 4] = [b"\0\0", b"\xff\xff", b"\x16\x03\x01", b"shop"];
        crate::fuzz::each(&corpus, &words, crate::properties::client_hello);
    }
}
