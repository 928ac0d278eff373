//! Capture for a sidecar in the pod: the plan, and the rules that it comes to.
//!
//! The order of the rules is istio-iptables', because what wins over what is part of what users rely on:
//! an excluded port beats the proxy's own traffic, that beats excluded ranges, and those beat included
//! ports, which beat included ranges.

use std::net::{IpAddr, Ipv6Addr};

use outrigger_contract as contract;

use crate::rules::{Action, Hook, Match, Protocol, RuleSet, State, Steering, Table, TableKind, chain};
use crate::values::{Families, Family, Interface, Net, Ports, Selection};

/// Mark of packets that the proxy sends to this pod itself under TPROXY. Istio's constant: the mark that
/// hands packets to the proxy, plus one, is not used, so that a changed mark does not move it.
const SELF_CALL_MARK: u32 = 1338;
/// The port of name service.
pub(crate) const DNS: u16 = 53;
/// Conntrack zone of queries that the proxy sends on, and of the answers to them.
const ZONE_UPSTREAM: u16 = 1;
/// Conntrack zone of queries that the application sends to the proxy, and of the answers to them.
const ZONE_LOCAL: u16 = 2;
/// The IPv6 loopback range: there is only one address in it.
const LOOPBACK_V6: Net = Net::host(IpAddr::V6(Ipv6Addr::LOCALHOST));

/// How inbound connections reach the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By destination NAT; the proxy asks the kernel for the original destination.
    Redirect,
    /// With source and destination unchanged.
    Tproxy(Steering),
}

/// Which name servers' traffic goes to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dns {
    Off,
    /// Everything on port 53.
    All,
    /// What is sent to one of these.
    Servers(Vec<IpAddr>),
}

impl Dns {
    /// The servers' ranges, by the families that have any; a single `None` stands for any server.
    pub(crate) fn targets(&self, families: Families) -> Vec<(Families, Vec<Option<Net>>)> {
        let of = |family| match self {
            Dns::Servers(servers) => servers
                .iter()
                .filter(|server| Family::of(**server) == family)
                .map(|server| Some(Net::host(*server)))
                .collect(),
            Dns::Off | Dns::All => Vec::new(),
        };
        if *self == Dns::All {
            return vec![(families, vec![None])];
        }
        families
            .each()
            .map(|family| (Families::only(family), of(family)))
            .filter(|(_, targets)| !targets.is_empty())
            .collect()
    }
}

/// Whose outbound connections are captured, by the group of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    AllExcept(Vec<u32>),
    /// None at all if empty.
    Only(Vec<u32>),
}

/// What is captured and what is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sidecar {
    pub(crate) families: Families,
    pub(crate) outbound_port: u16,
    pub(crate) inbound_port: u16,
    /// Inbound connections to this port are never redirected.
    pub(crate) tunnel_port: u16,
    pub(crate) proxy_uids: Vec<u32>,
    pub(crate) proxy_gids: Vec<u32>,
    pub(crate) mode: Mode,
    pub(crate) inbound_ports: Selection<Ports>,
    /// Exceptions where all inbound ports are captured.
    pub(crate) inbound_excluded_ports: Vec<Ports>,
    pub(crate) outbound_ranges: Selection<Net>,
    pub(crate) outbound_excluded_ranges: Vec<Net>,
    /// Captured whatever their address, unless that is excluded.
    pub(crate) outbound_ports: Vec<Ports>,
    pub(crate) outbound_excluded_ports: Vec<Ports>,
    pub(crate) groups: Groups,
    pub(crate) excluded_interfaces: Vec<Interface>,
    /// What arrives from these is treated as outbound: virtual machines inside the pod.
    pub(crate) virtual_interfaces: Vec<Interface>,
    pub(crate) dns: Dns,
    pub(crate) drop_invalid: bool,
    /// Destinations that count as this pod talking to itself over loopback, IPv4.
    pub(crate) loopback_v4: Net,
}

impl Sidecar {
    pub(crate) fn loopback(&self, family: Family) -> Net {
        match family {
            Family::V4 => self.loopback_v4,
            Family::V6 => LOOPBACK_V6,
        }
    }

    pub(crate) fn captures_inbound(&self) -> bool {
        !self.inbound_ports.is_none()
    }

    /// The rules of this plan.
    pub(crate) fn rules(&self) -> RuleSet {
        let tables = [self.mangle(), self.nat(), self.raw()];
        let steering = match self.mode {
            Mode::Tproxy(steering) if self.captures_inbound() => Some(steering),
            _ => None,
        };
        RuleSet {
            families: self.families,
            tables: tables.into_iter().filter(|table| !table.entries.is_empty()).collect(),
            steering,
            inbound_source_v6: self.families.v6,
        }
    }

    /// Inbound and outbound capture in a few words, for the log.
    pub(crate) fn summary(&self) -> (String, String) {
        let ports = |list: &[Ports]| list.iter().map(|p| p.text('-')).collect::<Vec<_>>().join(",");
        let nets = |list: &[Net]| list.iter().map(Net::to_string).collect::<Vec<_>>().join(",");
        let how = match self.mode {
            Mode::Redirect => "redirect",
            Mode::Tproxy(_) => "tproxy",
        };
        let inbound = match &self.inbound_ports {
            Selection::Only(list) if list.is_empty() => "nothing".to_owned(),
            Selection::Only(list) => format!("{how} {} to {}", ports(list), self.inbound_port),
            Selection::All if self.inbound_excluded_ports.is_empty() => {
                format!("{how} all to {}", self.inbound_port)
            }
            Selection::All => {
                format!("{how} all but {} to {}", ports(&self.inbound_excluded_ports), self.inbound_port)
            }
        };
        let mut outbound = match &self.outbound_ranges {
            Selection::All => "all".to_owned(),
            Selection::Only(list) => nets(list),
        };
        let mut also = |word: &str, what: String| {
            if !what.is_empty() {
                outbound = format!("{outbound} {word} {what}");
            }
        };
        also("and ports", ports(&self.outbound_ports));
        also("but", nets(&self.outbound_excluded_ranges));
        also("but ports", ports(&self.outbound_excluded_ports));
        let outbound = match outbound.trim() {
            "" => "nothing".to_owned(),
            what => format!("{what} to {}", self.outbound_port),
        };
        (inbound, outbound)
    }

    /// The proxy's users and groups: a test for each, its opposite, and the ports on which a call to this
    /// pod's own address is not one to turn inbound.
    pub(crate) fn owners(&self) -> Vec<(Match, Match, Vec<u16>)> {
        let by_user = if self.dns == Dns::Off { vec![self.tunnel_port] } else { vec![DNS, self.tunnel_port] };
        let users =
            self.proxy_uids.iter().map(|uid| (Match::Uid(*uid), Match::NotUid(*uid), by_user.clone()));
        let by_group = vec![self.tunnel_port];
        let groups =
            self.proxy_gids.iter().map(|gid| (Match::Gid(*gid), Match::NotGid(*gid), by_group.clone()));
        users.chain(groups).collect()
    }

    fn mangle(&self) -> Table {
        let mut table = Table::new(TableKind::Mangle);
        let tproxy = matches!(self.mode, Mode::Tproxy(_));
        if tproxy || self.drop_invalid {
            let note = "everything that arrives";
            table.enter(Hook::Prerouting, self.families, None, chain::PREROUTING, note);
        }
        if tproxy {
            table.enter(Hook::Output, self.families, None, chain::OUTPUT, "everything that the pod sends");
            for interface in &self.excluded_interfaces {
                let (arrives, leaves) = (Match::In(interface.clone()), Match::Out(interface.clone()));
                let note = "an excluded interface";
                table.chain(chain::PREROUTING).rule(self.families, [arrives], Action::Return, note);
                table.chain(chain::OUTPUT).rule(self.families, [leaves], Action::Return, note);
            }
        }
        if self.drop_invalid {
            let invalid = [Match::State(State::Invalid)];
            let note = "a packet of no connection would be answered with a reset";
            table.chain(chain::PREROUTING).rule(self.families, invalid, Action::Jump(chain::DROP), note);
            table.chain(chain::DROP).rule(self.families, [], Action::Drop, "dropped");
        }
        if let Mode::Tproxy(steering) = self.mode {
            if self.captures_inbound() {
                self.mangle_inbound(&mut table, steering.mark);
            }
            self.mangle_marks(&mut table, steering.mark);
        }
        table
    }

    fn mangle_inbound(&self, table: &mut Table, mark: u32) {
        let all = self.families;
        let divert = table.chain(chain::DIVERT);
        divert.rule(all, [], Action::SetMark(mark), "routed to a local socket");
        divert.rule(all, [], Action::Accept, "no further rule of this table");
        for family in all.each() {
            let matches = [Match::NotDestination(self.loopback(family)), Match::Protocol(Protocol::Tcp)];
            let action = Action::Tproxy { port: self.inbound_port, mark };
            let note = "to the proxy's inbound port, addresses unchanged";
            table.chain(chain::TPROXY).rule(Families::only(family), matches, action, note);
        }
        let to_inbound = Action::Jump(chain::INBOUND);
        table.chain(chain::PREROUTING).rule(all, tcp(), to_inbound, "TCP that arrives");
        let inbound = table.chain(chain::INBOUND);
        inbound.rule(
            all,
            [Match::Protocol(Protocol::Tcp), Match::Mark(mark)],
            Action::Return,
            "from the proxy",
        );
        for family in all.each() {
            let matches = [
                Match::Protocol(Protocol::Tcp),
                Match::Source(inbound_source(family)),
                Match::In(Interface::loopback()),
            ];
            let note = "from the proxy to the application, inbound";
            inbound.rule(Families::only(family), matches, Action::Return, note);
        }
        let matches = [
            Match::Protocol(Protocol::Tcp),
            Match::In(Interface::loopback()),
            Match::NotMark(SELF_CALL_MARK),
        ];
        inbound.rule(all, matches, Action::Return, "the application talks to itself");
        let known = || Match::State(State::RelatedOrEstablished);
        match &self.inbound_ports {
            Selection::All => {
                for ports in &self.inbound_excluded_ports {
                    inbound.rule(all, tcp_ports(*ports), Action::Return, "an excluded inbound port");
                }
                let matches = [Match::Protocol(Protocol::Tcp), known()];
                inbound.rule(all, matches, Action::Jump(chain::DIVERT), "a connection that was captured");
                inbound.rule(all, tcp(), Action::Jump(chain::TPROXY), "every other inbound port");
            }
            Selection::Only(list) => {
                for ports in list {
                    let mut matches = tcp_ports(*ports);
                    matches.push(known());
                    let note = "a connection that was captured";
                    inbound.rule(all, matches, Action::Jump(chain::DIVERT), note);
                    let to_proxy = Action::Jump(chain::TPROXY);
                    inbound.rule(all, tcp_ports(*ports), to_proxy, "an included inbound port");
                }
            }
        }
    }

    fn mangle_marks(&self, table: &mut Table, mark: u32) {
        let all = self.families;
        let marked = || vec![Match::Protocol(Protocol::Tcp), Match::Mark(mark)];
        let note = "replies find the way back to the proxy";
        table.chain(chain::PREROUTING).rule(all, marked(), Action::SaveMark, note);
        let output = table.chain(chain::OUTPUT);
        let mut matches = marked();
        matches.insert(1, on_loopback());
        output.rule(all, matches, Action::Return, "from the proxy, in a client's name");
        for (owner, ..) in self.owners() {
            for family in all.each() {
                let matches = [
                    Match::NotDestination(self.loopback(family)),
                    Match::Protocol(Protocol::Tcp),
                    on_loopback(),
                    owner.clone(),
                ];
                let note = "from the proxy to this pod's own address: inbound";
                output.rule(Families::only(family), matches, Action::SetMark(SELF_CALL_MARK), note);
            }
        }
        let matches = [Match::Protocol(Protocol::Tcp), Match::ConnectionMark(mark)];
        output.rule(all, matches, Action::RestoreMark, "a reply to the proxy");
    }

    /// Two zones of connection tracking: the application's query to the proxy and the proxy's own query
    /// to the server may otherwise have the same addresses and ports, and one of them is lost.
    fn raw(&self) -> Table {
        let mut table = Table::new(TableKind::Raw);
        if self.dns == Dns::Off {
            return table;
        }
        table.enter(Hook::Output, self.families, None, chain::OUTPUT_DNS, "everything that the pod sends");
        for (owner, ..) in self.owners() {
            let output = table.chain(chain::OUTPUT_DNS);
            let mut matches = udp_to(DNS);
            matches.push(owner.clone());
            output.rule(self.families, matches, Action::Zone(ZONE_UPSTREAM), "the proxy asks a server");
            let mut matches = udp_from(contract::DNS_PORT);
            matches.push(owner);
            output.rule(
                self.families,
                matches,
                Action::Zone(ZONE_LOCAL),
                "the proxy answers the application",
            );
        }
        for (families, targets) in self.dns.targets(self.families) {
            let note = "everything that arrives";
            table.enter(Hook::Prerouting, families, None, chain::INBOUND, note);
            for target in targets {
                let mut query: Vec<Match> = target.map(Match::Destination).into_iter().collect();
                query.extend(udp_to(DNS));
                let note = "the application asks";
                table.chain(chain::OUTPUT_DNS).rule(families, query, Action::Zone(ZONE_LOCAL), note);
                let mut answer: Vec<Match> = target.map(Match::Source).into_iter().collect();
                answer.extend(udp_from(DNS));
                let note = "a server answers the proxy";
                table.chain(chain::INBOUND).rule(families, answer, Action::Zone(ZONE_UPSTREAM), note);
            }
        }
        table
    }

    /// Those of the captured families.
    pub(crate) fn nets(&self, nets: &[Net]) -> Vec<Net> {
        nets.iter().copied().filter(|net| self.families.has(net.family())).collect()
    }
}

pub(crate) fn only(net: Net) -> Families {
    Families::only(net.family())
}

pub(crate) fn on_loopback() -> Match {
    Match::Out(Interface::loopback())
}

pub(crate) fn inbound_source(family: Family) -> Net {
    Net::host(family.inbound_source())
}

pub(crate) fn tcp() -> Vec<Match> {
    vec![Match::Protocol(Protocol::Tcp)]
}

pub(crate) fn tcp_port(port: u16) -> Vec<Match> {
    tcp_ports(Ports::one(port))
}

pub(crate) fn tcp_ports(ports: Ports) -> Vec<Match> {
    vec![Match::Protocol(Protocol::Tcp), Match::DestinationPort(ports)]
}

fn udp_to(port: u16) -> Vec<Match> {
    vec![Match::Protocol(Protocol::Udp), Match::DestinationPort(Ports::one(port))]
}

fn udp_from(port: u16) -> Vec<Match> {
    vec![Match::Protocol(Protocol::Udp), Match::SourcePort(port)]
}
