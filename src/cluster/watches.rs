//! Watches that begin again when they break, at growing intervals.

use std::pin::pin;

use futures::StreamExt;
use kube::Api;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::Notify;

/// Tells of every change of the objects, or of the one with this name.
pub(super) async fn changes(
    api: Api<PartialObjectMeta<DynamicObject>>,
    name: Option<&str>,
    changed: &Notify,
) {
    let config = watcher::Config::default();
    let config = match name {
        Some(name) => config.fields(&format!("metadata.name={name}")),
        None => config,
    };
    // Only that something has changed is told, so that its metadata is enough.
    let mut events = pin!(watcher::watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => changed.notify_one(),
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => tracing::warn!(%error, "a watch begins again"),
        }
    }
}

/// Calls `see` with the object of this name whenever it has changed, and with `None` when it is not there.
pub(super) async fn one(api: Api<DynamicObject>, name: &str, mut see: impl FnMut(Option<&Value>)) {
    let mut objects = pin!(watcher::watch_object(api, name).default_backoff());
    while let Some(object) = objects.next().await {
        match object {
            Ok(Some(object)) => see(Some(&object.data)),
            Ok(None) => see(None),
            Err(error) => tracing::warn!(%error, name, "a watch begins again"),
        }
    }
}
