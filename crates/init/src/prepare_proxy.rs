//! Capture as Istio's first init containers had it (`proxy_init` of Istio 0.1 to 0.7): one port for both ways,
//! and everything outbound unless ranges are given.

use crate::error::{Outcome, usage};
use crate::flags::{Flag, Takes, parse};
use crate::options::{Capture, Options, SHARED_FLAGS, Surroundings, shared};
use crate::rules::{Action, Hook, Match, Protocol, RuleSet, Table, TableKind, chain};
use crate::values::{self, Families, Family, Interface, Net, Selection};

pub(crate) const FLAGS: [Flag; 4] = [
    Flag::value("port", Some('p'), "port of the proxy, for both directions (required)"),
    Flag::value("uid", Some('u'), "user whose own traffic is let through (required)"),
    Flag::value("ranges", Some('i'), "outbound ranges to capture; none is all"),
    Flag::ignored("exclude", Some('e'), Takes::IgnoredValue),
];

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrepareProxy {
    pub(crate) families: Families,
    pub(crate) port: u16,
    pub(crate) uid: u32,
    pub(crate) ranges: Selection<Net>,
}

/// Reads a command line.
pub(crate) fn options(arguments: &[String], surroundings: &Surroundings) -> Outcome<Options> {
    let known = [SHARED_FLAGS.as_slice(), FLAGS.as_slice()].concat();
    let given = parse(arguments, &known)?;
    given.flags_alone("prepare-proxy")?;
    let (Some(port), Some(uid)) = (given.get("port"), given.get("uid")) else {
        return usage(
            "--port (-p) and --uid (-u) are required: the proxy's port and its user, such as -p 15001 -u 1337",
        );
    };
    let nets = values::nets("--ranges", given.get("ranges").unwrap_or_default())?;
    let plan = PrepareProxy {
        families: Families::BOTH,
        port: values::port("--port", port)?,
        uid: surroundings.id("--uid", "passwd", uid)?,
        ranges: if nets.is_empty() { Selection::All } else { Selection::Only(nets) },
    };
    shared(&given, surroundings, Capture::PrepareProxy(plan))
}

impl PrepareProxy {
    pub(crate) fn rules(&self) -> RuleSet {
        let (all, tcp) = (self.families, Some(Protocol::Tcp));
        let mut table = Table::new(TableKind::Nat);
        table.enter(Hook::Prerouting, all, tcp, chain::REDIRECT, "TCP that arrives");
        let redirect = [Match::Protocol(Protocol::Tcp)];
        table.chain(chain::REDIRECT).rule(all, redirect, Action::Redirect(self.port), "to the proxy");
        table.enter(Hook::Output, all, tcp, chain::OUTPUT, "TCP that the pod sends");
        let output = table.chain(chain::OUTPUT);
        let to_proxy = || Action::Jump(chain::REDIRECT);
        let loopback = |family: Family| Net::host(family.loopback());
        for family in all.each() {
            let matches = [Match::Out(Interface::loopback()), Match::NotDestination(loopback(family))];
            output.rule(Families::only(family), matches, to_proxy(), "to this pod's own address");
        }
        output.rule(all, [Match::Uid(self.uid)], Action::Return, "the proxy's own traffic");
        for family in all.each() {
            let matches = [Match::Destination(loopback(family))];
            output.rule(Families::only(family), matches, Action::Return, "loopback");
        }
        match &self.ranges {
            Selection::All => output.rule(all, [], to_proxy(), "everything else goes to the proxy"),
            Selection::Only(nets) => {
                for net in nets.iter().filter(|net| all.has(net.family())) {
                    let families = Families::only(net.family());
                    output.rule(families, [Match::Destination(*net)], to_proxy(), "an included range");
                }
            }
        }
        RuleSet { families: all, tables: vec![table], steering: None, inbound_source_v6: false }
    }
}
