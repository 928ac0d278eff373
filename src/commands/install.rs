//! `outrigger install`: what an installation is made of, printed or applied.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use outrigger::installation::{self, DEFAULT_REVISION, Names, Options, Part, Tag};
use outrigger::settings::INSTALLATION_NAMESPACE;

use super::output;

/// Print what an installation is made of
///
/// Without options it is what the folder manifests/ holds. No certificate and no caBundle is ever in it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger install | kubectl apply -f -
  outrigger install --registry registry.example/mesh --with hpa,network-policy
  outrigger install --revision canary --config canary.yaml
  outrigger install --tag prod --revision canary

Exit status: 0 printed; 1 an option cannot be used; 2 usage.")]
pub(crate) struct Install {
    #[command(flatten)]
    which: InstallationFlags,
    /// Where the three images come from [default: localhost, from no registry but from images/build]
    #[arg(long, value_name = "HOST/PATH", conflicts_with = "tag")]
    registry: Option<String>,
    /// Replicas of the webhook; with hpa the fewest [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "tag")]
    replicas: Option<u32>,
    /// The settings (InjectorConfig) to put into the ConfigMap, in place of those of the manifests
    #[arg(long, value_name = "FILE", conflicts_with = "tag")]
    config: Option<PathBuf>,
    /// What to install besides
    #[arg(long = "with", value_name = "PART", value_enum, value_delimiter = ',', conflicts_with = "tag")]
    parts: Vec<Part>,
    /// YAML documents, or a List in JSON
    #[arg(short, long, value_enum, default_value = "yaml", help_heading = "Output")]
    output: OutputFlag,
}

/// Which installation.
#[derive(Debug, Args)]
pub(super) struct InstallationFlags {
    /// The revision; what is called outrigger is then called outrigger-NAME
    #[arg(long, value_name = "NAME", default_value = DEFAULT_REVISION)]
    revision: String,
    /// Namespace of the installation
    #[arg(short, long, value_name = "NAME", default_value = INSTALLATION_NAMESPACE)]
    namespace: String,
    /// Only a tag: another name that namespaces ask for (istio.io/rev=NAME), and that points to the revision
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFlag {
    Yaml,
    Json,
}

impl InstallationFlags {
    /// The tag that is named.
    pub(super) fn tag(&self) -> Result<Option<Tag>, String> {
        let Some(tag) = &self.tag else { return Ok(None) };
        let names = Names::new(&self.revision, &self.namespace).map_err(|e| e.to_string())?;
        Tag::new(tag, names).map(Some).map_err(|e| e.to_string())
    }
}

impl Install {
    /// Runs the command.
    ///
    /// # Errors
    /// An option that cannot be used, as a message for people.
    pub(crate) fn run(self) -> Result<(), String> {
        let objects = match self.which.tag()? {
            Some(tag) => tag.objects(),
            None => installation::objects(&self.options()?),
        };
        let objects = objects.map_err(|e| e.to_string())?;
        let text = match self.output {
            OutputFlag::Yaml => installation::yaml(&objects),
            OutputFlag::Json => format!("{:#}\n", installation::json(&objects)),
        };
        output::write(None, text.as_bytes())
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
            parts: self.parts.iter().copied().collect(),
        })
    }
}
