//! The nftables back end: the kernel is asked over netlink what it holds, and told in one atomic batch what
//! it shall hold. No program is run and no library loaded.
//!
//! Our tables are `inet istio-proxy-nat`, `-mangle` and `-raw`, named as Istio names them. A table that stays
//! keeps its base chains, so that at every moment each packet meets either all of the old rules or all of
//! the new ones.

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::backend::Manner;
use crate::error::{Failure, Outcome};
use crate::expression::{self, Expression, chain_name, expressions, read_list};
use crate::netlink::{APPEND, CREATE, DUMP, Messages, Refusal, Socket, attribute, number, text};
use crate::rules::{Action, Hook, Rule, RuleSet, Table, TableKind, chain};
use crate::values::{Families, Family};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const ANY: u8 = 0;
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const FAMILIES: [u8; 3] = [INET, IPV4, IPV6];
/// How often a batch is made anew when somebody else changed the rules meanwhile.
const ATTEMPTS: usize = 20;

/// The number and priority of a hook, and the type of a base chain there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Base {
    hook: u32,
    priority: i32,
    kind: String,
}

/// A chain as it is, or as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    name: String,
    base: Option<Base>,
    rules: Vec<Vec<Expression>>,
}

/// A table as it is, or as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tabled {
    family: u8,
    name: String,
    chains: Vec<Chain>,
}

/// What iptables-nft left of ours in one of its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leftover {
    family: u8,
    table: String,
    chains: Vec<String>,
    /// Chain and handle of rules elsewhere that jump to `chains`.
    jumps: Vec<(String, Vec<u8>)>,
    /// How each of our rules and of those jumps ends, by chain and in order.
    endings: Endings,
}

/// Chains with the ways in which their rules end.
pub(crate) type Endings = Vec<(String, Vec<String>)>;

/// What the kernel holds of ours.
#[derive(Debug)]
struct Observed {
    generation: u32,
    tables: Vec<Tabled>,
    leftovers: Vec<Leftover>,
}

/// Whether there are tables of ours, and in which families iptables-nft holds chains of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) own: bool,
    pub(crate) iptables: Families,
}

/// What applying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The rules were there already.
    None,
    Made,
    /// Other rules of ours were replaced.
    Replaced,
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
        let holds = |family| observed.leftovers.iter().any(|leftover| leftover.family == family);
        Ok(Holdings {
            own: !observed.tables.is_empty(),
            iptables: Families { v4: holds(IPV4), v6: holds(IPV6) },
        })
    }

    /// How the rules end that iptables-nft holds of ours, by table.
    pub(crate) fn endings_of_iptables(&mut self, family: Family) -> Outcome<Vec<(String, Endings)>> {
        let number = expression::family_number(family) as u8;
        let leftovers = self.observe()?.leftovers.into_iter().filter(|leftover| leftover.family == number);
        Ok(leftovers.map(|leftover| (leftover.table, leftover.endings)).collect())
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
            (FAMILIES.contains(&family) && is_interesting(family, &name)).then_some((family, name))
        })?;
        let mut observed = Observed { generation, tables: Vec::new(), leftovers: Vec::new() };
        if names.is_empty() {
            return Ok(observed);
        }
        let chains = self.dump(GET_CHAIN, ANY, None, |message| {
            let attributes = body(message);
            Some((*message.first()?, text(attribute(attributes, 1)), read_chain(attributes)))
        })?;
        for (family, name) in names {
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
                observed.tables.push(assemble(family, name, chains, rules));
            } else {
                observed.leftovers.push(leftover(family, name, &chains, rules));
            }
        }
        observed.tables.sort_by(|a, b| (&a.name, a.family).cmp(&(&b.name, b.family)));
        Ok(observed)
    }
}

fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// What follows nftables' own header.
fn body(message: &[u8]) -> &[u8] {
    message.get(4..).unwrap_or_default()
}

pub(crate) fn table_name(kind: TableKind) -> String {
    format!("istio-proxy-{}", kind.name())
}

fn is_ours(name: &str) -> bool {
    TableKind::ALL.iter().any(|kind| table_name(*kind) == name)
}

/// Ours, or one in which iptables-nft keeps what may be ours.
fn is_interesting(family: u8, name: &str) -> bool {
    is_ours(name) || (family != INET && TableKind::ALL.iter().any(|kind| kind.name() == name))
}

fn read_chain(attributes: &[u8]) -> Chain {
    let hook = attribute(attributes, 4);
    let base = (!hook.is_empty()).then(|| Base {
        hook: number(attribute(hook, 1)),
        priority: number(attribute(hook, 2)) as i32,
        kind: text(attribute(attributes, 7)),
    });
    Chain { name: text(attribute(attributes, 3)), base, rules: Vec::new() }
}

type ObservedRule = (String, Vec<u8>, Vec<Expression>);

fn assemble(family: u8, name: String, mut chains: Vec<Chain>, rules: Vec<ObservedRule>) -> Tabled {
    for (chain, _, expressions) in rules {
        if let Some(chain) = chains.iter_mut().find(|candidate| candidate.name == chain) {
            chain.rules.push(expressions);
        }
    }
    chains.sort_by(|a, b| a.name.cmp(&b.name));
    Tabled { family, name, chains }
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

/// The tables that `rules` come to, in the order in which they are observed.
fn wanted(rules: &RuleSet) -> Vec<Tabled> {
    let mut tables: Vec<Tabled> = rules
        .tables
        .iter()
        .map(|table| {
            let hooks = [Hook::Prerouting, Hook::Output]
                .into_iter()
                .filter_map(|hook| base_chain(table, hook, rules));
            let regular = table.chains.iter().map(|chain| Chain {
                name: chain_name(chain.name),
                base: None,
                rules: chain
                    .rules
                    .iter()
                    .flat_map(steps)
                    .map(|rule| expressions(&rule, rules.families, false))
                    .collect(),
            });
            let mut chains: Vec<Chain> = hooks.chain(regular).collect();
            chains.sort_by(|a, b| a.name.cmp(&b.name));
            Tabled { family: INET, name: table_name(table.kind), chains }
        })
        .collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    tables
}

/// nftables goes on with the next rule where no socket takes the packet; iptables drops it there. A
/// connection that was meant for the proxy never goes past it.
pub(crate) fn steps(rule: &Rule) -> Vec<Rule> {
    let mut steps = vec![rule.clone()];
    if matches!(rule.action, Action::Tproxy { .. }) {
        steps.push(Rule { action: Action::Drop, note: "no proxy, no connection".into(), ..rule.clone() });
    }
    steps
}

/// The name of the base chain at a hook.
pub(crate) fn hook_chain_name(hook: Hook) -> String {
    hook.name().to_lowercase()
}

/// Type and priority of the base chain at a hook.
pub(crate) fn hook_parameters(kind: TableKind, hook: Hook) -> (&'static str, i32) {
    match (kind, hook) {
        (TableKind::Nat, _) => ("nat", -100),
        (TableKind::Mangle, Hook::Prerouting) => ("filter", -150),
        // A changed mark chooses the route anew.
        (TableKind::Mangle, Hook::Output) => ("route", -150),
        (TableKind::Raw, _) => ("filter", -300),
    }
}

fn base_chain(table: &Table, hook: Hook, rules: &RuleSet) -> Option<Chain> {
    let entries: Vec<Vec<Expression>> = table
        .entries
        .iter()
        .filter(|entry| entry.hook == hook)
        .map(|entry| expressions(&entry.rule(), rules.families, true))
        .collect();
    let (kind, priority) = hook_parameters(table.kind, hook);
    let number = match hook {
        Hook::Prerouting => 0,
        Hook::Output => 3,
    };
    let base = Base { hook: number, priority, kind: kind.to_owned() };
    (!entries.is_empty()).then(|| Chain { name: hook_chain_name(hook), base: Some(base), rules: entries })
}

/// Where two states differ, for a person.
fn first_difference(wanted: &[Tabled], observed: &[Tabled]) -> String {
    for table in wanted {
        let Some(other) = observed.iter().find(|t| t.name == table.name && t.family == table.family) else {
            return format!("table {} is missing", table.name);
        };
        for chain in &table.chains {
            let place = format!("chain {} of table {}", chain.name, table.name);
            let Some(found) = other.chains.iter().find(|c| c.name == chain.name) else {
                return format!("{place} is missing");
            };
            if let Some(at) = (0..chain.rules.len().max(found.rules.len()))
                .find(|n| chain.rules.get(*n) != found.rules.get(*n))
            {
                return format!("rule {} in {place}", at + 1);
            }
            if found != chain {
                return format!("the hook of {place}");
            }
        }
        if other.chains.len() != table.chains.len() {
            return format!("table {} has more chains", table.name);
        }
    }
    "there are more tables".to_owned()
}

/// The messages that lead from one state to another, and what each is about.
struct Batch {
    messages: Messages,
    /// By sequence number: what the message does, and the kernel modules that it may need.
    subjects: Vec<(u32, String, Vec<String>)>,
}

impl Batch {
    fn between(observed: &Observed, wanted: &[Tabled]) -> Batch {
        let mut batch = Batch { messages: Messages::default(), subjects: Vec::new() };
        // The subsystem, in network order, is where other headers have a resource.
        batch.messages.begin(BATCH_BEGIN, 0, &[ANY, 0, 0, 10]).number(1, observed.generation);
        for table in wanted {
            let there = observed.tables.iter().find(|t| t.name == table.name && t.family == table.family);
            batch.table(table, there);
        }
        for table in &observed.tables {
            if !wanted.iter().any(|t| t.name == table.name && t.family == table.family) {
                batch.about(format!("removing table {}", table.name), []);
                batch.messages.begin(DELETE_TABLE, 0, &header(table.family)).string(1, &table.name);
            }
        }
        for leftover in &observed.leftovers {
            batch.leftover(leftover);
        }
        batch.messages.acknowledge();
        let last = batch.messages.last;
        batch.messages.begin(BATCH_END, 0, &[ANY, 0, 0, 10]);
        batch.messages.last = last;
        batch
    }

    fn about(&mut self, subject: String, modules: impl IntoIterator<Item = String>) {
        self.subjects.push((self.messages.last + 1, subject, modules.into_iter().collect()));
    }

    fn table(&mut self, table: &Tabled, there: Option<&Tabled>) {
        let place = header(table.family);
        self.about(format!("table {}", table.name), ["nf_tables".to_owned()]);
        self.messages.begin(NEW_TABLE, CREATE, &place).string(1, &table.name).number(2, 0);
        let old: &[Chain] = there.map(|there| there.chains.as_slice()).unwrap_or_default();
        if there.is_some() {
            self.about(format!("emptying table {}", table.name), []);
            self.messages.begin(DELETE_RULE, 0, &place).string(1, &table.name);
        }
        let keeps = |chain: &Chain| old.iter().any(|o| o.name == chain.name && o.base == chain.base);
        let goes = |old: &Chain| !table.chains.iter().any(|c| c.name == old.name && c.base == old.base);
        for chain in old.iter().filter(|chain| goes(chain)) {
            self.about(format!("removing chain {}", chain.name), []);
            self.messages.begin(DELETE_CHAIN, 0, &place).string(1, &table.name).string(3, &chain.name);
        }
        for chain in table.chains.iter().filter(|chain| !keeps(chain)) {
            let module =
                chain.base.as_ref().filter(|base| base.kind == "nat").map(|_| "nft_chain_nat".to_owned());
            self.about(format!("chain {} of table {}", chain.name, table.name), module);
            self.messages.begin(NEW_CHAIN, CREATE, &place).string(1, &table.name).string(3, &chain.name);
            if let Some(base) = &chain.base {
                self.messages.nested(4, |to| {
                    to.number(1, base.hook).number(2, base.priority as u32);
                });
                self.messages.number(5, 1).string(7, &base.kind);
            }
        }
        for chain in &table.chains {
            for (at, rule) in chain.rules.iter().enumerate() {
                // The rest of what a rule is made of comes with nf_tables itself.
                let modules = rule
                    .iter()
                    .map(Expression::name)
                    .filter(|name| ["counter", "ct", "nat", "redir", "tproxy"].contains(name))
                    .map(|name| format!("nft_{name}"));
                self.about(
                    format!("rule {} in chain {} of table {}", at + 1, chain.name, table.name),
                    modules,
                );
                self.messages
                    .begin(NEW_RULE, CREATE | APPEND, &place)
                    .string(1, &table.name)
                    .string(2, &chain.name)
                    .nested(4, |to| rule.iter().for_each(|expression| expression.write(to)));
            }
        }
    }

    fn leftover(&mut self, leftover: &Leftover) {
        let place = header(leftover.family);
        for (chain, handle) in &leftover.jumps {
            self.about(format!("removing a jump in {chain} of iptables' table {}", leftover.table), []);
            self.messages.begin(DELETE_RULE, 0, &place);
            self.messages.string(1, &leftover.table).string(2, chain).attribute(3, handle);
        }
        for (kind, name_attribute) in [(DELETE_RULE, 2), (DELETE_CHAIN, 3)] {
            for chain in &leftover.chains {
                self.about(format!("removing chain {chain} of iptables' table {}", leftover.table), []);
                self.messages.begin(kind, 0, &place).string(1, &leftover.table).string(name_attribute, chain);
            }
        }
    }

    /// The first refusal in words. Later ones mostly follow from it.
    fn explain(&self, refusals: &[Refusal]) -> Failure {
        let Some(refusal) = refusals.first() else {
            return Failure::Run("nftables: the kernel refused the rules without a reason".to_owned());
        };
        let subject = self.subjects.iter().find(|(sequence, ..)| *sequence == refusal.sequence);
        let (subject, modules) = match subject {
            Some((_, subject, modules)) => (subject.as_str(), modules.join(", ")),
            None => ("the batch", String::new()),
        };
        failure(&format!("the kernel refuses {subject}"), refusal.errno, &modules)
    }
}

/// An error of the kernel, with what it means here and what helps.
fn failure(what: &str, errno: Errno, modules: &str) -> Failure {
    let text = |help: &str| format!("nftables: {what}: {errno}{help}");
    match errno {
        Errno::PERM | Errno::ACCESS => Failure::Run(text(
            "; the process needs the capability NET_ADMIN in this network namespace \
             (securityContext.capabilities.add: [NET_ADMIN]), or let the CNI plugin do this",
        )),
        Errno::NOENT | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::INVAL => {
            let which = if modules.is_empty() { String::new() } else { format!(" (modules: {modules})") };
            Failure::Unsupported(text(&format!(
                "; the kernel lacks part of nftables{which}: load it on the node with modprobe, \
                 or try --backend iptables-nft or --backend iptables-legacy"
            )))
        }
        Errno::MSGSIZE | Errno::NOBUFS => Failure::Run(text(
            "; there are too many rules for one netlink message: give fewer ranges or ports",
        )),
        _ => Failure::Run(text("")),
    }
}
