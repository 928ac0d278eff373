//! The webhook in the cluster: as the manifests install it, and once more for each policy that is tested.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Namespace, kubectl, kubectl_path, try_kubectl, until};
use crate::pods;

/// Namespaces with this label belong to the installation that it names, and not to the one of the manifests.
const INSTALLATION_LABEL: &str = "outrigger.dev/test-installation";

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
        let name = "mutatingwebhookconfiguration/outrigger";
        let others = json!({"key": INSTALLATION_LABEL, "operator": "DoesNotExist"});
        let path = "/webhooks/0/namespaceSelector/matchExpressions/-";
        let patch = json!([{"op": "add", "path": path, "value": others}]).to_string();
        kubectl(&["patch", name, "--type=json", "--patch", &patch]);
        certificate("outrigger-system", "outrigger");
        if again {
            // A cluster that was kept: the image has the same name and another content.
            kubectl(&["rollout", "restart", "deployment/outrigger", "--namespace=outrigger-system"]);
        }
        rolled_out("outrigger-system");
        answers(&Namespace::injected("ready"));
    });
}

/// One more webhook, in a namespace of its own, with another policy. Its registration goes with it.
#[derive(Debug)]
pub struct Installation {
    name: String,
    _namespace: Namespace,
}

impl Installation {
    /// Installs the manifests under another name, with another policy.
    pub fn with_policy(policy: &str) -> Installation {
        installed(); // whose registration leaves the namespaces of this one alone
        let namespace = Namespace::create(&format!("policy-{policy}"), json!({}));
        let name = namespace.name.clone();
        let folder = repository().join("manifests");
        let create = ["create", "--dry-run=client", "--output=json", "--filename", folder.to_str().unwrap()];
        let printed = kubectl(&create).stdout;
        let documents = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
        let mut kinds = Vec::new();
        for object in documents.map(|document| document.expect("JSON")).flat_map(members) {
            let Some(object) = renamed(object, &name, policy) else { continue };
            try_kubectl(&["create", "--filename=-"], &object.to_string()).expect("created");
            kinds.push(object["kind"].as_str().unwrap().to_owned());
        }
        assert!(kinds.iter().any(|kind| kind == "MutatingWebhookConfiguration"), "{kinds:?}");
        certificate(&name, &name);
        rolled_out(&name);
        let installation = Installation { name, _namespace: namespace };
        answers(&installation.namespace());
        installation
    }

    /// A namespace whose pods this installation's webhook sees.
    pub fn namespace(&self) -> Namespace {
        Namespace::create("pods", json!({"istio-injection": "enabled", (INSTALLATION_LABEL): self.name}))
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = try_kubectl(&["delete", "mutatingwebhookconfiguration", &self.name], "");
    }
}

/// The objects of a List, or the object.
fn members(mut object: Value) -> Vec<Value> {
    match object["kind"].as_str() {
        Some("List") => serde_json::from_value(object["items"].take()).expect("items"),
        _ => vec![object],
    }
}

/// An object of the manifests as the installation `name` has it; the Namespace is there already.
fn renamed(mut object: Value, name: &str, policy: &str) -> Option<Value> {
    match object["kind"].as_str().expect("a kind") {
        "Namespace" => return None,
        "MutatingWebhookConfiguration" => {
            object["metadata"]["name"] = json!(name);
            let webhooks = object["webhooks"].as_array_mut().expect("webhooks");
            webhooks.truncate(1); // the namespace's; the object's would see everybody's pods
            webhooks[0]["clientConfig"]["service"]["namespace"] = json!(name);
            let expressions = webhooks[0]["namespaceSelector"]["matchExpressions"].as_array_mut().unwrap();
            expressions.push(json!({"key": INSTALLATION_LABEL, "operator": "In", "values": [name]}));
            return Some(object);
        }
        "ConfigMap" => {
            let written = object["data"]["config.yaml"].as_str().expect("a configuration");
            assert!(written.contains("policy: \"enabled\""), "{written}");
            object["data"]["config.yaml"] =
                json!(written.replace("policy: \"enabled\"", &format!("policy: \"{policy}\"")));
        }
        "Deployment" => object["spec"]["replicas"] = json!(1),
        _ => {}
    }
    object["metadata"]["namespace"] = json!(name);
    Some(object)
}

fn certificate(namespace: &str, registration: &str) {
    let output = Command::new(repository().join("certs/self-signed"))
        .args([namespace, registration])
        .env("KUBECTL", kubectl_path())
        .output()
        .expect("certs/self-signed starts");
    assert!(output.status.success(), "certs/self-signed: {}", String::from_utf8_lossy(&output.stderr));
}

fn rolled_out(namespace: &str) {
    let (namespace, timeout) =
        (format!("--namespace={namespace}"), format!("--timeout={}s", DEADLINE.as_secs()));
    let status = ["rollout", "status", "deployment/outrigger"];
    if let Err(error) = try_kubectl(&[&status[..], &[&namespace, &timeout]].concat(), "") {
        let pods = kubectl(&["describe", "pods", &namespace]).stdout;
        let logs = try_kubectl(&["logs", "deployment/outrigger", &namespace], "");
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
