//! Where the program runs: in another namespace, with few privileges, with one IP family or the other; and that
//! the self-test tells the truth. Needs root, `ip`, `nft`, iptables and util-linux; run with
//! `--features netns-tests`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Command;

use support::{BACKENDS, DEFAULT, OTHER, World, is_in_place, must, succeeded};

/// Another user with NET_ADMIN and nothing else, and a root file system that cannot be written.
fn confined(world: &World, capabilities: &str) -> Command {
    let mut command = world.pod.command("unshare");
    let script = format!(
        "mount --bind / / && mount -o remount,ro,bind / && exec setpriv --reuid 4711 --regid 4711 --clear-groups \
         --no-new-privs --bounding-set {capabilities} --inh-caps {capabilities} --ambient-caps {capabilities} \"$@\""
    );
    command.args(["--mount", "sh", "-c", &script, "sh", "/proc/self/fd/0"]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(std::fs::File::open(env!("CARGO_BIN_EXE_outrigger-init")).unwrap());
    command
}

#[test]
fn a_namespace_named_by_path_is_captured_and_no_other() {
    let world = World::new();
    let elsewhere = support::Namespace::new("else");
    let before = elsewhere.state();
    for backend in BACKENDS {
        let path = world.pod.path();
        let mut init = elsewhere.command(env!("CARGO_BIN_EXE_outrigger-init"));
        init.args(DEFAULT.split(' ')).args(["--backend", backend, "--netns", &path]);
        succeeded(init.output().unwrap());
        let log = world.apply(&format!("{DEFAULT} --backend {backend}"));
        assert!(is_in_place(&log), "{log}");
        assert_eq!(before, elsewhere.state());
    }
    let mut init = elsewhere.command(env!("CARGO_BIN_EXE_outrigger-init"));
    let output = init.args(["--netns", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere"));
}

#[test]
fn net_admin_is_enough() {
    let world = World::new();
    let output = confined(&world, "-all,+net_admin").args(OTHER.split_whitespace()).output().unwrap();
    succeeded(output);
    assert!(is_in_place(&world.apply(OTHER)));
    succeeded(confined(&world, "-all,+net_admin").arg("--cleanup-only").output().unwrap());
}

#[test]
fn without_net_admin_the_message_says_so() {
    for backend in ["auto", "nftables", "iptables-nft", "iptables-legacy"] {
        let world = World::new();
        let before = world.pod.state();
        let output =
            confined(&world, "-all").args(DEFAULT.split(' ')).args(["--backend", backend]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains("NET_ADMIN"), "{backend}: {log}");
        assert_eq!(before, world.pod.state());
    }
}

/// The kernel refuses every socket but the first, which is for routes, as one without nfnetlink does.
#[test]
fn a_kernel_without_nftables_is_named_with_its_remedy_and_done_without() {
    let world = World::new();
    let run = |backend: &str| {
        let mut strace = world.pod.command("strace");
        strace.env("OUTRIGGER_ENABLE_IPV6", "true").args(["-qq", "-o", "/dev/null", "-e", "trace=socket"]);
        strace.args([
            "-e",
            "inject=socket:error=EPROTONOSUPPORT:when=2+",
            env!("CARGO_BIN_EXE_outrigger-init"),
        ]);
        strace.args(DEFAULT.split(' ')).args(["--backend", backend]).output().unwrap()
    };
    let before = world.pod.state();
    let output = run("nftables");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("(modules: nfnetlink)") && log.contains("modprobe"), "{log}");
    assert_eq!(before, world.pod.state());

    let log = succeeded(run("auto"));
    assert!(log.contains("trying iptables-legacy"), "{log}");
    assert!(log.contains("capture applied backend=iptables-legacy"), "{log}");
    assert!(is_in_place(&world.apply(&format!("{DEFAULT} --backend iptables-legacy"))));
}

#[test]
fn legacy_iptables_works_on_a_read_only_root() {
    let world = World::new();
    let mut command = world.pod.command("unshare");
    let script =
        "mount --bind / / && mount -o remount,ro,bind / && mount -t tmpfs -o ro tmpfs /run && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_outrigger-init")]);
    command.args(DEFAULT.split(' ')).args(["--backend", "iptables-legacy"]);
    succeeded(command.output().unwrap());
    assert!(is_in_place(&world.apply(&format!("{DEFAULT} --backend iptables-legacy"))));
}

#[test]
fn the_self_test_proves_both_directions_in_both_families() {
    for backend in BACKENDS {
        for mode in ["REDIRECT", "TPROXY"] {
            let world = World::new();
            let log =
                world.apply(&format!("-u 1337 -m {mode} -b * -i * --run-validation --backend {backend}"));
            assert!(log.contains("IPv4 inbound, IPv4 outbound, IPv6 inbound, IPv6 outbound"), "{log}");
        }
    }
}

#[test]
fn the_self_test_fails_without_rules() {
    let world = World::new();
    world.apply("-u 1337 -b * -i *");
    let validate = "-u 1337 -b * -i * --skip-rule-apply --run-validation";
    world.apply(validate);
    must(world.pod.command("nft").args(["flush", "chain", "inet", "istio-proxy-nat", "istio-in-redirect"]));
    let output = world.init(validate).output().unwrap();
    assert_eq!(output.status.code(), Some(126));
    assert!(String::from_utf8_lossy(&output.stderr).contains("IPv4 inbound"));
    world.apply("-u 1337 -b * -i *");
    must(world.pod.command("nft").args(["flush", "chain", "inet", "istio-proxy-nat", "istio-redirect"]));
    let output = world.init(validate).output().unwrap();
    assert_eq!(output.status.code(), Some(126));
    assert!(String::from_utf8_lossy(&output.stderr).contains("IPv4 outbound"));
}

/// As the container `istio-validation` runs it.
#[test]
fn the_self_test_runs_as_the_proxy() {
    let world = World::new();
    world.apply("-u 1337 -b * -i *");
    let mut command = world.pod.command("setpriv");
    command.args([
        "--reuid",
        "1337",
        "--regid",
        "1337",
        "--clear-groups",
        env!("CARGO_BIN_EXE_outrigger-init"),
    ]);
    command.args("-u 1337 -b * -i * --skip-rule-apply --run-validation".split(' '));
    let log = succeeded(command.output().unwrap());
    assert!(log.contains("IPv4 inbound, IPv6 inbound"), "{log}");
}

#[test]
fn each_family_is_found_out_by_itself() {
    let world = World::new();
    let log = world.apply(DEFAULT);
    assert!(log.contains("ipv4=true ipv6=true"), "{log}");
    world.apply("--cleanup-only");

    world.pod.ip("addr del fd09::2/64 dev eth0");
    let log = world.apply(DEFAULT);
    assert!(log.contains("ipv4=true ipv6=false"), "{log}");
    let log = world.apply(&format!("{DEFAULT} --ip-families both"));
    assert!(log.contains("ipv6=true"), "{log}");
    world.apply("--cleanup-only");

    // IPv6 only.
    let world = World::new();
    world.pod.ip("addr del 10.9.0.2/24 dev eth0");
    let log = world.apply(DEFAULT);
    assert!(log.contains("ipv6=true"), "{log}");
    let log = world.apply(&format!("{DEFAULT} --dual-stack=false"));
    assert!(log.contains("ipv6=true"), "the first address decides: {log}");

    // Istio's rule: with --dual-stack=false the first address decides.
    let world = World::new();
    let log = world.apply(&format!("{DEFAULT} --dual-stack=false"));
    assert!(log.contains("ipv6=false"), "{log}");

    // Off.
    let world = World::new();
    world.pod.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap());
    let log = world.apply(DEFAULT);
    assert!(log.contains("ipv4=true ipv6=false"), "{log}");
    let output = world.init(&format!("{DEFAULT} --ip-families both")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("disable_ipv6"));
}

#[test]
fn the_nodes_own_namespace_is_refused() {
    let world = World::new();
    let before = world.pod.state();
    let output = world.init(DEFAULT).env("HOST_IP", "10.9.0.2").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--allow-host-netns"));
    assert_eq!(before, world.pod.state());
    succeeded(
        world.init(&format!("{DEFAULT} --allow-host-netns")).env("HOST_IP", "10.9.0.2").output().unwrap(),
    );
}

/// As pods with `hostUsers: false` have it: root only in a user namespace of their own.
#[test]
fn root_of_a_user_namespace_is_enough() {
    let run = format!(
        "{} {} --ip-families ipv4",
        env!("CARGO_BIN_EXE_outrigger-init"),
        DEFAULT.replace('*', "'*'")
    );
    let script = format!("ip link set lo up && {run} && {run}");
    let arguments = ["--user", "--map-root-user", "--net", "sh", "-c", &script];
    let log = succeeded(Command::new("unshare").args(arguments).output().unwrap());
    assert!(log.contains("backend=nftables") && is_in_place(&log), "{log}");
}
