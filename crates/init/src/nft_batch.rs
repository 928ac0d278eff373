//! One atomic batch that leads from what the kernel holds to what it shall hold, and what its refusals mean.

use rustix::io::Errno;

use crate::error::Failure;
use crate::expression::Expression;
use crate::netlink::{APPEND, CREATE, Messages, Refusal};
use crate::nft_tables::{ANY, Chain, Leftover, Observed, SUBSYSTEM, Tabled, header};

const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// The messages that lead from one state to another, and what each is about.
pub(crate) struct Batch {
    pub(crate) messages: Messages,
    /// By sequence number: what the message does, and the kernel modules that it may need.
    subjects: Vec<(u32, String, Vec<String>)>,
}

impl Batch {
    pub(crate) fn between(observed: &Observed, wanted: &[Tabled]) -> Batch {
        let mut batch = Batch { messages: Messages::default(), subjects: Vec::new() };
        // The subsystem, in network order, is where other headers have a resource.
        batch.messages.begin(BATCH_BEGIN, 0, &[ANY, 0, 0, 10]).number(1, observed.generation);
        let same = |a: &Tabled, b: &Tabled| a.name == b.name && a.family == b.family && a.flags == b.flags;
        let (kept, gone): (Vec<&Tabled>, Vec<&Tabled>) =
            observed.tables.iter().partition(|table| wanted.iter().any(|other| same(table, other)));
        // One of the same name with other flags makes room first; the rest goes when ours are in place.
        let (before, after): (Vec<&Tabled>, Vec<&Tabled>) = gone
            .into_iter()
            .partition(|table| wanted.iter().any(|w| w.name == table.name && w.family == table.family));
        before.into_iter().for_each(|table| batch.remove(table));
        for table in wanted {
            batch.table(table, kept.iter().copied().find(|there| same(there, table)));
        }
        after.into_iter().for_each(|table| batch.remove(table));
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

    fn remove(&mut self, table: &Tabled) {
        self.about(format!("removing table {}", table.name), []);
        self.messages.begin(DELETE_TABLE, 0, &header(table.family)).string(1, &table.name);
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
                self.messages.number(5, base.policy).string(7, &base.kind);
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
    pub(crate) fn explain(&self, refusals: &[Refusal]) -> Failure {
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
pub(crate) fn failure(what: &str, errno: Errno, modules: &str) -> Failure {
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
