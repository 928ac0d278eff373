//! The nftables back end: the kernel is asked over netlink what it holds, and told in one atomic batch what
//! it shall hold. No program is run and no library loaded.
//!
//! Our tables are `inet istio-proxy-nat`, `-mangle` and `-raw`, named as Istio names them. A table that stays
//! keeps its base chains, so that at every moment each packet meets either all of the old rules or all of
//! the new ones.

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::error::{Failure, Outcome};
use crate::expression::{Expression, read_list};
use crate::manner::{Change, Manner};
use crate::netlink::{DUMP, Messages, Socket, attribute, number, text};
use crate::nft_batch::{Batch, failure};
use crate::nft_tables::{
    ANY, Base, Chain, INET, Leftover, Observed, SUBSYSTEM, Tabled, first_difference, header, is_ours, wanted,
};
use crate::rules::{Endings, RuleSet, TableKind, chain};
use crate::values::{Families, Family};

const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const GET_TABLE: u16 = SUBSYSTEM | 1;

/// How often a batch is made anew when somebody else changed the rules meanwhile.
const ATTEMPTS: usize = 20;

/// Whether there are tables of ours, and in which families iptables-nft holds chains of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) own: bool,
    pub(crate) iptables: Families,
}

/// A conversation with the kernel about this namespace's rules.
pub(crate) struct Nftables {
    socket: Socket,
}

impl Nftables {
    pub(crate) fn open() -> Outcome<Nftables> {
        match Socket::open(Some(NETFILTER)) {
            Ok(socket) => Ok(Nftables { socket }),
            Err(errno) => Err(failure("cannot open a netlink socket", errno, "nfnetlink")),
        }
    }

    /// Makes the kernel hold exactly these rules of ours, and checks that it does.
    pub(crate) fn apply(&mut self, rules: &RuleSet, manner: &Manner<'_>) -> Outcome<Change> {
        let wanted = wanted(rules);
        self.settle(&wanted, manner, true)
    }

    /// Takes our own tables away, and with `of_iptables` what iptables-nft has of ours.
    pub(crate) fn clean(&mut self, of_iptables: bool) -> Outcome<Change> {
        self.settle(&[], &Manner::PLAIN, of_iptables)
    }

    /// What there is of ours in this namespace, by whom.
    pub(crate) fn holdings(&mut self) -> Outcome<Holdings> {
        let observed = self.observe()?;
        let holds =
            |family: Family| observed.leftovers.iter().any(|leftover| leftover.family == family.number());
        Ok(Holdings {
            own: !observed.tables.is_empty(),
            iptables: Families { v4: holds(Family::V4), v6: holds(Family::V6) },
        })
    }

    /// How the rules end that iptables-nft holds of ours, by table.
    pub(crate) fn endings_of_iptables(&mut self) -> Outcome<Vec<(Family, (String, Endings))>> {
        let family = |number| Family::ALL.into_iter().find(|family| family.number() == number);
        let leftovers = self.observe()?.leftovers.into_iter();
        Ok(leftovers.filter_map(|left| Some((family(left.family)?, (left.table, left.endings)))).collect())
    }

    fn settle(&mut self, wanted: &[Tabled], manner: &Manner<'_>, of_iptables: bool) -> Outcome<Change> {
        for _ in 0..ATTEMPTS {
            let mut observed = self.observe()?;
            if !of_iptables {
                observed.leftovers.clear();
            }
            if !manner.force && observed.tables == wanted && observed.leftovers.is_empty() {
                return Ok(Change::None);
            }
            if manner.look {
                let difference = first_difference(wanted, &observed.tables);
                return Err(Failure::Run(format!(
                    "nftables: this namespace does not hold the capture rules that were planned: {difference}"
                )));
            }
            let fresh = observed.tables.is_empty() && observed.leftovers.is_empty();
            if !fresh && !manner.repair {
                let difference = first_difference(wanted, &observed.tables);
                return Err(Failure::Run(format!(
                    "nftables: this namespace holds other capture rules than these ({difference} differs), and \
                     --on-drift=fail was given; take them away with --cleanup-only or leave the flag out"
                )));
            }
            if fresh {
                (manner.before_first)();
            }
            let batch = Batch::between(&observed, wanted);
            match self.socket.request(&batch.messages) {
                Ok(()) => {
                    self.verify(wanted)?;
                    return Ok(if fresh { Change::Made } else { Change::Replaced });
                }
                // Somebody else changed the rules, or a module was being loaded: look again.
                Err(refusals)
                    if refusals
                        .iter()
                        .any(|r| matches!(r.errno, Errno::RESTART | Errno::BUSY | Errno::AGAIN)) => {}
                Err(refusals) => return Err(batch.explain(&refusals)),
            }
        }
        Err(Failure::Run(
            "nftables: the rules of this namespace kept changing while ours were applied; \
             find out what else programs them, and run again"
                .to_owned(),
        ))
    }

    fn verify(&mut self, wanted: &[Tabled]) -> Outcome<()> {
        let observed = self.observe()?;
        if observed.tables == wanted {
            return Ok(());
        }
        let difference = first_difference(wanted, &observed.tables);
        Err(Failure::Run(format!(
            "nftables: after applying, the kernel holds other rules than planned: {difference}"
        )))
    }

    fn dump<T>(
        &mut self,
        kind: u16,
        family: u8,
        table: Option<(u16, &str)>,
        each: impl FnMut(&[u8]) -> Option<T>,
    ) -> Outcome<Vec<T>> {
        let mut message = Messages::default();
        message.begin(kind, DUMP, &header(family));
        if let Some((attribute, name)) = table {
            message.string(attribute, name);
        }
        self.socket.dump(&message, each).or_else(|errno| match errno {
            // The table went away since.
            Errno::NOENT => Ok(Vec::new()),
            _ => Err(failure("cannot read this namespace's rules", errno, "")),
        })
    }

    fn observe(&mut self) -> Outcome<Observed> {
        let mut message = Messages::default();
        message.begin(GET_GENERATION, 0, &header(ANY));
        let answer = self
            .socket
            .ask(&message)
            .map_err(|errno| failure("the kernel does not answer", errno, "nf_tables"))?;
        let generation = number(attribute(body(&answer), 1));

        let names = self.dump(GET_TABLE, ANY, None, |message| {
            let family = *message.first()?;
            let name = text(attribute(body(message), 1));
            is_interesting(family, &name).then(|| (family, name, number(attribute(body(message), 2))))
        })?;
        let mut observed = Observed { generation, tables: Vec::new(), leftovers: Vec::new() };
        if names.is_empty() {
            return Ok(observed);
        }
        let chains = self.dump(GET_CHAIN, ANY, None, |message| {
            let attributes = body(message);
            Some((*message.first()?, text(attribute(attributes, 1)), read_chain(attributes)))
        })?;
        for (family, name, flags) in names {
            let chains: Vec<Chain> = chains
                .iter()
                .filter(|(of, table, _)| *of == family && *table == name)
                .map(|(.., chain)| chain.clone())
                .collect();
            let ours = is_ours(&name);
            if !ours && !chains.iter().any(|chain| chain::OURS.contains(&chain.name.as_str())) {
                continue;
            }
            let rules = self.dump(GET_RULE, family, Some((1, &name)), |message| {
                let attributes = body(message);
                // Kernels before 4.15 do not filter.
                (text(attribute(attributes, 1)) == name).then(|| {
                    let handle = attribute(attributes, 3).to_vec();
                    (text(attribute(attributes, 2)), handle, read_list(attribute(attributes, 4)))
                })
            })?;
            if ours {
                observed.tables.push(assemble(family, name, flags, chains, rules));
            } else {
                observed.leftovers.push(leftover(family, name, &chains, rules));
            }
        }
        observed.tables.sort_by(|a, b| (&a.name, a.family).cmp(&(&b.name, b.family)));
        Ok(observed)
    }
}

/// What follows nftables' own header.
fn body(message: &[u8]) -> &[u8] {
    message.get(4..).unwrap_or_default()
}

/// Ours, or one in which iptables-nft keeps what may be ours.
fn is_interesting(family: u8, name: &str) -> bool {
    let of_iptables = Family::ALL.iter().any(|of| of.number() == family);
    (is_ours(name) && (of_iptables || family == INET))
        || (of_iptables && TableKind::ALL.iter().any(|kind| kind.name() == name))
}

fn read_chain(attributes: &[u8]) -> Chain {
    let hook = attribute(attributes, 4);
    let base = (!hook.is_empty()).then(|| Base {
        hook: number(attribute(hook, 1)),
        priority: number(attribute(hook, 2)) as i32,
        kind: text(attribute(attributes, 7)),
        policy: number(attribute(attributes, 5)),
    });
    Chain { name: text(attribute(attributes, 3)), base, rules: Vec::new() }
}

type ObservedRule = (String, Vec<u8>, Vec<Expression>);

fn assemble(
    family: u8,
    name: String,
    flags: u32,
    mut chains: Vec<Chain>,
    rules: Vec<ObservedRule>,
) -> Tabled {
    for (chain, _, expressions) in rules {
        if let Some(chain) = chains.iter_mut().find(|candidate| candidate.name == chain) {
            chain.rules.push(expressions);
        }
    }
    chains.sort_by(|a, b| a.name.cmp(&b.name));
    Tabled { family, name, flags, chains }
}

fn leftover(family: u8, table: String, chains: &[Chain], rules: Vec<ObservedRule>) -> Leftover {
    let ours = |name: &str| chain::OURS.contains(&name);
    let chains: Vec<String> =
        chains.iter().filter(|chain| ours(&chain.name)).map(|chain| chain.name.clone()).collect();
    let mut endings: Endings = chains.iter().map(|name| (name.clone(), Vec::new())).collect();
    let mut jumps = Vec::new();
    for (chain, handle, list) in rules {
        let ending = list.last().and_then(Expression::ending).unwrap_or_default().to_owned();
        if !ours(&chain) {
            if !list.iter().any(|expression| expression.target().is_some_and(ours)) {
                continue;
            }
            jumps.push((chain.clone(), handle));
        }
        match endings.iter_mut().find(|(name, _)| *name == chain) {
            Some((_, list)) => list.push(ending),
            None => endings.push((chain, vec![ending])),
        }
    }
    endings.sort();
    Leftover { family, table, chains, jumps, endings }
}
