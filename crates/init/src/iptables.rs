//! The iptables-restore back ends, nft and legacy: for hosts where rules have to be where iptables shows
//! them. Rules are written as one text for each IP family, in which every table is replaced at once, and read
//! back from what iptables-save prints.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::backend::Manner;
use crate::error::{Failure, Outcome, failed};
use crate::iptables_text::{Found, Part, endings, parse, restore, wanted};
use crate::legacy;
use crate::nftables::{Change, Endings, Nftables};
use crate::rules::{RuleSet, TableKind, chain};
use crate::values::{Families, Family};

/// How long a writer waits for the lock that legacy iptables has for the whole machine, in seconds.
const LOCK_WAIT: &str = "--wait=30";

/// One of the two kernels' interfaces that the tools speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Nft,
    Legacy,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Nft => "nft",
            Flavour::Legacy => "legacy",
        }
    }
}

/// The tools of one flavour.
pub(crate) struct Iptables {
    flavour: Flavour,
}

impl Iptables {
    pub(crate) fn new(flavour: Flavour) -> Iptables {
        Iptables { flavour }
    }

    /// Makes this namespace hold exactly these rules of ours, family by family, and checks that it does.
    /// `there` are the families that may hold some of ours already.
    pub(crate) fn apply(&self, rules: &RuleSet, there: Families, manner: &Manner<'_>) -> Outcome<Change> {
        let mut change = Change::None;
        for family in Family::ALL {
            let wanted = wanted(rules, family);
            let nothing = !there.has(family) || self.endings(family)?.is_some_and(|there| there.is_empty());
            let known = if nothing { Vec::new() } else { self.read(family)? };
            let text = restore(&wanted, &known, manner.force);
            if text.is_empty() {
                continue;
            }
            if !known.is_empty() && !manner.repair {
                return failed(format!(
                    "iptables-{}: this namespace holds other {family} capture rules than these, and --on-drift=fail \
                     was given; take them away with --cleanup-only or leave the flag out",
                    self.flavour.name()
                ));
            }
            if known.is_empty() && change == Change::None {
                (manner.before_first)();
            }
            self.restore(family, &text)?;
            self.verify(family, &wanted)?;
            if change != Change::Replaced {
                change = if known.is_empty() { Change::Made } else { Change::Replaced };
            }
        }
        Ok(change)
    }

    /// The tool has said that it put in all of each table or nothing. What is left to see is that it is there,
    /// and that nobody came between: each chain has its rules, and they end as planned. Where that cannot be
    /// asked without the tool, or looks wrong, all is read back.
    fn verify(&self, family: Family, wanted: &[(TableKind, Part)]) -> Outcome<()> {
        let planned: Vec<(String, Endings)> =
            wanted.iter().map(|(kind, part)| (kind.name().to_owned(), endings(part))).collect();
        if self.endings(family)?.is_some_and(|there| there == planned) {
            return Ok(());
        }
        let found = self.read(family)?;
        for (kind, part) in wanted {
            let there = found.iter().find(|(other, _)| other == kind).map(|(_, found)| &found.part);
            if there != Some(part) {
                return failed(format!(
                    "iptables-{}: after applying, the {family} table {} holds other rules than planned",
                    self.flavour.name(),
                    kind.name()
                ));
            }
        }
        match found.iter().find(|(kind, _)| !wanted.iter().any(|(other, _)| other == kind)) {
            None => Ok(()),
            Some((kind, _)) => failed(format!(
                "iptables-{}: after applying, the {family} table {} still holds rules of ours",
                self.flavour.name(),
                kind.name()
            )),
        }
    }

    /// How our rules end in each table that has any, as the kernel itself says, if it does.
    fn endings(&self, family: Family) -> Outcome<Option<Vec<(String, Endings)>>> {
        if self.flavour == Flavour::Nft {
            let mut endings = Nftables::open()?.endings_of_iptables(family)?;
            endings.sort();
            return Ok(Some(endings));
        }
        let names = legacy_tables(family);
        let tables =
            TableKind::ALL.into_iter().map(TableKind::name).filter(|name| names.lines().any(|n| n == *name));
        let all: Option<Vec<(String, Endings)>> =
            tables.map(|name| Some((name.to_owned(), legacy::endings(family, name)?))).collect();
        Ok(all.map(|all| all.into_iter().filter(|(_, endings)| !endings.is_empty()).collect()))
    }

    /// Whether the NAT table holds rules that are not ours.
    pub(crate) fn has_nat_rules(&self, family: Family) -> bool {
        let Ok(text) = self.run(family, "save", &["-t", "nat"], None) else { return false };
        let ours = parse(&text).iter().flat_map(|(_, found)| &found.printed).count();
        let foreign = |line: &&str| {
            let chain = line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next());
            chain.is_some_and(|name| !chain::OURS.contains(&name))
        };
        text.lines().filter(foreign).count() > ours
    }

    /// What there is of ours in each table that has any.
    fn read(&self, family: Family) -> Outcome<Vec<(TableKind, Found)>> {
        Ok(parse(&self.run(family, "save", &[], None)?))
    }

    fn restore(&self, family: Family, text: &str) -> Outcome<()> {
        let wait: &[&str] =
            if self.flavour == Flavour::Legacy { &["--noflush", LOCK_WAIT] } else { &["--noflush"] };
        self.run(family, "restore", wait, Some(text)).map(drop)
    }

    /// Whether the tools of this flavour are installed for both families.
    pub(crate) fn installed(&self, families: Families) -> bool {
        families.each().all(|family| self.tool(family, "restore").is_some())
    }

    /// The name of a tool: the one of this flavour, or the plain one if it says that it is of this flavour.
    fn tool(&self, family: Family, what: &str) -> Option<PathBuf> {
        let program = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let exact = format!("{program}-{}-{what}", self.flavour.name());
        if let Some(path) = on_path(&exact) {
            return Some(path);
        }
        let plain = on_path(&format!("{program}-{what}"))?;
        let output = Command::new(&plain).arg("--version").stdin(Stdio::null()).output().ok()?;
        let is_nft = String::from_utf8_lossy(&output.stdout).contains("nf_tables");
        (is_nft == (self.flavour == Flavour::Nft)).then_some(plain)
    }

    fn run(&self, family: Family, what: &str, arguments: &[&str], input: Option<&str>) -> Outcome<String> {
        let Some(tool) = self.tool(family, what) else {
            return failed(format!(
                "iptables-{}: there is no {what} tool for {family} in this image; install iptables, \
                 or leave out --backend: nftables needs no tool",
                self.flavour.name()
            ));
        };
        let output = execute(&tool, arguments, input, None)?;
        let complaint = output.1;
        match output.0 {
            Ok(text) => Ok(text),
            // A read-only root has no place for the lock. Against ourselves there is one on the namespace.
            Err(()) if complaint.contains("lock file") => {
                match execute(&tool, arguments, input, Some("/dev/null"))? {
                    (Ok(text), _) => Ok(text),
                    (Err(()), complaint) => Err(explain(&tool, &complaint)),
                }
            }
            Err(()) => Err(explain(&tool, &complaint)),
        }
    }
}

/// The names of the legacy tables in this namespace, one a line. The list is there only with the module, and
/// reading it makes nothing.
pub(crate) fn legacy_tables(family: Family) -> String {
    let file = match family {
        Family::V4 => "/proc/self/net/ip_tables_names",
        Family::V6 => "/proc/self/net/ip6_tables_names",
    };
    std::fs::read_to_string(file).unwrap_or_default()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

type Output = (Result<String, ()>, String);

/// Runs a tool; gives what it printed, or that it failed, and what it complained of.
fn execute(tool: &Path, arguments: &[&str], input: Option<&str>, lock: Option<&str>) -> Outcome<Output> {
    let cannot = |error: std::io::Error| Failure::Run(format!("{}: cannot run it: {error}", tool.display()));
    let mut command = Command::new(tool);
    command.args(arguments).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(lock) = lock {
        command.env("XTABLES_LOCKFILE", lock);
    }
    let mut child = command.spawn().map_err(cannot)?;
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
        // If the tool ended early, it says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(cannot)?;
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((if output.status.success() { Ok(text) } else { Err(()) }, complaint))
}

/// A tool's complaint with what helps.
fn explain(tool: &Path, complaint: &str) -> Failure {
    // What a tool says of itself is of no use here.
    let complaint: Vec<&str> = complaint
        .lines()
        .filter(|line| !line.starts_with("Try `") && !line.starts_with("Perhaps "))
        .collect();
    let complaint = complaint.join(" ");
    let says = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    let help = if says(&["ermission denied", "not permitted", "must be root"]) {
        "the process needs the capability NET_ADMIN in this network namespace, and for legacy iptables NET_RAW too"
    } else if says(&["unable to initialize", "can't initialize"]) {
        "either the process lacks the capability NET_ADMIN (legacy iptables: NET_RAW too), or the kernel lacks the \
         module of that table (iptable_nat, iptable_mangle, iptable_raw); load it on the node with modprobe, \
         or try --backend nftables"
    } else if says(&["xtables lock"]) {
        "something else held the lock for 30 seconds; find out what programs rules on this node"
    } else if says(&[
        "Table does not exist",
        "No chain/target/match",
        "does not exist",
        "missing kernel module",
    ]) {
        "the kernel lacks a module that iptables needs (legacy: iptable_nat, iptable_mangle, iptable_raw, xt_REDIRECT, \
         xt_owner; nft: nft_compat and the same xt_ modules); load it on the node with modprobe, or try --backend nftables"
    } else {
        "see --dry-run for the rules"
    };
    Failure::Run(format!("{} failed: {complaint}; {help}", tool.display()))
}
