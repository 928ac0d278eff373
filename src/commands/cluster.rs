//! Which cluster a command asks, and what it reads there.

use std::path::PathBuf;

use clap::Args;
use outrigger::cluster::{Cluster, Running, Which};
use outrigger::installation;
use outrigger::settings::{INSTALLATION_NAMESPACE, Settings};

/// The ConfigMap of the installation's settings.
const CONFIG_MAP: &str = "outrigger";

/// Flags of kubectl's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterFlags {
    /// The kubeconfig [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// A running pod as a command sees it.
pub(crate) struct Found {
    pub(crate) running: Running,
    /// The cluster, as reports name it.
    pub(crate) place: String,
    /// The settings of the installation; `None` where there is none, or nobody may see them.
    pub(crate) settings: Option<Settings>,
}

impl Found {
    /// What to say where the installation's settings are not known.
    pub(crate) fn no_settings(&self) -> String {
        format!(
            "the ConfigMap {INSTALLATION_NAMESPACE}/{CONFIG_MAP} cannot be read in {}, so that default settings are taken; \
             give --config for others",
            self.place
        )
    }
}

impl ClusterFlags {
    /// Asks the cluster.
    pub(crate) fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Cluster) -> Result<T, outrigger::cluster::Error>,
    ) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("cannot start: {e}"))?;
        let which = Which { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        let answer = runtime.block_on(async { question(&Cluster::find(&which).await?).await });
        answer.map_err(said)
    }

    /// Reads a pod, `NAME` or `pod/NAME`, in a namespace or in the context's.
    pub(crate) fn read(&self, pod: &str, namespace: Option<&str>) -> Result<Found, String> {
        let name = ["pod/", "pods/", "po/"].iter().find_map(|kind| pod.strip_prefix(kind)).unwrap_or(pod);
        if name.contains('/') {
            return Err(format!("{pod:?} is no pod; give its name, or pod/NAME, and its namespace by -n"));
        }
        let (running, settings, place) = self.ask(async |cluster| {
            let running = Running::read(cluster, namespace.unwrap_or(&cluster.namespace), name).await?;
            Ok((running, settings(cluster).await, cluster.to_string()))
        })?;
        Ok(Found { running, settings: settings?, place })
    }
}

/// An error, with what whoever typed the command may do.
fn said(error: outrigger::cluster::Error) -> String {
    match error {
        outrigger::cluster::Error::Silent { .. } => {
            format!("{error}; see that this cluster runs, or name another with --kubeconfig or --context")
        }
        error => error.to_string(),
    }
}

async fn settings(cluster: &Cluster) -> Result<Option<Settings>, String> {
    let path = format!("/api/v1/namespaces/{INSTALLATION_NAMESPACE}/configmaps/{CONFIG_MAP}");
    // Who may not see the settings of the mesh may still ask about a pod.
    let Ok(found) = cluster.get(&path).await else { return Ok(None) };
    installation::settings(&found).map(Some)
}
