//! Capture for a proxy that is not in the pod: one on each node, or one behind a service. Outbound TCP goes
//! there by destination NAT, as linkerd's first init container had it.

use std::net::SocketAddr;

use crate::rules::{Action, Hook, Match, Protocol, RuleSet, Table, TableKind, chain};
use crate::values::{Families, Family, Net};

/// What is captured: all outbound TCP of the proxy's family, except over loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daemonset {
    pub(crate) proxy: SocketAddr,
}

impl Daemonset {
    pub(crate) fn rules(&self) -> RuleSet {
        let family = Family::of(self.proxy.ip());
        let families = Families::only(family);
        let mut table = Table::new(TableKind::Nat);
        table.enter(Hook::Output, families, None, chain::OUTPUT, "everything that the pod sends");
        let output = table.chain(chain::OUTPUT);
        let loopback = Net::host(family.loopback());
        output.rule(families, [Match::Destination(loopback)], Action::Return, "loopback");
        let tcp = [Match::Protocol(Protocol::Tcp)];
        output.rule(families, tcp, Action::Dnat(self.proxy), "everything else goes to the node's proxy");
        RuleSet { families, tables: vec![table], steering: None, inbound_source_v6: false }
    }
}
