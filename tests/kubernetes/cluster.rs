//! kubectl, and conditions that are waited for.

use std::ffi::OsStr;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a cluster may take for anything. A busy machine needs a part of it; a failure all of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A file or folder of the repository.
pub(crate) fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// The folder that `tests/kubernetes/up` filled.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("OUTRIGGER_TEST_CLUSTER").map_or_else(|| cache().join("cluster"), PathBuf::from)
}

fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    cache.expect("HOME is set").join("outrigger-kubernetes")
}

/// A program that `tests/kubernetes/build` made, or a ready one.
pub(crate) fn program(name: &str) -> PathBuf {
    let ready = std::env::var_os("KUBEBUILDER_ASSETS").map(|folder| Path::new(&folder).join(name));
    let program = ready.filter(|ready| ready.exists()).unwrap_or_else(|| cache().join("bin").join(name));
    assert!(program.exists(), "{} is missing; tests/kubernetes/build {name} makes it", program.display());
    program
}

/// The kubectl of the cluster under test.
pub(crate) fn kubectl_path() -> PathBuf {
    let path = folder().join("k");
    assert!(path.exists(), "no cluster: {} is missing; tests/kubernetes/run starts one", path.display());
    path
}

/// What kubectl printed.
#[derive(Debug)]
pub(crate) struct Output {
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The only JSON document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON: {e}: {}", self.stdout))
    }
}

/// Runs kubectl with `input` on its stdin.
///
/// # Errors
/// What it printed on stderr, when it fails.
pub(crate) fn try_kubectl<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> Result<Output, String> {
    let (success, output) = run_kubectl(arguments, input);
    if success { Ok(output) } else { Err(output.stderr) }
}

/// Runs kubectl with `input` on its stdin: whether all went well, and what it printed.
pub(crate) fn run_kubectl<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> (bool, Output) {
    // It has all of the input before it begins, and may print more than a pipe holds while it reads.
    let mut stdin = tempfile::tempfile().expect("a file");
    stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).expect("a file");
    let output = Command::new(kubectl_path())
        .arg("--request-timeout=30s")
        .args(arguments)
        .stdin(stdin)
        .output()
        .expect("kubectl runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("kubectl writes UTF-8");
    (output.status.success(), Output { stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// Creates an object by dry run: nothing is stored, and the answer holds it as it would be, and the warnings.
///
/// # Errors
/// Why it is refused.
pub(crate) fn dry_run(namespace: &str, object: &Value) -> Result<Output, String> {
    let create = ["create", "--filename=-", "--dry-run=server", "--output=json", "--namespace", namespace];
    try_kubectl(&create, &object.to_string())
}

/// Runs kubectl; its failure is the test's.
pub(crate) fn kubectl<S: AsRef<OsStr> + std::fmt::Debug>(arguments: &[S]) -> Output {
    try_kubectl(arguments, "").unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
}

/// Asks until there is an answer, for no longer than [`DEADLINE`]. `what` is for the message when there is none; the
/// last `Err` is its reason.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(reason) => assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}: {reason}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A namespace of one test; it goes when the test ends.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub name: String,
}

impl Namespace {
    /// Makes the namespace `purpose-…` with these labels.
    pub(crate) fn create(purpose: &str, labels: Value) -> Namespace {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{purpose}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        try_kubectl(&["create", "--filename=-"], &object.to_string()).expect("a namespace");
        let namespace = Namespace { name };
        // A pod's ServiceAccount is made a moment after its namespace, and no pod is created without it.
        until("the default ServiceAccount", || {
            namespace.try_kubectl(&["get", "serviceaccount", "default"], "")
        });
        namespace
    }

    /// A namespace whose pods are injected.
    pub(crate) fn injected(purpose: &str) -> Namespace {
        Namespace::create(purpose, json!({"istio-injection": "enabled"}))
    }

    /// Runs kubectl in this namespace.
    ///
    /// # Errors
    /// What it printed on stderr, when it fails.
    pub(crate) fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<Output, String> {
        let namespace = format!("--namespace={}", self.name);
        let mut all = vec![namespace.as_str()];
        all.extend_from_slice(arguments);
        try_kubectl(&all, input)
    }

    /// Runs kubectl in this namespace; its failure is the test's.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        self.try_kubectl(arguments, "").unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Creates an object; the answer holds it as the API server stored it, and the warnings.
    pub(crate) fn create_object(&self, object: &Value) -> Output {
        self.try_kubectl(&["create", "--filename=-", "--output=json"], &object.to_string())
            .unwrap_or_else(|error| panic!("create {object:#}: {error}"))
    }

    /// The stored object.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        self.kubectl(&["get", kind, name, "--output=json"]).json()
    }

    /// The stored pods that have the label `key=value`, at least one.
    pub(crate) fn pods(&self, label: &str) -> Vec<Value> {
        until(&format!("pods with the label {label}"), || {
            let list = self.try_kubectl(&["get", "pods", "--selector", label, "--output=json"], "")?.json();
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            if pods.is_empty() { Err("there are none".to_owned()) } else { Ok(pods) }
        })
    }

    /// The only Event that these fields select, once it has been counted so often: the same again is counted.
    pub(crate) fn event(&self, about: &str, count: u64) -> Value {
        until(&format!("an Event about {about} that counts {count}"), || {
            let select = ["get", "events", "--field-selector", about, "--output=json"];
            let list = self.try_kubectl(&select, "")?.json();
            match list["items"].as_array().map(Vec::as_slice) {
                Some([event]) if event["count"] == count => Ok(event.clone()),
                others => Err(format!("{others:?}")),
            }
        })
    }

    /// Waits as `kubectl wait` does.
    pub(crate) fn wait(&self, condition: &str, object: &str) {
        let timeout = format!("--timeout={}s", DEADLINE.as_secs());
        if let Err(error) = self.try_kubectl(&["wait", &format!("--for={condition}"), object, &timeout], "") {
            let described = self.kubectl(&["describe", "pods"]).stdout;
            panic!("{object}: {condition}: {error}\n{described}");
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Left behind for a look when the test failed; `tests/kubernetes/down` takes all of it.
        if !std::thread::panicking() {
            let _ = try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], "");
        }
    }
}

/// A program where the API server can be reached: beside the node, with the cluster's kubeconfig; or here, where the
/// cluster is somebody else's, by the KUBECONFIG that these tests were given.
pub(crate) fn beside_node(program: impl AsRef<OsStr>) -> Command {
    let inside = folder().join("in");
    if !inside.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(inside);
    command.arg(program).env("KUBECONFIG", folder().join("kubeconfig"));
    command
}

/// Runs `outrigger` where the API server can be reached, with the cluster's kubeconfig; its failure is the test's.
pub(crate) fn outrigger(arguments: &[&str]) -> Output {
    let (status, output) = run_outrigger(arguments);
    assert!(status.success(), "outrigger {arguments:?}: {}", output.stderr);
    output
}

/// Runs `outrigger` there: how it ended, and what it printed.
pub(crate) fn run_outrigger(arguments: &[&str]) -> (ExitStatus, Output) {
    let mut command = beside_node(env!("CARGO_BIN_EXE_outrigger"));
    let output = command.args(arguments).output().expect("outrigger runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    (output.status, Output { stdout: text(output.stdout), stderr: text(output.stderr) })
}
