//! Which replica does what only one may do: the one that holds the Lease.
//!
//! As client-go does it: a holder renews in time; whoever has seen the same record for the whole of its duration takes
//! it. Only durations are measured, each by its own clock, so that clocks may differ. Who loses the Lease for a moment
//! and does not know it yet does no harm either: what leaders write is safe with two of them (`certificates::rotation`).
//!
//! Source: <https://kubernetes.io/docs/concepts/architecture/leases/>.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Cluster, Error, Installation};
use crate::telemetry::Metrics;

/// How long a Lease lasts without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed, or asked for.
const INTERVAL: Duration = Duration::from_secs(2);
/// Who could not renew for so long no longer leads: others take over only after [`DURATION`].
const GIVE_UP: Duration = Duration::from_secs(10);
/// How long the API server has for one attempt; so there is another one before [`GIVE_UP`].
const PATIENCE: Duration = Duration::from_secs(5);

/// The Lease, and when its record was first seen.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    lease: Value,
    at: Instant,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Turn {
    Take,
    Renew,
    Wait,
}

fn turn(seen: &Seen, me: &str, now: Instant) -> Turn {
    let spec = &seen.lease["spec"];
    match spec["holderIdentity"].as_str().unwrap_or_default() {
        holder if holder == me => Turn::Renew,
        "" => Turn::Take,
        _ => {
            let seconds = spec["leaseDurationSeconds"].as_u64();
            let lasts = seconds.map_or(DURATION, Duration::from_secs);
            if now >= seen.at + lasts { Turn::Take } else { Turn::Wait }
        }
    }
}

/// Tries to lead until nobody listens any more, and then gives the Lease back.
pub(super) async fn lead(installation: &Installation, leads: watch::Sender<bool>, metrics: &Metrics) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut seen, mut renewed) = (None, Instant::now());
    loop {
        tokio::select! {
            () = leads.closed() => break,
            _ = ticks.tick() => {}
        }
        let held = timeout(PATIENCE, hold(installation, &mut seen)).await;
        match held.unwrap_or_else(|_| Err(installation.cluster.late(PATIENCE))) {
            Ok(held) => {
                renewed = Instant::now();
                announce(&leads, held, metrics);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot ask for the Lease");
                if renewed.elapsed() > GIVE_UP {
                    announce(&leads, false, metrics);
                }
            }
        }
    }
    if *leads.borrow()
        && let Some(Seen { mut lease, .. }) = seen
    {
        lease["spec"]["holderIdentity"] = Value::from("");
        // By the version that was seen, as another one may hold it by now.
        if let Err(error) = installation.cluster.replace(&path(installation, true), &lease).await {
            tracing::warn!(%error, "cannot give the Lease back");
        }
    }
}

fn announce(leads: &watch::Sender<bool>, held: bool, metrics: &Metrics) {
    metrics.leader.set(held.into());
    if leads.send_if_modified(|leads| std::mem::replace(leads, held) != held) {
        tracing::info!(leader = held, "{}", if held { "leading" } else { "following" });
    }
}

/// Asks for the Lease: whether it is held.
async fn hold(installation: &Installation, seen: &mut Option<Seen>) -> Result<bool, Error> {
    let Installation { cluster, identity, .. } = installation;
    let lease = match cluster.get(&path(installation, true)).await {
        Ok(lease) => lease,
        Err(error) if error.is(404) => return create(installation, cluster).await,
        Err(error) => return Err(error),
    };
    let now = Instant::now();
    if seen.as_ref().is_none_or(|seen| seen.lease["spec"] != lease["spec"]) {
        *seen = Some(Seen { lease: lease.clone(), at: now });
    }
    let Some(known) = seen else { return Ok(false) };
    let turn = turn(known, identity, now);
    let mut spec = record(identity);
    match turn {
        Turn::Wait => return Ok(false),
        Turn::Renew => spec["acquireTime"] = lease["spec"]["acquireTime"].clone(),
        Turn::Take => {}
    }
    let changes = lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default();
    spec["leaseTransitions"] = (changes + u64::from(turn == Turn::Take)).into();
    let mut changed = lease;
    changed["spec"] = spec;
    // The version that was read goes along: of two that take it at once, one fails.
    match cluster.replace(&path(installation, true), &changed).await {
        Ok(lease) => {
            *known = Seen { lease, at: now };
            Ok(true)
        }
        Err(error) if error.is(409) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn create(installation: &Installation, cluster: &Cluster) -> Result<bool, Error> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": installation.name, "labels": installation.labels()},
        "spec": record(&installation.identity),
    });
    match cluster.create(&path(installation, false), &lease).await {
        Ok(_) => Ok(true),
        Err(error) if error.is(409) => Ok(false),
        Err(error) => Err(error),
    }
}

fn record(identity: &str) -> Value {
    // Six digits of a second: a `MicroTime`.
    let now = format!("{:.6}", Timestamp::now());
    json!({
        "holderIdentity": identity,
        "leaseDurationSeconds": DURATION.as_secs(),
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": 0,
    })
}

fn path(installation: &Installation, named: bool) -> String {
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", installation.cluster.namespace);
    if named { format!("{leases}/{}", installation.name) } else { leases }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_was_not_renewed_in_the_time_that_it_lasts() {
        let at = Instant::now();
        let seen = |holder: &str| Seen {
            lease: json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}}),
            at,
        };
        let after = |seconds| at + Duration::from_secs(seconds);
        for (holder, seconds, expected) in [
            ("me", 0, Turn::Renew),
            ("me", 60, Turn::Renew),
            ("", 0, Turn::Take),
            ("other", 0, Turn::Wait),
            ("other", 14, Turn::Wait),
            ("other", 15, Turn::Take),
        ] {
            assert_eq!(turn(&seen(holder), "me", after(seconds)), expected, "{holder} after {seconds}");
        }
        let bare = Seen { lease: json!({"spec": {"holderIdentity": "other"}}), at };
        assert_eq!((turn(&bare, "me", at), turn(&bare, "me", after(15))), (Turn::Wait, Turn::Take));
        assert_eq!(turn(&Seen { lease: Value::Null, at }, "me", at), Turn::Take);
    }

    #[test]
    fn times_have_six_digits_of_a_second() {
        let record = record("me");
        let time = record["renewTime"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.rsplit_once('.').unwrap().1.len() == 7, "{time}");
    }
}
