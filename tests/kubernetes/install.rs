//! The webhook in the cluster: as the manifests install it, and once more for each policy that is tested.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Namespace, dry_run, kubectl, outrigger, repository, try_kubectl, until};
use crate::pods;

/// The manifests, installed once for all tests the way a person does it: `kubectl apply`.
pub(crate) fn installed() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let again =
            try_kubectl(&["get", "deployment", "outrigger", "--namespace=outrigger-system"], "").is_ok();
        kubectl(&["apply", "--filename", &repository("manifests")]);
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
pub(crate) struct Installation {
    /// What its objects are called.
    pub name: String,
    pub revision: String,
    pub namespace: Namespace,
}

impl Installation {
    /// Installs with another policy.
    pub(crate) fn with_policy(policy: &str) -> Installation {
        Installation::new(&format!("policy-{policy}"), 1, json!({"policy": policy}))
    }

    /// Installs a revision with so many replicas and these settings.
    pub(crate) fn new(revision: &str, replicas: u32, settings: Value) -> Installation {
        let namespace = Namespace::create(revision, json!({}));
        let installation = Installation::applied(namespace, revision, replicas, settings, &[]);
        installation.works();
        installation
    }

    /// Applies the objects of a revision, with these options of `outrigger install`; nothing is waited for.
    pub(crate) fn applied(
        namespace: Namespace,
        revision: &str,
        replicas: u32,
        mut settings: Value,
        options: &[&str],
    ) -> Installation {
        settings["revision"] = json!(revision);
        settings["installationNamespace"] = json!(namespace.name);
        settings["values"]["images"] =
            json!({"init": "localhost/outrigger-init:0.1.0", "proxy": "localhost/outrigger-proxy:0.1.0"});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, settings.to_string()).unwrap();
        let which = ["--revision", revision, "--namespace", &namespace.name];
        let how = ["--replicas", &replicas.to_string(), "--config", file.path().to_str().unwrap()];
        let objects = outrigger(&[&["install"], &which[..], &how, options].concat()).stdout;
        try_kubectl(&["apply", "--filename=-"], &objects).expect("applied");
        Installation { name: format!("outrigger-{revision}"), revision: revision.to_owned(), namespace }
    }

    /// Waits until it injects.
    pub(crate) fn works(&self) {
        rolled_out(&self.namespace.name, &self.name);
        answers(&self.pods());
    }

    /// A namespace whose pods this installation's webhook sees.
    pub(crate) fn pods(&self) -> Namespace {
        Namespace::create("pods", json!({"istio.io/rev": self.revision}))
    }

    /// One of its objects as it is stored.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value, String> {
        self.namespace.try_kubectl(&["get", kind, name, "--output=json"], "").map(|output| output.json())
    }

    /// The names of its pods.
    pub(crate) fn replicas(&self) -> Vec<String> {
        let pods = self.namespace.pods(&format!("app.kubernetes.io/name={}", self.name));
        pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // The rest goes with its namespace.
        let label = format!("--selector=app.kubernetes.io/name={}", self.name);
        for kind in ["mutatingwebhookconfiguration", "clusterrolebinding", "clusterrole"] {
            let _ = try_kubectl(&["delete", kind, &label], "");
        }
    }
}

/// The caBundle of each webhook of a registration.
pub(crate) fn bundles(registration: &str) -> Vec<String> {
    let registration =
        kubectl(&["get", "mutatingwebhookconfiguration", registration, "--output=json"]).json();
    let webhooks = registration["webhooks"].as_array().unwrap().iter();
    webhooks.map(|w| w["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()).collect()
}

pub(crate) fn rolled_out(namespace: &str, name: &str) {
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
pub(crate) fn answers(namespace: &Namespace) {
    let mut pod = pods::stored("asked");
    pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "true"});
    until("an answer of the webhook", || {
        let output = dry_run(&namespace.name, &pod)?;
        let answered = pods::injected(&output.json()) || output.stderr.contains("Warning: outrigger:");
        if answered { Ok(()) } else { Err("the pod came back unseen".to_owned()) }
    });
}
