//! Notices become Events (core/v1), not too many of them.
//!
//! The first of a kind is written at once. What is the same again, such as the thousandth pod of a workload, is counted
//! and written with its count once in a while, as `kubectl describe` shows it (`x1000 over 5m`). What comes too fast, or
//! about too many objects at a time, is dropped and counted: Events are there to help, not to burden the API server.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Change, Installation};
use crate::notice::{Notice, Reference};
use crate::telemetry::Metrics;

/// How often counts are written.
const INTERVAL: Duration = Duration::from_secs(10);
/// After so long without a repetition, the same again is a new Event.
const MEMORY: Duration = Duration::from_secs(600);
/// Events that are remembered; beyond that none is written.
const REMEMBERED: usize = 1000;
/// New Events that may be written at once, and how many more a second.
const BURST: f64 = 50.0;
const RATE: f64 = 5.0;
/// The longest message that an API server takes, in bytes.
const MESSAGE: usize = 1024;

/// What makes two notices the same.
type Key = (Reference, &'static str, String);

/// An Event that was written.
#[derive(Debug)]
struct Written {
    path: String,
    count: u64,
    /// Whether its count has grown since it was written.
    grown: bool,
    last: Instant,
}

/// Writes what arrives, until nobody tells any more.
pub(super) async fn write(
    installation: &Installation,
    mut notices: mpsc::Receiver<Notice>,
    metrics: &Metrics,
) {
    let mut known: HashMap<Key, Written> = HashMap::new();
    let mut budget = Budget { left: BURST, at: Instant::now() };
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            notice = notices.recv() => {
                let Some(notice) = notice else { return };
                let key = (notice.about.clone(), notice.reason, notice.message.clone());
                let now = Instant::now();
                if let Some(written) = known.get_mut(&key) {
                    (written.count, written.grown, written.last) = (written.count + 1, true, now);
                } else if known.len() < REMEMBERED && budget.spend(now) {
                    if let Some(path) = create(installation, notice, metrics).await {
                        known.insert(key, Written { path, count: 1, grown: false, last: now });
                    }
                } else {
                    metrics.events.inc("dropped");
                }
            }
            _ = ticks.tick() => {
                for written in known.values_mut().filter(|written| written.grown) {
                    let change = json!({"count": written.count, "lastTimestamp": now()});
                    match installation.cluster.patch(&written.path, &Change::Merge(&change)).await {
                        Ok(_) => metrics.events.inc("counted"),
                        Err(error) => failed(&error, metrics),
                    }
                    written.grown = false;
                }
                known.retain(|_, written| written.last.elapsed() < MEMORY);
            }
        }
    }
}

/// New Events that may still be written.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        self.left = (self.left + (now - self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// Writes a new Event; its path.
async fn create(installation: &Installation, mut notice: Notice, metrics: &Metrics) -> Option<String> {
    let cluster = &installation.cluster;
    let namespace = notice.about.namespace.clone();
    if notice.about.kind == "ConfigMap" && notice.about.uid.is_empty() {
        // `kubectl describe` finds Events by it.
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{}", notice.about.name);
        let map = cluster.get(&path).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the ConfigMap of the settings: its Event has no uid");
            Value::Null
        });
        notice.about.uid = map["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    }
    let event = event(&notice, &installation.identity);
    let path = format!("/api/v1/namespaces/{namespace}/events");
    match cluster.create(&path, &event).await {
        Ok(event) => {
            metrics.events.inc("written");
            event["metadata"]["name"].as_str().map(|name| format!("{path}/{name}"))
        }
        Err(error) => {
            failed(&error, metrics);
            None
        }
    }
}

fn failed(error: &super::Error, metrics: &Metrics) {
    metrics.events.inc("failed");
    tracing::warn!(%error, "cannot write an Event");
}

fn event(notice: &Notice, identity: &str) -> Value {
    let Notice { about, warning, reason, message } = notice;
    // kubectl shows no more than the first line of a column.
    let message = message.replace('\n', "; ");
    // An Event's name may be as long as 253 characters; the API server adds five.
    let name: String = about.name.chars().take(230).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": format!("{name}.outrigger-"), "namespace": about.namespace},
        "involvedObject": about,
        "type": if *warning { "Warning" } else { "Normal" },
        "reason": reason,
        "message": &message[..message.floor_char_boundary(MESSAGE)],
        "source": {"component": "outrigger"},
        "reportingComponent": "outrigger",
        "reportingInstance": identity,
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
    })
}

/// In whole seconds: a `Time`.
fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_written_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut budget = Budget { left: BURST, at: start };
        let spent = |budget: &mut Budget, now| (0..1000).filter(|_| budget.spend(now)).count();
        assert_eq!(spent(&mut budget, start), 50);
        assert_eq!(spent(&mut budget, start + Duration::from_secs(2)), 10);
        assert_eq!(spent(&mut budget, start + Duration::from_secs(600)), 50);
    }

    #[test]
    fn an_event_is_one_that_an_api_server_takes() {
        let about = Reference {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            namespace: "shop".to_owned(),
            name: "w".repeat(253),
            uid: String::new(),
        };
        let notice =
            Notice { about, warning: true, reason: "SidecarNotInjected", message: "ü".repeat(1000) };
        let event = event(&notice, "outrigger-1");
        assert!(event["metadata"]["generateName"].as_str().unwrap().len() <= 253 - 5);
        assert_eq!(event["message"].as_str().unwrap().len(), 1024);
        assert_eq!((event["type"].as_str(), event["involvedObject"].get("uid")), (Some("Warning"), None));
        let lines = Notice { message: "line 1: a\nline 2: b".to_owned(), ..notice };
        assert_eq!(super::event(&lines, "outrigger-1")["message"], "line 1: a; line 2: b");
        let time = event["lastTimestamp"].as_str().unwrap();
        assert_eq!((time.len(), time.ends_with('Z')), ("2026-11-28T12:00:00Z".len(), true), "{time}");
    }
}
