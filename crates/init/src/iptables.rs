//! The iptables-restore back ends, nft and legacy: for hosts where rules have to be where iptables shows
//! them. Rules are written as one text for each IP family, in which every table is replaced at once, and read
//! back from what iptables-save prints.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// How our rules end, by table.
type Tables = Vec<(String, Endings)>;
/// Our rules as they were read, by table.
type Known = Vec<(TableKind, Found)>;

/// The tools of one flavour.
pub(crate) struct Iptables {
    flavour: Flavour,
}

/// What has to be written for one family.
struct Work {
    family: Family,
    wanted: Vec<(TableKind, Part)>,
    /// What there was of ours before.
    known: Known,
    text: String,
}

impl Iptables {
    pub(crate) fn new(flavour: Flavour) -> Iptables {
        Iptables { flavour }
    }

    /// Makes this namespace hold exactly these rules of ours, and checks that it does. `there` are the families
    /// that may hold some of ours already.
    pub(crate) fn apply(&self, rules: &RuleSet, there: Families, manner: &Manner<'_>) -> Outcome<Change> {
        let mut there = self.read(there)?;
        let work: Vec<Work> = Family::ALL
            .into_iter()
            .map(|family| {
                let known = there.iter_mut().find(|(other, _)| *other == family);
                let known = known.map(|(_, found)| std::mem::take(found)).unwrap_or_default();
                let wanted = wanted(rules, family);
                Work { family, text: restore(&wanted, &known, manner.force), wanted, known }
            })
            .filter(|work| !work.text.is_empty())
            .collect();
        if let Some(other) = work.iter().find(|work| !work.known.is_empty() && !manner.repair) {
            return failed(format!(
                "iptables-{}: this namespace holds other {} capture rules than these, and --on-drift=fail was given; \
                 take them away with --cleanup-only or leave the flag out",
                self.flavour.name(),
                other.family
            ));
        }
        if work.is_empty() {
            return Ok(Change::None);
        }
        let fresh = work.iter().all(|work| work.known.is_empty());
        if fresh {
            (manner.before_first)();
        }
        self.restore(&work)?;
        self.verify(&work)?;
        Ok(if fresh { Change::Made } else { Change::Replaced })
    }

    /// Writes all families. By nft at once, as half of what a tool does is to start; the lock of legacy iptables
    /// would have them wait for one another, in old versions by the second.
    fn restore(&self, work: &[Work]) -> Outcome<()> {
        let (together, arguments): (_, &[_]) = match self.flavour {
            Flavour::Nft => (work.len(), &["--noflush"]),
            Flavour::Legacy => (1, &["--noflush", LOCK_WAIT]),
        };
        for batch in work.chunks(together) {
            let started: Outcome<Vec<_>> = batch
                .iter()
                .map(|work| self.start(work.family, "restore", arguments, Some(&work.text)))
                .collect();
            started?.into_iter().try_for_each(|tool| tool.finish().map(drop))?;
        }
        Ok(())
    }

    /// The tool has said that it put in all of each table or nothing. What is left to see is that it is there,
    /// and that nobody came between: each chain has its rules, and they end as planned. Where that cannot be
    /// asked without the tool, or looks wrong, all is read back.
    fn verify(&self, work: &[Work]) -> Outcome<()> {
        let there = self.endings(work.iter().map(|work| work.family))?;
        for work in work {
            let planned: Tables =
                work.wanted.iter().map(|(kind, part)| (kind.name().to_owned(), endings(part))).collect();
            if there.iter().any(|(family, there)| *family == work.family && there.as_ref() == Some(&planned))
            {
                continue;
            }
            let found =
                self.read(Families::only(work.family))?.pop().map(|(_, found)| found).unwrap_or_default();
            for (kind, part) in &work.wanted {
                let there = found.iter().find(|(other, _)| other == kind).map(|(_, found)| &found.part);
                if there != Some(part) {
                    return failed(format!(
                        "iptables-{}: after applying, the {} table {} holds other rules than planned",
                        self.flavour.name(),
                        work.family,
                        kind.name()
                    ));
                }
            }
            let spare = found.iter().find(|(kind, _)| !work.wanted.iter().any(|(other, _)| other == kind));
            if let Some((kind, _)) = spare {
                return failed(format!(
                    "iptables-{}: after applying, the {} table {} still holds rules of ours",
                    self.flavour.name(),
                    work.family,
                    kind.name()
                ));
            }
        }
        Ok(())
    }

    /// How our rules end in each table that has any, as the kernel itself says, if it does.
    fn endings(&self, families: impl Iterator<Item = Family>) -> Outcome<Vec<(Family, Option<Tables>)>> {
        if self.flavour == Flavour::Legacy {
            return Ok(families.map(|family| (family, legacy_endings(family))).collect());
        }
        let there = Nftables::open()?.endings_of_iptables()?;
        let of = |family| {
            let mut tables: Tables =
                there.iter().filter(|(of, _)| *of == family).map(|(_, t)| t.clone()).collect();
            tables.sort();
            (family, Some(tables))
        };
        Ok(families.map(of).collect())
    }

    /// Whether the NAT table holds rules that are not ours.
    pub(crate) fn has_nat_rules(&self, family: Family) -> bool {
        let text = self.start(family, "save", &["-t", "nat"], None).and_then(Running::finish);
        let Ok(text) = text else { return false };
        let ours = parse(&text).iter().flat_map(|(_, found)| &found.printed).count();
        let foreign = |line: &&str| {
            let chain = line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next());
            chain.is_some_and(|name| !chain::OURS.contains(&name))
        };
        text.lines().filter(foreign).count() > ours
    }

    /// What there is of ours in the families that have any, by table.
    fn read(&self, families: Families) -> Outcome<Vec<(Family, Known)>> {
        if families.each().next().is_none() {
            return Ok(Vec::new());
        }
        let endings = self.endings(families.each())?.into_iter();
        let used = endings.filter(|(_, tables)| tables.as_ref().is_none_or(|tables| !tables.is_empty()));
        let started: Outcome<Vec<_>> =
            used.map(|(family, _)| Ok((family, self.start(family, "save", &[], None)?))).collect();
        started?.into_iter().map(|(family, tool)| Ok((family, parse(&tool.finish()?)))).collect()
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

    /// Starts a tool that reads `input`.
    fn start(
        &self,
        family: Family,
        what: &str,
        arguments: Arguments,
        input: Option<&str>,
    ) -> Outcome<Running> {
        let Some(program) = self.tool(family, what) else {
            return failed(format!(
                "iptables-{}: there is no {what} tool for {family} in this image; install iptables, \
                 or leave out --backend: nftables needs no tool",
                self.flavour.name()
            ));
        };
        Running::start(program, arguments, input.map(str::to_owned), None)
    }
}

type Arguments = &'static [&'static str];

/// A tool at work.
struct Running {
    program: PathBuf,
    arguments: Arguments,
    input: Option<String>,
    /// Another file for the lock of legacy iptables.
    lock: Option<&'static str>,
    child: Child,
}

impl Running {
    fn start(
        program: PathBuf,
        arguments: Arguments,
        input: Option<String>,
        lock: Option<&'static str>,
    ) -> Outcome<Running> {
        let mut command = Command::new(&program);
        command.args(arguments).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(lock.map(|lock| ("XTABLES_LOCKFILE", lock)));
        let mut child = command.spawn().map_err(|error| cannot_run(&program, &error))?;
        if let (Some(mut stdin), Some(text)) = (child.stdin.take(), &input) {
            // If the tool ended early, it says why.
            let _ = stdin.write_all(text.as_bytes());
        }
        Ok(Running { program, arguments, input, lock, child })
    }

    /// What it printed.
    fn finish(self) -> Outcome<String> {
        let Running { program, arguments, input, lock, child } = self;
        let output = child.wait_with_output().map_err(|error| cannot_run(&program, &error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        // A read-only root has no place for the lock. Against ourselves there is one on the namespace.
        if lock.is_none() && complaint.contains("lock file") {
            return Running::start(program, arguments, input, Some("/dev/null"))?.finish();
        }
        Err(explain(&program, complaint.trim()))
    }
}

fn cannot_run(program: &Path, error: &std::io::Error) -> Failure {
    Failure::Run(format!("{}: cannot run it: {error}", program.display()))
}

/// How our rules end in each legacy table that has any; `None` if the kernel does not say.
fn legacy_endings(family: Family) -> Option<Tables> {
    let names = legacy_tables(family);
    let there = |name: &&str| names.lines().any(|line| line == *name);
    let tables: Option<Tables> = TableKind::ALL
        .into_iter()
        .map(TableKind::name)
        .filter(there)
        .map(|name| Some((name.to_owned(), legacy::endings(family, name)?)))
        .collect();
    tables.map(|tables| tables.into_iter().filter(|(_, endings)| !endings.is_empty()).collect())
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
