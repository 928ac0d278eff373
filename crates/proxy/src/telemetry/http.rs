//! What is counted about HTTP requests: one set of counters for each combination of labels.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Counter, Flag, Telemetry, Text, escape, peers};
use crate::destination::Direction;

/// Most combinations of labels that one worker counts apart. Hosts come from clients, who could make up any number;
/// what is beyond goes to host `other`.
const MOST_SERIES: usize = 1000;
/// Upper bounds of all histograms: Envoy's, so that dashboards fit. Milliseconds or bytes.
const BOUNDS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10_000., 30_000., 60_000., 300_000.,
    600_000., 1_800_000., 3_600_000.,
];

/// What tells one request's counters from another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Which way it went.
    pub direction: Direction,
    /// The status that the client got; 0 if none.
    pub code: u16,
    /// How it ended.
    pub flag: Flag,
    /// For gRPC, the status that the client got, if any.
    pub grpc: Option<Option<u16>>,
    /// The host that it asked for.
    pub host: Arc<str>,
}

/// The counters of one [`Key`].
#[derive(Debug, Default)]
pub(crate) struct Series {
    requests: Counter,
    /// Milliseconds.
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl Series {
    /// Counts one request.
    pub(crate) fn add(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.add(1);
        self.duration.add(duration.as_secs_f64() * 1e3, duration.as_micros() as u64);
        self.request_bytes.add(request_bytes as f64, request_bytes);
        self.response_bytes.add(response_bytes as f64, response_bytes);
    }
}

#[cfg(test)]
impl Series {
    /// How many requests were counted.
    pub(crate) fn count(&self) -> u64 {
        self.requests.get()
    }
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    /// Microseconds or bytes.
    sum: Counter,
}

impl Histogram {
    fn add(&self, value: f64, amount: u64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        self.buckets[bucket].add(1);
        self.sum.add(amount);
    }

    fn merge(&self, other: &Histogram) {
        for (mine, others) in self.buckets.iter().zip(&other.buckets) {
            mine.add(others.get());
        }
        self.sum.add(other.sum.get());
    }
}

/// What tells one count of gRPC messages from another.
pub(crate) type MessagesKey = (Direction, Arc<str>);

/// The counters of gRPC messages of one direction and host.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// Messages of clients.
    pub requests: Counter,
    /// Messages of servers.
    pub responses: Counter,
}

/// One worker's counters. The locks are free except for the moment of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    series: Mutex<HashMap<Key, Arc<Series>>>,
    messages: Mutex<HashMap<MessagesKey, Arc<Messages>>>,
}

impl Requests {
    /// The counters of `key`.
    pub(crate) fn series(&self, mut key: Key) -> Arc<Series> {
        let mut map = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MOST_SERIES && !map.contains_key(&key) {
            key.host = "other".into();
        }
        Arc::clone(map.entry(key).or_default())
    }

    /// The counters of gRPC messages that go `direction` to `host`.
    pub(crate) fn messages(&self, direction: Direction, host: &str) -> Arc<Messages> {
        let mut map = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key: MessagesKey = (direction, host.into());
        if map.len() >= MOST_SERIES && !map.contains_key(&key) {
            key.1 = "other".into();
        }
        Arc::clone(map.entry(key).or_default())
    }
}

/// All of one worker's counters.
fn all<K: Clone, V>(map: &Mutex<HashMap<K, Arc<V>>>) -> Vec<(K, Arc<V>)> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.iter().map(|(key, value)| (key.clone(), Arc::clone(value))).collect()
}

impl Telemetry {
    /// The metrics of HTTP requests.
    pub(super) fn http(&self, text: &mut Text) {
        let mut sums: HashMap<Key, Series> = HashMap::new();
        for (key, series) in self.shards.iter().flat_map(|shard| all(&shard.requests.series)) {
            let sum = sums.entry(key).or_default();
            sum.requests.add(series.requests.get());
            sum.duration.merge(&series.duration);
            sum.request_bytes.merge(&series.request_bytes);
            sum.response_bytes.merge(&series.response_bytes);
        }
        let mut lines: Vec<(String, Series)> =
            sums.into_iter().map(|(key, series)| (self.labels(&key), series)).collect();
        lines.sort_by(|one, other| one.0.cmp(&other.0));
        text.family("istio_requests_total", "counter", "HTTP requests.");
        for (labels, series) in &lines {
            text.line("istio_requests_total", labels, series.requests.get());
        }
        type Choose = fn(&Series) -> &Histogram;
        let histograms: [(&str, &str, Choose, f64); 3] = [
            (
                "istio_request_duration_milliseconds",
                "Time from request to the response's end.",
                |s| &s.duration,
                1e3,
            ),
            ("istio_request_bytes", "Size of requests, heads included.", |s| &s.request_bytes, 1.),
            ("istio_response_bytes", "Size of responses, heads included.", |s| &s.response_bytes, 1.),
        ];
        for (name, help, choose, scale) in histograms {
            text.family(name, "histogram", help);
            for (labels, series) in &lines {
                histogram(text, name, labels, choose(series), scale);
            }
        }
        self.messages(text);
    }

    /// The metrics of gRPC messages. They have no labels of a request, as they are counted while it runs.
    fn messages(&self, text: &mut Text) {
        let mut sums: HashMap<MessagesKey, Messages> = HashMap::new();
        for (key, messages) in self.shards.iter().flat_map(|shard| all(&shard.requests.messages)) {
            let sum = sums.entry(key).or_default();
            sum.requests.add(messages.requests.get());
            sum.responses.add(messages.responses.get());
        }
        let mut lines: Vec<(String, Messages)> = sums
            .into_iter()
            .map(|((direction, host), sum)| (peers(direction, &self.identity, &host), sum))
            .collect();
        lines.sort_by(|one, other| one.0.cmp(&other.0));
        type Choose = fn(&Messages) -> &Counter;
        let counters: [(&str, &str, Choose); 2] = [
            ("istio_request_messages_total", "gRPC messages of clients.", |messages| &messages.requests),
            ("istio_response_messages_total", "gRPC messages of servers.", |messages| &messages.responses),
        ];
        for (name, help, choose) in counters {
            text.family(name, "counter", help);
            for (labels, messages) in &lines {
                text.line(name, labels.trim_end_matches(','), choose(messages).get());
            }
        }
    }

    fn labels(&self, key: &Key) -> String {
        let mut labels = peers(key.direction, &self.identity, &key.host);
        let protocol = if key.grpc.is_some() { "grpc" } else { "http" };
        let policy = match key.direction {
            Direction::Inbound => "none",
            Direction::Outbound => "unknown",
        };
        let grpc = key.grpc.flatten().map(|status| status.to_string()).unwrap_or_default();
        let _ = write!(
            labels,
            "request_protocol=\"{protocol}\",response_code=\"{}\",grpc_response_status=\"{}\",\
             response_flags=\"{}\",connection_security_policy=\"{policy}\"",
            key.code,
            escape(&grpc),
            key.flag.name(),
        );
        labels
    }
}

fn histogram(text: &mut Text, name: &str, labels: &str, histogram: &Histogram, scale: f64) {
    let bounds = BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    let mut count = 0;
    for (bucket, bound) in histogram.buckets.iter().zip(bounds) {
        count += bucket.get();
        text.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), count);
    }
    text.line(&format!("{name}_sum"), labels, histogram.sum.get() as f64 / scale);
    text.line(&format!("{name}_count"), labels, count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn key(host: &str) -> Key {
        Key { direction: Direction::Inbound, code: 200, flag: Flag::None, grpc: None, host: host.into() }
    }

    #[test]
    fn requests_are_counted_by_label_over_all_workers() {
        let telemetry = Telemetry::new(2, Identity::unknown());
        telemetry.shard(0).requests.series(key("shop")).add(Duration::from_micros(700), 100, 2000);
        telemetry.shard(1).requests.series(key("shop")).add(Duration::from_millis(20), 0, 10);
        let text = telemetry.render();
        let value = |name: &str, part: &str| {
            let line =
                text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(part));
            line.unwrap_or_else(|| panic!("{name} {part} in {text}")).rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(value("istio_requests_total", "destination_service=\"shop\""), "2");
        let duration = "istio_request_duration_milliseconds";
        assert_eq!(value(&format!("{duration}_bucket"), "le=\"0.5\""), "0");
        assert_eq!(value(&format!("{duration}_bucket"), "le=\"1\""), "1");
        assert_eq!(value(&format!("{duration}_bucket"), "le=\"+Inf\""), "2");
        assert_eq!(value(&format!("{duration}_sum"), ""), "20.7");
        assert_eq!(value("istio_request_bytes_bucket", "le=\"0.5\""), "1");
        assert_eq!(value("istio_response_bytes_sum", ""), "2010");
    }

    #[test]
    fn messages_are_counted_by_host_over_all_workers() {
        let telemetry = Telemetry::new(2, Identity::unknown());
        telemetry.shard(0).requests.messages(Direction::Outbound, "shop").requests.add(3);
        telemetry.shard(1).requests.messages(Direction::Outbound, "shop").requests.add(4);
        telemetry.shard(1).requests.messages(Direction::Outbound, "till").responses.add(5);
        let text = telemetry.render();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("istio_re")).collect();
        let value = |name: &str, host: &str| {
            let service = format!("destination_service=\"{host}\"");
            let line = lines.iter().find(|line| line.starts_with(name) && line.contains(&service)).unwrap();
            // Istio's labels end there for these two.
            line.split_once("destination_cluster=\"unknown\"} ").unwrap().1.to_owned()
        };
        assert_eq!(value("istio_request_messages_total{", "shop"), "7");
        assert_eq!(value("istio_response_messages_total{", "shop"), "0");
        assert_eq!(value("istio_response_messages_total{", "till"), "5");
    }

    #[test]
    fn made_up_hosts_do_not_grow_without_bound() {
        let requests = Requests::default();
        for number in 0..5000 {
            requests.series(key(&number.to_string())).add(Duration::ZERO, 0, 0);
        }
        let all = all(&requests.series);
        assert_eq!(all.len(), MOST_SERIES + 1);
        let other = all.iter().find(|(key, _)| &*key.host == "other").unwrap();
        assert_eq!(other.1.requests.get(), 4000);
    }
}
