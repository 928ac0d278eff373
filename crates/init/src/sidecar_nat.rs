//! The part of a sidecar's rules that turns connections: the table `nat`.

use outrigger_contract as contract;

use crate::rules::{Action, Hook, Match, Protocol, Table, TableKind, chain};
use crate::sidecar::{
    DNS, Dns, Groups, Mode, Sidecar, inbound_source, on_loopback, only, tcp, tcp_port, tcp_ports,
};
use crate::values::{Families, Ports, Selection};

impl Sidecar {
    pub(crate) fn nat(&self) -> Table {
        let mut table = Table::new(TableKind::Nat);
        self.nat_prerouting(&mut table);
        table.chain(chain::REDIRECT).rule(
            self.families,
            tcp(),
            Action::Redirect(self.outbound_port),
            "to the proxy's outbound port",
        );
        table.chain(chain::IN_REDIRECT).rule(
            self.families,
            tcp(),
            Action::Redirect(self.inbound_port),
            "to the proxy's inbound port",
        );
        table.enter(Hook::Output, self.families, None, chain::OUTPUT, "everything that the pod sends");
        self.nat_output(&mut table);
        table
    }

    fn nat_prerouting(&self, table: &mut Table) {
        let all = self.families;
        let redirects = self.mode == Mode::Redirect && self.captures_inbound();
        if !redirects && self.virtual_interfaces.is_empty() {
            return;
        }
        table.enter(Hook::Prerouting, all, Some(Protocol::Tcp), chain::INBOUND, "TCP that arrives");
        let inbound = table.chain(chain::INBOUND);
        for interface in &self.virtual_interfaces {
            let arrives = || Match::In(interface.clone());
            let note = "a virtual machine's outbound traffic";
            match &self.outbound_ranges {
                Selection::All => inbound.rule(all, [arrives()], Action::Jump(chain::REDIRECT), note),
                Selection::Only(nets) => {
                    for net in self.nets(nets) {
                        let matches = [arrives(), Match::Destination(net)];
                        inbound.rule(only(net), matches, Action::Jump(chain::REDIRECT), note);
                    }
                }
            }
        }
        for interface in &self.virtual_interfaces {
            let matches = [Match::In(interface.clone())];
            inbound.rule(all, matches, Action::Return, "a virtual machine's other traffic");
        }
        for interface in &self.excluded_interfaces {
            inbound.rule(all, [Match::In(interface.clone())], Action::Return, "an excluded interface");
        }
        inbound.rule(
            all,
            tcp_port(self.tunnel_port),
            Action::Return,
            "tunnels end at the proxy by themselves",
        );
        if !redirects {
            return;
        }
        match &self.inbound_ports {
            Selection::All => {
                for ports in &self.inbound_excluded_ports {
                    inbound.rule(all, tcp_ports(*ports), Action::Return, "an excluded inbound port");
                }
                inbound.rule(all, tcp(), Action::Jump(chain::IN_REDIRECT), "every other inbound port");
            }
            Selection::Only(list) => {
                for ports in list {
                    let to_proxy = Action::Jump(chain::IN_REDIRECT);
                    inbound.rule(all, tcp_ports(*ports), to_proxy, "an included inbound port");
                }
            }
        }
    }

    fn nat_output(&self, table: &mut Table) {
        let all = self.families;
        let output = table.chain(chain::OUTPUT);
        for interface in &self.excluded_interfaces {
            output.rule(all, [Match::Out(interface.clone())], Action::Return, "an excluded interface");
        }
        for ports in &self.outbound_excluded_ports {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let matches = [Match::Protocol(protocol), Match::DestinationPort(*ports)];
                output.rule(all, matches, Action::Return, "an excluded outbound port");
            }
        }
        for family in all.each() {
            let matches = [on_loopback(), Match::Source(inbound_source(family))];
            let note = "from the proxy to the application, inbound";
            output.rule(Families::only(family), matches, Action::Return, note);
        }
        for (owner, not_owner, self_call_ports) in self.owners() {
            for family in all.each() {
                let matches = [
                    on_loopback(),
                    Match::NotDestination(self.loopback(family)),
                    Match::Protocol(Protocol::Tcp),
                    Match::NotDestinationPorts(self_call_ports.clone()),
                    owner.clone(),
                ];
                let note = "from the proxy to this pod's own address: inbound";
                output.rule(Families::only(family), matches, Action::Jump(chain::IN_REDIRECT), note);
            }
            if !self.includes_loopback() {
                let mut matches = vec![on_loopback()];
                if self.dns != Dns::Off {
                    matches.extend([Match::Protocol(Protocol::Tcp), Match::NotDestinationPorts(vec![DNS])]);
                }
                matches.push(not_owner);
                output.rule(all, matches, Action::Return, "the application talks to itself");
            }
            output.rule(all, [owner], Action::Return, "the proxy's own traffic");
        }
        match &self.groups {
            Groups::AllExcept(groups) => {
                for group in groups {
                    output.rule(all, [Match::Gid(*group)], Action::Return, "an excluded group");
                }
            }
            Groups::Only(groups) => {
                let matches: Vec<Match> = groups.iter().map(|group| Match::NotGid(*group)).collect();
                output.rule(all, matches, Action::Return, "no included group");
            }
        }
        self.nat_dns(table);
        let output = table.chain(chain::OUTPUT);
        for family in all.each() {
            let matches = [Match::Destination(self.loopback(family))];
            output.rule(Families::only(family), matches, Action::Return, "loopback");
        }
        for net in self.nets(&self.outbound_excluded_ranges) {
            output.rule(only(net), [Match::Destination(net)], Action::Return, "an excluded range");
        }
        for ports in &self.outbound_ports {
            let note = "an included outbound port";
            output.rule(all, tcp_ports(*ports), Action::Jump(chain::REDIRECT), note);
        }
        match &self.outbound_ranges {
            Selection::All => {
                output.rule(all, [], Action::Jump(chain::REDIRECT), "everything else goes to the proxy");
            }
            Selection::Only(nets) => {
                for net in self.nets(nets) {
                    let matches = [Match::Destination(net)];
                    output.rule(only(net), matches, Action::Jump(chain::REDIRECT), "an included range");
                }
            }
        }
    }

    fn nat_dns(&self, table: &mut Table) {
        for (families, targets) in self.dns.targets(self.families) {
            let jump = Action::Jump(chain::OUTPUT_DNS);
            table.chain(chain::OUTPUT).rule(families, [], jump, "name service");
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for target in &targets {
                    let mut matches: Vec<Match> = target.map(Match::Destination).into_iter().collect();
                    matches.extend([Match::Protocol(protocol), Match::DestinationPort(Ports::one(DNS))]);
                    let redirect = Action::Redirect(contract::DNS_PORT);
                    table.chain(chain::OUTPUT_DNS).rule(
                        families,
                        matches,
                        redirect,
                        "queries go to the proxy",
                    );
                }
            }
        }
    }

    fn includes_loopback(&self) -> bool {
        match &self.outbound_ranges {
            Selection::All => false,
            Selection::Only(nets) => nets.iter().any(|net| net.address.is_loopback()),
        }
    }
}
