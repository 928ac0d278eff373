//! The pods that have a sidecar, counted; and how it is taken out of them.

use std::collections::BTreeMap;

use outrigger_contract::{NAMESPACE_LABEL, REVISION_LABEL, STATUS_ANNOTATION};
use serde_json::Value;

/// How many pods of each namespace have a sidecar of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sidecars(BTreeMap<String, usize>);

/// Namespaces that are named one by one.
const NAMED: usize = 10;

impl Sidecars {
    /// Counts those of `revision` among pods, of which only the metadata is read.
    pub fn count(&mut self, pods: &[Value], revision: &str) {
        for pod in pods {
            let metadata = &pod["metadata"];
            let status = metadata["annotations"][STATUS_ANNOTATION].as_str().unwrap_or_default();
            let status: Value = serde_json::from_str(status).unwrap_or_default();
            if let Some(namespace) = metadata["namespace"].as_str().filter(|_| status["revision"] == revision)
            {
                *self.0.entry(namespace.to_owned()).or_default() += 1;
            }
        }
    }

    /// What to tell whoever takes the installation away: how many there are, that they stay, how they go.
    pub fn farewell(&self, revision: &str) -> String {
        let pods: usize = self.0.values().sum();
        if pods == 0 {
            return format!("No pod has a sidecar of revision {revision}.");
        }
        let mut places: Vec<_> =
            self.0.iter().take(NAMED).map(|(namespace, count)| format!("{namespace} ({count})")).collect();
        if self.0.len() > NAMED {
            places.push(format!("{} namespaces more", self.0.len() - NAMED));
        }
        let (have, keep) = if pods == 1 { ("pod has", "keeps it") } else { ("pods have", "keep it") };
        format!(
            "{pods} {have} a sidecar of revision {revision} and {keep}, working, until restarted: {}.\n\
             To take the sidecars out of a namespace, take its label away and restart what owns its pods:\n  \
             kubectl label namespace NAME {NAMESPACE_LABEL}- {REVISION_LABEL}-\n  \
             kubectl --namespace NAME rollout restart deployments,statefulsets,daemonsets",
            places.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sidecars_of_a_revision_are_counted_by_namespace() {
        let pod = |namespace: &str, status: &str| json!({"metadata": {"namespace": namespace, "annotations": {"sidecar.istio.io/status": status}}});
        let ours = r#"{"revision":"default"}"#;
        let pods = [
            pod("shop", ours),
            pod("shop", ours),
            pod("cart", ours),
            pod("cart", r#"{"revision":"canary"}"#),
            pod("cart", "no JSON"),
            json!({"metadata": {"namespace": "cart"}}),
        ];
        let mut sidecars = Sidecars::default();
        sidecars.count(&pods, "default");
        let said = sidecars.farewell("default");
        assert!(said.starts_with("3 pods have a sidecar of revision default and keep it, working, until restarted: cart (1), shop (2).\n"), "{said}");
        assert_eq!(Sidecars::default().farewell("x"), "No pod has a sidecar of revision x.");
    }
}
