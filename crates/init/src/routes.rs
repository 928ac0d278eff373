//! What capture needs of routing, over netlink (linux/rtnetlink.h, linux/fib_rules.h): which addresses this
//! namespace has, the proxy's IPv6 source address on loopback, and the policy routes of TPROXY.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use outrigger_contract::INBOUND_SOURCE_V6;
use rustix::io::Errno;

use crate::error::{Outcome, failed};
use crate::netlink::{CREATE, DUMP, EXCL, Messages, Socket, attribute, native};
use crate::rules::{RuleSet, Steering};
use crate::values::Family;

const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;

/// An interface that is up (linux/if.h).
const UP: u32 = 1;
/// The loopback interface has this index in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Attributes of an address, a route and a routing rule.
const ADDRESS: u16 = 1;
const LOCAL_ADDRESS: u16 = 2;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_INTERFACE: u16 = 4;
const TABLE: u16 = 15;
const FIREWALL_MARK: u16 = 10;

/// The type of a route to this machine itself.
const LOCAL_ROUTE: u8 = 2;
/// An address that is not looked for on the network first: nobody else has it.
const NO_DUPLICATE_DETECTION: u8 = 2;
/// How long the kernel may take for an address.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(2);

/// A conversation with the kernel about this namespace's addresses and routes.
pub(crate) struct Routes {
    socket: Socket,
}

impl Routes {
    pub(crate) fn open() -> Outcome<Routes> {
        match Socket::open(None) {
            Ok(socket) => Ok(Routes { socket }),
            Err(errno) => failed(format!("cannot open a netlink socket for routes: {errno}")),
        }
    }

    /// All addresses, in the kernel's order.
    pub(crate) fn addresses(&mut self) -> Outcome<Vec<IpAddr>> {
        let mut message = Messages::default();
        message.begin(GET_ADDRESS, DUMP, &[0; 8]);
        let found = self.socket.dump(&message, |body| {
            let attributes = body.get(8..)?;
            // Where there is a peer, the address is the peer's and the local one is ours.
            let local = attribute(attributes, LOCAL_ADDRESS);
            let value = if local.is_empty() { attribute(attributes, ADDRESS) } else { local };
            match value.len() {
                4 => value.first_chunk::<4>().map(|a| IpAddr::from(*a)),
                16 => value.first_chunk::<16>().map(|a| IpAddr::from(*a)),
                _ => None,
            }
        });
        found.or_else(|errno| failed(format!("cannot read this namespace's addresses: {errno}")))
    }

    /// Sets the interface lo up, if it is not.
    pub(crate) fn loopback_up(&mut self) -> Outcome<()> {
        let mut header = vec![0; 4];
        header.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
        // The flag, and that it is this one that is meant.
        header.extend_from_slice(&UP.to_ne_bytes());
        header.extend_from_slice(&UP.to_ne_bytes());
        let mut message = Messages::default();
        message.begin(SET_LINK, 0, &header);
        message.acknowledge();
        self.change(&message, "setting the interface lo up", Errno::EXIST).map(drop)
    }

    /// Makes routes and the address on loopback as these rules want them. `known` is the policy route that
    /// an earlier run may have made. Says whether anything was changed.
    pub(crate) fn apply(&mut self, rules: &RuleSet, known: Steering) -> Outcome<bool> {
        let mut changed = false;
        if rules.inbound_source_v6 {
            changed |= self.add_inbound_source()?;
        }
        for family in Family::ALL {
            let wanted = rules.steering.filter(|_| rules.families.has(family));
            changed |= self.steer(family, known, wanted.is_some(), false)?;
        }
        Ok(changed)
    }

    /// Takes away what [`Routes::apply`] makes.
    pub(crate) fn clean(&mut self, known: Steering) -> Outcome<bool> {
        let mut changed = false;
        for family in Family::ALL {
            changed |= self.steer(family, known, false, true)?;
        }
        if self.addresses()?.contains(&INBOUND_SOURCE_V6.into()) {
            let message = inbound_source(DELETE_ADDRESS, 0);
            changed |= self.change(&message, "removing ::6 from lo", Errno::ADDRNOTAVAIL)?;
        }
        Ok(changed)
    }

    /// The kernel finishes this on its own time. The proxy can use the address once there is a route to it.
    fn add_inbound_source(&mut self) -> Outcome<bool> {
        let message = inbound_source(NEW_ADDRESS, CREATE | EXCL);
        let changed = self.change(&message, "adding ::6 to lo", Errno::EXIST)?;
        let deadline = Instant::now() + ADDRESS_PATIENCE;
        while !self.is_local(INBOUND_SOURCE_V6) {
            if Instant::now() > deadline {
                return failed(
                    "adding ::6 to lo: the kernel has made no route to it; is the interface lo up?",
                );
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(changed)
    }

    fn is_local(&mut self, address: Ipv6Addr) -> bool {
        let mut message = Messages::default();
        message.begin(GET_ROUTE, 0, &[Family::V6.number(), 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.attribute(ROUTE_DESTINATION, &address.octets());
        self.socket.ask(&message).is_ok_and(|answer| answer.get(7) == Some(&LOCAL_ROUTE))
    }

    /// Exactly one rule and one route, or none of either. A rule is made after its route and removed before
    /// it, so where there is no rule a route can be left of a run that was cut short: `thorough` looks.
    fn steer(&mut self, family: Family, steering: Steering, wanted: bool, thorough: bool) -> Outcome<bool> {
        let there = self.rules(family, steering)?;
        let surplus = if wanted { there.saturating_sub(1) } else { there };
        let mut changed = false;
        for _ in 0..surplus {
            let message = routing_rule(DELETE_RULE, 0, family, steering);
            changed |= self.change(&message, "removing a routing rule", Errno::NOENT)?;
        }
        if wanted {
            let message = local_route(NEW_ROUTE, CREATE | EXCL, family, steering);
            changed |= self.change(&message, "adding a local route", Errno::EXIST)?;
            if there == 0 {
                let message = routing_rule(NEW_RULE, CREATE | EXCL, family, steering);
                changed |= self.change(&message, "adding a routing rule", Errno::EXIST)?;
            }
        } else if there > 0 || thorough {
            let message = local_route(DELETE_ROUTE, 0, family, steering);
            changed |= self.change(&message, "removing a local route", Errno::SRCH)?;
        }
        Ok(changed)
    }

    /// How many rules send this mark to this table.
    fn rules(&mut self, family: Family, steering: Steering) -> Outcome<usize> {
        let mut message = Messages::default();
        message.begin(GET_RULE, DUMP, &rule_header(family, 0));
        let found = self.socket.dump(&message, |body| {
            let attributes = body.get(12..)?;
            let mark = native(attribute(attributes, FIREWALL_MARK));
            let table = native(attribute(attributes, TABLE));
            (body[0] == family.number() && mark == steering.mark && table == steering.table).then_some(())
        });
        match found {
            Ok(found) => Ok(found.len()),
            // This kernel has no such family.
            Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => Ok(0),
            Err(errno) => failed(format!("cannot read the {family} routing rules: {errno}")),
        }
    }

    /// One change; `already` is the error that says that there is nothing to do.
    fn change(&mut self, message: &Messages, what: &str, already: Errno) -> Outcome<bool> {
        match self.socket.request(message) {
            Ok(()) => Ok(true),
            Err(refusals) => match refusals.first().map(|refusal| refusal.errno) {
                Some(errno) if errno == already => Ok(false),
                Some(Errno::PERM | Errno::ACCESS) if what.contains("::6") => failed(format!(
                    "{what}: not permitted; either the process lacks the capability NET_ADMIN, or IPv6 is off on lo: \
                     set net.ipv6.conf.lo.disable_ipv6=0 or give --ip-families ipv4"
                )),
                Some(Errno::PERM | Errno::ACCESS) => {
                    failed(format!("{what}: not permitted; the process needs the capability NET_ADMIN"))
                }
                Some(errno) => failed(format!("{what}: {errno}")),
                None => failed(format!("{what}: refused without a reason")),
            },
        }
    }
}

fn inbound_source(kind: u16, flags: u16) -> Messages {
    let mut header = vec![Family::V6.number(), 128, NO_DUPLICATE_DETECTION, 0];
    header.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    let mut message = Messages::default();
    message.begin(kind, flags, &header);
    message
        .attribute(ADDRESS, &INBOUND_SOURCE_V6.octets())
        .attribute(LOCAL_ADDRESS, &INBOUND_SOURCE_V6.octets());
    message.acknowledge();
    message
}

/// The table is in an attribute: it may be larger than a byte.
fn rule_header(family: Family, action: u8) -> [u8; 12] {
    [family.number(), 0, 0, 0, 0, 0, 0, action, 0, 0, 0, 0]
}

fn routing_rule(kind: u16, flags: u16, family: Family, steering: Steering) -> Messages {
    let to_table = 1;
    let mut message = Messages::default();
    message.begin(kind, flags, &rule_header(family, to_table));
    message.attribute(FIREWALL_MARK, &steering.mark.to_ne_bytes());
    message.attribute(TABLE, &steering.table.to_ne_bytes());
    message.acknowledge();
    message
}

fn local_route(kind: u16, flags: u16, family: Family, steering: Steering) -> Messages {
    let (boot, host_scope) = (3, 254);
    let mut message = Messages::default();
    message.begin(kind, flags, &[family.number(), 0, 0, 0, 0, boot, host_scope, LOCAL_ROUTE, 0, 0, 0, 0]);
    message.attribute(TABLE, &steering.table.to_ne_bytes());
    message.attribute(ROUTE_INTERFACE, &LOOPBACK_INDEX.to_ne_bytes());
    message.acknowledge();
    message
}
