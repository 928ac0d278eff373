//! The values that options hold: ports, ranges of addresses, interfaces, owners, durations. Each parser
//! takes the whole text of an option and its name, so that an error can name both.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use outrigger_contract as contract;

use crate::error::{Outcome, usage};

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub(crate) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Its number in the kernel, `AF_INET` or `AF_INET6`, which netfilter has taken over.
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// 127.0.0.1 or ::1.
    pub(crate) fn loopback(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// The address from which the proxy opens inbound connections to the application.
    pub(crate) fn inbound_source(self) -> IpAddr {
        match self {
            Family::V4 => contract::INBOUND_SOURCE_V4.into(),
            Family::V6 => contract::INBOUND_SOURCE_V6.into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A set of IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Families {
    pub(crate) const BOTH: Families = Families { v4: true, v6: true };
    pub(crate) const NONE: Families = Families { v4: false, v6: false };

    pub(crate) fn only(family: Family) -> Families {
        Families { v4: family == Family::V4, v6: family == Family::V6 }
    }

    pub(crate) fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Those that are in `other`, too.
    pub(crate) fn and(self, other: Families) -> Families {
        Families { v4: self.v4 && other.v4, v6: self.v6 && other.v6 }
    }

    pub(crate) fn each(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.has(*family))
    }

    /// The one family, where there is only one.
    pub(crate) fn single(self) -> Option<Family> {
        match (self.v4, self.v6) {
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            _ => None,
        }
    }
}

/// A range of addresses in CIDR notation; bits beyond the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl Net {
    /// The range of one address.
    pub(crate) const fn host(address: IpAddr) -> Net {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Net { address, prefix }
    }

    /// The range that `address` with `prefix` bits lies in; `None` if the prefix is longer than the address.
    pub(crate) fn new(address: IpAddr, prefix: u8) -> Option<Net> {
        let address = match address {
            IpAddr::V4(a) if prefix <= 32 => {
                Ipv4Addr::from_bits(a.to_bits() & mask(prefix, 32) as u32).into()
            }
            IpAddr::V6(a) if prefix <= 128 => Ipv6Addr::from_bits(a.to_bits() & mask(prefix, 128)).into(),
            _ => return None,
        };
        Some(Net { address, prefix })
    }

    pub(crate) fn family(self) -> Family {
        Family::of(self.address)
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        Net::new(address, self.prefix) == Some(self)
    }

    /// The address in network order.
    pub(crate) fn octets(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        }
    }

    /// The netmask in network order.
    pub(crate) fn mask(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(_) => (mask(self.prefix, 32) as u32).to_be_bytes().to_vec(),
            IpAddr::V6(_) => mask(self.prefix, 128).to_be_bytes().to_vec(),
        }
    }

    pub(crate) fn is_host(self) -> bool {
        self.prefix == if self.address.is_ipv4() { 32 } else { 128 }
    }
}

/// The mask of `prefix` leading ones in a word of `width` bits.
fn mask(prefix: u8, width: u8) -> u128 {
    let ones = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) };
    ones >> (128 - u32::from(width))
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Ports {
    pub(crate) const fn one(port: u16) -> Ports {
        Ports { first: port, last: port }
    }

    /// As iptables and nft write it: one number, or two with `between`.
    pub(crate) fn text(self, between: char) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}{between}{}", self.first, self.last)
        }
    }
}

/// An interface by its name, or by the beginning of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// Any ending may follow the name.
    pub(crate) open: bool,
}

impl Interface {
    pub(crate) fn loopback() -> Interface {
        Interface { name: "lo".to_owned(), open: false }
    }

    /// As iptables (`+`) or nft (`*`) writes it.
    pub(crate) fn text(&self, wildcard: char) -> String {
        if self.open { format!("{}{wildcard}", self.name) } else { self.name.clone() }
    }
}

/// Everything, some things, or nothing: what an option with `*` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection<T> {
    All,
    Only(Vec<T>),
}

impl<T> Selection<T> {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Selection::Only(items) if items.is_empty())
    }
}

/// The items of a comma separated list; spaces around and empty items do not count.
pub(crate) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// A list in which `*` stands for everything.
pub(crate) fn selection<T>(
    option: &str,
    text: &str,
    list: impl Fn(&str, &str) -> Outcome<Vec<T>>,
) -> Outcome<Selection<T>> {
    if text.trim() == "*" {
        return Ok(Selection::All);
    }
    if items(text).any(|item| item == "*") {
        return usage(format!(
            "{option}: in {text:?}, * is all of them and must stand alone; leave out the others, or it"
        ));
    }
    Ok(Selection::Only(list(option, text)?))
}

/// One port, 1 to 65535.
pub(crate) fn port(option: &str, text: &str) -> Outcome<u16> {
    match text.trim().parse::<u16>() {
        Ok(number) if number > 0 => Ok(number),
        _ => usage(format!("{option}: {text:?} is not a port; use a number from 1 to 65535")),
    }
}

/// Ports and ranges of ports (`8000:8100` or `8000-8100`), comma separated.
pub(crate) fn ports(option: &str, text: &str) -> Outcome<Vec<Ports>> {
    items(text)
        .map(|item| match item.split_once([':', '-']) {
            None => Ok(Ports::one(port(option, item)?)),
            Some((first, last)) => {
                let range = Ports { first: port(option, first)?, last: port(option, last)? };
                if range.first > range.last {
                    return usage(format!(
                        "{option}: {item:?} ends before it begins; put the lower port first"
                    ));
                }
                Ok(range)
            }
        })
        .collect()
}

/// One range in CIDR notation, or one address.
pub(crate) fn net(option: &str, text: &str) -> Outcome<Net> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let net = address.parse::<IpAddr>().ok().and_then(|address| match prefix {
        None => Some(Net::host(address)),
        Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => Net::new(address, bits.parse().ok()?),
        Some(_) => None,
    });
    match net {
        Some(net) => Ok(net),
        None => usage(format!(
            "{option}: {text:?} is not a range of addresses; write it like 10.0.0.0/8 or fd00::/8"
        )),
    }
}

/// Ranges of addresses, comma separated.
pub(crate) fn nets(option: &str, text: &str) -> Outcome<Vec<Net>> {
    items(text).map(|item| net(option, item)).collect()
}

/// Addresses, comma separated.
pub(crate) fn addresses(option: &str, text: &str) -> Outcome<Vec<IpAddr>> {
    items(text)
        .map(|item| match item.parse() {
            Ok(address) => Ok(address),
            Err(_) => usage(format!("{option}: {item:?} is not an IP address")),
        })
        .collect()
}

/// Interfaces, comma separated; `eth+` or `eth*` is every interface whose name begins with `eth`.
pub(crate) fn interfaces(option: &str, text: &str) -> Outcome<Vec<Interface>> {
    items(text)
        .map(|item| {
            let (name, open) = match item.strip_suffix(['+', '*']) {
                Some(name) => (name, true),
                None => (item, false),
            };
            let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '\\' | '*' | '+' | '!');
            // The kernel holds names of at most 15 bytes (IFNAMSIZ less the final zero).
            if name.is_empty() || name.len() > 15 || name == "." || name == ".." || !name.chars().all(plain) {
                return usage(format!(
                    "{option}: {item:?} is not an interface name; it has at most 15 characters, without spaces, '/' or ':'"
                ));
            }
            Ok(Interface { name: name.to_owned(), open })
        })
        .collect()
}

/// A number that fits 32 bits, decimal or hexadecimal.
pub(crate) fn number(option: &str, text: &str) -> Outcome<u32> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match parsed {
        Some(number) => Ok(number),
        None => usage(format!("{option}: {text:?} is not a number from 0 to 4294967295")),
    }
}

/// A boolean in any of Go's words, which is what manifests were written for.
pub(crate) fn boolean(option: &str, text: &str) -> Outcome<bool> {
    match contract::go::boolean(text) {
        Some(boolean) => Ok(boolean),
        None => usage(format!("{option}: {text:?} is neither true nor false")),
    }
}

/// A duration as Go writes it: `5s`, `1m30s`, `250ms`, `1.5h`.
pub(crate) fn duration(option: &str, text: &str) -> Outcome<Duration> {
    match contract::go::duration(text) {
        Some(duration) => Ok(duration),
        None => usage(format!("{option}: {text:?} is not a duration; write it like 5s or 1m30s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(nets: &[Net]) -> Vec<String> {
        nets.iter().map(Net::to_string).collect()
    }

    #[test]
    fn ranges_are_cut_to_their_prefix_and_addresses_stand_alone() {
        let nets = nets("-i", "10.1.2.3/8, 192.0.2.1,,fd00::1/8,::1").unwrap();
        assert_eq!(shown(&nets), ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8", "::1/128"]);
        assert_eq!(nets[0].mask(), [255, 0, 0, 0]);
        assert_eq!(net("-i", "0.0.0.0/0").unwrap().mask(), [0; 4]);
        assert_eq!(net("-i", "fe80::/10").unwrap().mask()[..3], [0xff, 0xc0, 0]);
    }

    #[test]
    fn malformed_ranges_are_named() {
        for bad in
            ["10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "*", "ten", "1.2.3.4/8/9"]
        {
            let error = nets("-x", bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("-x: {bad:?}")), "{error}");
        }
    }

    #[test]
    fn ports_and_their_ranges() {
        let list = ports("-b", "80, 8000:8100,9000-9001,").unwrap();
        let text: Vec<String> = list.iter().map(|ports| ports.text(':')).collect();
        assert_eq!(text, ["80", "8000:8100", "9000:9001"]);
        for bad in ["0", "65536", "http", "1-", "-1", "9-8", "1:2:3"] {
            assert!(ports("-b", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces_with_and_without_an_open_end() {
        let list = interfaces("-c", "eth0,vm+,net*").unwrap();
        let text: Vec<String> = list.iter().map(|interface| interface.text('+')).collect();
        assert_eq!(text, ["eth0", "vm+", "net+"]);
        for bad in ["a/b", "a b", "0123456789abcdef", "+", ".", "..", "a:1", "ä", "a\"b"] {
            assert!(interfaces("-c", bad).is_err(), "{bad}");
        }
        assert!(interfaces("-c", "0123456789abcde").is_ok(), "15 characters fit");
    }

    #[test]
    fn a_star_is_everything_and_nothing_is_nothing() {
        assert_eq!(selection("-b", " * ", ports).unwrap(), Selection::All);
        assert!(selection("-b", "", ports).unwrap().is_none());
        assert!(!selection("-b", "1", ports).unwrap().is_none());
        assert!(selection("-b", "*,1", ports).is_err());
    }
}
