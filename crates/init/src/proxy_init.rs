//! Capture as linkerd2-proxy-init programs it: another order of the same ideas, with chains of other names.

use crate::rules::{Action, Hook, Match, Protocol, RuleSet, Table, TableKind, chain};
use crate::values::{Families, Interface, Net, Ports, Selection};

/// What is captured and what is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyInit {
    pub(crate) families: Families,
    pub(crate) inbound_port: u16,
    /// `None`: outbound traffic is left alone.
    pub(crate) outbound_port: Option<u16>,
    pub(crate) proxy_uid: Option<u32>,
    pub(crate) proxy_gid: Option<u32>,
    pub(crate) inbound_ports: Selection<Ports>,
    pub(crate) inbound_ignored_ports: Vec<Ports>,
    pub(crate) outbound_ignored_ports: Vec<Ports>,
    /// Clients whose connections are let through: a source, and inbound only.
    pub(crate) ignored_subnets: Vec<Net>,
}

impl ProxyInit {
    pub(crate) fn rules(&self) -> RuleSet {
        let mut table = Table::new(TableKind::Nat);
        self.inbound(&mut table);
        self.outbound(&mut table);
        RuleSet { families: self.families, tables: vec![table], steering: None, inbound_source_v6: false }
    }

    fn inbound(&self, table: &mut Table) {
        let all = self.families;
        table.enter(Hook::Prerouting, all, None, chain::PROXY_INIT_REDIRECT, "everything that arrives");
        let inbound = table.chain(chain::PROXY_INIT_REDIRECT);
        for ports in &self.inbound_ignored_ports {
            inbound.rule(all, tcp_to(*ports), Action::Return, "an ignored inbound port");
        }
        for net in self.ignored_subnets.iter().filter(|net| all.has(net.family())) {
            let families = Families::only(net.family());
            inbound.rule(families, [Match::Source(*net)], Action::Return, "an ignored client");
        }
        let redirect = Action::Redirect(self.inbound_port);
        match &self.inbound_ports {
            Selection::All => {
                let tcp = [Match::Protocol(Protocol::Tcp)];
                inbound.rule(all, tcp, redirect, "every other inbound port goes to the proxy");
            }
            Selection::Only(list) => {
                for ports in list {
                    inbound.rule(all, tcp_to(*ports), redirect.clone(), "an included inbound port");
                }
            }
        }
    }

    fn outbound(&self, table: &mut Table) {
        let all = self.families;
        let Some(port) = self.outbound_port else { return };
        table.enter(Hook::Output, all, None, chain::PROXY_INIT_OUTPUT, "everything that the pod sends");
        let outbound = table.chain(chain::PROXY_INIT_OUTPUT);
        let owners = [self.proxy_uid.map(Match::Uid), self.proxy_gid.map(Match::Gid)];
        for owner in owners.into_iter().flatten() {
            outbound.rule(all, [owner], Action::Return, "the proxy's own traffic");
        }
        outbound.rule(all, [Match::Out(Interface::loopback())], Action::Return, "the pod talks to itself");
        for ports in &self.outbound_ignored_ports {
            outbound.rule(all, tcp_to(*ports), Action::Return, "an ignored outbound port");
        }
        let tcp = [Match::Protocol(Protocol::Tcp)];
        outbound.rule(all, tcp, Action::Redirect(port), "everything else goes to the proxy");
    }
}

fn tcp_to(ports: Ports) -> Vec<Match> {
    vec![Match::Protocol(Protocol::Tcp), Match::DestinationPort(ports)]
}
