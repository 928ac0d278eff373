//! Which back end programs the kernel, and that the others hold nothing of ours beside it.
//!
//! A probe changes nothing here. Asking legacy iptables for a table makes that table, and a later look then
//! takes it for one in use; so legacy is asked only about tables that are there already. nftables is tried
//! with the rules themselves: a batch that the kernel refuses leaves no trace.

use crate::connections;
use crate::error::{Failure, Outcome};
use crate::iptables::{Flavour, Iptables, legacy_tables};
use crate::log::Log;
use crate::nftables::{Change, Nftables};
use crate::options::{Backend, Options};
use crate::rules::RuleSet;
use crate::values::{Families, Family};

/// How rules are applied.
pub(crate) struct Manner<'a> {
    /// Write them even if they are there.
    pub(crate) force: bool,
    /// Replace other rules of ours; otherwise they are an error.
    pub(crate) repair: bool,
    /// Called before the first rules of ours come into a namespace that has none.
    pub(crate) before_first: &'a dyn Fn(),
}

impl Manner<'_> {
    pub(crate) const PLAIN: Manner<'static> = Manner { force: false, repair: true, before_first: &|| () };
}

/// Makes the kernel hold `rules` and nothing else of ours, and says by which back end and with what change.
pub(crate) fn apply(rules: &RuleSet, options: &Options, log: Log) -> Outcome<(Backend, Change)> {
    let keep_connections = || {
        if let Err(errno) = connections::keep() {
            log.warn(&format!(
                "connections that are open already may break: they cannot be told to connection tracking: {errno}"
            ));
        }
    };
    let manner = Manner { force: options.force, repair: options.repair, before_first: &keep_connections };
    let apply_by = |backend| apply_by(backend, rules, &manner);
    if let Some(backend) = options.backend {
        return Ok((backend, apply_by(backend)?));
    }
    if let Some(reason) = legacy_in_use(rules.families) {
        log.info("backend iptables-legacy", &[("reason", reason.into())]);
        return Ok((Backend::IptablesLegacy, apply_by(Backend::IptablesLegacy)?));
    }
    let refused = match apply_by(Backend::Nftables) {
        Ok(change) => return Ok((Backend::Nftables, change)),
        Err(Failure::Unsupported(text)) => text,
        Err(failure) => return Err(failure),
    };
    for (backend, flavour) in
        [(Backend::IptablesNft, Flavour::Nft), (Backend::IptablesLegacy, Flavour::Legacy)]
    {
        if !Iptables::new(flavour).installed(rules.families) {
            continue;
        }
        log.warn(&format!("{refused}; trying {}", backend.name()));
        if let Ok(change) = apply_by(backend) {
            return Ok((backend, change));
        }
    }
    Err(Failure::Run(refused))
}

fn apply_by(backend: Backend, rules: &RuleSet, manner: &Manner<'_>) -> Outcome<Change> {
    match backend {
        Backend::Nftables => {
            let change = Nftables::open()?.apply(rules, manner)?;
            clean_legacy()?;
            Ok(change)
        }
        Backend::IptablesNft => {
            let mut nftables = Nftables::open()?;
            let empty = nftables.without_iptables()?;
            let change = Iptables::new(Flavour::Nft).apply(rules, empty, manner)?;
            nftables.clean(false)?;
            clean_legacy()?;
            Ok(change)
        }
        Backend::IptablesLegacy => {
            let change = Iptables::new(Flavour::Legacy).apply(rules, without_legacy(), manner)?;
            // A kernel with legacy iptables alone has nothing to be asked about nftables.
            if let Ok(mut nftables) = Nftables::open()
                && nftables.without_iptables().is_ok()
            {
                nftables.clean(true)?;
            }
            Ok(change)
        }
    }
}

/// Takes away whatever any back end holds of ours.
pub(crate) fn clean() -> Outcome<Change> {
    let mut nftables = Nftables::open()?;
    let asked = nftables.without_iptables();
    let legacy = clean_legacy()?;
    match asked {
        Ok(_) => match nftables.clean(true)? {
            Change::None => Ok(legacy),
            change => Ok(change),
        },
        Err(failure) if legacy == Change::None => Err(failure),
        Err(_) => Ok(legacy),
    }
}

fn clean_legacy() -> Outcome<Change> {
    let empty = without_legacy();
    if empty == Families::BOTH {
        return Ok(Change::None);
    }
    let legacy = Iptables::new(Flavour::Legacy);
    let there = Families { v4: !empty.v4, v6: !empty.v6 };
    if !legacy.installed(there) {
        // Without the tools it cannot be seen whose the tables are; see `legacy_in_use`.
        return Ok(Change::None);
    }
    legacy.apply(&RuleSet::empty(), empty, &Manner::PLAIN)
}

/// The families that have no legacy tables in this namespace.
fn without_legacy() -> Families {
    let none = |family| legacy_tables(family).trim().is_empty();
    Families { v4: none(Family::V4), v6: none(Family::V6) }
}

/// Why legacy iptables is the one to use: its NAT table holds rules here, and two engines for NAT in one
/// namespace get into each other's way.
fn legacy_in_use(families: Families) -> Option<String> {
    let empty = without_legacy();
    let legacy = Iptables::new(Flavour::Legacy);
    families
        .each()
        .filter(|family| !empty.has(*family) && legacy.installed(Families::only(*family)))
        .find(|family| legacy.has_nat_rules(*family))
        .map(|family| format!("its {family} nat table is in use in this namespace"))
}
