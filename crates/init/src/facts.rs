//! What a run has to find out about the network namespace and the machine: IP families, name servers,
//! whether it is the node's own namespace.

use std::net::IpAddr;

use outrigger_contract::INBOUND_SOURCE_V6;

use crate::error::{Failure, Outcome, failed};
use crate::options::{FamilyWish, Surroundings};
use crate::routes::Routes;
use crate::values::{self, Families};

/// The families to capture. IPv4 always is: rules that meet no packet harm nobody.
pub(crate) fn families(wish: FamilyWish, routes: &mut Routes) -> Outcome<Families> {
    if let Some(given) = wish.given {
        return Ok(given);
    }
    let addresses: Vec<IpAddr> = routes.addresses()?.into_iter().map(unmapped).filter(is_global).collect();
    let Some(first) = addresses.first() else {
        return failed(
            "this network namespace has no address but loopback's; run after the network is set up, \
             or say which families to capture with --ip-families",
        );
    };
    let v6 = match wish.dual_stack {
        Some(false) => first.is_ipv6(),
        Some(true) | None => addresses.iter().any(IpAddr::is_ipv6),
    };
    Ok(Families { v4: true, v6 })
}

fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn is_global(address: &IpAddr) -> bool {
    let of_link = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    // The proxy's own source address may be there from an earlier run.
    let ours = *address == INBOUND_SOURCE_V6;
    !address.is_loopback() && !of_link && !ours
}

/// The name servers that this container uses: what the environment says, else /etc/resolv.conf.
pub(crate) fn dns_servers(surroundings: &Surroundings) -> Outcome<Vec<IpAddr>> {
    let (v4, v6) = ("OUTRIGGER_DNS_SERVERS_V4", "OUTRIGGER_DNS_SERVERS_V6");
    let given = [v4, v6].map(|name| surroundings.variable(name).map(|text| (name, text)));
    if given.iter().any(Option::is_some) {
        let mut servers = Vec::new();
        for (name, text) in given.into_iter().flatten() {
            servers.extend(values::addresses(name, text)?);
        }
        return Ok(servers);
    }
    let path = surroundings.etc.join("resolv.conf");
    match std::fs::read_to_string(&path) {
        Ok(content) => Ok(nameservers(&content)),
        Err(error) => Err(Failure::Run(format!(
            "cannot read {}: {error}; name service is to be captured for its servers only: \
             make it readable, name them in {v4} and {v6}, or give --capture-all-dns",
            path.display()
        ))),
    }
}

/// The servers of a resolv.conf (resolv.conf(5)); an interface after `%` does not count.
pub(crate) fn nameservers(content: &str) -> Vec<IpAddr> {
    content
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let server = (words.next()? == "nameserver").then(|| words.next()).flatten()?;
            server.split('%').next()?.parse().ok()
        })
        .collect()
}

/// Why this looks like the node's own network namespace, if it does.
pub(crate) fn host_network(surroundings: &Surroundings, routes: &mut Routes) -> Outcome<Option<String>> {
    let Some(Ok(host)) = surroundings.variable("HOST_IP").map(str::parse::<IpAddr>) else { return Ok(None) };
    let here = routes.addresses()?.contains(&host);
    Ok(here.then(|| format!("the node's address {host} (HOST_IP) is an address of this namespace")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_a_resolv_conf() {
        let content = "# nameserver 9.9.9.9\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver\n\
                       options ndots:5\n  nameserver fd00::a # comment\nnameservers 1.2.3.4\nnameserver dns.local\n";
        let found: Vec<String> = nameservers(content).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.96.0.10", "fe80::1", "fd00::a"]);
    }

    #[test]
    fn addresses_that_say_something_of_a_family() {
        for address in ["127.0.0.1", "169.254.1.1", "fe80::1", "::1", "::6"] {
            assert!(!is_global(&address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "fd00::1", "2001:db8::1"] {
            assert!(is_global(&address.parse().unwrap()), "{address}");
        }
        assert_eq!(unmapped("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
