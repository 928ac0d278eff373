//! The program as a chained CNI plugin: called as a container runtime calls it, with real packets afterwards; and
//! brought to a node and taken away again. Needs root and `ip`; run with `--features netns-tests`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::scenario::{APPLICATION, From, To, land};
use support::{DEFAULT, FAMILIES, Namespace, PATIENCE, World, is_in_place, succeeded};

const PROGRAM: &str = env!("CARGO_BIN_EXE_outrigger-init");
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// What the injector leaves for the plugin.
fn told(arguments: &str) -> Value {
    let mut args: Vec<&str> = arguments.split(' ').collect();
    args.extend(["--skip-rule-apply", "--run-validation"]);
    json!({"args": args, "env": {}}).to_string().into()
}

fn configuration(annotations: Value) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "outrigger-cni",
        "runtimeConfig": {ANNOTATIONS: annotations},
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]}
    })
}

/// Calls the plugin for a namespace; this test is the runtime, on the node.
fn call(command: &str, netns: &str, configuration: &Value) -> Output {
    let mut plugin = Command::new(PROGRAM);
    plugin.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    plugin.envs([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
    ]);
    plugin.env("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1");
    plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut plugin = plugin.spawn().unwrap();
    plugin.stdin.take().unwrap().write_all(configuration.to_string().as_bytes()).unwrap();
    plugin.wait_with_output().unwrap()
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_pod_is_captured_as_its_annotation_says() {
    let world = World::new();
    world.listen(false);
    let configuration = configuration(json!({"outrigger.dev/capture": told(DEFAULT)}));
    let output = call("ADD", &world.pod.path(), &configuration);
    assert_eq!(answer(&output), configuration["prevResult"]);
    let log = succeeded(output);
    assert!(log.contains("capture applied"), "{log}");
    for family in FAMILIES {
        assert_eq!(land(&world, family, APPLICATION, To::Peer(80)).as_deref(), Some("15001"), "{family:?}");
        assert_eq!(land(&world, family, From::Peer, To::Pod(8080)).as_deref(), Some("15006"), "{family:?}");
        assert_eq!(land(&world, family, From::Peer, To::Pod(15020)).as_deref(), Some("15020"), "{family:?}");
    }
    // Just what the program does inside, and once.
    let state = world.pod.state();
    assert!(is_in_place(&world.apply(DEFAULT)));
    succeeded(call("ADD", &world.pod.path(), &configuration));
    assert_eq!(world.pod.state(), state);
}

#[test]
fn lo_is_brought_up_where_it_is_not_up_yet() {
    let pod = Namespace::new("lo");
    pod.ip("link add eth0 type veth peer name eth1");
    pod.ip("addr add fd09::2/64 dev eth0 nodad");
    pod.ip("link set eth0 up");
    pod.ip("link set lo down");
    let configuration = configuration(json!({"outrigger.dev/capture": told(DEFAULT)}));
    let log = succeeded(call("ADD", &pod.path(), &configuration));
    assert!(log.contains("ipv6=true"), "{log}");
    assert!(pod.ip("link show lo").contains("LOOPBACK,UP"));
}

#[test]
fn a_pod_without_the_annotation_is_left_alone() {
    let world = World::new();
    let before = world.pod.state();
    let configuration = configuration(json!({"kubernetes.io/config.seen": "now"}));
    let output = call("ADD", &world.pod.path(), &configuration);
    assert_eq!(answer(&output), configuration["prevResult"]);
    succeeded(output);
    assert_eq!(before, world.pod.state());
}

#[test]
fn a_check_tells_what_is_there_from_what_was_planned() {
    let world = World::new();
    let configuration = configuration(json!({"outrigger.dev/capture": told(DEFAULT)}));
    let refused = |what: &str| {
        let before = world.pod.state();
        let output = call("CHECK", &world.pod.path(), &configuration);
        assert_eq!((output.status.code(), &answer(&output)["code"]), (Some(1), &json!(101)), "{what}");
        assert!(answer(&output)["msg"].as_str().unwrap().contains("pod shop/cart-1"), "{output:?}");
        assert_eq!(before, world.pod.state(), "it only looks");
    };
    refused("nothing");
    for backend in support::BACKENDS {
        world.apply(&format!("{DEFAULT} --backend {backend}"));
        let output = call("CHECK", &world.pod.path(), &configuration);
        assert!(output.stdout.is_empty(), "{output:?}");
        succeeded(output);
    }
    world.apply(&format!("{DEFAULT} -o 25"));
    refused("other rules");
}

#[test]
fn what_cannot_be_done_is_an_error_that_names_the_pod() {
    let configuration = configuration(json!({"outrigger.dev/capture": told(DEFAULT)}));
    let own = "/proc/self/ns/net";
    for (netns, reason) in [("/nowhere", "/nowhere"), (own, "the node's own network namespace")] {
        let output = call("ADD", netns, &configuration);
        assert_eq!(output.status.code(), Some(1));
        let error = answer(&output);
        assert_eq!((&error["cniVersion"], &error["code"]), (&json!("1.0.0"), &json!(101)));
        let message = error["msg"].as_str().unwrap();
        assert!(message.contains("shop/cart-1") && message.contains(reason), "{message}");
    }
    // The namespace is gone before the pod is: that is no error.
    succeeded(call("DEL", "", &configuration));
}

/// The installer at work; ended by force if a test fails.
struct Installer(Child);

impl Installer {
    fn start(bin: &Path, conf: &Path) -> Installer {
        let mut command = Command::new(PROGRAM);
        command.args(["install-cni", "--bin-dir"]).arg(bin).arg("--conf-dir").arg(conf);
        Installer(command.stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Asks it to end as Kubernetes does, and gives what it logged.
    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let log =
            BufReader::new(self.0.stderr.take().unwrap()).lines().map(|line| line.unwrap() + "\n").collect();
        assert!(self.0.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn plugins(list: &Path) -> Vec<String> {
    let list: Value = serde_json::from_str(&fs::read_to_string(list).unwrap()).unwrap();
    list["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_installer_keeps_the_plugin_in_place_and_takes_it_away() {
    let node = tempfile::tempdir().unwrap();
    let (bin, conf) = (node.path().join("bin"), node.path().join("net.d"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&conf).unwrap();
    let (plugin, list) = (bin.join("outrigger-cni"), conf.join("10-pods.conflist"));
    let theirs =
        r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#;
    let write = |text: &str| {
        // As others do it: a new file in the place of the old.
        let draft = node.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(draft, &list).unwrap();
    };
    let chained = || fs::exists(&list).unwrap() && plugins(&list) == ["bridge", "portmap", "outrigger-cni"];

    let installer = Installer::start(&bin, &conf);
    until("the program", || fs::exists(&plugin).unwrap());
    assert_eq!(fs::read(&plugin).unwrap(), fs::read(PROGRAM).unwrap());
    assert_eq!(fs::metadata(&plugin).unwrap().permissions().mode() & 0o777, 0o755);
    // The node's network comes later, is set up anew, and somebody takes the program away.
    write(theirs);
    until("chained", chained);
    assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o600);
    write(theirs);
    until("chained again", chained);
    fs::remove_file(&plugin).unwrap();
    until("the program again", || fs::exists(&plugin).unwrap());
    // Another list comes before the first one.
    let first = conf.join("05-first.conflist");
    fs::write(&first, theirs).unwrap();
    until("chained into the first", || plugins(&first).len() == 3);

    // As the readiness probe asks.
    let check = || {
        let mut command = Command::new(PROGRAM);
        command.args(["install-cni", "--check", "--bin-dir"]).arg(&bin).arg("--conf-dir").arg(&conf);
        command.output().unwrap()
    };
    succeeded(check());
    let log = installer.end();
    assert_eq!(check().status.code(), Some(1));
    assert!(
        log.contains("plugin chained") && log.contains("plugin taken out") && log.contains("plugin removed"),
        "{log}"
    );
    for list in [&first, &list] {
        assert_eq!(plugins(list), ["bridge", "portmap"]);
    }
    let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!((left(&bin), left(&conf)), (0, 2), "nothing of ours is left");
}

#[test]
fn the_installer_says_why_it_cannot_chain() {
    let node = tempfile::tempdir().unwrap();
    fs::write(node.path().join("10-pods.conf"), r#"{"type": "bridge"}"#).unwrap();
    let mut installer = Installer::start(node.path(), node.path());
    let mut lines = BufReader::new(installer.0.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("10-pods.conf") && line.contains(".conflist"), "{line}");
    let missing = Command::new(PROGRAM).args(["install-cni", "--bin-dir", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere"));
}
