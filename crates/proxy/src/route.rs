//! Where a connection goes, and as what. The one question that configuration answers on the way of a connection: today
//! from the original destination and what the pod declares of its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::destination::Direction;

/// What is known of a port before a byte is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// Nothing: look at the first bytes.
    Nothing,
    /// HTTP, spoken to the application as HTTP/1.
    Http1,
    /// HTTP, spoken to the application as HTTP/2.
    Http2,
    /// Bytes.
    Opaque,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The upstream's address.
    pub address: SocketAddr,
    /// What is spoken there.
    pub declared: Declared,
}

/// Per-port settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// The pod's own ports.
    inbound: BTreeMap<u16, Declared>,
    /// Ports that are bytes in both directions, most of them because the server speaks first.
    opaque: BTreeSet<u16>,
}

impl Routes {
    /// Settings of the pod's own ports, and the ports that are bytes whatever the direction.
    pub fn new(inbound: BTreeMap<u16, Declared>, opaque: BTreeSet<u16>) -> Routes {
        Routes { inbound, opaque }
    }

    /// Where a connection whose original destination is `original` goes.
    pub fn route(&self, direction: Direction, original: SocketAddr) -> Route {
        let port = original.port();
        let declared = match (direction, self.inbound.get(&port)) {
            (Direction::Inbound, Some(declared)) if *declared != Declared::Nothing => *declared,
            _ if self.opaque.contains(&port) => Declared::Opaque,
            _ => Declared::Nothing,
        };
        Route { address: original, declared }
    }
}

impl Declared {
    /// Istio's convention for port names: the protocol, then a dash and anything. Names that say nothing are looked at.
    pub fn by_name(name: &str) -> Declared {
        let name = name.to_ascii_lowercase();
        if name.starts_with("grpc-web") {
            return Declared::Http2;
        }
        match name.split('-').next().unwrap_or_default() {
            "http" => Declared::Http1,
            "http2" | "grpc" => Declared::Http2,
            "tcp" | "tls" | "https" | "mongo" | "redis" | "mysql" => Declared::Opaque,
            _ => Declared::Nothing,
        }
    }
}

/// Reads `ISTIO_META_POD_PORTS`: a JSON array of Kubernetes' ContainerPort objects.
///
/// # Errors
///
/// It is no such array.
pub fn parse_pod_ports(text: &str) -> Result<BTreeMap<u16, Declared>, String> {
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
            ("http", Declared::Http1),
            ("HTTP-web", Declared::Http1),
            ("http2-x", Declared::Http2),
            ("grpc", Declared::Http2),
            ("grpc-web-x", Declared::Http2),
            ("mysql", Declared::Opaque),
            ("https-a", Declared::Opaque),
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
        let routes = Routes::new(parse_pod_ports(text).unwrap(), BTreeSet::from([3306, 53]));
        let declared = |direction, port: u16| routes.route(direction, ([10, 0, 0, 1], port).into()).declared;
        assert_eq!(declared(Direction::Inbound, 3306), Declared::Http1);
        assert_eq!(declared(Direction::Outbound, 3306), Declared::Opaque);
        assert_eq!(declared(Direction::Inbound, 53), Declared::Opaque);
        assert_eq!(declared(Direction::Inbound, 9000), Declared::Nothing);
        assert_eq!(declared(Direction::Outbound, 80), Declared::Nothing);
        assert!(parse_pod_ports("{}").is_err());
    }
}
