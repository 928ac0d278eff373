//! Whether a workload is rolled out, and what keeps it.
//!
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status>.

use serde_json::Value;

/// How far a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Replicas that are new and available.
    pub ready: u64,
    /// Replicas that there should be.
    pub wanted: u64,
    /// Whether no old replica is left, and all that is asked for has been seen.
    pub complete: bool,
}

/// Reads a Deployment, a StatefulSet or a DaemonSet.
pub fn rollout(workload: &Value) -> Rollout {
    let (spec, status) = (&workload["spec"], &workload["status"]);
    let count = |field: &str| status[field].as_u64().unwrap_or_default();
    let seen = count("observedGeneration") >= workload["metadata"]["generation"].as_u64().unwrap_or_default();
    let (wanted, updated, available, all) = if status["desiredNumberScheduled"].is_null() {
        let wanted = spec["replicas"].as_u64().unwrap_or(1);
        (wanted, count("updatedReplicas"), count("availableReplicas"), count("replicas"))
    } else {
        // A DaemonSet counts by other names, and has one pod a node, old or new.
        let updated = count("updatedNumberScheduled");
        (count("desiredNumberScheduled"), updated, count("numberAvailable"), updated)
    };
    let complete = seen && updated >= wanted && available >= wanted && all == updated;
    Rollout { ready: available.min(updated), wanted, complete }
}

/// Why pods do not run, each reason once: what their containers wait for, or what the scheduler says.
pub fn obstacles(pods: &[Value]) -> Vec<String> {
    let mut obstacles: Vec<String> = Vec::new();
    for pod in pods {
        let status = &pod["status"];
        let statuses = status["containerStatuses"].as_array().into_iter().flatten();
        let waiting = statuses.map(|container| &container["state"]["waiting"]);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let unscheduled = conditions.filter(|c| c["type"] == "PodScheduled" && c["status"] == "False");
        for why in waiting.chain(unscheduled) {
            let Some(reason) = why["reason"].as_str() else { continue };
            let obstacle = match why["message"].as_str() {
                Some(message) => format!("{reason}: {message}"),
                None => reason.to_owned(),
            };
            if !obstacles.contains(&obstacle) {
                obstacles.push(obstacle);
            }
        }
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rollout_is_complete_when_all_replicas_are_new_and_available() {
        let deployment = |observed, replicas, updated, available| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {"observedGeneration": observed,
                "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available}})
        };
        for (observed, replicas, updated, available, ready, complete) in [
            (2, 3, 3, 3, 3, true),
            (1, 3, 3, 3, 3, false), // what is asked for has not been seen
            (2, 4, 3, 3, 3, false), // an old one is left
            (2, 4, 1, 3, 1, false),
            (2, 3, 3, 2, 2, false),
        ] {
            let got = rollout(&deployment(observed, replicas, updated, available));
            assert_eq!(got, Rollout { ready, wanted: 3, complete });
        }
        assert!(!rollout(&json!({"metadata": {"generation": 1}, "spec": {}})).complete);
        for (updated, available, complete) in [(3, 3, true), (2, 3, false), (3, 2, false)] {
            let daemons = json!({"metadata": {"generation": 2}, "spec": {}, "status": {"observedGeneration": 2,
                "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberAvailable": available}});
            assert_eq!(rollout(&daemons).complete, complete);
        }
    }

    #[test]
    fn obstacles_are_told_once_each() {
        let waiting = json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]}});
        let pending = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        let running = json!({"status": {"containerStatuses": [{"state": {"running": {}}}]}});
        let pods = [waiting.clone(), waiting, pending, running];
        assert_eq!(obstacles(&pods), ["ErrImagePull: no such image", "Unschedulable"]);
    }
}
