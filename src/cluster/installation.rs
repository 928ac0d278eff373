//! What `serve` does beside serving when it is part of an installation: it follows the cluster's namespaces, keeps the
//! certificate, and tells in Events what it did.

use std::sync::Arc;

use kube::core::{ApiResource, DynamicResourceScope, GroupVersionKind};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{Cluster, Error, Signer, Which, events, keeper, lease, namespaces, serving};
use crate::certificates::Served;
use crate::installation::{PART_OF_LABEL, certificate_secret};
use crate::notice::{Notice, Reference};
use crate::telemetry::Metrics;
use crate::webhook::Namespaces;

/// The installation that this program is a replica of. All its objects have its name, but for the Secret of the
/// certificate, named as the certificate is: `NAME-certificate`.
#[derive(Clone)]
pub struct Installation {
    /// The cluster, with the namespace of the installation.
    pub cluster: Cluster,
    /// `outrigger`, or `outrigger-<revision>`.
    pub name: String,
    /// This replica: the name of its pod.
    pub identity: String,
}

impl Installation {
    /// The installation `name` in the namespace of the pod that we run in.
    ///
    /// # Errors
    /// [`Error::Unknown`] where we run in no cluster.
    pub async fn here(name: &str) -> Result<Self, Error> {
        let cluster = Cluster::find(&Which::default()).await?;
        let identity = std::env::var("HOSTNAME").unwrap_or_default();
        if identity.is_empty() {
            let message = "HOSTNAME, which a kubelet sets to the pod's name, is not set";
            return Err(Error::Unknown(message.to_owned()));
        }
        Ok(Self { cluster, name: name.to_owned(), identity })
    }

    /// The Secret of the certificate: `outrigger-certificate`.
    pub(crate) fn secret(&self) -> String {
        certificate_secret(&self.name)
    }

    /// The names by which API servers call us: of our Service.
    pub(crate) fn names(&self) -> Vec<String> {
        vec![format!("{}.{}.svc", self.name, self.cluster.namespace)]
    }

    /// Labels of what we create.
    pub(super) fn labels(&self) -> Value {
        let (key, part_of) = PART_OF_LABEL;
        json!({"app.kubernetes.io/name": self.name, (key): part_of})
    }

    /// Objects of a kind, those of our namespace where they have one.
    pub(super) fn api<K>(&self, group: &str, kind: &str, namespaced: bool) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let client: Client = self.cluster.client.clone();
        if namespaced {
            Api::namespaced_with(client, &self.cluster.namespace, &resource)
        } else {
            Api::all_with(client, &resource)
        }
    }

    /// The ConfigMap of the settings, for notices.
    pub fn settings(&self) -> Reference {
        Reference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: self.cluster.namespace.clone(),
            name: self.name.clone(),
            uid: String::new(),
        }
    }

    /// Keeps `known` up to date from now on.
    pub fn follow_namespaces(&self, known: &Arc<Namespaces>, metrics: &Arc<Metrics>) {
        let (this, known, metrics) = (self.clone(), known.clone(), metrics.clone());
        tokio::spawn(async move { namespaces::follow(&this, &known, &metrics).await });
    }

    /// Makes Events of what arrives from now on.
    pub fn write_events(&self, notices: mpsc::Receiver<Notice>, metrics: &Arc<Metrics>) {
        let (this, metrics) = (self.clone(), metrics.clone());
        tokio::spawn(async move { events::write(&this, notices, &metrics).await });
    }

    /// Keeps the certificate in the Secret, by whichever replica leads, and serves what is there: the configuration is
    /// `None` until there is one. `signer`: who signs it, in place of a CA made for it. Runs until `stop` changes.
    pub fn keep_certificate(
        &self,
        signer: Option<Signer>,
        metrics: &Arc<Metrics>,
        stop: watch::Receiver<bool>,
    ) -> watch::Receiver<Served> {
        let (publisher, served) = watch::channel(None);
        let (leads, leading) = watch::channel(false);
        let (this, counted) = (self.clone(), metrics.clone());
        tokio::spawn(async move { serving::follow(&this, publisher, &counted).await });
        let (this, counted) = (self.clone(), metrics.clone());
        tokio::spawn(async move { lease::lead(&this, leads, &counted).await });
        let (this, counted) = (self.clone(), metrics.clone());
        tokio::spawn(async move { keeper::keep(&this, signer.as_ref(), leading, stop, &counted).await });
        served
    }
}
