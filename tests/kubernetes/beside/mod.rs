//! An installation whose replicas are processes beside the node, so that a test can stop and kill them, and give them
//! another clock, other rights and another API server. All else is as it is installed: the objects, the ServiceAccount
//! and its token, the Service, by which the API server sends pods to them.
//!
//! It needs a cluster of `tests/kubernetes/up`; with another one, leave these tests out: `--skip beside::`.

mod api_server;
mod cert_manager;
mod clock;
mod leaders;
mod mid_write;
mod others;
mod repair;
mod replica;
mod rights;
mod settings;
mod traces;

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use replica::{How, Replica};

use crate::cluster::{Namespace, beside_node, folder, outrigger, run_kubectl, try_kubectl, until};
use crate::install::{Installation, answers};

/// The node's address, as `tests/kubernetes/cluster` gives it.
const NODE: &str = "10.250.0.1";
/// The cluster's own API server.
const API_SERVER: &str = "https://127.0.0.1:6443";

/// What is left out of an account's rights: resources and verbs.
type Omitted<'a> = &'a [(&'a str, &'a str)];

/// An installation without its Deployment.
#[derive(Debug)]
pub(crate) struct Beside {
    pub installation: Installation,
    /// As `outrigger install` prints them.
    objects: Vec<Value>,
    folder: TempDir,
}

impl Beside {
    /// Installs the revision with these options, all but its replicas; its own account has all rights but these.
    pub(crate) fn without(revision: &str, options: &[&str], omitted: Omitted) -> Beside {
        let namespace = Namespace::create(revision, json!({}));
        let which = ["--revision", revision, "--namespace", &namespace.name];
        let list = outrigger(&[&["install", "--output=json"], &which[..], options].concat()).json();
        let name = format!("outrigger-{revision}");
        let objects = list["items"].as_array().expect("objects").clone();
        let installation = Installation { name, revision: revision.to_owned(), namespace };
        let beside = Beside { installation, objects, folder: tempfile::tempdir().expect("a folder") };
        let own = beside.objects.iter().filter_map(|object| {
            let mut object = object.clone();
            match object["kind"].as_str()? {
                "ConfigMap" | "MutatingWebhookConfiguration" => {}
                // Its EndpointSlices are the test's.
                "Service" => drop(object["spec"].as_object_mut()?.remove("selector")),
                _ => return None,
            }
            Some(object)
        });
        let account = &beside.installation.name;
        apply(own.chain(beside.account_objects(account, account, omitted)).collect());
        beside.settings("policy: enabled\n");
        beside
    }

    pub(crate) fn new(revision: &str) -> Beside {
        Beside::without(revision, &[], &[])
    }

    /// Gives an account the installation's rights but for these; makes it where there is none.
    pub(crate) fn account(&self, name: &str, omitted: Omitted) {
        self.account_like(&self.installation.name, name, omitted);
    }

    /// The same, with the rights of the account `own` of an option.
    pub(crate) fn account_like(&self, own: &str, name: &str, omitted: Omitted) {
        apply(self.account_objects(own, name, omitted));
    }

    /// Waits until API servers go by what was taken from an account.
    pub(crate) fn until_refused(&self, account: &str, omitted: Omitted) {
        let namespace = &self.installation.namespace;
        let user = format!("--as=system:serviceaccount:{}:{account}", namespace.name);
        for (resource, verb) in omitted {
            let name = match *resource {
                "secrets" => format!("secrets/{}-certificate", self.installation.name),
                "mutatingwebhookconfigurations" => format!("{resource}/{}", self.installation.name),
                other => other.to_owned(),
            };
            until(&format!("no right to {verb} {resource}"), || {
                let (may, said) = run_kubectl(
                    &["auth", "can-i", verb, &name, &user, &format!("--namespace={}", namespace.name)],
                    "",
                );
                if may { Err(said.stdout) } else { Ok(()) }
            });
        }
    }

    fn account_objects(&self, own: &str, name: &str, omitted: Omitted) -> Vec<Value> {
        // Roles of an option are called after the account and what they are for.
        let of_own = |object: &&Value| {
            let name = object["metadata"]["name"].as_str().unwrap();
            let access = object["apiVersion"] == "rbac.authorization.k8s.io/v1";
            let subject = access && object["subjects"][0]["name"] == own;
            let role = access && !object["rules"].is_null() && name.starts_with(own);
            subject || role || object["kind"] == "ServiceAccount" && name == own
        };
        let made = self.objects.iter().filter(of_own).map(|object| {
            let mut object = object.clone();
            let renamed = object["metadata"]["name"].as_str().unwrap().replacen(own, name, 1);
            object["metadata"]["name"] = json!(renamed);
            object["metadata"]["labels"] = json!({"app.kubernetes.io/name": self.installation.name});
            if let Some(rules) = object["rules"].as_array_mut() {
                *rules = rules.iter().flat_map(|rule| without(rule, omitted)).collect();
            }
            if !object["roleRef"].is_null() {
                object["roleRef"]["name"] = json!(renamed);
                object["subjects"][0]["name"] = json!(name);
            }
            object
        });
        made.collect()
    }

    /// Writes the settings that replicas follow.
    pub(crate) fn settings(&self, text: &str) {
        self.write(&self.text(text));
    }

    /// Settings of this revision.
    pub(crate) fn text(&self, text: &str) -> String {
        let Installation { revision, namespace, .. } = &self.installation;
        let images = "{init: localhost/outrigger-init:0.1.0, proxy: localhost/outrigger-proxy:0.1.0}";
        format!(
            "revision: {revision}\ninstallationNamespace: {}\nvalues: {{images: {images}}}\n{text}",
            namespace.name
        )
    }

    /// Writes the file that replicas follow, as it is.
    pub(crate) fn write(&self, text: &str) {
        // Whole or not at all.
        let next = self.folder.path().join("next.yaml");
        std::fs::write(&next, text).expect("written");
        std::fs::rename(&next, self.settings_file()).expect("renamed");
    }

    fn settings_file(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// A kubeconfig with a token of this account.
    fn kubeconfig(&self, account: &str, server: &str) -> PathBuf {
        let namespace = &self.installation.namespace;
        let token = namespace.kubectl(&["create", "token", account]).stdout;
        // A clock that is far off would refuse the API server's certificate, before anything of ours is asked.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "test", "user": {"token": token.trim()}}],
            "contexts": [{"name": "test",
                "context": {"cluster": "test", "user": "test", "namespace": namespace.name}}],
        });
        let file = tempfile::Builder::new().suffix(".kubeconfig").tempfile_in(self.folder.path());
        let (_, path) = file.and_then(|file| file.keep().map_err(Into::into)).expect("a file");
        std::fs::write(&path, config.to_string()).expect("written");
        path
    }

    /// Starts a replica; it serves, or waits for its first certificate.
    pub(crate) fn start(&self, identity: &str, how: &How) -> Replica {
        let account = how.account.unwrap_or(&self.installation.name);
        let kubeconfig = self.kubeconfig(account, how.server.unwrap_or(API_SERVER));
        Replica::start(identity, &self.installation.name, &self.settings_file(), &kubeconfig, how)
    }

    /// Makes a replica an endpoint of the Service: one that API servers ask, or one that is leaving.
    pub(crate) fn endpoint(&self, replica: &Replica, ready: bool) {
        let (address, port) = replica.address.rsplit_once(':').expect("an address");
        let service = &self.installation.name;
        apply(vec![json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{service}-{}", replica.identity), "namespace": self.installation.namespace.name,
                "labels": {"kubernetes.io/service-name": service},
            },
            "ports": [{"name": "https", "port": port.parse::<u16>().unwrap()}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        })]);
    }

    /// A replica that serves, and that API servers ask.
    pub(crate) fn serving(&self, identity: &str, how: &How) -> Replica {
        let replica = self.start(identity, how);
        self.endpoint(&replica, true);
        replica.said("serving certificate");
        replica
    }

    /// A namespace whose pods are seen by the replicas.
    pub(crate) fn pods(&self) -> Namespace {
        let namespace = self.installation.pods();
        answers(&namespace);
        namespace
    }

    /// The Lease's record.
    pub(crate) fn lease(&self) -> Result<Value, String> {
        Ok(self.installation.get("lease", &self.installation.name)?["spec"].clone())
    }

    /// How often the registration was written.
    pub(crate) fn generation(&self) -> u64 {
        let registration = self.installation.get("mutatingwebhookconfiguration", &self.installation.name);
        registration.expect("a registration")["metadata"]["generation"].as_u64().expect("a number")
    }

    /// Asks for the next certificate.
    pub(crate) fn rotate(&self) {
        let Installation { revision, namespace, .. } = &self.installation;
        outrigger(&["certs", "rotate", "--revision", revision, "--namespace", &namespace.name]);
    }
}

/// A rule, for each of its resources apart, without what is left out.
fn without(rule: &Value, omitted: Omitted) -> Vec<Value> {
    let resources = rule["resources"].as_array().unwrap().iter();
    let rules = resources.map(|resource| {
        let mut rule = rule.clone();
        rule["resources"] = json!([resource]);
        let left = |verb: &Value| !omitted.contains(&(resource.as_str().unwrap(), verb.as_str().unwrap()));
        rule["verbs"].as_array_mut().unwrap().retain(left);
        rule
    });
    rules.filter(|rule| rule["verbs"].as_array().is_some_and(|verbs| !verbs.is_empty())).collect()
}

fn apply(objects: Vec<Value>) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    try_kubectl(&["apply", "--filename=-"], &list.to_string()).unwrap_or_else(|e| panic!("apply: {e}"));
}

/// A program beside the node.
fn beside(program: &str) -> std::process::Command {
    assert!(
        folder().join("in").exists(),
        "this needs a cluster of tests/kubernetes/up; elsewhere, leave it out: --skip beside::"
    );
    beside_node(program)
}
