//! Which cluster a command asks, and what it reads there.

use std::path::PathBuf;

use clap::Args;
use outrigger::cluster::{Cluster, Running, Which};
use outrigger::installation::{self, DEFAULT_REVISION, Names, Tag};
use outrigger::settings::{INSTALLATION_NAMESPACE, Settings};

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
    /// The installation that answers for the pod; `None` where there is none, or nobody may see its settings.
    pub(crate) installed: Option<Installed>,
}

/// An installation, as far as a pod is concerned.
pub(crate) struct Installed {
    pub(crate) settings: Settings,
    /// What keeps them, as messages name it.
    pub(crate) place: String,
    /// The tag by which it was asked for.
    pub(crate) tag: Option<String>,
}

impl Found {
    /// What to say where the installation's settings are not known.
    pub(crate) fn no_settings(&self) -> String {
        format!(
            "the ConfigMap {INSTALLATION_NAMESPACE}/outrigger cannot be read in {}, so that default settings are taken; give \
             --config for others",
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

    /// Reads a pod, `NAME` or `pod/NAME`, in a namespace or in the context's; and the settings of a revision, or of the one
    /// that the pod is to be injected by.
    pub(crate) fn read(
        &self,
        pod: &str,
        namespace: Option<&str>,
        revision: Option<&str>,
    ) -> Result<Found, String> {
        let name = ["pod/", "pods/", "po/"].iter().find_map(|kind| pod.strip_prefix(kind)).unwrap_or(pod);
        if name.contains('/') {
            return Err(format!("{pod:?} is no pod; give its name, or pod/NAME, and its namespace by -n"));
        }
        let (running, installed, place) = self.ask(async |cluster| {
            let running = Running::read(cluster, namespace.unwrap_or(&cluster.namespace), name).await?;
            let asked = revision.or(running.asks_for()).unwrap_or(DEFAULT_REVISION);
            let installed = installed(cluster, asked).await;
            Ok((running, installed, cluster.to_string()))
        })?;
        Ok(Found { running, installed: installed?, place })
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

/// The installation of a revision or a tag. Where there is none of that name, the default one tells why not.
async fn installed(cluster: &Cluster, asked: &str) -> Result<Option<Installed>, String> {
    let named = |revision| Names::new(revision, INSTALLATION_NAMESPACE);
    // What is no name for an installation is the revision of another injector.
    if let Ok(names) = named(asked)
        && let Some(found) = installation_of(cluster, &names.namespace, &names.name, None).await?
    {
        return Ok(Some(found));
    }
    let default = named(DEFAULT_REVISION).map_err(|e| e.to_string())?;
    match pointed_to(cluster, asked, &default).await {
        Some((namespace, name)) => installation_of(cluster, &namespace, &name, Some(asked)).await,
        None => installation_of(cluster, &default.namespace, &default.name, None).await,
    }
}

/// Namespace and name of the installation that a tag points to.
async fn pointed_to(cluster: &Cluster, tag: &str, any: &Names) -> Option<(String, String)> {
    let tag = Tag::new(tag, any.clone()).ok()?.name();
    let group = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let registration = cluster.get(&format!("{group}/{tag}")).await.ok()?;
    let service = &registration["webhooks"][0]["clientConfig"]["service"];
    Some((service["namespace"].as_str()?.to_owned(), service["name"].as_str()?.to_owned()))
}

/// An installation by its name, asked for by `tag` if by any. Who may not see its settings may still ask about a pod.
async fn installation_of(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    tag: Option<&str>,
) -> Result<Option<Installed>, String> {
    let Ok(map) = cluster.get(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await else {
        return Ok(None);
    };
    let (settings, place) = (installation::settings(&map)?, installation::settings_place(&map));
    Ok(Some(Installed { settings, place, tag: tag.map(str::to_owned) }))
}
