//! What `outrigger serve` prints where nobody gave it a certificate: how to try it.

use std::fs::Permissions;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use outrigger::installation::registration;
use outrigger::settings::Settings;
use outrigger::yaml;
use serde_json::json;
use tempfile::TempDir;

/// A folder with what the printed commands name; gone when this is dropped.
pub(super) struct Trial {
    folder: TempDir,
    url: String,
    configuration: String,
}

impl Trial {
    /// Writes the CA's certificate, a review and the webhook's configuration to a folder of their own.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn new(address: SocketAddr, ca: &str, settings: &Settings) -> Result<Self, String> {
        let url = format!("https://{}/inject", reachable(address));
        let configuration = registration::at_url(&url, ca, &settings.installation_namespace);
        let configuration = yaml::write(&configuration.map_err(|e| e.to_string())?);
        let cannot = |error: std::io::Error| {
            let folder = std::env::temp_dir();
            let folder = folder.display();
            format!(
                "cannot write the files to try it with to {folder}: {error}; set TMPDIR, or give --cert and --key"
            )
        };
        // New, and writable for us alone: nobody else can have put links into it.
        let folder = tempfile::Builder::new()
            .prefix("outrigger-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir();
        let trial = Self { folder: folder.map_err(cannot)?, url, configuration };
        trial.write(ca).map_err(cannot)?;
        Ok(trial)
    }

    fn write(&self, ca: &str) -> std::io::Result<()> {
        std::fs::write(self.file("ca.crt"), ca)?;
        std::fs::write(self.file("review.json"), format!("{:#}\n", review()))?;
        std::fs::write(self.file("webhook.yaml"), &self.configuration)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Prints the commands on stdout; last, where they are seen.
    pub(super) fn print(&self) {
        let [ca, review, webhook] =
            ["ca.crt", "review.json", "webhook.yaml"].map(|name| quoted(&self.file(name)));
        let url = &self.url;
        let indented = self.configuration.lines().fold(String::new(), |text, line| text + "  " + line + "\n");
        // Whoever closed our stdout has no use for it; the log goes on.
        let _ = writeln!(
            std::io::stdout(),
            "\
Outrigger injects at {url}, with a certificate made for this run. This lets an API server on this machine call it:

{indented}
To give it that:

  kubectl apply -f {webhook}

To see a pod injected, without a cluster; `| jq -r .response.patch | base64 -d` behind it shows the patch:

  curl -sS --cacert {ca} -H 'Content-Type: application/json' --data @{review} {url}
"
        );
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn review() -> serde_json::Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default",
            "name": "hello",
            "operation": "CREATE",
            "userInfo": {"username": "you"},
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "hello", "labels": {"app": "hello"}},
                "spec": {"containers": [{"name": "hello", "image": "hello", "ports": [{"containerPort": 8080}]}]}
            }
        }
    })
}
