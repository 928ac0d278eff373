//! The front ends that linkerd's init containers have: `istio-init` of linkerd 1 (`-p -s -m`), for a proxy on
//! the node or behind a service, and linkerd2-proxy-init.

use std::net::{IpAddr, SocketAddr};

use crate::daemonset::Daemonset;
use crate::error::{Outcome, usage};
use crate::flags::{Flag, Takes, parse};
use crate::options::{Backend, Capture, DryRun, Form, Options, SHARED_FLAGS, Surroundings, shared};
use crate::proxy_init::ProxyInit;
use crate::resolve;
use crate::values::{self, Families, Selection};

/// The service that linkerd 1 has if nothing else is said.
const SERVICE: &str = "L5D";

pub(crate) const DAEMONSET_FLAGS: [Flag; 5] = [
    Flag::value("port", Some('p'), "port of the proxy (required)"),
    Flag::value("service", Some('s'), "name of the proxy's service, with --mesh true (L5D)"),
    Flag::value("mesh", Some('m'), "true: the service's address; false: this node's (false)"),
    Flag::value("proxy-address", None, "address of the proxy, whatever the environment says"),
    // Some manifests pass a user. The proxy is not in this pod, so there is nobody to except.
    Flag::ignored("uid", Some('u'), Takes::IgnoredValue),
];

pub(crate) const PROXY_INIT_FLAGS: [Flag; 18] = [
    Flag::value("incoming-proxy-port", Some('p'), "port that inbound connections are turned to (required)"),
    Flag::value("outgoing-proxy-port", Some('o'), "port that outbound connections are turned to (required)"),
    Flag::value("proxy-uid", Some('u'), "user whose own traffic is let through; -1 is nobody (-1)"),
    Flag::value("proxy-gid", Some('g'), "group whose own traffic is let through; -1 is nobody (-1)"),
    Flag::value("ports-to-redirect", Some('r'), "inbound ports to capture; none is all"),
    Flag::value("inbound-ports-to-ignore", None, "inbound ports and ranges to let through"),
    Flag::value("outbound-ports-to-ignore", None, "outbound ports and ranges to let through"),
    Flag::value("subnets-to-ignore", None, "clients whose connections are let through, inbound only"),
    Flag::switch("simulate", None, "show the rules and change nothing"),
    Flag::value(
        "timeout-close-wait-secs",
        None,
        "nf_conntrack_tcp_timeout_close_wait in seconds; 0 leaves it",
    ),
    Flag::value(
        "iptables-mode",
        None,
        "legacy, nft or plain: the iptables back end, if nftables is not to be used",
    ),
    Flag::switch("ipv6", None, "IPv6 too (true)"),
    Flag::value("log-level", None, "accepted: there is one level"),
    Flag::ignored("use-wait-flag", Some('w'), Takes::IgnoredSwitch),
    Flag::ignored("firewall-bin-path", None, Takes::IgnoredValue),
    Flag::ignored("firewall-save-bin-path", None, Takes::IgnoredValue),
    Flag::ignored("ports-to-ignore", None, Takes::IgnoredValue),
    Flag::ignored("log-time", None, Takes::IgnoredSwitch),
];

/// Whether a command line without a first word is linkerd 1's: it has a service, or a mode that is true or
/// false.
pub(crate) fn is_daemonset(arguments: &[String]) -> bool {
    let mode = |pair: &[String]| pair[0] == "-m" && matches!(pair[1].as_str(), "true" | "false");
    arguments.iter().any(|argument| argument == "-s") || arguments.windows(2).any(mode)
}

/// Whether a command line without a first word is linkerd2-proxy-init's.
pub(crate) fn is_proxy_init(arguments: &[String]) -> bool {
    let long = ["--incoming-proxy-port", "--outgoing-proxy-port"];
    arguments.iter().any(|argument| long.iter().any(|name| argument.starts_with(name)))
}

/// Reads linkerd 1's command line.
pub(crate) fn daemonset(arguments: &[String], surroundings: &Surroundings) -> Outcome<Options> {
    let known = [SHARED_FLAGS.as_slice(), DAEMONSET_FLAGS.as_slice()].concat();
    let given = parse(arguments, &known)?;
    given.flags_alone("linkerd-init")?;
    let Some(port) = given.get("port") else {
        return usage("--port (-p) is required: the port of the proxy, such as -p 4140");
    };
    let port = values::port("--port", port)?;
    let mesh = values::boolean("--mesh", given.get("mesh").unwrap_or("false"))?;
    let address = match given.get("proxy-address") {
        Some(address) => one_address("--proxy-address", address)?,
        // Nothing is sent there by a run that only takes rules away.
        None if given.switched("cleanup-only") => IpAddr::from([0, 0, 0, 0]),
        None if mesh => service(given.get("service").unwrap_or(SERVICE), surroundings)?,
        None => node(surroundings)?,
    };
    shared(&given, surroundings, Capture::Daemonset(Daemonset { proxy: SocketAddr::new(address, port) }))
}

fn one_address(option: &str, text: &str) -> Outcome<IpAddr> {
    match values::addresses(option, text)?.as_slice() {
        [address] => Ok(*address),
        _ => usage(format!("{option}: {text:?} is not one IP address")),
    }
}

/// The address of a service, from the variable that Kubernetes makes for it.
fn service(name: &str, surroundings: &Surroundings) -> Outcome<IpAddr> {
    let variable = format!("{}_SERVICE_HOST", name.to_uppercase().replace('-', "_"));
    match surroundings.variable(&variable) {
        Some(address) => one_address(&variable, address),
        None => usage(format!(
            "--service {name}: there is no {variable}; the service has to be in this pod's namespace \
             and older than the pod, or give --proxy-address"
        )),
    }
}

/// The address of this node: given, or the one that its name has.
fn node(surroundings: &Surroundings) -> Outcome<IpAddr> {
    if let Some(address) = surroundings.variable("HOST_IP").filter(|address| !address.is_empty()) {
        return one_address("HOST_IP", address);
    }
    match surroundings.variable("NODE_NAME").filter(|name| !name.is_empty()) {
        Some(name) => resolve::address(name, surroundings),
        None => usage(
            "the node's address is not known; give --proxy-address, or set HOST_IP (fieldRef status.hostIP) \
             or NODE_NAME (fieldRef spec.nodeName)",
        ),
    }
}

/// Reads linkerd2-proxy-init's command line.
pub(crate) fn proxy_init(arguments: &[String], surroundings: &Surroundings) -> Outcome<Options> {
    let known = [SHARED_FLAGS.as_slice(), PROXY_INIT_FLAGS.as_slice()].concat();
    let given = parse(arguments, &known)?;
    given.flags_alone("proxy-init")?;
    let required = |name: &str| match given.get(name) {
        Some(value) => Ok(value),
        None => {
            usage(format!("--{name} is required: the port that the proxy listens on, such as --{name} 4143"))
        }
    };
    let ports = |name: &str| values::ports(&format!("--{name}"), given.get(name).unwrap_or_default());
    let only = ports("ports-to-redirect")?;
    let v6 = given.get("ipv6").is_none_or(|value| value == "true");
    let cleaning = given.switched("cleanup-only");
    let port = |name: &str| match required(name) {
        Err(_) if cleaning => Ok(1),
        Err(failure) => Err(failure),
        Ok(value) => values::port(&format!("--{name}"), value),
    };
    let plan = ProxyInit {
        families: Families { v4: true, v6 },
        inbound_port: port("incoming-proxy-port")?,
        outbound_port: match given.get("outgoing-proxy-port") {
            Some("0") => None,
            _ => Some(port("outgoing-proxy-port")?),
        },
        proxy_uid: owner("--proxy-uid", given.get("proxy-uid"))?,
        proxy_gid: owner("--proxy-gid", given.get("proxy-gid"))?,
        inbound_ports: if only.is_empty() { Selection::All } else { Selection::Only(only) },
        inbound_ignored_ports: ports("inbound-ports-to-ignore")?,
        outbound_ignored_ports: ports("outbound-ports-to-ignore")?,
        ignored_subnets: values::nets(
            "--subnets-to-ignore",
            given.get("subnets-to-ignore").unwrap_or_default(),
        )?,
    };
    let mut options = shared(&given, surroundings, Capture::ProxyInit(plan))?;
    options.close_wait = match given.get("timeout-close-wait-secs") {
        None | Some("0") => None,
        Some(text) => Some(values::number("--timeout-close-wait-secs", text)?),
    };
    if options.backend.is_none() {
        options.backend = match given.get("iptables-mode") {
            None => None,
            Some("legacy") => Some(Backend::IptablesLegacy),
            Some("nft" | "plain") => Some(Backend::IptablesNft),
            Some(other) => return usage(format!("--iptables-mode: {other:?} is none of legacy, nft, plain")),
        };
    }
    if given.switched("simulate") && options.dry_run.is_none() {
        options.dry_run = Some(DryRun { form: Form::Iptables, explain: false, file: None });
    }
    Ok(options)
}

/// linkerd writes -1 for nobody, and takes 0 the same way.
fn owner(option: &str, text: Option<&str>) -> Outcome<Option<u32>> {
    match text.map(str::trim) {
        None | Some("" | "-1" | "0") => Ok(None),
        Some(text) => Ok(Some(values::number(option, text)?)),
    }
}
