//! Rules as iptables-restore reads them and iptables-save prints them. A rule is compared by its clauses in an
//! order that does not depend on who printed it.

use crate::rules::{Action, Endings, Match, Protocol, Rule, RuleSet, State, Table, TableKind, chain};
use crate::values::{self, Family, Ports};

const ANY_MARK: &str = "0xffffffff";

/// Our part of a table, as it is or as it shall be. A rule is its text after `-A CHAIN`; in a part that is compared, in
/// its normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Jumps into our chains from others, by the chain they are in.
    pub(crate) jumps: Vec<(String, String)>,
    pub(crate) chains: Vec<(String, Vec<String>)>,
}

impl Part {
    /// As it is compared with one that was read.
    pub(crate) fn normal(&self) -> Part {
        Part {
            jumps: self.jumps.iter().map(|(chain, rule)| (chain.clone(), normal(&split(rule)))).collect(),
            chains: self
                .chains
                .iter()
                .map(|(chain, rules)| {
                    (chain.clone(), rules.iter().map(|rule| normal(&split(rule))).collect())
                })
                .collect(),
        }
    }
}

/// A part that was read, with what it takes to delete its jumps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) part: Part,
    /// The jumps as they were printed, after `-A`.
    pub(crate) printed: Vec<String>,
}

/// How the rules end of a part that shall be, by chain and in order.
pub(crate) fn endings(part: &Part) -> Endings {
    let ending = |rule: &String| {
        rule.split(' ').skip_while(|word| *word != "-j").nth(1).unwrap_or_default().to_owned()
    };
    let mut endings: Endings =
        part.chains.iter().map(|(name, rules)| (name.clone(), rules.iter().map(ending).collect())).collect();
    for (chain, jump) in &part.jumps {
        match endings.iter_mut().find(|(name, _)| name == chain) {
            Some((_, list)) => list.push(ending(jump)),
            None => endings.push((chain.clone(), vec![ending(jump)])),
        }
    }
    endings.sort();
    endings
}

/// What each table shall hold in this family.
pub(crate) fn wanted(rules: &RuleSet, family: Family) -> Vec<(TableKind, Part)> {
    tables(rules, family)
        .map(|table| {
            let jumps = table
                .entries
                .iter()
                .map(|entry| (entry.hook.name().to_owned(), text(&entry.rule(), family)))
                .collect();
            let chains = table
                .chains
                .iter()
                .map(|chain| {
                    let rules = chain.rules.iter().map(|rule| text(rule, family)).collect();
                    (chain.name.to_owned(), rules)
                })
                .collect();
            (table.kind, Part { jumps: sorted(jumps), chains: sorted(chains) })
        })
        .collect()
}

/// The tables that have rules in this family.
pub(crate) fn tables(rules: &RuleSet, family: Family) -> impl Iterator<Item = Table> {
    let captured = rules.families.has(family);
    rules
        .tables
        .iter()
        .filter(move |_| captured)
        .map(move |table| table.of(family))
        .filter(|table| !table.entries.is_empty())
}

/// By chain; the order within a chain stays.
fn sorted<T>(mut items: Vec<(String, T)>) -> Vec<(String, T)> {
    items.sort_by(|a, b| a.0.cmp(&b.0));
    items
}

/// The text that leads from what is there to what shall be; empty if there is nothing to do.
pub(crate) fn restore(wanted: &[(TableKind, Part)], found: &[(TableKind, Found)], force: bool) -> String {
    let mut text = String::new();
    for kind in TableKind::ALL {
        let there = found.iter().find(|(other, _)| *other == kind).map(|(_, found)| found);
        let wanted = wanted.iter().find(|(other, _)| *other == kind).map(|(_, part)| part);
        match (wanted, there) {
            (None, None) => {}
            (Some(part), Some(found)) if !force && part.normal() == found.part => {}
            (wanted, there) => {
                let (nothing, unknown) = (Part::default(), Found::default());
                restore_table(kind, wanted.unwrap_or(&nothing), there.unwrap_or(&unknown), &mut text);
            }
        }
    }
    text
}

fn restore_table(kind: TableKind, wanted: &Part, found: &Found, text: &mut String) {
    let mut line = |parts: &[&str]| {
        text.push_str(&parts.concat());
        text.push('\n');
    };
    line(&["*", kind.name()]);
    // A chain that is declared is made, or emptied if it is there.
    for (chain, _) in &wanted.chains {
        line(&[":", chain, " - [0:0]"]);
    }
    let has = |name: &str| wanted.chains.iter().any(|(chain, _)| chain == name);
    let stale: Vec<&str> =
        found.part.chains.iter().map(|(name, _)| name.as_str()).filter(|name| !has(name)).collect();
    for chain in &stale {
        line(&[":", chain, " - [0:0]"]);
    }
    for (chain, rules) in &wanted.chains {
        for rule in rules {
            line(&["-A ", chain, " ", rule]);
        }
    }
    // Jumps that are as they should be stay where they are.
    let stay = !found.part.jumps.is_empty() && found.part.jumps == wanted.normal().jumps;
    if !stay {
        for jump in &found.printed {
            line(&["-D ", jump]);
        }
        for (chain, rule) in &wanted.jumps {
            line(&["-A ", chain, " ", rule]);
        }
    }
    for chain in &stale {
        line(&["-X ", chain]);
    }
    line(&["COMMIT"]);
}

/// Reads what iptables-save prints; tables without anything of ours are left out.
pub(crate) fn parse(text: &str) -> Vec<(TableKind, Found)> {
    let mut tables: Vec<(TableKind, Found)> = Vec::new();
    let mut current: Option<(TableKind, Found)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            let kind = TableKind::ALL.into_iter().find(|kind| kind.name() == name.trim());
            current = kind.map(|kind| (kind, Found::default()));
        } else if line.starts_with("COMMIT") {
            if let Some((kind, mut found)) = current.take() {
                found.part.jumps = sorted(found.part.jumps);
                found.part.chains = sorted(found.part.chains);
                if found.part != Part::default() {
                    tables.push((kind, found));
                }
            }
        } else if let Some((_, found)) = &mut current {
            parse_line(line, found);
        }
    }
    tables
}

fn parse_line(line: &str, found: &mut Found) {
    let ours = |name: &str| chain::OURS.contains(&name);
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared.split(' ').next().unwrap_or_default();
        if ours(name) {
            found.part.chains.push((name.to_owned(), Vec::new()));
        }
        return;
    }
    let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) else { return };
    let words = split(rule);
    let normal = normal(&words);
    if let Some((_, rules)) = found.part.chains.iter_mut().find(|(name, _)| name == chain) {
        rules.push(normal);
        return;
    }
    let target = words.iter().position(|word| word == "-j" || word == "-g").and_then(|at| words.get(at + 1));
    if target.is_some_and(|target| ours(target)) {
        found.printed.push(format!("{chain} {rule}"));
        found.part.jumps.push((chain.to_owned(), normal));
    }
}

/// Words as a shell has them; comments may be quoted.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            c if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// A rule's clauses, each with its values in one form, tests in order of the alphabet and the target last.
/// Each test stands behind the name of its module, as often as it takes.
fn normal(words: &[String]) -> String {
    let (mut protocol, mut tests, mut target) = (Vec::new(), Vec::new(), Vec::new());
    let (mut negated, mut module) = (false, "");
    let mut rest = words.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        let mut clause = if std::mem::take(&mut negated) { format!("! {word}") } else { word.to_owned() };
        let mut first = "";
        while let Some(value) = rest.next_if(|next| !next.starts_with('-') && *next != "!") {
            first = if first.is_empty() { value } else { first };
            clause = format!("{clause} {}", normal_value(word, value));
        }
        match word {
            "-m" => module = first,
            "--comment" => {}
            "-j" | "-g" => target.push(clause),
            _ if !target.is_empty() => target.push(clause),
            "-p" => protocol.push(clause),
            _ if word.starts_with("--") => tests.push(format!("-m {module} {clause}")),
            _ => tests.push(clause),
        }
    }
    tests.sort();
    if let Some((_, options)) = target.split_first_mut() {
        options.sort();
    }
    [protocol, tests, target].concat().join(" ")
}

fn normal_value(option: &str, value: &str) -> String {
    match option {
        "-s" | "-d" => values::net(option, value).map_or_else(|_| value.to_owned(), |net| net.to_string()),
        "--ctstate" => {
            let mut states: Vec<&str> = value.split(',').collect();
            states.sort_unstable();
            states.join(",")
        }
        _ => value.to_owned(),
    }
}

/// A rule for one family, after `-A CHAIN`, as iptables-save would print it.
pub(crate) fn text(rule: &Rule, family: Family) -> String {
    let mut out = String::new();
    let protocol = rule.protocol().map_or("tcp", Protocol::name);
    for test in &rule.matches {
        write_match(test, protocol, &mut out);
    }
    write_action(&rule.action, family, &mut out);
    out
}

fn write_match(test: &Match, protocol: &str, out: &mut String) {
    let mut say = |words: &[&str]| write_words(words, out);
    let owner = |id: &u32| id.to_string();
    match test {
        Match::Protocol(protocol) => say(&["-p", protocol.name()]),
        Match::In(interface) => say(&["-i", &interface.text('+')]),
        Match::Out(interface) => say(&["-o", &interface.text('+')]),
        Match::Source(net) => say(&["-s", &net.to_string()]),
        Match::Destination(net) => say(&["-d", &net.to_string()]),
        Match::NotDestination(net) => say(&["!", "-d", &net.to_string()]),
        Match::SourcePort(port) => say(&["-m", protocol, "--sport", &port.to_string()]),
        Match::DestinationPort(ports) => say(&["-m", protocol, "--dport", &ports.text(':')]),
        Match::NotDestinationPorts(ports) => match ports.as_slice() {
            [port] => say(&["-m", protocol, "!", "--dport", &port.to_string()]),
            ports => {
                let list: Vec<String> = ports.iter().map(|port| Ports::one(*port).text(':')).collect();
                say(&["-m", "multiport", "!", "--dports", &list.join(",")]);
            }
        },
        Match::Uid(id) => say(&["-m", "owner", "--uid-owner", &owner(id)]),
        Match::NotUid(id) => say(&["-m", "owner", "!", "--uid-owner", &owner(id)]),
        Match::Gid(id) => say(&["-m", "owner", "--gid-owner", &owner(id)]),
        Match::NotGid(id) => say(&["-m", "owner", "!", "--gid-owner", &owner(id)]),
        Match::Mark(mark) => say(&["-m", "mark", "--mark", &hex(*mark)]),
        Match::NotMark(mark) => say(&["-m", "mark", "!", "--mark", &hex(*mark)]),
        Match::ConnectionMark(mark) => say(&["-m", "connmark", "--mark", &hex(*mark)]),
        Match::State(State::Invalid) => say(&["-m", "conntrack", "--ctstate", "INVALID"]),
        Match::State(State::RelatedOrEstablished) => {
            say(&["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"])
        }
    }
}

fn write_action(action: &Action, family: Family, out: &mut String) {
    let mut say = |words: &[&str]| write_words(words, out);
    match action {
        Action::Return => say(&["-j", "RETURN"]),
        Action::Accept => say(&["-j", "ACCEPT"]),
        Action::Drop => say(&["-j", "DROP"]),
        Action::Jump(chain) => say(&["-j", chain]),
        Action::Redirect(port) => say(&["-j", "REDIRECT", "--to-ports", &port.to_string()]),
        Action::Tproxy { port, mark } => {
            let any = match family {
                Family::V4 => "0.0.0.0",
                Family::V6 => "::",
            };
            let mark = format!("{}/{ANY_MARK}", hex(*mark));
            say(&["-j", "TPROXY", "--on-port", &port.to_string(), "--on-ip", any, "--tproxy-mark", &mark]);
        }
        Action::SetMark(mark) => say(&["-j", "MARK", "--set-xmark", &format!("{}/{ANY_MARK}", hex(*mark))]),
        Action::SaveMark => {
            say(&["-j", "CONNMARK", "--save-mark", "--nfmask", ANY_MARK, "--ctmask", ANY_MARK])
        }
        Action::RestoreMark => {
            say(&["-j", "CONNMARK", "--restore-mark", "--nfmask", ANY_MARK, "--ctmask", ANY_MARK])
        }
        Action::Zone(zone) => say(&["-j", "CT", "--zone", &zone.to_string()]),
        Action::Dnat(target) => say(&["-j", "DNAT", "--to-destination", &target.to_string()]),
    }
}

fn write_words(words: &[&str], out: &mut String) {
    for word in words {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
}

fn hex(mark: u32) -> String {
    format!("{mark:#x}")
}

/// Whether the text for an empty namespace, read back, is what was wanted.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn reads_its_own(rules: &RuleSet, family: Family) -> bool {
    let wanted = wanted(rules, family);
    let found = parse(&restore(&wanted, &[], false));
    wanted.len() == found.len()
        && wanted.iter().zip(&found).all(|(w, f)| w.0 == f.0 && w.1.normal() == f.1.part)
}

/// How many tables of a save hold something of ours.
#[cfg(test)]
pub(crate) fn count_ours(text: &str) -> usize {
    parse(text).len()
}
