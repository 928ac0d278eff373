//! `outrigger certs rotate`: the next certificate of an installation.

use clap::Args;
use outrigger::cluster::{Change, ROTATE_ANNOTATION};
use outrigger::installation::{DEFAULT_REVISION, Names, certificate_secret};
use outrigger::settings::INSTALLATION_NAMESPACE;
use serde_json::json;

use super::arguments;
use super::cluster::ClusterFlags;

/// By which cert-manager says of a Secret what Certificate it is for.
const CERTIFICATE_ANNOTATION: &str = "cert-manager.io/certificate-name";

/// Ask an installation that keeps its own certificate for the next one
///
/// The replica that leads makes it, has its CA trusted, and then lets all replicas serve it; the old CA goes when none
/// serves the old certificate any more. No pod is refused meanwhile. It takes some 15 seconds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger certs rotate
  outrigger certs rotate --revision canary
  outrigger check

Exit status: 0 asked; 1 there is no such installation, or it may not be asked; 2 usage.")]
pub(crate) struct Rotate {
    /// The installation's revision
    #[arg(long, value_name = "NAME", default_value = DEFAULT_REVISION, value_parser = arguments::revision)]
    revision: String,
    /// Namespace of the installation
    #[arg(short, long, value_name = "NAME", default_value = INSTALLATION_NAMESPACE, value_parser = arguments::namespace)]
    namespace: String,
    #[command(flatten)]
    cluster: ClusterFlags,
}

impl Rotate {
    /// Asks.
    ///
    /// # Errors
    /// No cluster, no such Secret, no permission to write it, or a Secret of cert-manager's.
    pub(crate) fn run(&self) -> Result<(), String> {
        let names = Names::new(&self.revision, &self.namespace).map_err(|e| e.to_string())?;
        let secret = certificate_secret(&names.name);
        let managed = self.cluster.ask(async |cluster| {
            let path = format!("/api/v1/namespaces/{}/secrets/{secret}", self.namespace);
            let found = cluster.get(&path).await?;
            if let Some(certificate) = found["metadata"]["annotations"][CERTIFICATE_ANNOTATION].as_str() {
                return Ok(Some(certificate.to_owned()));
            }
            let change = json!({"metadata": {"annotations": {ROTATE_ANNOTATION: "requested"}}});
            cluster.patch(&path, &Change::Merge(&change)).await.map(|_| None)
        })?;
        if let Some(certificate) = managed {
            return Err(format!(
                "Secret {0}/{secret} is cert-manager's; ask it for the next certificate: cmctl renew {certificate} --namespace {0}",
                self.namespace
            ));
        }
        eprintln!("asked for the next certificate in Secret {}/{secret}", self.namespace);
        Ok(())
    }
}
