//! What a ProxyConfig must hold to, by the rules and in the words of Istio's validation.

use std::net::IpAddr;

use outrigger_contract as contract;
use serde_json::Value;

use super::super::validate::errors;
use super::{ProxyConfig, duration};

/// All that is wrong with a ProxyConfig.
pub(super) fn check(config: &ProxyConfig) -> Result<(), String> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let mut found = Vec::new();
    let mut require = |holds: bool, message: &str| {
        if !holds {
            found.push(message.to_owned());
        }
    };
    require(!text("configPath").is_empty(), "config path must be set");
    require(!text("binaryPath").is_empty(), "binary path must be set");
    let named = config.contains_key("tracingServiceName") || !text("serviceCluster").is_empty();
    require(named, "service cluster must be specified");
    let drain = duration::parse(text("drainDuration")).unwrap_or_default();
    if drain < 1_000_000 {
        require(false, "invalid drain duration: duration must be greater than 1ms");
    } else if drain % 1_000_000 != 0 {
        require(false, "invalid drain duration: only durations to ms precision are supported");
    } else {
        require(drain % 1_000_000_000 == 0, "drain time only supports durations to seconds precision");
    }
    if text("discoveryAddress").is_empty() {
        require(false, "discovery address must be set to the proxy discovery service");
    } else if let Err(e) = address(text("discoveryAddress")) {
        require(false, &format!("invalid discovery address: {e}"));
    }
    let tracing = config.get("tracing").unwrap_or(&Value::Null);
    if let Some(lightstep) = tracing.get("lightstep") {
        let address_of = lightstep["address"].as_str().unwrap_or_default();
        require(!address_of.is_empty(), "invalid lightstep config: address is required");
        if let Err(e) = address(address_of) {
            require(false, &format!("invalid lightstep config: invalid lightstep address: {e}"));
        }
        let token = lightstep["accessToken"].as_str().unwrap_or_default();
        require(!token.is_empty(), "invalid lightstep config: access token is required");
    }
    for tracer in ["zipkin", "datadog"] {
        if let Some(collector) = tracing.get(tracer) {
            let host =
                collector["address"].as_str().unwrap_or_default().replacen("$(HOST_IP)", "127.0.0.1", 1);
            if let Err(e) = address(&host) {
                require(false, &format!("invalid {tracer} config: {e}"));
            }
        }
    }
    for (value, name) in [
        (text("statsdUdpAddress"), "statsd udp"),
        (text("envoyMetricsServiceAddress"), "envoy metrics service"),
        (service_address(config, "envoyMetricsService"), "envoy metrics service"),
        (service_address(config, "envoyAccessLogService"), "envoy access log service"),
    ] {
        if !value.is_empty()
            && let Err(e) = address(value)
        {
            require(false, &format!("invalid {name} address {value:?}: {e}"));
        }
    }
    for (field, name) in [("proxyAdminPort", "proxy admin port"), ("statusPort", "status port")] {
        if let Err(e) = port(config.get(field).and_then(Value::as_i64).unwrap_or_default()) {
            require(false, &format!("invalid {name}: {e}"));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(errors(&found)) }
}

/// Whether the ports that a ProxyConfig chooses, all layers of it, are ports, and left to it: without, or with one of the
/// sidecar's other listeners, it would not start. This is no rule of Istio's, where it is Envoy that does not start.
pub(in crate::injection) fn listeners(config: &ProxyConfig) -> Result<(), String> {
    listeners_with(config, config.get("statusPort").and_then(Value::as_i64).unwrap_or_default())
}

/// The same where the sidecar is told another status port than its ProxyConfig has.
pub(in crate::injection) fn listeners_with(config: &ProxyConfig, status: i64) -> Result<(), String> {
    let admin = config.get("proxyAdminPort").and_then(Value::as_i64).unwrap_or_default();
    for (field, port) in [("proxyAdminPort", admin), ("statusPort", status)] {
        if !(0..=65535).contains(&port) {
            return Err(format!("{field} is {port}: give a port from 1 to 65535"));
        }
        port_is_free(field, port)?;
    }
    if admin == status && admin != 0 {
        return Err(format!("proxyAdminPort and statusPort are both {admin}: give each its own"));
    }
    Ok(())
}

/// Whether `port`, which `name` chooses, is none that the sidecar has for something else, whatever is chosen.
pub(in crate::injection) fn port_is_free(name: &str, port: i64) -> Result<(), String> {
    let taken = [
        (contract::OUTBOUND_PORT, "outbound traffic"),
        (contract::INBOUND_PORT, "inbound traffic"),
        (contract::READINESS_PORT, "readiness"),
        (contract::METRICS_PORT, "its own metrics"),
    ];
    match taken.iter().find(|(own, _)| i64::from(*own) == port) {
        Some((_, what)) => Err(format!("{name} is {port}, the sidecar's port for {what}: choose another")),
        None => Ok(()),
    }
}

fn service_address<'a>(config: &'a ProxyConfig, field: &str) -> &'a str {
    config.get(field).and_then(|service| service["address"].as_str()).unwrap_or_default()
}

fn port(port: i64) -> Result<(), String> {
    if (1..=65535).contains(&port) {
        Ok(())
    } else {
        Err(format!("port number {port} must be in the range 1..65535"))
    }
}

/// `host:port`, with a name or an IP address (`[::1]:80`).
fn address(text: &str) -> Result<(), String> {
    let (host, number) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("unable to split {text:?}: address {text}: missing port in address"))?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(format!("unable to split {text:?}: address {text}: too many colons in address"));
    }
    let number: i64 = number.parse().map_err(|_| {
        format!("port ({number}) is not a number: strconv.Atoi: parsing {number:?}: invalid syntax")
    })?;
    port(number)?;
    let host = bare.unwrap_or(host);
    if is_name(host) || host.parse::<IpAddr>().is_ok() {
        Ok(())
    } else {
        Err(format!("{host:?} is not a valid hostname or an IP address"))
    }
}

/// A DNS name: labels of letters, digits and dashes.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= 255 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}
