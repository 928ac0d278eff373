//! Restarting a workload as `kubectl rollout restart` does, when no PodDisruptionBudget forbids it.
//!
//! Sources: <https://kubernetes.io/docs/reference/kubectl/generated/kubectl_rollout/kubectl_rollout_restart/>,
//! <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/>.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::apply::path_of;
use super::{Change, Cluster, Error};
use crate::installation::rollout::rollout;
use crate::settings::Selector;
use crate::sidecars::Workload;

/// The annotation that makes a pod template another one.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// After this time, what has been restarted may be restarted again by whoever does it by himself.
const AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// Where a workload is, if it is of a kind whose pods are replaced one after the other when its template changes.
fn path(workload: &Workload) -> Option<String> {
    let Workload { kind, namespace, name, .. } = workload;
    let replaced = ["Deployment", "StatefulSet", "DaemonSet"].contains(&kind.as_str());
    replaced.then(|| path_of("apps/v1", kind, Some(namespace), name))
}

/// Why a workload is not restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// Its pods are not replaced by anybody, or all at once: a bare pod, a Job.
    Kind,
    /// A PodDisruptionBudget, by name, allows no disruption now.
    Budget(String),
    /// Its pods are being replaced already, or cannot be.
    RollingOut,
    /// It was restarted less than an hour ago, and that has not helped.
    Recently,
}

/// How a restart is meant.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Says only what would be done.
    pub dry_run: bool,
    /// Nobody looks on: what was restarted less than an hour ago is left.
    pub alone: bool,
}

/// Begins a restart.
///
/// # Errors
/// It cannot be read or written.
pub async fn restart(cluster: &Cluster, workload: &Workload, how: How) -> Result<Option<Left>, Error> {
    let Some(path) = path(workload) else { return Ok(Some(Left::Kind)) };
    let now = Timestamp::now();
    let object = cluster.get(&path).await?;
    if !rollout(&object).complete {
        return Ok(Some(Left::RollingOut));
    }
    if how.alone && was_restarted(&object, now) {
        return Ok(Some(Left::Recently));
    }
    let budgets = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets", workload.namespace);
    if let Some(name) = forbids(&cluster.list(&budgets).await?, &workload.labels) {
        return Ok(Some(Left::Budget(name)));
    }
    if !how.dry_run {
        let template = json!({"metadata": {"annotations": {RESTARTED: format!("{now:.0}")}}});
        cluster.patch(&path, &Change::Merge(&json!({"spec": {"template": template}}))).await?;
    }
    Ok(None)
}

/// Whether it was restarted a short while ago. A time that cannot be read is none.
fn was_restarted(workload: &Value, now: Timestamp) -> bool {
    let annotation = &workload["spec"]["template"]["metadata"]["annotations"][RESTARTED];
    let at = annotation.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    at.is_some_and(|at| now.duration_since(at) < AGAIN)
}

/// Whether all pods of a workload are of its newest template, and ready.
///
/// # Errors
/// It cannot be read.
pub async fn is_rolled_out(cluster: &Cluster, workload: &Workload) -> Result<bool, Error> {
    let Some(path) = path(workload) else { return Ok(true) };
    Ok(rollout(&cluster.get(&path).await?).complete)
}

/// The budget that selects pods with these labels and allows no disruption now.
fn forbids(budgets: &[Value], labels: &Value) -> Option<String> {
    let forbids = |budget: &&Value| {
        let selector = &budget["spec"]["selector"];
        // An empty selector is every pod here, and none of ours.
        let every = selector.as_object().is_some_and(|selector| selector.values().all(is_empty));
        let selector = serde_json::from_value::<Selector>(selector.clone());
        let selected = every || selector.is_ok_and(|selector| selector.matches(labels));
        selected && budget["status"]["disruptionsAllowed"] == 0
    };
    let budget = budgets.iter().find(forbids)?;
    Some(budget["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_a_short_while_ago_for_an_hour() {
        let at = |time: &str| json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED: time}}}}});
        let now = "2026-11-28T12:00:00Z".parse().unwrap();
        for (workload, recent) in [
            (at("2026-11-28T11:59:59Z"), true),
            // As kubectl writes it, where it runs.
            (at("2026-11-28T12:30:00+01:00"), true),
            (at("2026-11-28T11:00:00Z"), false),
            (at("yesterday"), false),
            (json!({}), false),
        ] {
            assert_eq!(was_restarted(&workload, now), recent, "{workload}");
        }
    }

    #[test]
    fn a_budget_without_disruptions_forbids_those_that_it_selects() {
        let budget = |name: &str, app: &str, allowed: u64| json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": app}}}, "status": {"disruptionsAllowed": allowed}});
        let budgets = [budget("a", "web", 1), budget("b", "cart", 0)];
        assert_eq!(forbids(&budgets, &json!({"app": "web"})), None);
        assert_eq!(forbids(&budgets, &json!({"app": "cart"})), Some("b".to_owned()));
        assert_eq!(forbids(&budgets, &json!({"app": "other"})), None);
        let every =
            json!({"metadata": {"name": "c"}, "spec": {"selector": {}}, "status": {"disruptionsAllowed": 0}});
        assert_eq!(forbids(&[every], &json!({})), Some("c".to_owned()));
    }
}
