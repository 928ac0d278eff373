//! The iptables-restore back ends, nft and legacy: for hosts where rules have to be where iptables shows
//! them. Rules are written as one text for each IP family, in which every table is replaced at once, and read
//! back from what iptables-save prints.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Outcome, failed};
use crate::iptables_text::{Found, Part, endings, parse, restore, wanted};
use crate::kernel_file::read_small;
use crate::legacy;
use crate::manner::{Change, Manner};
use crate::nftables::Nftables;
use crate::rules::{Endings, RuleSet, TableKind, chain};
use crate::tool::Running;
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

    /// Starts the tools that will surely be needed: where nothing of ours is `there`, those that write. Half of what a
    /// tool does is to start, and it changes nothing before it is fed, so the rest is made ready meanwhile.
    pub(crate) fn begin(&self, rules: &RuleSet, there: Families) -> Outcome<Ready> {
        let needed = there.each().next().is_none() && !rules.tables.is_empty();
        let families = rules.families.each().filter(|_| needed);
        families.map(|family| Ok((family, self.start(family, Task::Write)?))).collect()
    }

    /// Makes this namespace hold exactly these rules of ours, and checks that it does. `there` are the families
    /// that may hold some of ours already.
    pub(crate) fn apply(
        &self,
        rules: &RuleSet,
        there: Families,
        ready: Ready,
        manner: &Manner<'_>,
    ) -> Outcome<Change> {
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
        if manner.look {
            return failed(format!("iptables-{}: other rules than planned", self.flavour.name()));
        }
        let fresh = work.iter().all(|work| work.known.is_empty());
        if fresh {
            (manner.before_first)();
        }
        self.restore(&work, ready)?;
        self.verify(&work)?;
        Ok(if fresh { Change::Made } else { Change::Replaced })
    }

    /// Writes all families. All tools start at once. By nft they also work at once; the lock of legacy iptables, which
    /// a tool takes for each table that it reads, would have them wait for one another, in old versions by the second.
    fn restore(&self, work: &[Work], mut ready: Ready) -> Outcome<()> {
        let mut tools = Vec::new();
        for work in work {
            let started = ready.iter().position(|(family, _)| *family == work.family);
            tools.push(match started {
                Some(at) => ready.swap_remove(at).1,
                None => self.start(work.family, Task::Write)?,
            });
        }
        let together = match self.flavour {
            Flavour::Nft => work.len(),
            Flavour::Legacy => 1,
        };
        let mut tools = tools.into_iter();
        for batch in work.chunks(together) {
            let fed: Vec<_> =
                batch.iter().zip(&mut tools).map(|(work, tool)| tool.feed(&work.text)).collect();
            fed.into_iter().try_for_each(|tool| tool.finish().map(drop))?;
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
                if there != Some(&part.normal()) {
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
        let text = self.start(family, Task::ReadNat).and_then(Running::finish);
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
            used.map(|(family, _)| Ok((family, self.start(family, Task::Read)?))).collect();
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

    fn start(&self, family: Family, task: Task) -> Outcome<Running> {
        let (what, arguments): (_, &[_]) = match (task, self.flavour) {
            (Task::Write, Flavour::Nft) => ("restore", &["--noflush"]),
            (Task::Write, Flavour::Legacy) => ("restore", &["--noflush", LOCK_WAIT]),
            (Task::Read, _) => ("save", &[]),
            (Task::ReadNat, _) => ("save", &["-t", "nat"]),
        };
        let Some(program) = self.tool(family, what) else {
            return failed(format!(
                "iptables-{}: there is no {what} tool for {family} in this image; install iptables, \
                 or leave out --backend: nftables needs no tool",
                self.flavour.name()
            ));
        };
        Running::start(program, arguments, task != Task::Write)
    }
}

/// Tools that wait for their rules.
pub(crate) type Ready = Vec<(Family, Running)>;

/// What a tool is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Write,
    Read,
    ReadNat,
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
    read_small(file).unwrap_or_default()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
