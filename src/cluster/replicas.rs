//! What the replicas of an installation really serve: each is asked for its certificate, by a TLS handshake.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Error, Installation};
use crate::certificates::rotation::Pair;
use crate::certificates::{Identity, peer};

/// The name of the webhook's port.
const PORT: &str = "https";
/// A replica that has not answered by then is not known to serve anything.
const PATIENCE: Duration = Duration::from_secs(3);

/// The replicas that serve another certificate than `pair`, or of which it is not known: one that does not answer may
/// be asked by an API server in the next moment. One that refuses connections serves none.
///
/// # Errors
/// Who the replicas are cannot be read.
pub(super) async fn not_serving(installation: &Installation, pair: &Pair) -> Result<Vec<String>, Error> {
    let leaf = Identity::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).ok();
    let leaf = leaf.and_then(|identity| identity.chain().first().map(|leaf| leaf.to_vec()));
    let namespace = &installation.cluster.namespace;
    let slices = installation
        .cluster
        .get(&format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name%3D{}",
            installation.name
        ))
        .await?;
    let mut others = Vec::new();
    for address in addresses(&slices) {
        let served = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => timeout(PATIENCE, peer(stream)).await.ok().flatten(),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
            Ok(Err(_)) | Err(_) => None,
        };
        if served.is_none() || served != leaf {
            others.push(address.to_string());
        }
    }
    Ok(others)
}

/// The addresses of EndpointSlices, ready or not: one that is leaving may still be asked.
fn addresses(slices: &Value) -> Vec<SocketAddr> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for slice in items(&slices["items"]) {
        let ports = items(&slice["ports"]);
        let ports: Vec<_> = ports
            .iter()
            .filter(|port| port["name"] == PORT)
            .filter_map(|port| port["port"].as_u64())
            .collect();
        for endpoint in items(&slice["endpoints"]) {
            let ips = items(&endpoint["addresses"]);
            let ips = ips.iter().filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok());
            found.extend(ips.flat_map(|ip| {
                ports.iter().filter_map(move |port| Some(SocketAddr::new(ip, u16::try_from(*port).ok()?)))
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_endpoint_counts_ready_or_not() {
        let slices = json!({"items": [
            {"ports": [{"name": "http-metrics", "port": 15014}, {"name": "https", "port": 8443}], "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "terminating": true}},
            ]},
            {"ports": [{"name": "https", "port": 8443}], "endpoints": [{"addresses": ["fd00::1"]}]},
            {"ports": null, "endpoints": null},
        ]});
        let expected: Vec<SocketAddr> =
            ["10.0.0.1:8443", "10.0.0.2:8443", "[fd00::1]:8443"].map(|a| a.parse().unwrap()).into();
        assert_eq!(addresses(&slices), expected);
    }
}
