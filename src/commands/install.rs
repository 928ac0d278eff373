//! `outrigger install`: what an installation is made of, printed or applied.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use outrigger::cluster::Cluster;
use outrigger::diagnosis;
use outrigger::installation::{self, DEFAULT_REVISION, Names, Object, Options, Part, Repair, Tag};
use outrigger::settings::{INSTALLATION_NAMESPACE, KubernetesVersion};

use super::apply::Apply;
use super::arguments;
use super::cluster::ClusterFlags;
use super::output;
use super::report::DIM;

/// Print what an installation is made of, or apply it
///
/// Without options it is what the folder manifests/ holds. No certificate and no caBundle is ever in it, and applying it
/// again leaves them as they are.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger install | kubectl apply -f -
  outrigger install --apply
  outrigger install --registry registry.example/mesh --with hpa,network-policy --apply
  outrigger install --revision canary --config canary.yaml --dry-run=server
  outrigger install --tag prod --revision canary --apply

Exit status: 0 done; 1 options do not go together, something could not be applied, or no pod comes back injected; 2 usage.")]
pub(crate) struct Install {
    #[command(flatten)]
    which: InstallationFlags,
    /// Where the three images come from [default: localhost, from no registry but from images/build]
    #[arg(long, value_name = "HOST/PATH", value_parser = arguments::registry, conflicts_with = "tag")]
    registry: Option<String>,
    /// Replicas of the webhook; with hpa the fewest [default: 3]
    #[arg(long, value_name = "N", value_parser = arguments::replicas, conflicts_with = "tag")]
    replicas: Option<u32>,
    /// The settings (InjectorConfig) to put into the ConfigMap, in place of those of the manifests
    #[arg(long, value_name = "FILE", conflicts_with = "tag")]
    config: Option<PathBuf>,
    /// Have the certificate signed by the signer NAME of the cluster, in place of a CA of Outrigger's own
    #[arg(long, value_name = "NAME", value_parser = arguments::signer, conflicts_with = "tag")]
    certificate_signer: Option<String>,
    /// Send spans of admission requests to the collector at URL, by OTLP over HTTP
    #[arg(long, value_name = "URL", value_parser = arguments::collector, conflicts_with = "tag")]
    trace_collector: Option<String>,
    /// Install the CNI plugin that captures from the node, so that pods need no NET_ADMIN; for all revisions
    #[arg(long, conflicts_with = "tag")]
    cni: bool,
    /// Install a controller for pods that came in without a sidecar, or have an old one
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "tag")]
    repair: Option<Repair>,
    /// What to install besides
    #[arg(long = "with", value_name = "PART", value_enum, value_delimiter = ',', conflicts_with = "tag")]
    parts: Vec<Part>,
    /// YAML documents, or a List in JSON
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "yaml", help_heading = "Output")]
    output: Format,
    /// Apply it (server-side, as field manager outrigger), and wait until a pod comes back injected
    #[arg(long, help_heading = "Cluster")]
    apply: bool,
    /// Say what --apply would do, as the API server sees it, and store nothing
    #[arg(long, value_enum, value_name = "server", conflicts_with = "apply", help_heading = "Cluster")]
    dry_run: Option<DryRun>,
    /// Seconds to wait
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = arguments::number::<u32>(0..=arguments::YEAR), help_heading = "Cluster")]
    timeout: u32,
    #[command(flatten)]
    cluster: ClusterFlags,
}

/// kubectl has `client`, too; here that is what is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum DryRun {
    Server,
}

/// Which installation.
#[derive(Debug, Args)]
pub(super) struct InstallationFlags {
    /// The revision; what is called outrigger is then called outrigger-NAME
    #[arg(long, value_name = "NAME", default_value = DEFAULT_REVISION, value_parser = arguments::revision)]
    revision: String,
    /// Namespace of the installation
    #[arg(short, long, value_name = "NAME", default_value = INSTALLATION_NAMESPACE, value_parser = arguments::namespace)]
    namespace: String,
    /// Only a tag: another name that namespaces ask for (istio.io/rev=NAME), and that points to the revision
    #[arg(long, value_name = "NAME", value_parser = arguments::tag)]
    tag: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

impl InstallationFlags {
    /// What the installation is called.
    pub(super) fn names(&self) -> Result<Names, String> {
        Names::new(&self.revision, &self.namespace).map_err(|e| e.to_string())
    }

    /// The tag that is named.
    pub(super) fn tag(&self) -> Result<Option<Tag>, String> {
        let Some(tag) = &self.tag else { return Ok(None) };
        Tag::new(tag, self.names()?).map(Some).map_err(|e| e.to_string())
    }
}

impl Install {
    /// Runs the command.
    ///
    /// # Errors
    /// An option that cannot be used, as a message for people.
    pub(crate) fn run(self) -> Result<(), String> {
        let names = self.which.names()?;
        let (tag, options) = (self.which.tag()?, self.options()?);
        if !self.apply && self.dry_run.is_none() {
            let objects = made(tag.as_ref(), &options)?;
            let text = match self.output {
                Format::Yaml => installation::yaml(&objects),
                Format::Json => format!("{:#}\n", installation::json(&objects)),
            };
            return output::write(None, text.as_bytes());
        }
        self.cluster.ask(async |cluster| {
            let oldest_kubelet = if tag.is_none() { oldest_kubelet(cluster).await } else { None };
            let objects = match made(tag.as_ref(), &Options { oldest_kubelet, ..options }) {
                Ok(objects) => objects,
                Err(error) => return Ok(Err(error)),
            };
            let apply = Apply {
                cluster,
                names: &names,
                asked: self.which.tag.as_ref().unwrap_or(&names.revision),
                objects: &objects,
                timeout: Duration::from_secs(self.timeout.into()),
            };
            Ok(if self.apply { apply.run().await } else { apply.dry_run().await })
        })?
    }

    fn options(&self) -> Result<Options, String> {
        let settings = self.config.as_ref().map(|file| {
            std::fs::read_to_string(file)
                .map_err(|e| format!("--config: cannot read {}: {e}", file.display()))
        });
        Ok(Options {
            revision: self.which.revision.clone(),
            namespace: self.which.namespace.clone(),
            registry: self.registry.clone(),
            replicas: self.replicas,
            settings: settings.transpose()?,
            oldest_kubelet: None,
            certificate_signer: self.certificate_signer.clone(),
            trace_collector: self.trace_collector.clone(),
            cni: self.cni,
            repair: self.repair,
            parts: self.parts.iter().copied().collect(),
        })
    }
}

fn made(tag: Option<&Tag>, options: &Options) -> Result<Vec<Object>, String> {
    tag.map_or_else(|| installation::objects(options), Tag::objects).map_err(|e| e.to_string())
}

/// The oldest kubelet, which says whether sidecars can be native ones; where it is not known, why.
async fn oldest_kubelet(cluster: &Cluster) -> Option<KubernetesVersion> {
    let why = match cluster.list("/api/v1/nodes").await {
        Ok(nodes) => match diagnosis::oldest_kubelet(&nodes) {
            Some(oldest) => return Some(oldest),
            None => "no node says the version of its kubelet".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    anstream::eprintln!(
        "{DIM}not known{DIM:#}   the oldest kubelet: {why}; the settings' kubernetesVersion decides whether sidecars are native \
         ones"
    );
    None
}
