//! The cluster's namespaces, kept in memory: their metadata alone, by one watch.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};

use super::Installation;
use crate::injection;
use crate::telemetry::Metrics;
use crate::webhook::Namespaces;

/// Keeps `known` up to date, for ever.
pub(super) async fn follow(installation: &Installation, known: &Namespaces, metrics: &Metrics) {
    let api = installation.api("", "Namespace", false);
    let mut events = pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    let mut all = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(namespace)) => {
                let (name, facts) = facts(&namespace);
                known.change(|known| _ = known.insert(name, facts));
            }
            Ok(Event::Delete(namespace)) => known.change(|known| _ = known.remove(&namespace.name_any())),
            Ok(Event::Init) => all = HashMap::new(),
            Ok(Event::InitApply(namespace)) => all.extend([facts(&namespace)]),
            Ok(Event::InitDone) => {
                let all = std::mem::take(&mut all);
                tracing::debug!(namespaces = all.len(), "read all namespaces");
                known.change(|known| *known = all);
                metrics.namespaces_synced.set(1);
            }
            Err(error) => tracing::warn!(%error, "the watch of namespaces begins again"),
        }
    }
}

fn facts(namespace: &PartialObjectMeta<DynamicObject>) -> (String, Arc<Value>) {
    let metadata = json!({"labels": namespace.labels(), "annotations": namespace.annotations()});
    (namespace.name_any(), Arc::new(injection::of_namespace(&metadata)))
}
