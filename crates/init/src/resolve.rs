//! The address of a name: /etc/hosts, then the name servers of /etc/resolv.conf (RFC 1035). The C library's
//! own lookup loads modules at run time, which a static program in an empty image does not have.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::error::{Failure, Outcome, failed};
use crate::facts::nameservers;
use crate::options::Surroundings;

/// How long one server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of every query. A socket that is connected and new is protection enough here.
const ID: u16 = 0x4f52;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

/// The first address of `name`.
pub(crate) fn address(name: &str, surroundings: &Surroundings) -> Outcome<IpAddr> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let read = |file: &str| std::fs::read_to_string(surroundings.etc.join(file)).unwrap_or_default();
    if let Some(address) = from_hosts(&read("hosts"), name) {
        return Ok(address);
    }
    let configuration = read("resolv.conf");
    for server in nameservers(&configuration) {
        for candidate in candidates(&configuration, name) {
            if let Ok(Some(address)) = ask(server, &candidate) {
                return Ok(address.into());
            }
        }
    }
    failed(format!(
        "the name {name} has no address in /etc/hosts or with the name servers of /etc/resolv.conf; \
         give the address itself (--proxy-address, or HOST_IP by fieldRef status.hostIP)"
    ))
}

/// The address that a hosts file gives a name (hosts(5)).
fn from_hosts(content: &str, name: &str) -> Option<IpAddr> {
    content.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|alias| alias.eq_ignore_ascii_case(name)).then_some(address)
    })
}

/// The names to ask for: with each search domain, then as it is; a final dot forbids that.
fn candidates(configuration: &str, name: &str) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let domains = configuration
        .lines()
        .filter_map(|line| line.trim().strip_prefix("search "))
        .flat_map(str::split_whitespace)
        .map(|domain| format!("{name}.{}", domain.trim_end_matches('.')));
    // A name with a dot, as most nodes have, is first asked for as it is.
    let plain = std::iter::once(name.to_owned());
    if name.contains('.') { plain.chain(domains).collect() } else { domains.chain(plain).collect() }
}

fn ask(server: IpAddr, name: &str) -> Outcome<Option<Ipv4Addr>> {
    let io = |error: std::io::Error| Failure::Run(format!("name server {server}: {error}"));
    let local: IpAddr =
        if server.is_ipv4() { [0, 0, 0, 0].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).map_err(io)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    socket.connect((server, 53)).map_err(io)?;
    let Some(query) = query(name) else { return Ok(None) };
    socket.send(&query).map_err(io)?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).map_err(io)?;
    Ok(answer(&buffer[..length]))
}

/// A question for the IPv4 address of `name`; `None` if that is no name.
fn query(name: &str) -> Option<Vec<u8>> {
    // One question, recursion desired.
    let mut out = ID.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&TYPE_A.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(out)
}

/// The first IPv4 address in an answer.
fn answer(message: &[u8]) -> Option<Ipv4Addr> {
    let number = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    if number(0)? != ID || message.get(2)? & 0x80 == 0 {
        return None;
    }
    let (questions, answers) = (number(4)?, number(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(message, at)? + 4;
    }
    for _ in 0..answers {
        at = skip_name(message, at)?;
        let (kind, class, length) = (number(at)?, number(at + 2)?, usize::from(number(at + 8)?));
        let data = message.get(at + 10..at + 10 + length)?;
        if kind == TYPE_A && class == CLASS_IN {
            return data.first_chunk::<4>().filter(|_| length == 4).map(|octets| Ipv4Addr::from(*octets));
        }
        at += 10 + length;
    }
    None
}

/// Where the name that begins at `at` ends.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            // The rest of it is elsewhere.
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_files() {
        let hosts =
            "# 1.1.1.1 node\n127.0.0.1 localhost\n10.0.0.7\tnode-7 Node7 # old\nfd00::7 six\nbad name\n";
        assert_eq!(from_hosts(hosts, "node7"), Some([10, 0, 0, 7].into()));
        assert_eq!(from_hosts(hosts, "six"), "fd00::7".parse().ok());
        assert_eq!(from_hosts(hosts, "node"), None);
    }

    #[test]
    fn search_domains() {
        let configuration = "nameserver 10.0.0.10\nsearch a.local b.local.\n";
        assert_eq!(candidates(configuration, "node"), ["node.a.local", "node.b.local", "node"]);
        assert_eq!(candidates(configuration, "node.x")[0], "node.x");
        assert_eq!(candidates(configuration, "node."), ["node"]);
    }

    #[test]
    fn a_question_and_its_answer() {
        let question = query("node.local").unwrap();
        assert_eq!(&question[12..], b"\x04node\x05local\0\0\x01\0\x01");
        let mut message = question.clone();
        message[2] |= 0x80;
        message[7] = 2;
        // An alias, then the address, both by a pointer to the name in the question.
        message.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x02\xc0\x0c");
        message.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\x01\x02\x03");
        assert_eq!(answer(&message), Some([10, 1, 2, 3].into()));
        assert_eq!(answer(&question), None, "a question is no answer");
    }

    #[test]
    fn names_that_are_none() {
        assert_eq!(query("a..b"), None);
        assert_eq!(query(&"x".repeat(64)), None);
    }

    proptest! {
        #[test]
        fn answers_of_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if bytes.len() > 3 {
                bytes[..3].copy_from_slice(&[0x4f, 0x52, 0x80]);
            }
            let _ = answer(&bytes);
        }
    }
}
