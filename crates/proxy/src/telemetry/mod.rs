//! Counters and their text. Each worker has a [`Shard`] of its own, so that counting shares nothing; whoever asks
//! for the text adds the shards up.

pub(crate) mod connections;
mod flag;
pub(crate) mod http;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::destination::{Direction, Loop};
use crate::identity::Identity;
use outrigger_trace::Counts;

pub(crate) use flag::{Flag, Limit};

/// A number that only grows, written by one thread and read by any.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The sum so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counted in one direction.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Captured connections, whatever they carry.
    accepted: Counter,
    /// Captured connections that have ended.
    ended: Counter,
    /// TCP connections that are carried as bytes.
    pub opened: Counter,
    /// TCP connections that ended, by [`Flag`].
    closed: [Counter; Flag::ALL.len()],
    /// Bytes written to the downstream peer.
    pub sent: Counter,
    /// Bytes read from the downstream peer.
    pub received: Counter,
    /// Connections closed because carrying them would be a loop, by [`Loop`].
    refused: [Counter; 3],
    /// Errors of accept(2), most often for want of file descriptors.
    pub accept_errors: Counter,
    /// Upstream connections that were used for another request.
    pub reused: Counter,
    /// Requests that were sent again, because nobody had read them.
    pub retried: Counter,
    /// How often each [`Limit`] was met.
    limits: [Counter; Limit::ALL.len()],
}

/// A captured connection, as long as it is active.
#[derive(Debug)]
pub(crate) struct Active<'a>(&'a Side);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.ended.add(1);
    }
}

impl Side {
    /// Counts a captured connection as active until the answer is dropped.
    pub(crate) fn accept(&self) -> Active<'_> {
        self.accepted.add(1);
        Active(self)
    }

    /// Counts the end of a TCP connection.
    pub(crate) fn close(&self, flag: Flag) {
        self.closed[flag as usize].add(1);
    }

    /// Counts a refused connection.
    pub(crate) fn refuse(&self, reason: Loop) {
        self.refused[reason as usize].add(1);
    }

    /// Counts that `limit` was met.
    pub(crate) fn met(&self, limit: Limit) {
        self.limits[limit as usize].add(1);
    }

    /// How often `limit` was met.
    pub(crate) fn times_met(&self, limit: Limit) -> u64 {
        self.limits[limit as usize].get()
    }

    /// Captured connections that have not ended.
    pub(crate) fn active(&self) -> u64 {
        // Ends first: a connection that begins in between must not make the difference negative.
        let ended = self.ended.get();
        self.accepted.get().saturating_sub(ended)
    }
}

/// What one worker counted. Aligned, so that no two workers write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Shard {
    /// Connections to the application.
    pub inbound: Side,
    /// Connections from the application.
    pub outbound: Side,
    /// HTTP requests of both directions.
    pub requests: http::Requests,
    /// What is being carried now.
    pub connections: connections::Connections,
}

impl Shard {
    /// The counters of one direction.
    pub(crate) fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}

/// What DNS counts.
#[derive(Debug, Default)]
pub(crate) struct Dns {
    /// Queries.
    pub queries: Counter,
    /// Queries answered with what had been kept.
    pub kept: Counter,
    /// Queries that no server answered.
    pub failures: Counter,
}

/// What became of changes of the settings' file.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    /// The new settings are in force.
    pub taken: Counter,
    /// The last good settings stay.
    pub refused: Counter,
}

/// All workers' counters and the labels that they share.
#[derive(Debug)]
pub(crate) struct Telemetry {
    shards: Vec<Arc<Shard>>,
    identity: Identity,
    started: Instant,
    /// What DNS counts.
    pub dns: Arc<Dns>,
    /// What became of changes of the settings' file.
    pub reloads: Reloads,
    /// What became of sampled spans.
    pub spans: Arc<Counts>,
}

const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
const LOOPS: [Loop; 3] = [Loop::Direct, Loop::OwnListener, Loop::OwnSource];

impl Telemetry {
    /// Counters for `workers` workers of the pod `identity`.
    pub(crate) fn new(workers: usize, identity: Identity) -> Telemetry {
        let shards = (0..workers).map(|_| Arc::new(Shard::default())).collect();
        Telemetry {
            shards,
            identity,
            started: Instant::now(),
            dns: Arc::default(),
            reloads: Reloads::default(),
            spans: Arc::default(),
        }
    }

    /// The counters of worker number `worker`, counted from 0.
    pub(crate) fn shard(&self, worker: usize) -> Arc<Shard> {
        Arc::clone(&self.shards[worker])
    }

    /// Connections that are being carried now.
    pub(crate) fn active(&self) -> u64 {
        DIRECTIONS.iter().map(|direction| self.sum(*direction, Side::active)).sum()
    }

    /// What is being carried now, by worker.
    pub(crate) fn connections(&self) -> Vec<Vec<connections::Connection>> {
        self.shards.iter().map(|shard| shard.connections.all()).collect()
    }

    /// Time since the proxy started.
    pub(crate) fn uptime(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    fn sum(&self, direction: Direction, value: impl Fn(&Side) -> u64) -> u64 {
        self.shards.iter().map(|shard| value(shard.side(direction))).sum()
    }

    /// All metrics in Prometheus' text format 0.0.4.
    pub(crate) fn render(&self) -> String {
        let mut text = Text(String::with_capacity(16 * 1024));
        self.http(&mut text);
        self.tcp(&mut text);
        text.family("outrigger_connections_active", "gauge", "Connections that are being carried now.");
        for direction in DIRECTIONS {
            let labels = format!("reporter=\"{}\"", direction.reporter());
            text.line("outrigger_connections_active", &labels, self.sum(direction, Side::active));
        }
        let name = "outrigger_connections_refused_total";
        text.family(name, "counter", "Connections closed because carrying them would be a loop.");
        for direction in DIRECTIONS {
            for reason in LOOPS {
                let labels = format!("reporter=\"{}\",reason=\"{}\"", direction.reporter(), reason.reason());
                text.line(name, &labels, self.sum(direction, |side| side.refused[reason as usize].get()));
            }
        }
        let name = "outrigger_limits_met_total";
        text.family(name, "counter", "How often a limit was met, by the name of its setting.");
        for direction in DIRECTIONS {
            for limit in Limit::ALL {
                let labels = format!("reporter=\"{}\",limit=\"{}\"", direction.reporter(), limit.name());
                text.line(name, &labels, self.sum(direction, |side| side.times_met(limit)));
            }
        }
        let (reloads, spans) = (&self.reloads, &self.spans);
        for (name, help, results) in [
            (
                "outrigger_reloads_total",
                "Changes of the settings' file, by what became of them.",
                [("taken", reloads.taken.get()), ("refused", reloads.refused.get())],
            ),
            (
                "outrigger_spans_total",
                "Sampled spans, by what became of them.",
                [("exported", spans.exported()), ("dropped", spans.dropped())],
            ),
        ] {
            text.family(name, "counter", help);
            for (result, count) in results {
                text.line(name, &format!("result=\"{result}\""), count);
            }
        }
        type Value = fn(&Side) -> u64;
        let counters: [(&str, &str, Value); 4] = [
            ("outrigger_connections_total", "Captured connections.", |side| side.accepted.get()),
            (
                "outrigger_accept_errors_total",
                "Errors of accept, most often for want of file descriptors.",
                |side| side.accept_errors.get(),
            ),
            (
                "outrigger_upstream_reused_total",
                "Requests on an upstream connection that was used before.",
                |side| side.reused.get(),
            ),
            (
                "outrigger_requests_retried_total",
                "Requests sent again because nobody had read them.",
                |side| side.retried.get(),
            ),
        ];
        for (name, help, value) in counters {
            text.family(name, "counter", help);
            for direction in DIRECTIONS {
                let labels = format!("reporter=\"{}\"", direction.reporter());
                text.line(name, &labels, self.sum(direction, value));
            }
        }
        for (name, help, counter) in [
            ("outrigger_dns_queries_total", "DNS queries.", &self.dns.queries),
            ("outrigger_dns_kept_total", "DNS queries answered with what had been kept.", &self.dns.kept),
            ("outrigger_dns_failures_total", "DNS queries that no server answered.", &self.dns.failures),
        ] {
            text.family(name, "counter", help);
            text.line(name, "", counter.get());
        }
        text.family("istio_build", "gauge", "Version of the proxy.");
        let labels = format!("component=\"proxy\",tag=\"outrigger-{}\"", env!("CARGO_PKG_VERSION"));
        text.line("istio_build", &labels, 1);
        text.family("outrigger_uptime_seconds", "gauge", "Seconds since the proxy started.");
        text.line("outrigger_uptime_seconds", "", self.started.elapsed().as_secs());
        process(&mut text);
        text.0
    }

    fn tcp(&self, text: &mut Text) {
        type Value = fn(&Side) -> u64;
        let counters: [(&str, &str, Value); 3] = [
            ("istio_tcp_connections_opened_total", "TCP connections opened.", |side| side.opened.get()),
            ("istio_tcp_sent_bytes_total", "Bytes written to the downstream peer.", |side| side.sent.get()),
            ("istio_tcp_received_bytes_total", "Bytes read from the downstream peer.", |side| {
                side.received.get()
            }),
        ];
        for (name, help, value) in counters {
            text.family(name, "counter", help);
            for direction in DIRECTIONS {
                text.line(name, &self.tcp_labels(direction, Flag::None), self.sum(direction, value));
            }
        }
        let name = "istio_tcp_connections_closed_total";
        text.family(name, "counter", "TCP connections closed.");
        for direction in DIRECTIONS {
            for flag in Flag::ALL {
                let count = self.sum(direction, |side| side.closed[flag as usize].get());
                if count > 0 || flag == Flag::None {
                    text.line(name, &self.tcp_labels(direction, flag), count);
                }
            }
        }
    }

    fn tcp_labels(&self, direction: Direction, flag: Flag) -> String {
        let mut labels = peers(direction, &self.identity, "");
        let policy = match direction {
            Direction::Inbound => "none",
            Direction::Outbound => "unknown",
        };
        let _ = write!(
            labels,
            "request_protocol=\"tcp\",response_flags=\"{}\",connection_security_policy=\"{policy}\"",
            flag.name()
        );
        labels
    }
}

/// Istio's labels for source and destination, in Istio's order, each with a comma after it.
pub(crate) fn peers(direction: Direction, own: &Identity, host: &str) -> String {
    let other = Identity::unknown();
    let (source, destination, cluster) = match direction {
        Direction::Inbound => (&other, own, "InboundPassthroughCluster"),
        Direction::Outbound => (own, &other, "PassthroughCluster"),
    };
    let service = match (direction, host) {
        (Direction::Inbound, "") => &destination.canonical_service,
        _ if host.is_empty() => "unknown",
        _ => host,
    };
    let labels = [
        ("source_workload", source.workload.as_str()),
        ("source_canonical_service", &source.canonical_service),
        ("source_canonical_revision", &source.canonical_revision),
        ("source_workload_namespace", &source.namespace),
        ("source_principal", "unknown"),
        ("source_app", &source.app),
        ("source_version", &source.version),
        ("source_cluster", &source.cluster),
        ("destination_workload", &destination.workload),
        ("destination_workload_namespace", &destination.namespace),
        ("destination_principal", "unknown"),
        ("destination_app", &destination.app),
        ("destination_version", &destination.version),
        ("destination_service", service),
        ("destination_canonical_service", &destination.canonical_service),
        ("destination_canonical_revision", &destination.canonical_revision),
        ("destination_service_name", cluster),
        ("destination_service_namespace", &destination.namespace),
        ("destination_cluster", &destination.cluster),
    ];
    let mut text = format!("reporter=\"{}\",", direction.reporter());
    for (name, value) in labels {
        let _ = write!(text, "{name}=\"{}\",", escape(value));
    }
    text
}

/// Escapes a label's value: `\`, `"` and line feed.
pub(crate) fn escape(value: &str) -> std::borrow::Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        value.into()
    }
}

/// Metrics in Prometheus' text format.
pub(crate) struct Text(pub(crate) String);

impl Text {
    /// Begins a family of metrics.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample; `labels` as they stand between the braces.
    pub(crate) fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }
}

/// Numbers of /proc/self/stat, by their numbers in proc_pid_stat(5). Empty where the kernel does not say.
struct Stat(Vec<u64>);

impl Stat {
    fn read() -> Stat {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the program's name in parentheses, which may hold blanks; count from behind it.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        // The third is a letter; some are negative. Nobody asks for those.
        Stat(fields.map(|field| field.parse().unwrap_or(0)).collect())
    }

    fn get(&self, number: usize) -> Option<u64> {
        self.0.get(number - 3).copied()
    }
}

/// Resident memory in bytes, where the kernel says.
pub(crate) fn resident_bytes() -> Option<u64> {
    Stat::read().get(24).map(|pages| pages * rustix::param::page_size() as u64)
}

/// The process metrics that Prometheus' own client libraries give. Where the kernel does not say, they are left out.
fn process(text: &mut Text) {
    let stat = Stat::read();
    if let (Some(user), Some(system)) = (stat.get(14), stat.get(15)) {
        let ticks = rustix::param::clock_ticks_per_second();
        text.family("process_cpu_seconds_total", "counter", "User and system CPU time.");
        text.line("process_cpu_seconds_total", "", (user + system) as f64 / ticks as f64);
    }
    if let Some(threads) = stat.get(20) {
        text.family("process_threads", "gauge", "Threads.");
        text.line("process_threads", "", threads);
    }
    if let Some(bytes) = resident_bytes() {
        text.family("process_resident_memory_bytes", "gauge", "Resident memory.");
        text.line("process_resident_memory_bytes", "", bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", "gauge", "Open file descriptors.");
        // One of them is the folder itself.
        text.line("process_open_fds", "", open.count().saturating_sub(1));
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        text.family("process_max_fds", "gauge", "Most file descriptors that may be open.");
        text.line("process_max_fds", "", limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up_and_active_is_the_difference() {
        let telemetry = Telemetry::new(2, Identity::unknown());
        telemetry.shard(0).inbound.opened.add(3);
        telemetry.shard(1).inbound.opened.add(2);
        telemetry.shard(1).inbound.close(Flag::UpstreamFailed);
        let shard = telemetry.shard(0);
        let kept: Vec<Active> = (0..4).map(|_| shard.inbound.accept()).collect();
        drop(shard.inbound.accept());
        telemetry.shard(0).outbound.received.add(11);
        assert_eq!(telemetry.active(), 4);
        let text = telemetry.render();
        let line = |name: &str, part: &str| {
            let found = text.lines().find(|line| line.starts_with(name) && line.contains(part));
            found
                .unwrap_or_else(|| panic!("{name} {part} in:\n{text}"))
                .rsplit(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        assert_eq!(line("istio_tcp_connections_opened_total{", "reporter=\"destination\""), "5");
        assert_eq!(line("istio_tcp_connections_closed_total{", "response_flags=\"UF\""), "1");
        assert_eq!(line("istio_tcp_received_bytes_total{", "reporter=\"source\""), "11");
        assert_eq!(line("outrigger_connections_active{", "reporter=\"destination\""), kept.len().to_string());
        assert!(line("process_resident_memory_bytes ", "").parse::<u64>().unwrap() > 100_000);
        assert!(line("process_open_fds ", "").parse::<u64>().unwrap() >= 3);
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
