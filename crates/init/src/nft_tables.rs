//! What a plan comes to in nftables: tables, chains and the expressions of each rule, in the order in which the
//! kernel lists them.

use crate::expression::{ACCEPT, Expression, chain_name, expressions};
use crate::rules::{Action, Endings, Hook, Rule, RuleSet, Table, TableKind};

/// nftables' part of netfilter's message types.
pub(crate) const SUBSYSTEM: u16 = 10 << 8;

/// No family in particular.
pub(crate) const ANY: u8 = 0;

/// The header of nftables' messages.
pub(crate) fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// What iptables-nft left of ours in one of its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) chains: Vec<String>,
    /// Chain and handle of rules elsewhere that jump to `chains`.
    pub(crate) jumps: Vec<(String, Vec<u8>)>,
    /// How each of our rules and of those jumps ends, by chain and in order.
    pub(crate) endings: Endings,
}

/// What the kernel holds of ours.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) generation: u32,
    pub(crate) tables: Vec<Tabled>,
    pub(crate) leftovers: Vec<Leftover>,
}

/// The number of the family for both IP versions.
pub(crate) const INET: u8 = 1;

/// The number and priority of a hook, and the type of a base chain there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) hook: u32,
    pub(crate) priority: i32,
    pub(crate) kind: String,
    /// What happens to packets that no rule decides on.
    pub(crate) policy: u32,
}

/// A chain as it is, or as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Vec<Expression>>,
}

/// A table as it is, or as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tabled {
    pub(crate) family: u8,
    pub(crate) name: String,
    /// Ours have none; a table can be put to sleep by one.
    pub(crate) flags: u32,
    pub(crate) chains: Vec<Chain>,
}

pub(crate) fn table_name(kind: TableKind) -> String {
    format!("istio-proxy-{}", kind.name())
}

pub(crate) fn is_ours(name: &str) -> bool {
    TableKind::ALL.iter().any(|kind| table_name(*kind) == name)
}

/// The tables that `rules` come to, in the order in which they are observed.
pub(crate) fn wanted(rules: &RuleSet) -> Vec<Tabled> {
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
            Tabled { family: INET, name: table_name(table.kind), flags: 0, chains }
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
    let base = Base { hook: number, priority, kind: kind.to_owned(), policy: ACCEPT };
    (!entries.is_empty()).then(|| Chain { name: hook_chain_name(hook), base: Some(base), rules: entries })
}

/// Where two states differ, for a person.
pub(crate) fn first_difference(wanted: &[Tabled], observed: &[Tabled]) -> String {
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
