//! Where a connection goes, and as what. The one question that configuration answers on the way of a connection: today
//! from the original destination and what the pod declares of its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::destination::Direction;

/// What is known of a port before a byte is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declared {
    /// Nothing: look at the first bytes.
    Nothing,
    /// HTTP, which the client begins; in the version that it speaks.
    Http,
    /// TLS, which the client begins: bytes, and the name that it asks for.
    Tls,
    /// Bytes, whoever begins.
    Opaque,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The upstream's address.
    pub address: SocketAddr,
    /// What is spoken there.
    pub declared: Declared,
}

/// Per-port settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// The pod's own ports.
    inbound: BTreeMap<u16, Declared>,
    /// Ports that the pod calls.
    outbound: BTreeMap<u16, Declared>,
    /// Ports that are bytes in both directions, most of them because the server speaks first.
    opaque: BTreeSet<u16>,
}

impl Routes {
    /// What is declared of the pod's own ports and of those that it calls, and the ports that are bytes whatever the
    /// direction, unless they are declared.
    pub(crate) fn new(
        inbound: BTreeMap<u16, Declared>,
        outbound: BTreeMap<u16, Declared>,
        opaque: BTreeSet<u16>,
    ) -> Routes {
        Routes { inbound, outbound, opaque }
    }

    /// Where a connection whose original destination is `original` goes.
    pub(crate) fn route(&self, direction: Direction, original: SocketAddr) -> Route {
        let port = original.port();
        let ports = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        let declared = match ports.get(&port) {
            Some(declared) if *declared != Declared::Nothing => *declared,
            _ if self.opaque.contains(&port) => Declared::Opaque,
            _ => Declared::Nothing,
        };
        Route { address: original, declared }
    }
}

impl Declared {
    /// A protocol by its name, as Kubernetes' `appProtocol` and Istio's port names have it.
    pub(crate) fn parse(name: &str) -> Option<Declared> {
        match name.to_ascii_lowercase().as_str() {
            "http" | "http2" | "grpc" | "grpc-web" | "kubernetes.io/h2c" | "kubernetes.io/ws" => {
                Some(Declared::Http)
            }
            "tls" | "https" | "kubernetes.io/wss" => Some(Declared::Tls),
            "tcp" | "mongo" | "redis" | "mysql" => Some(Declared::Opaque),
            _ => None,
        }
    }

    /// Istio's convention for port names: the protocol, then a dash and anything. Names that say nothing are looked at.
    pub(crate) fn by_name(name: &str) -> Declared {
        let protocol = name.split('-').next().unwrap_or_default();
        Declared::parse(protocol).unwrap_or(Declared::Nothing)
    }
}

/// Reads `ISTIO_META_POD_PORTS`: a JSON array of Kubernetes' ContainerPort objects.
///
/// # Errors
///
/// It is no such array.
pub(crate) fn parse_pod_ports(text: &str) -> Result<BTreeMap<u16, Declared>, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ContainerPort {
        #[serde(default)]
        name: String,
        container_port: u16,
        #[serde(default)]
        protocol: String,
    }
    let ports: Vec<ContainerPort> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let tcp = ports.iter().filter(|port| port.protocol.is_empty() || port.protocol == "TCP");
    Ok(tcp.map(|port| (port.container_port, Declared::by_name(&port.name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_follow_the_convention() {
        for (name, declared) in [
            ("http", Declared::Http),
            ("HTTP-web", Declared::Http),
            ("http2-x", Declared::Http),
            ("grpc", Declared::Http),
            ("grpc-web-x", Declared::Http),
            ("mongo", Declared::Opaque),
            ("mysql", Declared::Opaque),
            ("redis-cache", Declared::Opaque),
            ("tcp", Declared::Opaque),
            ("tls", Declared::Tls),
            ("https-a", Declared::Tls),
            ("udp-x", Declared::Nothing),
            ("web", Declared::Nothing),
            ("httpbin", Declared::Nothing),
            ("", Declared::Nothing),
        ] {
            assert_eq!(Declared::by_name(name), declared, "{name}");
        }
    }

    #[test]
    fn declared_ports_are_the_pods_and_opaque_ones_everybodys() {
        let text = r#"[{"name":"http-web","containerPort":3306,"protocol":"TCP"},
            {"name":"dns","containerPort":53,"protocol":"UDP"},{"containerPort":9000}]"#;
        let outbound = BTreeMap::from([(443, Declared::Tls)]);
        let routes = Routes::new(parse_pod_ports(text).unwrap(), outbound, BTreeSet::from([3306, 53]));
        let declared = |direction, port: u16| routes.route(direction, ([10, 0, 0, 1], port).into()).declared;
        assert_eq!(declared(Direction::Inbound, 3306), Declared::Http);
        assert_eq!(declared(Direction::Outbound, 3306), Declared::Opaque);
        assert_eq!(declared(Direction::Inbound, 53), Declared::Opaque);
        assert_eq!(declared(Direction::Inbound, 9000), Declared::Nothing);
        assert_eq!(declared(Direction::Outbound, 80), Declared::Nothing);
        assert_eq!(declared(Direction::Outbound, 443), Declared::Tls);
        assert_eq!(declared(Direction::Inbound, 443), Declared::Nothing);
        assert!(parse_pod_ports("{}").is_err());
    }
}
