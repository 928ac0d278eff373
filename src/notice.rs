//! What is worth an Event: something that happened to an object of the cluster, for whoever looks at that object.
//!
//! Who notices something only tells; whether anybody listens, and how often, is decided elsewhere (`cluster::events`).

use serde::Serialize;
use tokio::sync::mpsc;

/// The object that an Event is about, as its `involvedObject`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Empty where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// To what.
    pub about: Reference,
    /// Whether somebody ought to do something about it.
    pub warning: bool,
    /// In CamelCase, such as `SidecarInjected`.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// Where notices go; nowhere by default.
#[derive(Debug, Clone, Default)]
pub struct Notices(Option<mpsc::Sender<Notice>>);

/// Notices that wait to be told on; more are dropped, so that nobody waits for an API server.
const WAITING: usize = 1024;

impl Notices {
    /// Notices, and where they arrive.
    pub fn channel() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(Some(sender)), receiver)
    }

    /// Tells what `notice` makes, where somebody listens.
    pub fn tell(&self, notice: impl FnOnce() -> Option<Notice>) {
        if let Some(sender) = &self.0
            && let Some(notice) = notice()
            && let Err(error) = sender.try_send(notice)
        {
            tracing::debug!(%error, "dropped a notice");
        }
    }
}
