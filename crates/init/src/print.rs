//! The rules for people and for other programs: as iptables-restore reads them, as `nft -f` reads them, or as
//! JSON; with a sentence for each rule on request. A dry run prints this and changes nothing.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::error::{Outcome, failed};
use crate::expression::chain_name;
use crate::iptables_text as iptables;
use crate::log::json_string;
use crate::nft_tables::{hook_chain_name, hook_parameters, steps, table_name};
use crate::options::{Backend, Form};
use crate::rules::{Action, Hook, Match, Protocol, Rule, RuleSet, State, Steering};
use crate::values::{Families, Family, Interface};

/// Writes a text to standard output.
pub(crate) fn out(text: &str) -> Outcome<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) => failed(format!("cannot write to standard output: {error}")),
    }
}

/// The rules in this form; `native` is the back end whose form that is.
pub(crate) fn render(rules: &RuleSet, form: Form, native: Backend, explain: bool) -> String {
    match (form, native) {
        (Form::Json, _) => json(rules),
        (Form::Nft, _) | (Form::Native, Backend::Nftables) => nft(rules, explain),
        (Form::Iptables | Form::Native, _) => restore(rules, explain),
    }
}

/// iptables-restore's text, one for each family, and the routes as comments.
fn restore(rules: &RuleSet, explain: bool) -> String {
    let mut out = String::new();
    for family in rules.families.each() {
        let tool = match family {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        };
        let _ = writeln!(out, "# {family}: {tool} --noflush");
        for table in iptables::tables(rules, family) {
            let _ = writeln!(out, "*{}", table.kind.name());
            for chain in &table.chains {
                let _ = writeln!(out, ":{} - [0:0]", chain.name);
            }
            let mut rule = |chain: &str, rule: &Rule| {
                if explain {
                    let _ = writeln!(out, "# {}", sentence(rule));
                }
                let _ = writeln!(out, "-A {chain} {}", iptables::text(rule, family));
            };
            for chain in &table.chains {
                chain.rules.iter().for_each(|r| rule(chain.name, r));
            }
            table.entries.iter().for_each(|entry| rule(entry.hook.name(), &entry.rule()));
            out.push_str("COMMIT\n");
        }
    }
    out + &routes(rules)
}

/// What `nft -f` reads, and the routes as comments.
fn nft(rules: &RuleSet, explain: bool) -> String {
    let mut out = String::new();
    for table in &rules.tables {
        let _ = writeln!(out, "table inet {} {{", table_name(table.kind));
        let mut chain = |head: &str, base: Option<String>, list: Vec<(Rule, bool)>| {
            let _ = writeln!(out, "\tchain {head} {{");
            if let Some(base) = base {
                let _ = writeln!(out, "\t\t{base}");
            }
            for (rule, at_hook) in list {
                if explain {
                    let _ = writeln!(out, "\t\t# {}", sentence(&rule));
                }
                let _ = writeln!(out, "\t\t{}", nft_rule(&rule, rules.families, at_hook));
            }
            out.push_str("\t}\n");
        };
        for c in &table.chains {
            let list = c.rules.iter().flat_map(steps).map(|rule| (rule, false)).collect();
            chain(&chain_name(c.name), None, list);
        }
        for hook in [Hook::Prerouting, Hook::Output] {
            let entries = table.entries.iter().filter(|entry| entry.hook == hook);
            let list: Vec<(Rule, bool)> = entries.map(|entry| (entry.rule(), true)).collect();
            if !list.is_empty() {
                let (kind, priority) = hook_parameters(table.kind, hook);
                let name = hook_chain_name(hook);
                let base = format!("type {kind} hook {name} priority {priority}; policy accept;");
                chain(&name, Some(base), list);
            }
        }
        out.push_str("}\n");
    }
    out + &routes(rules)
}

fn routes(rules: &RuleSet) -> String {
    let commands: Vec<String> = route_commands(rules);
    commands.iter().map(|command| format!("# {command}\n")).collect()
}

/// What `ip` would be told.
fn route_commands(rules: &RuleSet) -> Vec<String> {
    let mut commands = Vec::new();
    if rules.inbound_source_v6 {
        commands.push("ip -6 addr add ::6/128 dev lo".to_owned());
    }
    if let Some(Steering { mark, table }) = rules.steering {
        for family in rules.families.each() {
            let flag = match family {
                Family::V4 => "-4",
                Family::V6 => "-6",
            };
            commands.push(format!("ip {flag} route add local default dev lo table {table}"));
            commands.push(format!("ip {flag} rule add fwmark {mark} lookup {table}"));
        }
    }
    commands
}

/// A rule in nft's language, to the same expressions as over netlink.
fn nft_rule(rule: &Rule, enabled: Families, at_hook: bool) -> String {
    let families = rule.families.and(enabled);
    let mut words = Vec::new();
    if let Some(family) = families.single()
        && (at_hook || enabled.single().is_none())
    {
        words.push(format!("meta nfproto {}", nft_family(family)));
    }
    let protocol = rule.protocol();
    words.extend(rule.matches.iter().map(|test| nft_match(test, protocol)));
    words.push("counter".to_owned());
    words.push(nft_action(&rule.action, families));
    words.join(" ")
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn nft_match(test: &Match, protocol: Option<Protocol>) -> String {
    let transport = protocol.map_or("th", Protocol::name);
    let ip = |family| match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let name = |interface: &Interface| format!("\"{}\"", interface.text('*'));
    match test {
        Match::Protocol(protocol) => format!("meta l4proto {}", protocol.name()),
        Match::In(interface) => format!("iifname {}", name(interface)),
        Match::Out(interface) => format!("oifname {}", name(interface)),
        Match::Source(net) => format!("{} saddr {net}", ip(net.family())),
        Match::Destination(net) => format!("{} daddr {net}", ip(net.family())),
        Match::NotDestination(net) => format!("{} daddr != {net}", ip(net.family())),
        Match::SourcePort(port) => format!("{transport} sport {port}"),
        Match::DestinationPort(ports) => format!("{transport} dport {}", ports.text('-')),
        Match::NotDestinationPorts(ports) => {
            let tests: Vec<String> =
                ports.iter().map(|port| format!("{transport} dport != {port}")).collect();
            tests.join(" ")
        }
        Match::Uid(id) => format!("meta skuid {id}"),
        Match::NotUid(id) => format!("meta skuid != {id}"),
        Match::Gid(id) => format!("meta skgid {id}"),
        Match::NotGid(id) => format!("meta skgid != {id}"),
        Match::Mark(mark) => format!("meta mark {mark:#x}"),
        Match::NotMark(mark) => format!("meta mark != {mark:#x}"),
        Match::ConnectionMark(mark) => format!("ct mark {mark:#x}"),
        Match::State(State::Invalid) => "ct state invalid".to_owned(),
        Match::State(State::RelatedOrEstablished) => "ct state established,related".to_owned(),
    }
}

fn nft_action(action: &Action, families: Families) -> String {
    match action {
        Action::Return => "return".to_owned(),
        Action::Accept => "accept".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Jump(chain) => format!("jump {}", chain_name(chain)),
        Action::Redirect(port) => format!("redirect to :{port}"),
        Action::Tproxy { port, mark } => {
            let ip = if families.v6 { "ip6" } else { "ip" };
            format!("tproxy {ip} to :{port} meta mark set {mark:#x} accept")
        }
        Action::SetMark(mark) => format!("meta mark set {mark:#x}"),
        Action::SaveMark => "ct mark set meta mark".to_owned(),
        Action::RestoreMark => "meta mark set ct mark".to_owned(),
        Action::Zone(zone) => format!("ct zone set {zone}"),
        Action::Dnat(target) => {
            let ip = if target.is_ipv4() { "ip" } else { "ip6" };
            format!("dnat {ip} to {target}")
        }
    }
}

/// One object for each rule, in order, and the commands for routes.
fn json(rules: &RuleSet) -> String {
    let mut objects = Vec::new();
    for table in &rules.tables {
        let entries = table.entries.iter().map(|entry| (entry.hook.name(), entry.rule(), true));
        let chains = table
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().map(move |rule| (chain.name, rule.clone(), false)));
        for (chain, rule, at_hook) in entries.chain(chains) {
            let of: Vec<Family> = rules.families.each().filter(|family| rule.families.has(*family)).collect();
            let families: Vec<String> = of.iter().map(|family| json_string(nft_family(*family))).collect();
            let iptables: Vec<String> = of
                .iter()
                .map(|family| {
                    let words = iptables::text(&rule, *family);
                    format!(
                        "{}:{}",
                        json_string(nft_family(*family)),
                        json_string(&format!("-A {chain} {words}"))
                    )
                })
                .collect();
            let nft: Vec<String> = steps(&rule)
                .iter()
                .map(|step| json_string(&nft_rule(step, rules.families, at_hook)))
                .collect();
            objects.push(format!(
                "  {{\"table\":{},\"chain\":{},\"families\":[{}],\"iptables\":{{{}}},\"nft\":[{}],\"explanation\":{}}}",
                json_string(table.kind.name()),
                json_string(chain),
                families.join(","),
                iptables.join(","),
                nft.join(","),
                json_string(&sentence(&rule)),
            ));
        }
    }
    let routes: Vec<String> = route_commands(rules).iter().map(|command| json_string(command)).collect();
    format!("{{\"rules\":[\n{}\n],\n\"routes\":[{}]}}\n", objects.join(",\n"), routes.join(","))
}

/// What a rule does, and why it is there.
pub(crate) fn sentence(rule: &Rule) -> String {
    let tests: Vec<String> =
        rule.matches.iter().filter(|t| !matches!(t, Match::Protocol(_))).map(phrase).collect();
    let subject = match rule.protocol() {
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        None => "Everything",
    };
    let family = rule.families.single().filter(|_| !rule.matches.iter().any(Match::names_family));
    let subject = match family {
        Some(family) => format!("{subject} over {family}"),
        None => subject.to_owned(),
    };
    let doing = match &rule.action {
        Action::Return => "is let through by this chain".to_owned(),
        Action::Accept => "passes this table".to_owned(),
        Action::Drop => "is dropped".to_owned(),
        Action::Jump(chain) => format!("goes on in {chain}"),
        Action::Redirect(port) => format!("is turned to port {port}"),
        Action::Tproxy { port, mark } => {
            format!("is handed to the socket on port {port} with mark {mark}, or dropped if there is none")
        }
        Action::SetMark(mark) => format!("gets the mark {mark}"),
        Action::SaveMark => "gives its mark to its connection".to_owned(),
        Action::RestoreMark => "gets the mark of its connection".to_owned(),
        Action::Zone(zone) => format!("is tracked in zone {zone}"),
        Action::Dnat(target) => format!("is sent to {target}"),
    };
    let tests = if tests.is_empty() { String::new() } else { format!(" {}", tests.join(" ")) };
    format!("{subject}{tests} {doing}: {}.", rule.note)
}

fn phrase(test: &Match) -> String {
    match test {
        Match::Protocol(protocol) => format!("by {}", protocol.name()),
        Match::In(interface) => format!("that arrives on {}", interface.text('*')),
        Match::Out(interface) => format!("that leaves on {}", interface.text('*')),
        Match::Source(net) => format!("from {net}"),
        Match::Destination(net) => format!("to {net}"),
        Match::NotDestination(net) => format!("not to {net}"),
        Match::SourcePort(port) => format!("from port {port}"),
        Match::DestinationPort(ports) => format!("to port {}", ports.text('-')),
        Match::NotDestinationPorts(ports) => {
            let list: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("not to port {}", list.join(" or "))
        }
        Match::Uid(id) => format!("of user {id}"),
        Match::NotUid(id) => format!("not of user {id}"),
        Match::Gid(id) => format!("of group {id}"),
        Match::NotGid(id) => format!("not of group {id}"),
        Match::Mark(mark) => format!("with mark {mark}"),
        Match::NotMark(mark) => format!("without mark {mark}"),
        Match::ConnectionMark(mark) => format!("whose connection has mark {mark}"),
        Match::State(State::Invalid) => "of no valid connection".to_owned(),
        Match::State(State::RelatedOrEstablished) => "of a known connection".to_owned(),
    }
}
