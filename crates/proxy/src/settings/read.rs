//! The reader of the settings: one value after another, and a list of all that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use outrigger_contract as contract;
use outrigger_contract::go::{boolean, duration};

use super::{Descriptors, Drain, File, Limits, Live, MOST_HEADERS, Overrides, Settings, file};
use crate::access_log::{Format, Policy};
use crate::application::probes::{Probes, Target};
use crate::application::scrape::Application;
use crate::dns;
use crate::identity::{Identity, parse_labels};
use crate::ports::Ports;
use crate::route::{Declared, Routes, parse_pod_ports};
use crate::trace;

pub(super) fn settings(
    env: &dyn Fn(&str) -> Option<String>,
    file: &File,
    flags: &Overrides,
) -> Result<Settings, Vec<String>> {
    let mut reader = Reader { env, file, errors: Vec::new() };
    let config = reader.proxy_config();
    let (agent, admin) = (config.status_port, config.proxy_admin_port);
    let ports = Ports {
        outbound: reader.port("outboundPort", contract::OUTBOUND_PORT),
        inbound: reader.port("inboundPort", contract::INBOUND_PORT),
        agent: reader.flag_port("--statusPort", &flags.status_port, agent, contract::AGENT_PORT),
        readiness: reader.port("ENVOY_STATUS_PORT", contract::READINESS_PORT),
        metrics: reader.port("ENVOY_PROMETHEUS_PORT", contract::METRICS_PORT),
        admin: reader.flag_port("--proxyAdminPort", &flags.admin_port, admin, contract::ADMIN_PORT),
    };
    reader.distinct(&ports);
    let settings = Settings {
        bind: reader.bind(),
        ports,
        workers: reader.workers(&flags.concurrency, config.concurrency),
        descriptors: Descriptors {
            connections: reader.some_number("maxConnections", 1..=10_000_000),
            idle: reader.some_number("maxIdleUpstreams", 0..=10_000_000),
        },
        transparent: reader.parse(
            "ISTIO_META_INTERCEPTION_MODE",
            false,
            "REDIRECT, TPROXY or NONE",
            |mode| match mode {
                "TPROXY" => Some(true),
                "REDIRECT" | "NONE" => Some(false),
                _ => None,
            },
        ),
        debug_headers: !config.no_debug_headers,
        drain: Drain {
            termination: config.termination_drain.unwrap_or(Duration::from_secs(5)),
            exit_on_zero: reader.boolean("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", false),
            minimum: reader.duration("MINIMUM_DRAIN_DURATION", Duration::from_secs(5)),
        },
        identity: Identity::read(env, &labels(env)),
        probes: reader.probes(),
        application: reader.application(&ports),
        dns: reader.dns(),
        tracing: reader.tracing(),
        live: Live { limits: reader.limits(), routes: reader.routes(), access_log: reader.access_log() },
    };
    if reader.errors.is_empty() { Ok(settings) } else { Err(reader.errors) }
}

/// The part of Istio's ProxyConfig (`PROXY_CONFIG`) that a sidecar without a control plane can obey.
#[derive(Debug, Default)]
struct ProxyConfig {
    concurrency: Option<i64>,
    status_port: Option<i64>,
    proxy_admin_port: Option<i64>,
    termination_drain: Option<Duration>,
    no_debug_headers: bool,
}

struct Reader<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    file: &'a File,
    errors: Vec<String>,
}

impl Reader<'_> {
    /// The value of an environment variable, or of a field of the file, which a variable of its own overrides; with the
    /// name under which it was given. An empty variable counts as unset, as in Kubernetes' downward API.
    fn given(&self, name: &str) -> Option<(String, String)> {
        let variable = |name: &str| {
            let value = (self.env)(name).map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value))
        };
        if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            return variable(name);
        }
        let field = || self.file.get(name).map(|value| (name.to_owned(), value.to_owned()));
        variable(&file::variable(name)).or_else(field)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.given(name).map(|(_, value)| value)
    }

    fn parse<T>(&mut self, name: &str, default: T, want: &str, read: impl Fn(&str) -> Option<T>) -> T {
        let Some((name, value)) = self.given(name) else { return default };
        read(&value).unwrap_or_else(|| {
            self.errors.push(format!("{name}={value:?}: expected {want}"));
            default
        })
    }

    fn some_number<T>(&mut self, name: &str, range: std::ops::RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let want = format!("a number, {} to {}", range.start(), range.end());
        self.parse(name, None, &want, |value| value.parse().ok().filter(|n| range.contains(n)).map(Some))
    }

    fn number<T>(&mut self, name: &str, default: T, range: std::ops::RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        self.some_number(name, range).unwrap_or(default)
    }

    fn port(&mut self, name: &str, default: u16) -> u16 {
        self.parse(name, default, "a port, 0 to 65535", |value| value.parse().ok())
    }

    fn boolean(&mut self, name: &str, default: bool) -> bool {
        self.parse(name, default, "true or false", boolean)
    }

    fn duration(&mut self, name: &str, default: Duration) -> Duration {
        self.parse(name, default, "a duration such as 5s, 1m30s or 500ms", duration)
    }

    /// A time-out, which cannot be nothing.
    fn timeout(&mut self, name: &str, default: Duration) -> Duration {
        let read = |value: &str| duration(value).filter(|duration| !duration.is_zero());
        self.parse(name, default, "a duration above 0 such as 5s, 1m30s or 500ms", read)
    }

    fn limits(&mut self) -> Limits {
        let default = Limits::default();
        let request = self.duration("requestTimeout", Duration::ZERO);
        Limits {
            connect: self.timeout("connectTimeout", default.connect),
            idle: self.timeout("idleTimeout", default.idle),
            head: self.timeout("headTimeout", default.head),
            request: (!request.is_zero()).then_some(request),
            head_bytes: self.number("maxHeadBytes", default.head_bytes, 1024..=16 << 20),
            headers: self.number("maxHeaders", default.headers, 1..=MOST_HEADERS),
            streams: self.number("maxStreams", default.streams, 1..=1_000_000),
            // RFC 9113, section 6.9.1: a window is 65,535 at the beginning of a connection, and never above 2^31 - 1.
            stream_window: self.number("streamWindowBytes", default.stream_window, 65_535..=(1 << 31) - 1),
            connection_window: self.number(
                "connectionWindowBytes",
                default.connection_window,
                65_535..=(1 << 31) - 1,
            ),
            replay_bytes: self.number("maxReplayBytes", default.replay_bytes, 0..=64 << 20),
        }
    }

    fn flag_port(&mut self, flag: &str, given: &Option<String>, config: Option<i64>, default: u16) -> u16 {
        if let Some(value) = given {
            return value.parse().unwrap_or_else(|_| {
                self.errors.push(format!("{flag}={value:?}: expected a port, 0 to 65535"));
                default
            });
        }
        let Some(value) = config else { return default };
        u16::try_from(value).unwrap_or_else(|_| {
            let field = flag.trim_start_matches('-');
            self.errors.push(format!("PROXY_CONFIG {field}: {value}: expected a port, 0 to 65535"));
            default
        })
    }

    fn bind(&mut self) -> Vec<IpAddr> {
        let all = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses =
            |value: &str| list(value, |address| address.parse().ok()).filter(|list| !list.is_empty());
        self.parse("bind", all, "IP addresses separated by commas", addresses)
    }

    fn workers(&mut self, flag: &Option<String>, config: Option<i64>) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let given = match flag {
            Some(value) => value.parse::<i64>().ok().or_else(|| {
                self.errors.push(format!(
                    "--concurrency={value:?}: expected a number of worker threads, 0 for one a core"
                ));
                None
            }),
            None => config,
        };
        let limit =
            self.parse("ISTIO_CPU_LIMIT", 0_usize, "a whole number of cores", |value| value.parse().ok());
        match given {
            Some(count) if !(0..=1024).contains(&count) => {
                self.errors.push(format!(
                    "concurrency {count}: expected 0 to 1024 worker threads, 0 for one a core"
                ));
                cores
            }
            Some(count) if count > 0 => usize::try_from(count).unwrap_or(cores),
            _ if limit > 0 => limit.min(cores),
            _ => cores,
        }
    }

    fn distinct(&mut self, ports: &Ports) {
        let named = ports.named();
        for (index, (name, port)) in named.iter().enumerate() {
            if let Some((other, _)) = named[..index].iter().find(|(_, earlier)| *port != 0 && earlier == port)
            {
                self.errors
                    .push(format!("port {port} is given to both {other} and {name}: give each its own"));
            }
        }
    }

    fn probes(&mut self) -> Probes {
        let name = "ISTIO_KUBE_APP_PROBERS";
        let Some(text) = self.text(name) else { return Probes::default() };
        let legacy = self.boolean("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", false);
        let address =
            self.parse("INSTANCE_IP", None, "the pod's IP address", |value| value.parse().ok().map(Some));
        let target = match address {
            _ if legacy => Target::Localhost,
            Some(address) => Target::Pod(address),
            None => {
                self.errors.push(format!("{name} is set, but INSTANCE_IP, where to probe, is not"));
                Target::Localhost
            }
        };
        Probes::parse(&text, target).unwrap_or_else(|errors| {
            self.errors.extend(errors.into_iter().map(|error| format!("{name} {error}")));
            Probes::default()
        })
    }

    fn application(&mut self, ports: &Ports) -> Application {
        let name = "ISTIO_PROMETHEUS_ANNOTATIONS";
        let Some(text) = self.text(name) else { return Application::default() };
        Application::parse(&text, ports).unwrap_or_else(|error| {
            self.errors.push(format!("{name}: {error}"));
            Application::default()
        })
    }

    fn access_log(&mut self) -> (Policy, Format) {
        let policy = self.parse("accessLog", Policy::Off, "off, errors or all", |value| match value {
            // YAML 1.1 writes `off` so.
            "off" | "false" => Some(Policy::Off),
            "errors" => Some(Policy::Errors),
            "all" => Some(Policy::All),
            _ => None,
        });
        let format = self.parse("accessLogFormat", Format::Text, "text or json", |value| {
            match value.to_ascii_lowercase().as_str() {
                "text" => Some(Format::Text),
                "json" => Some(Format::Json),
                _ => None,
            }
        });
        (policy, format)
    }

    fn dns(&mut self) -> Option<dns::Settings> {
        if !self.boolean("ISTIO_META_DNS_CAPTURE", false) {
            return None;
        }
        let patience = self.duration("DNS_FORWARD_TIMEOUT", Duration::from_secs(5));
        let servers = match std::fs::read_to_string("/etc/resolv.conf") {
            Ok(text) => dns::servers(&text),
            Err(error) => {
                self.errors.push(format!(
                    "ISTIO_META_DNS_CAPTURE is set, but /etc/resolv.conf cannot be read: {error}"
                ));
                Vec::new()
            }
        };
        Some(dns::Settings { port: contract::DNS_PORT, servers, patience })
    }

    fn tracing(&mut self) -> Option<trace::Settings> {
        trace::Settings::read(self.env).unwrap_or_else(|errors| {
            self.errors.extend(errors);
            None
        })
    }

    fn routes(&mut self) -> Routes {
        let name = "ISTIO_META_POD_PORTS";
        let pod = self.text(name).map(|text| parse_pod_ports(&text)).unwrap_or_else(|| Ok(BTreeMap::new()));
        let pod = pod.unwrap_or_else(|error| {
            self.errors.push(format!("{name}: expected a JSON array of container ports: {error}"));
            BTreeMap::new()
        });
        // SMTP, DNS, MySQL, MongoDB: what Istio takes for TCP by its number.
        let well_known = BTreeSet::from([25, 53, 3306, 27017]);
        let ports = |value: &str| list(value, |port| port.parse().ok()).map(BTreeSet::from_iter);
        let opaque = self.parse("opaquePorts", well_known, "ports separated by commas", ports);
        let mut inbound = pod;
        inbound.extend(self.protocols("inboundProtocols"));
        Routes::new(inbound, self.protocols("outboundProtocols"), opaque)
    }

    /// `port=protocol` pairs.
    fn protocols(&mut self, name: &str) -> BTreeMap<u16, Declared> {
        let want = "port=protocol pairs separated by commas, such as 8080=http2,9000=redis; the protocol is one of http, \
                    http2, grpc, grpc-web, tcp, tls, https, mongo, mysql, redis, kubernetes.io/h2c, kubernetes.io/ws, \
                    kubernetes.io/wss";
        let pair = |pair: &str| {
            let (port, protocol) = pair.split_once('=')?;
            Some((port.trim().parse().ok()?, Declared::parse(protocol.trim())?))
        };
        self.parse(name, BTreeMap::new(), want, |value| list(value, pair).map(BTreeMap::from_iter))
    }

    fn proxy_config(&mut self) -> ProxyConfig {
        let mut config = ProxyConfig::default();
        let Some(text) = self.text("PROXY_CONFIG") else { return config };
        let value: serde_json::Value = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => {
                self.errors.push(format!("PROXY_CONFIG: expected ProxyConfig as one JSON object: {error}"));
                return config;
            }
        };
        let mut number = |field: &str| match value.get(field) {
            None | Some(serde_json::Value::Null) => None,
            Some(given) => given.as_i64().or_else(|| {
                self.errors.push(format!("PROXY_CONFIG {field}: {given}: expected a whole number"));
                None
            }),
        };
        config.concurrency = number("concurrency");
        config.status_port = number("statusPort");
        config.proxy_admin_port = number("proxyAdminPort");
        if let Some(given) = value.pointer("/proxyHeaders/envoyDebugHeaders/disabled") {
            config.no_debug_headers = given.as_bool().unwrap_or_else(|| {
                let field = "proxyHeaders.envoyDebugHeaders.disabled";
                self.errors.push(format!("PROXY_CONFIG {field}: {given}: expected true or false"));
                false
            });
        }
        if let Some(given) = value.get("terminationDrainDuration") {
            config.termination_drain = given.as_str().and_then(duration);
            if config.termination_drain.is_none() {
                self.errors.push(format!(
                    "PROXY_CONFIG terminationDrainDuration: {given}: expected a duration such as \"5s\""
                ));
            }
        }
        config
    }
}

/// A list of `T`s, separated by commas. No text is no item.
fn list<T>(value: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(read).collect()
}

/// The pod's labels: from the downward API's file where a pod mounts it, else from `ISTIO_METAJSON_LABELS`.
fn labels(env: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let file = std::fs::read_to_string("/etc/istio/pod/labels").map(|text| parse_labels(&text)).ok();
    let json = || env("ISTIO_METAJSON_LABELS").and_then(|text| serde_json::from_str(&text).ok());
    file.or_else(json).unwrap_or_default()
}
