//! What the sidecar is told: the environment that Istio's templates pass, read once, all errors at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use outrigger_contract as contract;

use crate::access_log::{Format, Policy};
use crate::dns;
use crate::identity::{Identity, parse_labels};
use crate::route::{Routes, parse_pod_ports};
use crate::status::probes::{Probes, Target};
use crate::status::scrape::Application;

/// Everything that the operator and the injector configure. [`Settings::read`] gives the defaults' sources.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses that listeners bind. Default: all, IPv4 and IPv6; a family that the kernel does not have is left out.
    pub bind: Vec<IpAddr>,
    /// TCP ports by purpose. Port 0 lets the kernel choose.
    pub ports: Ports,
    /// Worker threads, each with its own listeners. Default: one for each core that the pod may use.
    pub workers: usize,
    /// How the sidecar leaves.
    pub drain: Drain,
    /// Bounds on connections.
    pub limits: Limits,
    /// Who this pod is, for labels.
    pub identity: Identity,
    /// The application's probes, `ISTIO_KUBE_APP_PROBERS`.
    pub probes: Probes,
    /// Where the application exposes metrics, `ISTIO_PROMETHEUS_ANNOTATIONS`.
    pub application: Application,
    /// What is known of ports: `ISTIO_META_POD_PORTS` and `OUTRIGGER_OPAQUE_PORTS`.
    pub routes: Routes,
    /// What is logged of requests and connections: `OUTRIGGER_ACCESS_LOG`, `OUTRIGGER_ACCESS_LOG_FORMAT`.
    pub access_log: (Policy, Format),
    /// Captured DNS, where `ISTIO_META_DNS_CAPTURE` asks for it.
    pub dns: Option<dns::Settings>,
}

/// TCP ports of the sidecar's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
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
    fn named(&self) -> [(&'static str, u16); 6] {
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
    pub fn own(&self, port: u16) -> bool {
        let own = [self.outbound, self.inbound, self.agent, self.readiness, self.metrics, self.admin];
        own.contains(&port) || port == contract::DNS_PORT
    }
}

/// How the sidecar leaves after SIGTERM. Names and defaults are Istio's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Classic: how long connections go on after SIGTERM, `terminationDrainDuration`, 5 s.
    pub termination: Duration,
    /// Leave as soon as no connection is active, `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`, false.
    pub exit_on_zero: bool,
    /// With `exit_on_zero`: how long to go on accepting first, `MINIMUM_DRAIN_DURATION`, 5 s.
    pub minimum: Duration,
}

/// Bounds on what a connection may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time to open an upstream connection, 10 s.
    pub connect: Duration,
    /// A connection that carries no byte either way for this long is closed, 1 h.
    pub idle: Duration,
    /// Time that a client has for sending a request's head, from its first byte, 60 s.
    pub head: Duration,
    /// Longest head of a request or response in bytes, 60 KiB.
    pub head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(3600),
            head: Duration::from_secs(60),
            head_bytes: 60 * 1024,
        }
    }
}

/// The flags that `outrigger-proxy proxy` understands; they win over the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--concurrency`.
    pub concurrency: Option<String>,
    /// `--statusPort`.
    pub status_port: Option<String>,
    /// `--proxyAdminPort`.
    pub admin_port: Option<String>,
}

impl Settings {
    /// Reads the settings from `env` (a variable's name to its value) and the command line.
    ///
    /// # Errors
    ///
    /// Every bad value, each with its variable, value and remedy; not only the first.
    pub fn read(env: &dyn Fn(&str) -> Option<String>, flags: &Overrides) -> Result<Settings, Vec<String>> {
        let mut reader = Reader { env, errors: Vec::new() };
        let config = reader.proxy_config();
        let ports = Ports {
            outbound: reader.port("OUTRIGGER_OUTBOUND_PORT", contract::OUTBOUND_PORT),
            inbound: reader.port("OUTRIGGER_INBOUND_PORT", contract::INBOUND_PORT),
            agent: reader.flag_port(
                "--statusPort",
                &flags.status_port,
                config.status_port,
                contract::AGENT_PORT,
            ),
            readiness: reader.port("ENVOY_STATUS_PORT", contract::READINESS_PORT),
            metrics: reader.port("ENVOY_PROMETHEUS_PORT", contract::METRICS_PORT),
            admin: reader.flag_port(
                "--proxyAdminPort",
                &flags.admin_port,
                config.proxy_admin_port,
                contract::ADMIN_PORT,
            ),
        };
        reader.distinct(&ports);
        let drain = Drain {
            termination: config.termination_drain.unwrap_or(Duration::from_secs(5)),
            exit_on_zero: reader.boolean("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", false),
            minimum: reader.duration("MINIMUM_DRAIN_DURATION", Duration::from_secs(5)),
        };
        let workers = reader.workers(&flags.concurrency, config.concurrency);
        let bind = reader.bind();
        let identity = Identity::read(env, &labels(env));
        let probes = reader.probes();
        let application = reader.application(&ports);
        let routes = reader.routes();
        let access_log = reader.access_log();
        let dns = reader.dns();
        if reader.errors.is_empty() {
            let limits = Limits::default();
            Ok(Settings {
                bind,
                ports,
                workers,
                drain,
                limits,
                identity,
                probes,
                application,
                routes,
                access_log,
                dns,
            })
        } else {
            Err(reader.errors)
        }
    }
}

/// The part of Istio's ProxyConfig (`PROXY_CONFIG`) that a sidecar without a control plane can obey.
#[derive(Debug, Default)]
struct ProxyConfig {
    concurrency: Option<i64>,
    status_port: Option<i64>,
    proxy_admin_port: Option<i64>,
    termination_drain: Option<Duration>,
}

struct Reader<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<String>,
}

impl Reader<'_> {
    /// An empty variable counts as unset, as in Kubernetes' downward API.
    fn text(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn parse<T>(&mut self, name: &str, default: T, want: &str, read: impl Fn(&str) -> Option<T>) -> T {
        let Some(value) = self.text(name) else { return default };
        read(&value).unwrap_or_else(|| {
            self.errors.push(format!("{name}={value:?}: expected {want}"));
            default
        })
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
        self.parse("OUTRIGGER_BIND", all, "IP addresses separated by commas", |value| {
            value.split(',').map(|address| address.trim().parse().ok()).collect()
        })
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
        let policy =
            self.parse("OUTRIGGER_ACCESS_LOG", Policy::Off, "off, errors or all", |value| match value {
                "off" => Some(Policy::Off),
                "errors" => Some(Policy::Errors),
                "all" => Some(Policy::All),
                _ => None,
            });
        let format = self.parse("OUTRIGGER_ACCESS_LOG_FORMAT", Format::Text, "text or json", |value| {
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

    fn routes(&mut self) -> Routes {
        let name = "ISTIO_META_POD_PORTS";
        let pod = self.text(name).map(|text| parse_pod_ports(&text)).unwrap_or_else(|| Ok(BTreeMap::new()));
        let pod = pod.unwrap_or_else(|error| {
            self.errors.push(format!("{name}: expected a JSON array of container ports: {error}"));
            BTreeMap::new()
        });
        // SMTP, DNS, MySQL, MongoDB: what Istio takes for TCP by its number.
        let well_known = BTreeSet::from([25, 53, 3306, 27017]);
        let opaque = self.parse("OUTRIGGER_OPAQUE_PORTS", well_known, "ports separated by commas", |value| {
            value.split(',').map(|port| port.trim().parse().ok()).collect()
        });
        Routes::new(pod, opaque)
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

/// The pod's labels: from the downward API's file where a pod mounts it, else from `ISTIO_METAJSON_LABELS`.
fn labels(env: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let file = std::fs::read_to_string("/etc/istio/pod/labels").map(|text| parse_labels(&text)).ok();
    let json = || env("ISTIO_METAJSON_LABELS").and_then(|text| serde_json::from_str(&text).ok());
    file.or_else(json).unwrap_or_default()
}

/// Go's `strconv.ParseBool`, which wrote the values that are in the manifests.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `time.ParseDuration`, without signs: `1h30m`, `5s`, `1.5s`, `500ms`; and `0`.
pub fn duration(value: &str) -> Option<Duration> {
    if value == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = value;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit..];
        total = total.checked_add(Duration::try_from_secs_f64(number * scale).ok()?)?;
    }
    (!value.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(pairs: &[(&str, &str)], flags: &Overrides) -> Result<Settings, Vec<String>> {
        let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Settings::read(&|name| map.get(name).cloned(), flags)
    }

    #[test]
    fn the_defaults_are_the_contract() {
        let settings = read(&[], &Overrides::default()).unwrap();
        assert_eq!(settings.ports, Ports::default());
        assert_eq!(settings.drain.termination, Duration::from_secs(5));
        assert!(!settings.drain.exit_on_zero);
        assert!(settings.workers >= 1);
    }

    #[test]
    fn environment_and_flags_move_ports() {
        let env = [
            ("ENVOY_STATUS_PORT", "25021"),
            ("ENVOY_PROMETHEUS_PORT", "25090"),
            (
                "PROXY_CONFIG",
                r#"{"statusPort": 25020, "terminationDrainDuration": "1m30s", "concurrency": 3}"#,
            ),
        ];
        let flags = Overrides { admin_port: Some("25000".into()), ..Overrides::default() };
        let settings = read(&env, &flags).unwrap();
        assert_eq!(settings.ports.readiness, 25021);
        assert_eq!(settings.ports.metrics, 25090);
        assert_eq!(settings.ports.agent, 25020);
        assert_eq!(settings.ports.admin, 25000);
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.drain.termination, Duration::from_secs(90));
    }

    #[test]
    fn all_errors_come_at_once_and_name_variable_and_value() {
        let env = [
            ("ENVOY_STATUS_PORT", "http"),
            ("MINIMUM_DRAIN_DURATION", "5 parsecs"),
            ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "maybe"),
            ("PROXY_CONFIG", r#"{"statusPort": 70000}"#),
            ("OUTRIGGER_BIND", "localhost"),
        ];
        let errors = read(&env, &Overrides::default()).unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:#?}");
        for part in ["ENVOY_STATUS_PORT=\"http\"", "5 parsecs", "maybe", "70000", "localhost"] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:#?}");
        }
    }

    #[test]
    fn two_listeners_cannot_share_a_port() {
        let errors = read(&[("ENVOY_STATUS_PORT", "15090")], &Overrides::default()).unwrap_err();
        assert_eq!(errors, ["port 15090 is given to both readiness and metrics: give each its own"]);
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(duration("1h2m3.5s"), Some(Duration::from_millis(3_723_500)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for bad in ["", "5", "s", "5x", "-5s", "1..5s"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }
}
