//! The ports that the sidecar itself listens on.

use outrigger_contract as contract;

/// TCP ports of the sidecar's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Outbound capture, 15001.
    pub outbound: u16,
    /// Inbound capture, 15006.
    pub inbound: u16,
    /// Orders and merged metrics, 15020.
    pub agent: u16,
    /// Readiness, 15021.
    pub readiness: u16,
    /// The proxy's own metrics, 15090.
    pub metrics: u16,
    /// Admin, loopback only, 15000.
    pub admin: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Ports {
            outbound: contract::OUTBOUND_PORT,
            inbound: contract::INBOUND_PORT,
            agent: contract::AGENT_PORT,
            readiness: contract::READINESS_PORT,
            metrics: contract::METRICS_PORT,
            admin: contract::ADMIN_PORT,
        }
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, port) in self.named() {
            writeln!(formatter, "{name}::{port}")?;
        }
        Ok(())
    }
}

impl Ports {
    /// Each with what it is for; none may be given twice.
    pub(crate) fn named(&self) -> [(&'static str, u16); 6] {
        [
            ("outbound", self.outbound),
            ("inbound", self.inbound),
            ("agent", self.agent),
            ("readiness", self.readiness),
            ("metrics", self.metrics),
            ("admin", self.admin),
        ]
    }

    /// Whether `port` belongs to one of the sidecar's own listeners, DNS included.
    pub(crate) fn own(&self, port: u16) -> bool {
        port == contract::DNS_PORT || self.named().iter().any(|(_, own)| *own == port)
    }
}
