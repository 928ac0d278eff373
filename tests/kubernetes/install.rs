//! The webhook in the cluster: as the manifests install it, and once more for each policy that is tested.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::cluster::{DEADLINE, Namespace, kubectl, kubectl_path, outrigger, try_kubectl, until};
use crate::pods;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The manifests, installed once for all tests the way a person does it: `kubectl apply`, then `certs/self-signed`.
pub fn installed() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let again =
            try_kubectl(&["get", "deployment", "outrigger", "--namespace=outrigger-system"], "").is_ok();
        kubectl(&["apply", "--filename", repository().join("manifests").to_str().unwrap()]);
        certificate("outrigger-system", "outrigger");
        if again {
            // A cluster that was kept: the image has the same name and another content.
            kubectl(&["rollout", "restart", "deployment/outrigger", "--namespace=outrigger-system"]);
        }
        rolled_out("outrigger-system", "outrigger");
        answers(&Namespace::injected("ready"));
    });
}

/// One more installation, of a revision of its own.
#[derive(Debug)]
pub struct Installation {
    revision: String,
    _namespace: Namespace,
}

impl Installation {
    /// Installs with another policy.
    pub fn with_policy(policy: &str) -> Installation {
        let revision = format!("policy-{policy}");
        let namespace = Namespace::create(&revision, json!({}));
        let settings = tempfile::NamedTempFile::new().unwrap();
        let images =
            json!({"init": "localhost/outrigger-init:0.1.0", "proxy": "localhost/outrigger-proxy:0.1.0"});
        let document = json!({
            "policy": policy, "revision": revision, "installationNamespace": namespace.name, "values": {"images": images}
        });
        std::fs::write(&settings, document.to_string()).unwrap();
        let which = ["--revision", &revision, "--namespace", &namespace.name];
        let how = ["--replicas", "1", "--config", settings.path().to_str().unwrap()];
        let objects = outrigger(&[&["install"], &which[..], &how].concat()).stdout;
        try_kubectl(&["apply", "--filename=-"], &objects).expect("applied");
        let name = format!("outrigger-{revision}");
        certificate(&namespace.name, &name);
        rolled_out(&namespace.name, &name);
        let installation = Installation { revision, _namespace: namespace };
        answers(&installation.namespace());
        installation
    }

    /// A namespace whose pods this installation's webhook sees.
    pub fn namespace(&self) -> Namespace {
        Namespace::create("pods", json!({"istio.io/rev": self.revision}))
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // The rest goes with its namespace.
        for kind in ["mutatingwebhookconfiguration", "clusterrolebinding", "clusterrole"] {
            let _ = try_kubectl(&["delete", kind, &format!("outrigger-{}", self.revision)], "");
        }
    }
}

fn certificate(namespace: &str, name: &str) {
    let output = Command::new(repository().join("certs/self-signed"))
        .args([namespace, name])
        .env("KUBECTL", kubectl_path())
        .output()
        .expect("certs/self-signed starts");
    assert!(output.status.success(), "certs/self-signed: {}", String::from_utf8_lossy(&output.stderr));
}

fn rolled_out(namespace: &str, name: &str) {
    let (namespace, timeout) =
        (format!("--namespace={namespace}"), format!("--timeout={}s", DEADLINE.as_secs()));
    let deployment = format!("deployment/{name}");
    if let Err(error) = try_kubectl(&["rollout", "status", &deployment, &namespace, &timeout], "") {
        let pods = kubectl(&["describe", "pods", &namespace]).stdout;
        let logs = try_kubectl(&["logs", &deployment, &namespace], "");
        panic!("the webhook does not start: {error}\n{pods}\n{logs:?}");
    }
}

/// Waits until the API server sends the namespace's pods to the webhook: it learns of a registration a moment after it
/// was written. A webhook that was asked shows in what it did or in what it said.
fn answers(namespace: &Namespace) {
    let mut pod = pods::stored("asked");
    pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "true"});
    until("an answer of the webhook", || {
        let create = ["create", "--filename=-", "--dry-run=server", "--output=json"];
        let output = namespace.try_kubectl(&create, &pod.to_string())?;
        let answered = pods::injected(&output.json()) || output.stderr.contains("Warning: outrigger:");
        if answered { Ok(()) } else { Err("the pod came back unseen".to_owned()) }
    });
}
