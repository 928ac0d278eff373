//! Capture as Istio's first init containers had it (`proxy_init` of Istio 0.1 to 0.7): one port for both ways,
//! and everything outbound unless ranges are given.

use crate::rules::{Action, Hook, Match, Protocol, RuleSet, Table, TableKind, chain};
use crate::values::{Families, Family, Interface, Net, Selection};

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrepareProxy {
    pub(crate) families: Families,
    pub(crate) port: u16,
    pub(crate) uid: u32,
    pub(crate) ranges: Selection<Net>,
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
