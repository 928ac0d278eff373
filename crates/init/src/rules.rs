//! The rules that a plan comes to, in words that both packet filters know. Back ends turn them into
//! iptables text or nftables expressions and read them back; printers show them to people.
//!
//! A built-in hook holds nothing but jumps into chains of ours. So what is ours can always be told from
//! what is not, whichever options it was made with, and is replaced or taken away without a guess.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::values::{Families, Family, Interface, Net, Ports};

/// The tables that capture uses, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableKind {
    Mangle,
    Nat,
    Raw,
}

impl TableKind {
    pub(crate) const ALL: [TableKind; 3] = [TableKind::Mangle, TableKind::Nat, TableKind::Raw];

    /// The name in iptables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TableKind::Mangle => "mangle",
            TableKind::Nat => "nat",
            TableKind::Raw => "raw",
        }
    }
}

/// Where packets enter the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Packets that arrive, also over loopback.
    Prerouting,
    /// Packets that this namespace sends.
    Output,
}

impl Hook {
    /// The built-in chain of iptables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "PREROUTING",
            Hook::Output => "OUTPUT",
        }
    }
}

/// Chains with the ways in which their rules end.
pub(crate) type Endings = Vec<(String, Vec<String>)>;

/// Names of our chains: Istio's own, so that its tools and people's scripts recognise them.
pub(crate) mod chain {
    pub(crate) const INBOUND: &str = "ISTIO_INBOUND";
    pub(crate) const REDIRECT: &str = "ISTIO_REDIRECT";
    pub(crate) const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
    pub(crate) const OUTPUT: &str = "ISTIO_OUTPUT";
    pub(crate) const OUTPUT_DNS: &str = "ISTIO_OUTPUT_DNS";
    pub(crate) const DIVERT: &str = "ISTIO_DIVERT";
    pub(crate) const TPROXY: &str = "ISTIO_TPROXY";
    pub(crate) const DROP: &str = "ISTIO_DROP";
    pub(crate) const PREROUTING: &str = "ISTIO_PREROUTING";
    pub(crate) const PROXY_INIT_REDIRECT: &str = "PROXY_INIT_REDIRECT";
    pub(crate) const PROXY_INIT_OUTPUT: &str = "PROXY_INIT_OUTPUT";

    /// Every chain that is ours, in whichever mode it was made.
    pub(crate) const OURS: [&str; 11] = [
        INBOUND,
        REDIRECT,
        IN_REDIRECT,
        OUTPUT,
        OUTPUT_DNS,
        DIVERT,
        TPROXY,
        DROP,
        PREROUTING,
        PROXY_INIT_REDIRECT,
        PROXY_INIT_OUTPUT,
    ];
}

/// Transport protocols that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// The number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Invalid,
    RelatedOrEstablished,
}

/// A test; a rule applies to packets that pass all of its tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Protocol(Protocol),
    In(Interface),
    Out(Interface),
    Source(Net),
    Destination(Net),
    NotDestination(Net),
    /// Needs a [`Match::Protocol`] before it, as do the other ports.
    SourcePort(u16),
    DestinationPort(Ports),
    /// None of these.
    NotDestinationPorts(Vec<u16>),
    Uid(u32),
    NotUid(u32),
    Gid(u32),
    NotGid(u32),
    Mark(u32),
    NotMark(u32),
    ConnectionMark(u32),
    State(State),
}

impl Match {
    /// Whether it can only be passed in one family: it names an address.
    pub(crate) fn names_family(&self) -> bool {
        matches!(self, Match::Source(_) | Match::Destination(_) | Match::NotDestination(_))
    }
}

/// What happens to a packet that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Return,
    Accept,
    Drop,
    Jump(&'static str),
    /// To this port of the local machine.
    Redirect(u16),
    /// To the socket on this port, addresses unchanged, with this mark; without such a socket, dropped.
    Tproxy {
        port: u16,
        mark: u32,
    },
    SetMark(u32),
    /// The packet's mark becomes the connection's.
    SaveMark,
    /// The connection's mark becomes the packet's.
    RestoreMark,
    /// The zone of connection tracking.
    Zone(u16),
    /// To another address.
    Dnat(SocketAddr),
}

/// A rule of a chain of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The families it is meant for, of those that are captured.
    pub(crate) families: Families,
    pub(crate) matches: Vec<Match>,
    pub(crate) action: Action,
    /// Why it is there, for people.
    pub(crate) note: Cow<'static, str>,
}

impl Rule {
    /// The protocol that it asks for.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        self.matches.iter().find_map(|test| match test {
            Match::Protocol(protocol) => Some(*protocol),
            _ => None,
        })
    }
}

/// A jump from a hook into a chain of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) hook: Hook,
    pub(crate) families: Families,
    /// Only packets of this protocol.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) chain: &'static str,
    pub(crate) note: &'static str,
}

impl Entry {
    /// The same as a rule.
    pub(crate) fn rule(&self) -> Rule {
        Rule {
            families: self.families,
            matches: self.protocol.map(Match::Protocol).into_iter().collect(),
            action: Action::Jump(self.chain),
            note: self.note.into(),
        }
    }
}

/// A chain of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) rules: Vec<Rule>,
}

/// Our part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) kind: TableKind,
    pub(crate) entries: Vec<Entry>,
    pub(crate) chains: Vec<Chain>,
}

impl Table {
    pub(crate) fn new(kind: TableKind) -> Table {
        Table { kind, entries: Vec::new(), chains: Vec::new() }
    }

    /// The chain of this name, made if it is not there.
    pub(crate) fn chain(&mut self, name: &'static str) -> &mut Chain {
        let at = match self.chains.iter().position(|chain| chain.name == name) {
            Some(at) => at,
            None => {
                self.chains.push(Chain { name, rules: Vec::new() });
                self.chains.len() - 1
            }
        };
        &mut self.chains[at]
    }

    pub(crate) fn enter(
        &mut self,
        hook: Hook,
        families: Families,
        protocol: Option<Protocol>,
        chain: &'static str,
        note: &'static str,
    ) {
        self.chain(chain);
        self.entries.push(Entry { hook, families, protocol, chain, note });
    }

    /// What is left for one family: its jumps, and the chains that they reach.
    pub(crate) fn of(&self, family: Family) -> Table {
        let entries: Vec<Entry> =
            self.entries.iter().filter(|entry| entry.families.has(family)).cloned().collect();
        let mut chains: Vec<Chain> = self
            .chains
            .iter()
            .map(|chain| Chain {
                name: chain.name,
                rules: chain.rules.iter().filter(|rule| rule.families.has(family)).cloned().collect(),
            })
            .collect();
        let mut reached: Vec<&str> = entries.iter().map(|entry| entry.chain).collect();
        let mut next = 0;
        while let Some(name) = reached.get(next).copied() {
            let rules = chains.iter().find(|chain| chain.name == name).map_or(&[][..], |chain| &chain.rules);
            for rule in rules {
                if let Action::Jump(target) = rule.action
                    && !reached.contains(&target)
                {
                    reached.push(target);
                }
            }
            next += 1;
        }
        chains.retain(|chain| reached.contains(&chain.name));
        Table { kind: self.kind, entries, chains }
    }
}

impl Chain {
    pub(crate) fn rule(
        &mut self,
        families: Families,
        matches: impl Into<Vec<Match>>,
        action: Action,
        note: impl Into<Cow<'static, str>>,
    ) {
        self.rules.push(Rule { families, matches: matches.into(), action, note: note.into() });
    }
}

/// Policy routing that hands marked packets to local sockets, whatever address they bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steering {
    pub(crate) mark: u32,
    pub(crate) table: u32,
}

/// All that a plan comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleSet {
    pub(crate) families: Families,
    pub(crate) tables: Vec<Table>,
    /// Wanted in each of the families.
    pub(crate) steering: Option<Steering>,
    /// `::6` has to be an address of this machine.
    pub(crate) inbound_source_v6: bool,
}

impl RuleSet {
    /// No rules, no routes.
    pub(crate) fn empty() -> RuleSet {
        RuleSet { families: Families::BOTH, tables: Vec::new(), steering: None, inbound_source_v6: false }
    }

    /// Number of rules, jumps from hooks included, each family counted where it differs.
    pub(crate) fn len(&self) -> usize {
        self.tables
            .iter()
            .map(|table| {
                table.entries.len() + table.chains.iter().map(|chain| chain.rules.len()).sum::<usize>()
            })
            .sum()
    }
}
