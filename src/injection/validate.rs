//! What a pod's annotations may say, by Istio's rules and in its words, so that a message means what the
//! documentation says. Everything that is wrong is reported at once.
//!
//! Source: <https://istio.io/latest/docs/reference/config/annotations/>

use std::net::{Ipv4Addr, Ipv6Addr};

use outrigger_contract::go;
use serde_json::{Map, Value};

use super::{proxy_config, quantity};

type Rule = fn(&str) -> Result<(), String>;

const RULES: &[(&str, Rule)] = &[
    ("istio.io/reroute-virtual-interfaces", interfaces),
    ("prometheus.istio.io/merge-metrics", |value| boolean(value).map(drop)),
    ("proxy.istio.io/config", |value| proxy_config::from_annotation(value).map(drop)),
    ("readiness.status.sidecar.istio.io/failureThreshold", |value| unsigned(value, 32)),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", |value| unsigned(value, 32)),
    ("readiness.status.sidecar.istio.io/periodSeconds", |value| unsigned(value, 32)),
    ("sidecar.istio.io/interceptionMode", mode),
    ("sidecar.istio.io/proxyCPU", quantity::check),
    ("sidecar.istio.io/proxyCPULimit", quantity::check),
    ("sidecar.istio.io/proxyMemory", quantity::check),
    ("sidecar.istio.io/proxyMemoryLimit", quantity::check),
    ("status.sidecar.istio.io/port", |value| {
        port(value).map_err(|e| format!("excludeInboundPorts invalid: {e}"))?;
        proxy_config::port_is_free("it", value.trim().parse().unwrap_or_default())
    }),
    ("traffic.sidecar.istio.io/excludeInboundPorts", |value| ports("excludeInboundPorts", value)),
    ("traffic.sidecar.istio.io/excludeInterfaces", interfaces),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", |value| ranges("excludeIPRanges", value)),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", |value| ports("excludeOutboundPorts", value)),
    ("traffic.sidecar.istio.io/includeInboundPorts", |value| {
        or_all(value, |v| ports("includeInboundPorts", v))
    }),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", |value| {
        or_all(value, |v| ranges("includeIPRanges", v))
    }),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", interfaces),
];

/// Checks the annotations that have a rule.
pub(super) fn annotations(annotations: Option<&Map<String, Value>>) -> Result<(), String> {
    let Some(annotations) = annotations else { return Ok(()) };
    let wrong: Vec<String> = RULES
        .iter()
        .filter_map(|(key, rule)| {
            let value = annotations.get(*key)?.as_str()?;
            let error = rule(value).err()?;
            Some(format!("invalid value '{value}' for annotation '{key}': {error}"))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(errors(&wrong)) }
}

/// Several errors as one text, one a line.
pub(super) fn errors(found: &[String]) -> String {
    let lines: Vec<String> = found.iter().map(|error| format!("* {error}")).collect();
    let count = if found.len() == 1 { "1 error".to_owned() } else { format!("{} errors", found.len()) };
    format!("{count} occurred:\n\t{}\n\n", lines.join("\n\t"))
}

/// A boolean as Go reads it: 1, t, true, TRUE, True and their opposites.
pub(super) fn boolean(value: &str) -> Result<bool, String> {
    go::boolean(value).ok_or_else(|| format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))
}

fn or_all(value: &str, rule: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    if value == "*" { Ok(()) } else { rule(value) }
}

fn mode(value: &str) -> Result<(), String> {
    match value {
        "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
        _ => Err(format!("interceptionMode invalid, use REDIRECT,TPROXY,NONE: {value}")),
    }
}

fn unsigned(value: &str, bits: u32) -> Result<(), String> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(format!("strconv.ParseUint: parsing {value:?}: invalid syntax"));
    }
    match value.parse::<u64>() {
        Ok(number) if number >> bits == 0 => Ok(()),
        _ => Err(format!("strconv.ParseUint: parsing {value:?}: value out of range")),
    }
}

fn port(value: &str) -> Result<(), String> {
    unsigned(value.trim(), 16).map_err(|e| format!("failed parsing port '{value}': {e}"))
}

fn ports(name: &str, value: &str) -> Result<(), String> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(());
    }
    value.split(',').try_for_each(|item| {
        port(item).map_err(|e| format!("{name} invalid: failed parsing port '{item}': {e}"))
    })
}

fn ranges(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    value.split(',').try_for_each(|item| {
        prefix(item).map_err(|e| {
            format!("{name} invalid: failed parsing cidr '{item}': netip.ParsePrefix({item:?}): {e}")
        })
    })
}

/// An IP range such as `10.0.0.0/8`.
fn prefix(item: &str) -> Result<(), String> {
    let Some((address, bits)) = item.rsplit_once('/') else { return Err("no '/'".to_owned()) };
    let max = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return Err(bad_address(address));
    };
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    match bits.parse::<u32>() {
        Ok(number) if plain && number <= max => Ok(()),
        Ok(_) if plain => Err("prefix length out of range".to_owned()),
        _ => Err(format!("bad bits after slash: {bits:?}")),
    }
}

fn bad_address(address: &str) -> String {
    if address.contains('%') && !address.contains(':') {
        return format!("ParseAddr({address:?}): missing IPv6 address");
    }
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    match address.char_indices().find(|(_, c)| !is_part(*c)) {
        _ if address.contains(':') || !address.contains('.') && address.chars().all(is_part) => {
            format!("ParseAddr({address:?}): unable to parse IP")
        }
        None => {
            let fields: Vec<&str> = address.split('.').collect();
            let why = if fields.iter().any(|f| f.is_empty()) {
                "IPv4 field must have at least one digit"
            } else if fields.iter().any(|f| f.len() > 1 && f.starts_with('0')) {
                "IPv4 field has octet with leading zero"
            } else if fields.iter().any(|f| f.parse::<u32>().map_or(true, |n| n > 255)) {
                "IPv4 field has value >255"
            } else if fields.len() > 4 {
                "IPv4 address too long"
            } else {
                "IPv4 address too short"
            };
            format!("ParseAddr({address:?}): {why}")
        }
        Some(_) if !address.contains('.') => format!("ParseAddr({address:?}): unable to parse IP"),
        Some((at, _)) => format!("ParseAddr({address:?}): unexpected character (at {:?})", &address[at..]),
    }
}

fn interfaces(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    value.split(',').map(str::trim).try_for_each(|name| {
        let mut chars = name.chars();
        let first = chars.next();
        let valid = first.is_some_and(|c| c.is_ascii_alphabetic())
            && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        match name {
            "" => Err("empty interface name".to_owned()),
            _ if name.len() > 15 => Err(format!("interface name {name:?} too long (max 15 chars)")),
            _ if !valid => Err(format!("interface name {name:?} contains invalid characters")),
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(key: &str, value: &str) -> Result<(), String> {
        annotations(json!({key: value}).as_object())
    }

    #[test]
    fn messages_are_istios() {
        for (key, value, error) in [
            (
                "readiness.status.sidecar.istio.io/periodSeconds",
                "-1",
                "strconv.ParseUint: parsing \"-1\": invalid syntax",
            ),
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0/8, 1.1.1.1/32",
                "includeIPRanges invalid: failed parsing cidr ' 1.1.1.1/32': netip.ParsePrefix(\" 1.1.1.1/32\"): ParseAddr(\" 1.1.1.1\"): unexpected character (at \" 1.1.1.1\")",
            ),
            (
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                "*",
                "excludeIPRanges invalid: failed parsing cidr '*': netip.ParsePrefix(\"*\"): no '/'",
            ),
            (
                "traffic.sidecar.istio.io/excludeInboundPorts",
                "80,x",
                "excludeInboundPorts invalid: failed parsing port 'x': failed parsing port 'x': strconv.ParseUint: parsing \"x\": invalid syntax",
            ),
            (
                "status.sidecar.istio.io/port",
                "70000",
                "excludeInboundPorts invalid: failed parsing port '70000': strconv.ParseUint: parsing \"70000\": value out of range",
            ),
            (
                "status.sidecar.istio.io/port",
                "15090",
                "it is 15090, the sidecar's port for its own metrics: choose another",
            ),
            ("traffic.sidecar.istio.io/excludeInterfaces", "eth0,,eth1", "empty interface name"),
            (
                "traffic.sidecar.istio.io/excludeInterfaces",
                "a b",
                "interface name \"a b\" contains invalid characters",
            ),
            (
                "istio.io/reroute-virtual-interfaces",
                "averyveryverylongname",
                "interface name \"averyveryverylongname\" too long (max 15 chars)",
            ),
            (
                "prometheus.istio.io/merge-metrics",
                "maybe",
                "strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "sidecar.istio.io/interceptionMode",
                "SOME",
                "interceptionMode invalid, use REDIRECT,TPROXY,NONE: SOME",
            ),
        ] {
            let want =
                format!("1 error occurred:\n\t* invalid value '{value}' for annotation '{key}': {error}\n\n");
            assert_eq!(check(key, value), Err(want));
        }
    }

    #[test]
    fn what_istio_takes_is_taken() {
        for (key, value) in [
            ("sidecar.istio.io/interceptionMode", "NONE"),
            ("status.sidecar.istio.io/port", " 12 "),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", ""),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*"),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8,fd00::/8"),
            ("traffic.sidecar.istio.io/includeInboundPorts", "*"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", " 1, 2 "),
            ("traffic.sidecar.istio.io/includeOutboundPorts", "anything"),
            ("sidecar.istio.io/proxyCPU", "100m"),
        ] {
            assert_eq!(check(key, value), Ok(()), "{key}: {value}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_reported() {
        let pod = json!({"status.sidecar.istio.io/port": "x", "sidecar.istio.io/interceptionMode": "x"});
        let error = annotations(pod.as_object()).unwrap_err();
        assert!(
            error.starts_with(
                "2 errors occurred:\n\t* invalid value 'x' for annotation 'sidecar.istio.io/interceptionMode'"
            ),
            "{error}"
        );
    }
}
