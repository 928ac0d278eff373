//! `outrigger uninstall`: takes an installation away, and leaves the pods that it injected as they are.

use std::time::Duration;

use clap::Args;
use outrigger::cluster::Cluster;
use outrigger::installation::{self, Names, Object, Sidecars, tags_of};

use super::cluster::ClusterFlags;
use super::install::InstallationFlags;
use super::output;
use super::report::{DIM, GOOD};

/// Take an installation, or a tag, away: print what is to be deleted, in order, or delete it
///
/// The registration goes first, so that no pod is refused. Pods that are injected go on. The namespace is left, for what
/// else is in it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger uninstall | kubectl delete --ignore-not-found -f -
  outrigger uninstall --apply
  outrigger uninstall --revision canary --apply
  outrigger uninstall --tag prod --apply

Exit status: 0 done; 1 something could not be deleted; 2 usage.")]
pub(crate) struct Uninstall {
    #[command(flatten)]
    which: InstallationFlags,
    /// Delete it, and say how many pods have its sidecar
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    cluster: ClusterFlags,
}

/// How long API servers are given to see that the registration is gone, before anything else goes.
const SETTLE: Duration = Duration::from_secs(2);

impl Uninstall {
    /// Runs the command.
    ///
    /// # Errors
    /// What could not be deleted, as a message for people.
    pub(crate) fn run(self) -> Result<(), String> {
        let names = self.which.names()?;
        let tag = self.which.tag()?;
        let objects = match &tag {
            Some(tag) => tag.removal(),
            None => installation::removal(&names),
        };
        let objects = objects.map_err(|e| e.to_string())?;
        if !self.apply {
            let (foreign, own): (Vec<_>, Vec<_>) = objects.into_iter().partition(Object::is_foreign);
            if !foreign.is_empty() {
                let titles: Vec<_> = foreign.iter().map(Object::title).collect();
                anstream::eprintln!(
                    "not printed, for kubectl knows their kinds only where the Prometheus operator or cert-manager is: {}",
                    titles.join(", ")
                );
            }
            return output::write(None, installation::yaml(&own).as_bytes());
        }
        self.cluster.ask(async |cluster| {
            Ok(match tag {
                Some(_) => delete(cluster, &objects).await,
                None => take_away(cluster, &names, &objects).await,
            })
        })?
    }
}

async fn take_away(cluster: &Cluster, names: &Names, objects: &[Object]) -> Result<(), String> {
    refuse_tagged(cluster, names).await?;
    delete(cluster, objects).await?;
    // Other installations may leave capture to it, and it is no part of one.
    if cluster.get("/apis/apps/v1/namespaces/outrigger-cni/daemonsets/outrigger-cni").await.is_ok() {
        anstream::eprintln!(
            "{DIM}left{DIM:#}        DaemonSet outrigger-cni/outrigger-cni, which captures for all revisions (kubectl delete \
             namespace outrigger-cni)"
        );
    }
    let mut sidecars = Sidecars::default();
    let counted = cluster.metadata("/api/v1/pods", |pods| sidecars.count(pods, &names.revision)).await;
    counted.map_err(|e| e.to_string())?;
    anstream::eprintln!("{}", sidecars.farewell(&names.revision));
    Ok(())
}

/// Without the installation, pods that ask for a tag of it would be refused.
async fn refuse_tagged(cluster: &Cluster, names: &Names) -> Result<(), String> {
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let list = cluster.get(path).await.map_err(|e| e.to_string())?;
    match tags_of(list["items"].as_array().map_or(&[], Vec::as_slice), names).as_slice() {
        [] => Ok(()),
        tags => Err(format!(
            "tags point to revision {}: {}; move them (outrigger install --tag NAME --revision ANOTHER --apply) or take \
             them away (outrigger uninstall --tag NAME --apply) first",
            names.revision,
            tags.join(", ")
        )),
    }
}

async fn delete(cluster: &Cluster, objects: &[Object]) -> Result<(), String> {
    let mut failures = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        match cluster.remove(&object.value).await {
            Ok(true) => {
                anstream::eprintln!("{GOOD}deleted{GOOD:#}     {}", object.title());
                if i == 0 {
                    tokio::time::sleep(SETTLE).await;
                }
            }
            Ok(false) => {}
            // While the registration is there, nothing else may go.
            Err(error) if i == 0 => return Err(format!("{}: {error}; nothing is deleted", object.title())),
            Err(error) => failures.push(format!("{}: {error}", object.title())),
        }
    }
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    let mut namespaces = objects.iter().filter_map(|object| object.value["metadata"]["namespace"].as_str());
    if let Some(namespace) = namespaces.next() {
        anstream::eprintln!(
            "{DIM}left{DIM:#}        Namespace {namespace} (kubectl delete namespace {namespace})"
        );
    }
    Ok(())
}
