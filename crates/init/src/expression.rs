//! nftables' expressions: what the kernel runs for a rule (linux/netfilter/nf_tables.h). They are written
//! into messages and read back from them, so that what the kernel holds can be compared with what was meant.

use crate::netlink::{self, Messages, attribute, attributes};
use crate::rules::{Action, Match, Rule, State};
use crate::values::{Families, Family, Interface, Net};

const LIST_ELEMENT: u16 = 1;
const VERDICT_REGISTER: u32 = 0;
/// Where tests load to, and what statements take from.
const REGISTER: u32 = 1;
const SECOND_REGISTER: u32 = 2;

/// Keys of the `meta` expression.
pub(crate) mod meta {
    pub(crate) const MARK: u32 = 3;
    pub(crate) const IIFNAME: u32 = 6;
    pub(crate) const OIFNAME: u32 = 7;
    pub(crate) const SKUID: u32 = 10;
    pub(crate) const SKGID: u32 = 11;
    pub(crate) const NFPROTO: u32 = 15;
    pub(crate) const L4PROTO: u32 = 16;
}

/// Keys of the `ct` expression, and bits of its state.
mod ct {
    pub(super) const STATE: u32 = 0;
    pub(super) const MARK: u32 = 3;
    pub(super) const ZONE: u32 = 17;
    pub(super) const INVALID: u32 = 1;
    pub(super) const ESTABLISHED: u32 = 2;
    pub(super) const RELATED: u32 = 4;
}

/// Headers that the `payload` expression loads from.
mod payload {
    pub(super) const NETWORK: u32 = 1;
    pub(super) const TRANSPORT: u32 = 2;
}

const DROP: u32 = 0;
/// Also the policy of base chains.
pub(crate) const ACCEPT: u32 = 1;
const JUMP: u32 = -3i32 as u32;
const RETURN: u32 = -5i32 as u32;

/// How a register compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal = 0,
    Different = 1,
    AtMost = 3,
    AtLeast = 5,
}

impl Compare {
    fn from_number(number: u32) -> Option<Compare> {
        [Compare::Equal, Compare::Different, Compare::AtMost, Compare::AtLeast]
            .into_iter()
            .find(|how| *how as u32 == number)
    }
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Counter,
    Meta {
        key: u32,
    },
    SetMeta {
        key: u32,
    },
    Ct {
        key: u32,
    },
    SetCt {
        key: u32,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Compare {
        how: Compare,
        data: Vec<u8>,
    },
    Bits {
        mask: Vec<u8>,
    },
    Load {
        register: u32,
        data: Vec<u8>,
    },
    Verdict {
        code: u32,
        chain: String,
    },
    Redirect,
    Tproxy {
        family: u32,
    },
    Dnat {
        family: u32,
    },
    /// Something that no rule of ours has, by its name; a target of iptables by its name there.
    Foreign(String),
}

impl Expression {
    /// The name of its kind, which is also that of the kernel module that has it, after `nft_`.
    pub(crate) fn name(&self) -> &str {
        match self {
            Expression::Counter => "counter",
            Expression::Meta { .. } | Expression::SetMeta { .. } => "meta",
            Expression::Ct { .. } | Expression::SetCt { .. } => "ct",
            Expression::Payload { .. } => "payload",
            Expression::Compare { .. } => "cmp",
            Expression::Bits { .. } => "bitwise",
            Expression::Load { .. } | Expression::Verdict { .. } => "immediate",
            Expression::Redirect => "redir",
            Expression::Tproxy { .. } => "tproxy",
            Expression::Dnat { .. } => "nat",
            Expression::Foreign(name) => name,
        }
    }

    /// Where a jump leads.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            Expression::Verdict { chain, .. } if !chain.is_empty() => Some(chain),
            _ => None,
        }
    }

    /// What it does with a packet as iptables says it, if it ends a rule.
    pub(crate) fn ending(&self) -> Option<&str> {
        match self {
            Expression::Verdict { code, chain } if chain.is_empty() => match *code {
                RETURN => Some("RETURN"),
                ACCEPT => Some("ACCEPT"),
                DROP => Some("DROP"),
                _ => None,
            },
            Expression::Foreign(name) => Some(name),
            _ => self.target(),
        }
    }

    pub(crate) fn write(&self, to: &mut Messages) {
        to.nested(LIST_ELEMENT, |to| {
            to.string(1, self.name());
            to.nested(2, |to| self.write_data(to));
        });
    }

    fn write_data(&self, to: &mut Messages) {
        match self {
            Expression::Counter | Expression::Foreign(_) => {}
            Expression::Meta { key } => {
                to.number(2, *key).number(1, REGISTER);
            }
            Expression::SetMeta { key } => {
                to.number(2, *key).number(3, REGISTER);
            }
            Expression::Ct { key } => {
                to.number(2, *key).number(1, REGISTER);
            }
            Expression::SetCt { key } => {
                to.number(2, *key).number(4, REGISTER);
            }
            Expression::Payload { base, offset, length } => {
                to.number(1, REGISTER).number(2, *base).number(3, *offset).number(4, *length);
            }
            Expression::Compare { how, data } => {
                to.number(1, REGISTER).number(2, *how as u32);
                to.nested(3, |to| _ = to.attribute(1, data));
            }
            Expression::Bits { mask } => {
                to.number(1, REGISTER).number(2, REGISTER).number(3, mask.len() as u32);
                to.nested(4, |to| _ = to.attribute(1, mask));
                to.nested(5, |to| _ = to.attribute(1, &vec![0; mask.len()]));
            }
            Expression::Load { register, data } => {
                to.number(1, *register);
                to.nested(2, |to| _ = to.attribute(1, data));
            }
            Expression::Verdict { code, chain } => {
                to.number(1, VERDICT_REGISTER);
                to.nested(2, |to| {
                    to.nested(2, |to| {
                        to.number(1, *code);
                        if !chain.is_empty() {
                            to.string(2, chain);
                        }
                    });
                });
            }
            Expression::Redirect => {
                to.number(1, REGISTER);
            }
            Expression::Tproxy { family } => {
                to.number(1, *family).number(3, REGISTER);
            }
            Expression::Dnat { family } => {
                to.number(1, 1).number(2, *family).number(3, REGISTER).number(5, SECOND_REGISTER);
            }
        }
    }

    /// Reads one element of a rule's list. What is not exactly as [`Expression::write`] would have it is
    /// foreign.
    fn read(element: &[u8]) -> Expression {
        let name = netlink::text(attribute(element, 1));
        if name == "target" {
            return Expression::Foreign(netlink::text(attribute(attribute(element, 2), 1)));
        }
        Expression::read_data(&name, attribute(element, 2)).unwrap_or(Expression::Foreign(name))
    }

    fn read_data(name: &str, data: &[u8]) -> Option<Expression> {
        let number = |kind| netlink::number(attribute(data, kind));
        let has = |kind| attributes(data).any(|(found, _)| found == kind);
        let value = |kind| attribute(attribute(data, kind), 1).to_vec();
        let registers = |kinds: &[u16]| kinds.iter().all(|kind| number(*kind) == REGISTER);
        let expression = match name {
            "counter" => Expression::Counter,
            "meta" if has(1) && registers(&[1]) => Expression::Meta { key: number(2) },
            "meta" if registers(&[3]) => Expression::SetMeta { key: number(2) },
            "ct" if has(1) && registers(&[1]) && !has(3) => Expression::Ct { key: number(2) },
            "ct" if registers(&[4]) && !has(3) => Expression::SetCt { key: number(2) },
            "payload" if registers(&[1]) => {
                Expression::Payload { base: number(2), offset: number(3), length: number(4) }
            }
            "cmp" if registers(&[1]) => {
                Expression::Compare { how: Compare::from_number(number(2))?, data: value(3) }
            }
            // Operation 0 is "and, then exclusive or"; ours has nothing to change after the "and".
            "bitwise" if registers(&[1, 2]) && number(6) == 0 && value(5).iter().all(|byte| *byte == 0) => {
                Expression::Bits { mask: value(4) }
            }
            "immediate" if number(1) == VERDICT_REGISTER => {
                let verdict = attribute(attribute(data, 2), 2);
                Expression::Verdict {
                    code: netlink::number(attribute(verdict, 1)),
                    chain: netlink::text(attribute(verdict, 2)),
                }
            }
            "immediate" => Expression::Load { register: number(1), data: value(2) },
            "redir" if registers(&[1]) => Expression::Redirect,
            "tproxy" if registers(&[3]) && !has(2) => Expression::Tproxy { family: number(1) },
            "nat" if number(1) == 1 && number(3) == REGISTER && number(5) == SECOND_REGISTER => {
                Expression::Dnat { family: number(2) }
            }
            _ => return None,
        };
        Some(expression)
    }
}

/// The expressions of a rule, from its list.
pub(crate) fn read_list(list: &[u8]) -> Vec<Expression> {
    attributes(list).map(|(_, element)| Expression::read(element)).collect()
}

/// What the kernel shall run for `rule`. `enabled` are the families that any rule is for: where a rule is for
/// fewer, or stands at a hook, where packets of every family pass, it tests the family first.
pub(crate) fn expressions(rule: &Rule, enabled: Families, at_hook: bool) -> Vec<Expression> {
    let families = rule.families.and(enabled);
    let mut list = Vec::new();
    if let Some(family) = families.single()
        && (at_hook || enabled.single().is_none() || rule.matches.iter().any(Match::names_family))
    {
        list.push(Expression::Meta { key: meta::NFPROTO });
        list.push(Expression::Compare { how: Compare::Equal, data: vec![family.number()] });
    }
    for test in &rule.matches {
        match_expressions(test, &mut list);
    }
    list.push(Expression::Counter);
    action_expressions(&rule.action, families, &mut list);
    list
}

fn match_expressions(test: &Match, list: &mut Vec<Expression>) {
    let mut compare = |load: Expression, how: Compare, data: Vec<u8>| {
        list.push(load);
        list.push(Expression::Compare { how, data });
    };
    // Numbers are in this machine's order, except what stands in a packet.
    let native = |value: u32| value.to_ne_bytes().to_vec();
    match test {
        Match::Protocol(protocol) => {
            compare(Expression::Meta { key: meta::L4PROTO }, Compare::Equal, vec![protocol.number()])
        }
        Match::In(name) => compare(Expression::Meta { key: meta::IIFNAME }, Compare::Equal, interface(name)),
        Match::Out(name) => compare(Expression::Meta { key: meta::OIFNAME }, Compare::Equal, interface(name)),
        Match::Source(net) => address(net, true, Compare::Equal, list),
        Match::Destination(net) => address(net, false, Compare::Equal, list),
        Match::NotDestination(net) => address(net, false, Compare::Different, list),
        Match::SourcePort(port) => compare(transport(0), Compare::Equal, port.to_be_bytes().to_vec()),
        Match::DestinationPort(ports) if ports.first == ports.last => {
            compare(transport(2), Compare::Equal, ports.first.to_be_bytes().to_vec());
        }
        Match::DestinationPort(ports) => {
            compare(transport(2), Compare::AtLeast, ports.first.to_be_bytes().to_vec());
            list.push(Expression::Compare { how: Compare::AtMost, data: ports.last.to_be_bytes().to_vec() });
        }
        Match::NotDestinationPorts(ports) => {
            for port in ports {
                compare(transport(2), Compare::Different, port.to_be_bytes().to_vec());
            }
        }
        Match::Uid(id) => compare(Expression::Meta { key: meta::SKUID }, Compare::Equal, native(*id)),
        Match::NotUid(id) => compare(Expression::Meta { key: meta::SKUID }, Compare::Different, native(*id)),
        Match::Gid(id) => compare(Expression::Meta { key: meta::SKGID }, Compare::Equal, native(*id)),
        Match::NotGid(id) => compare(Expression::Meta { key: meta::SKGID }, Compare::Different, native(*id)),
        Match::Mark(mark) => compare(Expression::Meta { key: meta::MARK }, Compare::Equal, native(*mark)),
        Match::NotMark(mark) => {
            compare(Expression::Meta { key: meta::MARK }, Compare::Different, native(*mark))
        }
        Match::ConnectionMark(mark) => {
            compare(Expression::Ct { key: ct::MARK }, Compare::Equal, native(*mark))
        }
        Match::State(state) => {
            let bits = match state {
                State::Invalid => ct::INVALID,
                State::RelatedOrEstablished => ct::RELATED | ct::ESTABLISHED,
            };
            list.push(Expression::Ct { key: ct::STATE });
            list.push(Expression::Bits { mask: native(bits) });
            list.push(Expression::Compare { how: Compare::Different, data: native(0) });
        }
    }
}

/// A name filled up with zeros to the kernel's length, or only its beginning.
fn interface(interface: &Interface) -> Vec<u8> {
    let mut name = interface.name.as_bytes().to_vec();
    if !interface.open {
        name.resize(16, 0);
    }
    name
}

fn transport(offset: u32) -> Expression {
    Expression::Payload { base: payload::TRANSPORT, offset, length: 2 }
}

/// Loads what the prefix covers, as nft does: whole bytes of it need no mask.
fn address(net: &Net, source: bool, how: Compare, list: &mut Vec<Expression>) {
    let (offset, whole) = match (net.family(), source) {
        (Family::V4, true) => (12, 4),
        (Family::V4, false) => (16, 4),
        (Family::V6, true) => (8, 16),
        (Family::V6, false) => (24, 16),
    };
    let trimmed = net.prefix > 0 && net.prefix.is_multiple_of(8);
    let length = if trimmed { u32::from(net.prefix / 8) } else { whole };
    list.push(Expression::Payload { base: payload::NETWORK, offset, length });
    if !trimmed {
        list.push(Expression::Bits { mask: net.mask() });
    }
    let mut data = net.octets();
    data.truncate(length as usize);
    list.push(Expression::Compare { how, data });
}

fn action_expressions(action: &Action, families: Families, list: &mut Vec<Expression>) {
    let verdict = |code| Expression::Verdict { code, chain: String::new() };
    let load = |data: Vec<u8>| Expression::Load { register: REGISTER, data };
    match action {
        Action::Return => list.push(verdict(RETURN)),
        Action::Accept => list.push(verdict(ACCEPT)),
        Action::Drop => list.push(verdict(DROP)),
        Action::Jump(chain) => list.push(Expression::Verdict { code: JUMP, chain: chain_name(chain) }),
        Action::Redirect(port) => list.extend([load(port.to_be_bytes().to_vec()), Expression::Redirect]),
        Action::Tproxy { port, mark } => {
            let family = families.single().map_or(0, |family| family.number().into());
            list.extend([
                load(port.to_be_bytes().to_vec()),
                Expression::Tproxy { family },
                load(mark.to_ne_bytes().to_vec()),
                Expression::SetMeta { key: meta::MARK },
                verdict(ACCEPT),
            ]);
        }
        Action::SetMark(mark) => {
            list.extend([load(mark.to_ne_bytes().to_vec()), Expression::SetMeta { key: meta::MARK }]);
        }
        Action::SaveMark => {
            list.extend([Expression::Meta { key: meta::MARK }, Expression::SetCt { key: ct::MARK }]);
        }
        Action::RestoreMark => {
            list.extend([Expression::Ct { key: ct::MARK }, Expression::SetMeta { key: meta::MARK }]);
        }
        Action::Zone(zone) => {
            list.extend([load(zone.to_ne_bytes().to_vec()), Expression::SetCt { key: ct::ZONE }]);
        }
        Action::Dnat(target) => {
            let port = target.port().to_be_bytes().to_vec();
            list.extend([
                load(Net::host(target.ip()).octets()),
                Expression::Load { register: SECOND_REGISTER, data: port },
                Expression::Dnat { family: Family::of(target.ip()).number().into() },
            ]);
        }
    }
}

/// A chain's name in nftables: Istio's, again.
pub(crate) fn chain_name(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}
