//! Overlays of the pods injected last: the replicas of a workload differ in nothing that a template sees.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};

use super::Error;
use super::data::PodData;
use super::render::Rendered;

/// Workloads that are kept, and the largest of them in bytes of JSON.
const MAX_ENTRIES: usize = 512;
const MAX_KEY: usize = 32 << 10;

/// Overlays by what the templates saw, as JSON.
#[derive(Debug, Default)]
pub(super) struct Cache(RwLock<HashMap<Vec<u8>, Arc<Rendered>>>);

impl Cache {
    /// The overlays of a pod, made where they are not known.
    pub(super) fn get_or_make(
        &self,
        pod: &PodData,
        make: impl FnOnce() -> Result<Rendered, Error>,
    ) -> Result<Arc<Rendered>, Error> {
        let Some(key) = key(pod).filter(|key| key.len() <= MAX_KEY) else { return make().map(Arc::new) };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key, Arc::clone(&made));
        Ok(made)
    }
}

/// All that the templates see of a pod.
fn key(pod: &PodData) -> Option<Vec<u8>> {
    let metadata = &pod.pod["metadata"];
    let small = json!([
        pod.namespace,
        pod.native,
        pod.user.uid,
        pod.user.gid,
        pod.workload.api_version,
        pod.workload.kind,
        pod.workload.name,
    ]);
    let parts: [&Value; 4] = [&small, &metadata["labels"], &metadata["annotations"], &pod.pod["spec"]];
    let mut key = Vec::with_capacity(2 << 10);
    for part in parts {
        serde_json::to_writer(&mut key, part).ok()?;
    }
    // The proxy's configuration comes of the annotations and of what is the same for all pods.
    Some(key)
}
