//! Which back end programs the kernel, and that the others hold nothing of ours beside it.
//!
//! A probe changes nothing here. Asking legacy iptables for a table makes that table, and a later look then
//! takes it for one in use; so legacy is asked only about tables that are there already. nftables is tried
//! with the rules themselves: a batch that the kernel refuses leaves no trace.

use crate::connections;
use crate::error::{Failure, Outcome};
use crate::iptables::{Flavour, Iptables, legacy_tables};
use crate::log::Log;
use crate::manner::{Change, Manner};
use crate::nftables::Nftables;
use crate::options::{Backend, Options};
use crate::rules::RuleSet;
use crate::values::{Families, Family};

/// Makes the kernel hold `rules` and nothing else of ours, and says by which back end and with what change.
pub(crate) fn apply(rules: &RuleSet, options: &Options, log: Log) -> Outcome<(Backend, Change)> {
    let keep_connections = || {
        if let Err(errno) = connections::keep() {
            log.warn(&format!(
                "connections that are open already may break: they cannot be told to connection tracking: {errno}"
            ));
        }
    };
    let manner =
        Manner { force: options.force, repair: options.repair, look: false, before_first: &keep_connections };
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
            let before = nftables.holdings()?;
            let iptables = Iptables::new(Flavour::Nft);
            let ready = iptables.begin(rules, before.iptables)?;
            let change = iptables.apply(rules, before.iptables, ready, manner)?;
            if before.own {
                nftables.clean(false)?;
            }
            clean_legacy()?;
            Ok(change)
        }
        Backend::IptablesLegacy => {
            let (iptables, there) = (Iptables::new(Flavour::Legacy), with_legacy());
            let ready = iptables.begin(rules, there)?;
            // A kernel with legacy iptables alone has nothing to be asked about nftables.
            let mut nftables = Nftables::open().ok();
            let before = nftables.as_mut().and_then(|nftables| nftables.holdings().ok());
            let change = iptables.apply(rules, there, ready, manner)?;
            if let (Some(mut nftables), Some(before)) = (nftables, before)
                && (before.own || before.iptables != Families::NONE)
            {
                nftables.clean(true)?;
            }
            Ok(change)
        }
    }
}

/// That the kernel holds `rules`, by whichever back end; changes nothing.
pub(crate) fn check(rules: &RuleSet) -> Outcome<()> {
    let Err(failure) = Nftables::open().and_then(|mut nftables| nftables.apply(rules, &Manner::LOOK)) else {
        return Ok(());
    };
    for (flavour, there) in [(Flavour::Nft, rules.families), (Flavour::Legacy, with_legacy())] {
        let iptables = Iptables::new(flavour);
        if there != Families::NONE
            && iptables.installed(rules.families)
            && iptables.apply(rules, there, Vec::new(), &Manner::LOOK).is_ok()
        {
            return Ok(());
        }
    }
    Err(failure)
}

/// Takes away whatever any back end holds of ours.
pub(crate) fn clean() -> Outcome<Change> {
    let nftables = Nftables::open().and_then(|mut nftables| nftables.clean(true));
    let legacy = clean_legacy()?;
    match nftables {
        // A kernel without nftables holds nothing of ours there.
        Ok(Change::None) | Err(Failure::Unsupported(_)) => Ok(legacy),
        changed => changed,
    }
}

fn clean_legacy() -> Outcome<Change> {
    let there = with_legacy();
    let legacy = Iptables::new(Flavour::Legacy);
    // Without the tools it cannot be seen whose the tables are; see `legacy_in_use`.
    if there == Families::NONE || !legacy.installed(there) {
        return Ok(Change::None);
    }
    legacy.apply(&RuleSet::empty(), there, Vec::new(), &Manner::PLAIN)
}

/// The families that have legacy tables in this namespace.
fn with_legacy() -> Families {
    let any = |family| !legacy_tables(family).trim().is_empty();
    Families { v4: any(Family::V4), v6: any(Family::V6) }
}

/// Why legacy iptables is the one to use: its NAT table holds rules here, and two engines for NAT in one
/// namespace get into each other's way.
fn legacy_in_use(families: Families) -> Option<String> {
    let there = with_legacy();
    let legacy = Iptables::new(Flavour::Legacy);
    families
        .each()
        .filter(|family| there.has(*family) && legacy.installed(Families::only(*family)))
        .find(|family| legacy.has_nat_rules(*family))
        .map(|family| format!("its {family} nat table is in use in this namespace"))
}
