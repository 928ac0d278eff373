//! What an operator sees: one log line an admission, and metrics.
//!
//! Metrics of injection have the names that Istio's dashboards ask for (`sidecar_injection_*`); what is our
//! own is called `outrigger_*`. Labels have few values, all of them ours: nothing that a pod's author writes
//! becomes a label.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use outrigger_trace::Counts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::policy::Reason;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written: a level, which is meant for our own lines (others' begin at warnings), or a filter in the
/// syntax of `RUST_LOG`.
#[derive(Debug, Clone)]
pub struct LogLevel(String);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.parse::<Level>().is_ok() {
            return Ok(Self(format!("warn,outrigger={text}")));
        }
        // A lone word would be the name of a module, and nothing else would be logged.
        let lone = !text.contains(['=', ',']) && text.parse::<LevelFilter>().is_err();
        if lone || EnvFilter::try_new(text).is_err() {
            return Err(
                "expected one of error, warn, info, debug, trace, off, or a filter such as warn,outrigger=debug"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// Starts logging to stderr. `RUST_LOG` comes before `level` where it is set.
///
/// # Errors
/// `RUST_LOG` does not parse, or logging was started before.
pub fn log_to_stderr(format: LogFormat, level: &LogLevel) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter).map_err(|_| {
            format!("RUST_LOG is {filter:?}, and must be a filter such as warn,outrigger=debug; mend it, or unset it")
        })?,
        _ => EnvFilter::new(&level.0),
    };
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(terminal);
    match format {
        LogFormat::Auto if terminal => lines.try_init(),
        LogFormat::Text => lines.try_init(),
        LogFormat::Auto | LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|e| e.to_string())
}

/// One label called `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Why {
    reason: &'static str,
}

/// One label called `result`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    result: &'static str,
}

/// One label called `hash`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Hash {
    hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// Counts by reason.
#[derive(Debug, Clone, Default)]
pub struct ByReason(Family<Why, Counter>);

impl ByReason {
    /// All at zero, so that a rate is known from the first one on.
    fn of(reasons: &[&'static str]) -> Self {
        let counts = Self::default();
        for reason in reasons {
            drop(counts.0.get_or_create(&Why { reason }));
        }
        counts
    }

    /// One more.
    pub(crate) fn inc(&self, reason: &'static str) {
        self.0.get_or_create(&Why { reason }).inc();
    }
}

/// What became of sampled spans, which is counted where they are exported.
#[derive(Debug)]
struct Spans(Arc<Counts>);

impl Collector for Spans {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "Sampled spans, by what became of them";
        let mut family = encoder.encode_descriptor("spans", help, None, MetricType::Counter)?;
        for (result, count) in [("exported", self.0.exported()), ("dropped", self.0.dropped())] {
            ConstCounter::new(count).encode(family.encode_family(&Outcome { result })?)?;
        }
        Ok(())
    }
}

/// All metrics of the webhook.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Admission requests that were understood.
    pub requests: Counter,
    /// Pods that were injected.
    pub success: ByReason,
    /// Pods that ought to have been injected and were not, by an error.
    pub failure: Counter,
    /// Objects that were let through as they were, by reason.
    pub skip: ByReason,
    /// Seconds from a request's first byte of body to its answer.
    pub time: Histogram,
    /// Bytes of a patch, as JSON.
    pub patch_size: Histogram,
    /// Admission requests in flight.
    pub in_flight: Gauge,
    /// Open connections of the TLS port.
    pub connections: Gauge,
    /// Requests answered with an error before they were understood, by reason.
    pub rejected_requests: ByReason,
    /// Connections that were closed before their first request, by reason.
    pub rejected_connections: ByReason,
    /// TLS handshakes that failed, by reason.
    pub handshake_failures: ByReason,
    /// Errors of accept(2), such as too many open files.
    pub accept_errors: Counter,
    /// When the served certificate expires, in Unix seconds.
    pub certificate_expiry: Gauge<f64, AtomicU64>,
    /// Whether this replica leads: 1, or 0.
    pub leader: Gauge,
    /// Certificates that were made, by this replica as the leader.
    pub certificates_made: Counter,
    /// Steps of keeping the certificate that failed.
    pub certificate_errors: Counter,
    /// Events: written, counted (the same again), dropped (too many), failed.
    pub events: ByReason,
    /// Whether all namespaces have been read: 1, or 0.
    pub namespaces_synced: Gauge,
    /// How often `caBundle` was written.
    pub ca_bundle_writes: Counter,
    /// What became of sampled spans.
    pub spans: Arc<Counts>,
    settings: Family<Hash, Gauge>,
    certificate_reloads: Family<Outcome, Counter>,
    settings_reloads: Family<Outcome, Counter>,
    settings_reloaded: Gauge,
}

impl Metrics {
    /// Metrics at zero.
    pub fn new() -> Self {
        // From 50 us, under which no injection stays, to 3 s, by factors of about two and a half.
        let times =
            [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];
        // From half a sidecar to the most that etcd takes of an object, by factors of two.
        let sizes = exponential_buckets(1024.0, 2.0, 11);
        let injects: Vec<_> = Reason::ALL.into_iter().filter(|r| r.injects()).map(Reason::code).collect();
        let skips = Reason::ALL.into_iter().filter(|reason| !reason.injects()).map(Reason::code);
        let skips: Vec<_> = skips.chain(["already_injected", "not_created", "not_a_pod"]).collect();
        let metrics = Self {
            registry: Registry::default(),
            requests: Counter::default(),
            success: ByReason::of(&injects),
            failure: Counter::default(),
            skip: ByReason::of(&skips),
            time: Histogram::new(times),
            patch_size: Histogram::new(sizes),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            rejected_requests: ByReason::of(&[
                "malformed",
                "body_too_large",
                "body_incomplete",
                "content_type",
                "busy",
                "timeout",
            ]),
            rejected_connections: ByReason::of(&["too_many"]),
            handshake_failures: ByReason::of(&["tls", "plain_http", "timeout", "closed", "no_certificate"]),
            accept_errors: Counter::default(),
            certificate_expiry: Gauge::default(),
            events: ByReason::of(&["written", "counted", "dropped", "failed"]),
            namespaces_synced: Gauge::default(),
            leader: Gauge::default(),
            certificates_made: Counter::default(),
            certificate_errors: Counter::default(),
            ca_bundle_writes: Counter::default(),
            spans: Arc::default(),
            settings: Family::default(),
            certificate_reloads: Family::default(),
            settings_reloads: Family::default(),
            settings_reloaded: Gauge::default(),
        };
        metrics.settings_reloaded.set(1); // those of the start
        for reloads in [&metrics.certificate_reloads, &metrics.settings_reloads] {
            for result in ["success", "failure"] {
                drop(reloads.get_or_create(&Outcome { result }));
            }
        }
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        let r = &mut self.registry;
        r.register("sidecar_injection_requests", "Admission requests", self.requests.clone());
        r.register("sidecar_injection_success", "Pods injected, by reason", self.success.0.clone());
        r.register(
            "sidecar_injection_failure",
            "Pods not injected because of an error",
            self.failure.clone(),
        );
        r.register("sidecar_injection_skip", "Objects let through unchanged, by reason", self.skip.0.clone());
        r.register_with_unit(
            "sidecar_injection_time",
            "Time to answer an admission request",
            Unit::Seconds,
            self.time.clone(),
        );
        let r = r.sub_registry_with_prefix("outrigger");
        r.register_with_unit(
            "patch_size",
            "Size of the patch of an injected pod, as JSON",
            Unit::Bytes,
            self.patch_size.clone(),
        );
        r.register("requests_in_flight", "Admission requests in flight", self.in_flight.clone());
        r.register("connections_open", "Open connections of the TLS port", self.connections.clone());
        r.register(
            "requests_rejected",
            "Requests answered with an error before they were understood, by reason",
            self.rejected_requests.0.clone(),
        );
        r.register(
            "connections_rejected",
            "Connections closed before their first request, by reason",
            self.rejected_connections.0.clone(),
        );
        r.register(
            "tls_handshake_failures",
            "TLS handshakes that failed, by reason",
            self.handshake_failures.0.clone(),
        );
        r.register("accept_errors", "Errors on accepting connections", self.accept_errors.clone());
        r.register(
            "certificate_expiry_timestamp_seconds",
            "When the served certificate expires, in Unix time",
            self.certificate_expiry.clone(),
        );
        r.register(
            "certificate_reloads",
            "Changed certificate files taken up or refused, by result",
            self.certificate_reloads.clone(),
        );
        r.register(
            "settings_reloads",
            "Changed settings taken up or refused, by result",
            self.settings_reloads.clone(),
        );
        r.register(
            "settings_last_reload_successful",
            "Whether the settings that are there now are in force: 1, or 0 where they were refused",
            self.settings_reloaded.clone(),
        );
        r.register(
            "events",
            "Events about pods and settings, by what became of them: written, counted, dropped, failed",
            self.events.0.clone(),
        );
        r.register(
            "namespaces_synced",
            "Whether all namespaces have been read: 1 or 0",
            self.namespaces_synced.clone(),
        );
        r.register("leader", "Whether this replica leads: 1 or 0", self.leader.clone());
        r.register(
            "certificates_made",
            "Certificates made by this replica as the leader",
            self.certificates_made.clone(),
        );
        r.register(
            "certificate_errors",
            "Steps of keeping the certificate that failed",
            self.certificate_errors.clone(),
        );
        r.register("ca_bundle_writes", "Writes of caBundle", self.ca_bundle_writes.clone());
        r.register_collector(Box::new(Spans(self.spans.clone())));
        r.register(
            "settings_info",
            "The hash of the settings in force, the same on all replicas; always 1",
            self.settings.clone(),
        );
        r.register("build_info", "Version of this program; always 1", build);
        self
    }

    /// A changed certificate was taken up, or refused.
    pub(crate) fn certificate_reloaded(&self, taken_up: bool) {
        let result = if taken_up { "success" } else { "failure" };
        self.certificate_reloads.get_or_create(&Outcome { result }).inc();
    }

    /// The settings with this hash are in force.
    pub fn settings(&self, hash: &str) {
        self.settings.clear();
        self.settings.get_or_create(&Hash { hash: hash.to_owned() }).set(1);
    }

    /// Changed settings were taken up, or refused.
    pub fn settings_reloaded(&self, taken_up: bool) {
        let result = if taken_up { "success" } else { "failure" };
        self.settings_reloads.get_or_create(&Outcome { result }).inc();
        self.settings_reloaded.set(taken_up.into());
    }

    /// The text that Prometheus scrapes, of type `CONTENT_TYPE`.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documented_metrics_are_those_that_are_there() {
        let docs = include_str!("../docs/serve.md").lines();
        let rows = docs.filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let named = |name: &&str| name.starts_with("sidecar_") || name.starts_with("outrigger_");
        let documented: BTreeSet<_> = rows.map(|(name, _)| name).filter(named).collect();
        let metrics = Metrics::new();
        metrics.settings("0");
        let text = metrics.text().unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let names = samples.filter_map(|line| line.split(['{', ' ']).next());
        let there: BTreeSet<_> = names
            .map(|name| {
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
            })
            .collect();
        assert_eq!(documented, there);
    }
}
