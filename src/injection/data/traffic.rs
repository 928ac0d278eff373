//! Which traffic is captured: the annotations, or the values in their place.
//!
//! Source: <https://istio.io/latest/docs/reference/config/annotations/>

use serde_json::{Value, json};

use super::{Input, text};

/// Lists as the init container's flags take them; null where a flag is not to be given.
pub(super) fn traffic(input: &Input, status_port: &str) -> Value {
    let proxy = &input.global["proxy"];
    let annotation = |name: &str| input.annotation(&format!("traffic.sidecar.istio.io/{name}"));
    let list =
        |name: &str, otherwise: &Value| annotation(name).map_or_else(|| text(otherwise), str::to_owned);
    let given = |name: &str, otherwise: &Value| {
        annotation(name).map(str::to_owned).or(Some(text(otherwise)).filter(|list| !list.is_empty()))
    };
    let of_config = input.proxy_config.get("interceptionMode").and_then(Value::as_str).unwrap_or("REDIRECT");
    let mode = input.annotation("sidecar.istio.io/interceptionMode").unwrap_or(of_config);
    let reroute =
        input.annotation("istio.io/reroute-virtual-interfaces").or(annotation("kubevirtInterfaces"));
    let bind = input.setting("sidecar.istio.io/capNetBindService", &proxy["capNetBindService"]);
    json!({
        "mode": mode,
        "none": mode == "NONE",
        "tproxy": mode == "TPROXY",
        "bindLowPorts": bind == "true",
        "includeOutboundIPRanges": list("includeOutboundIPRanges", &proxy["includeIPRanges"]),
        "excludeOutboundIPRanges": list("excludeOutboundIPRanges", &proxy["excludeIPRanges"]),
        "includeInboundPorts": list("includeInboundPorts", &proxy["includeInboundPorts"]),
        "excludeInboundPorts": exclude_inbound(input, status_port),
        "includeOutboundPorts": given("includeOutboundPorts", &proxy["includeOutboundPorts"]),
        "excludeOutboundPorts": given("excludeOutboundPorts", &proxy["excludeOutboundPorts"]),
        "rerouteInterfaces": reroute,
        "excludeInterfaces": annotation("excludeInterfaces"),
        "networks": networks(input.annotation("k8s.v1.cni.cncf.io/networks").unwrap_or_default()),
    })
}

/// The inbound ports that are not captured, by annotation or value, and `port`, which the kubelet has to reach.
pub(super) fn exclude_inbound(input: &Input, port: &str) -> String {
    let excluded = input.setting(
        "traffic.sidecar.istio.io/excludeInboundPorts",
        &input.global["proxy"]["excludeInboundPorts"],
    );
    with_port(&excluded, port)
}

/// A list of ports with one more, unless it is there already or is none.
fn with_port(ports: &str, port: &str) -> String {
    let port = port.trim();
    if port.is_empty() || port == "0" || ports.split(',').any(|listed| listed == port) {
        return ports.to_owned();
    }
    let listed = ports.split(',').map(str::trim).filter(|listed| !listed.is_empty());
    listed.chain([port]).collect::<Vec<_>>().join(",")
}

/// Multus' list of networks with `default/istio-cni` in it, edited as text: its author's writing stays.
fn networks(given: &str) -> String {
    const NETWORK: &str = "default/istio-cni";
    if given.is_empty() {
        return NETWORK.to_owned();
    }
    let Some(end) = given.rfind(']') else {
        let listed = given.split(',').any(|network| network.trim() == NETWORK);
        return if listed { given.to_owned() } else { format!("{given}, {NETWORK}") };
    };
    match serde_json::from_str::<Vec<Value>>(given) {
        Ok(networks) if networks.iter().all(Value::is_object) => {
            let listed = networks.iter().any(|n| n["name"] == "istio-cni" && n["namespace"] == "default");
            if listed {
                return given.to_owned();
            }
            let separator = if networks.is_empty() { "" } else { ", " };
            format!(
                "{}{separator}{{\"name\": \"istio-cni\", \"namespace\": \"default\"}}{}",
                &given[..end],
                &given[end..]
            )
        }
        // What is no list of networks is left to Multus to refuse.
        _ => given.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_port_joins_the_excluded_ones_once() {
        for (ports, port, want) in [
            ("", "15020", "15020"),
            ("4,5,6", "15020", "4,5,6,15020"),
            ("4", "", "4"),
            ("4", "0", "4"),
            ("4,15020", "15020", "4,15020"),
            ("4, 15020", "15020", "4,15020,15020"),
        ] {
            assert_eq!(with_port(ports, port), want);
        }
    }

    #[test]
    fn multus_networks_are_edited_as_text() {
        let json = "[\n {\"name\": \"a\"}\n ]";
        for (given, want) in [
            ("", "default/istio-cni".to_owned()),
            ("a, b", "a, b, default/istio-cni".to_owned()),
            ("a,default/istio-cni", "a,default/istio-cni".to_owned()),
            (
                json,
                "[\n {\"name\": \"a\"}\n , {\"name\": \"istio-cni\", \"namespace\": \"default\"}]".to_owned(),
            ),
            ("[]", "[{\"name\": \"istio-cni\", \"namespace\": \"default\"}]".to_owned()),
            ("[1]", "[1]".to_owned()),
        ] {
            assert_eq!(networks(given), want);
            assert_eq!(networks(&networks(given)), networks(given));
        }
    }
}
