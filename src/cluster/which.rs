//! Which cluster is asked, found as kubectl finds it; and, where none is found, what of the kubeconfig is to be mended.

use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;

use kube::client::AuthError;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError, LoadDataError};
use kube::{Client, Config};

use super::cause;

/// Which cluster, in kubectl's words.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// The kubeconfig; `None` for the one that kubectl would take.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; `None` for the current one.
    pub context: Option<String>,
}

impl Which {
    /// What is configured of the cluster, or what to do where nothing is.
    pub(super) async fn config(&self) -> Result<Config, String> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match (&self.kubeconfig, &self.context) {
            (Some(file), _) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|e| remedy(&e))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| remedy(&e))
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|e| remedy(&e)),
            (None, None) => Config::infer().await.map_err(|e| nothing_found(&e)),
        }
    }
}

/// The client of a configured cluster.
pub(super) fn client(config: Config) -> Result<Client, String> {
    let helper = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone()).unwrap_or_default();
    Client::try_from(config).map_err(|error| match &error {
        kube::Error::InferKubeconfig(e) => remedy(e),
        kube::Error::Auth(AuthError::AuthExecStart(e)) => {
            format!(
                "cannot start {helper}, which the kubeconfig's user gets credentials from: {e}; install it"
            )
        }
        kube::Error::Auth(AuthError::ReadTokenFile(e, path)) => {
            format!("cannot read {}, the tokenFile of the kubeconfig's user: {e}", path.display())
        }
        other => format!("the kubeconfig's user cannot be used: {}", cause(other)),
    })
}

/// Neither a kubeconfig nor a pod. The kubeconfig is what people mend.
fn nothing_found(error: &dyn Error) -> String {
    match error.source().and_then(|cause| cause.downcast_ref::<KubeconfigError>()) {
        Some(KubeconfigError::ReadConfig(e, path)) if e.kind() == ErrorKind::NotFound => format!(
            "there is no kubeconfig {}, and this is no pod; name one with --kubeconfig, or by the variable KUBECONFIG",
            path.display()
        ),
        Some(error) => remedy(error),
        None => cause(error),
    }
}

/// What of a kubeconfig cannot be used, and what to do.
fn remedy(error: &KubeconfigError) -> String {
    let of_cluster = "of the context's cluster in the kubeconfig";
    match error {
        KubeconfigError::ReadConfig(e, path) => {
            format!("cannot read the kubeconfig {}: {e}; name another with --kubeconfig", path.display())
        }
        KubeconfigError::Parse(e) => {
            let said = e.to_string();
            let first = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
            format!(
                "the kubeconfig is not as kubectl writes it: {first}; mend it, or name another with --kubeconfig"
            )
        }
        KubeconfigError::CurrentContextNotSet => {
            "the kubeconfig has no current context; name one with --context, or \
            choose one by kubectl config use-context NAME"
                .to_owned()
        }
        KubeconfigError::LoadContext(name) => format!(
            "the kubeconfig has no context {name:?}; kubectl config get-contexts lists those that it has"
        ),
        KubeconfigError::LoadClusterOfContext(name) => format!(
            "the kubeconfig has no cluster {name:?}, which the context names; name another context with --context"
        ),
        KubeconfigError::MissingClusterUrl => {
            format!("server {of_cluster} is missing; write it as https://HOST:PORT")
        }
        KubeconfigError::ParseClusterUrl(_) => {
            format!("server {of_cluster} is no URL; write it as https://HOST:PORT")
        }
        KubeconfigError::ParseProxyUrl(_) => {
            format!("proxy-url {of_cluster} is no URL; write it as http://HOST:PORT")
        }
        KubeconfigError::LoadCertificateAuthority(e) => {
            format!("certificate-authority {of_cluster}: {}", unloaded(e))
        }
        KubeconfigError::LoadClientCertificate(e) => {
            format!("client-certificate of the kubeconfig's user: {}", unloaded(e))
        }
        KubeconfigError::LoadClientKey(e) => format!("client-key of the kubeconfig's user: {}", unloaded(e)),
        other => format!("the kubeconfig cannot be used: {}", cause(other)),
    }
}

fn unloaded(error: &LoadDataError) -> String {
    match error {
        LoadDataError::ReadFile(e, path) => format!("cannot read {}: {e}", path.display()),
        LoadDataError::DecodeBase64(_) => "its -data is no base64".to_owned(),
        LoadDataError::NoBase64DataOrFile => "is missing".to_owned(),
    }
}
