//! What the three programs agree on: names, ports, ids, and how values are written. It has no dependencies, so that
//! each of them can hold it without holding the others.
//!
//! The values are Istio's, so that a manifest or a dashboard written for Istio keeps working.

#![forbid(unsafe_code)]

pub mod go;

use std::net::{Ipv4Addr, Ipv6Addr};

/// Name of the init container that programs capture.
pub const INIT_CONTAINER: &str = "istio-init";
/// Name of the init container that checks what a CNI plugin has programmed.
pub const VALIDATION_CONTAINER: &str = "istio-validation";
/// Name of the sidecar container.
pub const PROXY_CONTAINER: &str = "istio-proxy";

/// Name of the CNI plugin: of its file on a node, and of its `type` in the node's configuration.
pub const CNI_PLUGIN: &str = "outrigger-cni";

/// User id that the proxy runs as. Capture lets this user's own traffic through.
pub const PROXY_UID: u32 = 1337;
/// Group id that the proxy runs as. Capture lets this group's own traffic through.
pub const PROXY_GID: u32 = 1337;

/// TCP port of the proxy's admin interface, loopback only.
pub const ADMIN_PORT: u16 = 15000;
/// TCP port to which outbound connections are turned.
pub const OUTBOUND_PORT: u16 = 15001;
/// TCP port to which inbound connections are turned.
pub const INBOUND_PORT: u16 = 15006;
/// TCP port of tunnelled inbound traffic (HBONE).
pub const TUNNEL_PORT: u16 = 15008;
/// TCP port of the agent: merged metrics, application probes.
pub const AGENT_PORT: u16 = 15020;
/// TCP port of the proxy's readiness.
pub const READINESS_PORT: u16 = 15021;
/// HTTP path of the proxy's readiness on [`READINESS_PORT`].
pub const READINESS_PATH: &str = "/healthz/ready";
/// TCP and UDP port of captured DNS.
pub const DNS_PORT: u16 = 15053;
/// TCP port of the proxy's own metrics.
pub const METRICS_PORT: u16 = 15090;
/// HTTP path of metrics on [`METRICS_PORT`] and [`AGENT_PORT`].
pub const METRICS_PATH: &str = "/stats/prometheus";

/// Source address of connections that the proxy opens to the application, IPv4. Capture lets them through.
pub const INBOUND_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// Source address of connections that the proxy opens to the application, IPv6: `::6`. Capture lets them through, and makes
/// it an address of the loopback interface.
pub const INBOUND_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Mark of packets that the proxy sends in a client's name, under TPROXY. Capture lets them through, and brings the answers
/// back to the proxy.
pub const TPROXY_MARK: u32 = 1337;

/// Label of a namespace that asks for injection (`enabled`) or forbids it (`disabled`).
pub const NAMESPACE_LABEL: &str = "istio-injection";
/// Label or annotation of a pod that asks for injection (`true`) or forbids it (`false`). The label wins.
pub const INJECT_KEY: &str = "sidecar.istio.io/inject";
/// Annotation that records a finished injection.
pub const STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
/// Annotation by which the CNI plugin learns what to capture: the arguments and the environment of
/// [`VALIDATION_CONTAINER`], as `{"args": ["-p", "15001", …], "env": {"NAME": "value"}}`.
pub const CAPTURE_ANNOTATION: &str = "outrigger.dev/capture";
/// Label of a namespace or pod that chooses a revision; label of nothing else.
pub const REVISION_LABEL: &str = "istio.io/rev";
