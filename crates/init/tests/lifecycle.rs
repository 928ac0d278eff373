//! What happens to rules over time: twice, with other options, among somebody else's, after a crash, two at
//! once; and that they go away again. Needs root, `ip`, `nft`, iptables and strace; run with `--features netns-tests`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::{APP, BACKENDS, DEFAULT, Dial, Family, OTHER, World, dial, is_in_place, must, succeeded};

const FOREIGN_IPTABLES: &str = "*filter\n-A INPUT -p tcp --dport 9 -j DROP\nCOMMIT\n*nat\n:SOMEBODY_ELSE - [0:0]\n\
    -A PREROUTING -p tcp -m tcp --dport 4242 -j SOMEBODY_ELSE\n-A OUTPUT -d 10.99.0.0/16 -j RETURN\n\
    -A SOMEBODY_ELSE -p tcp -j REDIRECT --to-ports 4343\nCOMMIT\n";
const FOREIGN_NFT: &str = "table inet somebody_else {\n chain prerouting { type nat hook prerouting priority -90; \
    tcp dport 4242 redirect to :4343; }\n}\n";

/// Has a tool in the pod read rules.
fn feed(world: &World, tool: &str, arguments: &[&str], text: &str) {
    let mut command = world.pod.command(tool);
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
}

fn feed_nft(world: &World, text: &str) {
    feed(world, "nft", &["-f", "-"], text);
}

/// Rules that are not ours, by the tools that the back end has, and by nft.
fn foreign(world: &World, backend: &str) {
    let flavour = if backend == "iptables-legacy" { "legacy" } else { "nft" };
    for tool in ["iptables", "ip6tables"] {
        let text = if tool == "iptables" {
            FOREIGN_IPTABLES.to_owned()
        } else {
            FOREIGN_IPTABLES.replace("10.99.0.0/16", "fd99::/16")
        };
        feed(world, &format!("{tool}-{flavour}-restore"), &["--noflush"], &text);
    }
    feed_nft(world, FOREIGN_NFT);
}

/// The lines of a state in an order that does not depend on when a table was made.
fn lines(state: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = state.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_second_run_changes_nothing() {
    for backend in BACKENDS {
        for flags in [DEFAULT, OTHER] {
            let world = World::new();
            let before = world.pod.state();
            world.apply(&format!("{flags} --backend {backend}"));
            let first = world.pod.state();
            assert_ne!(before, first);
            let log = world.apply(&format!("{flags} --backend {backend}"));
            assert!(is_in_place(&log), "{log}");
            assert_eq!(first, world.pod.state(), "{backend} {flags}");
            world.apply("--cleanup-only");
            assert_eq!(before, world.pod.state(), "{backend} {flags}");
        }
    }
}

#[test]
fn other_options_replace_the_rules_of_before() {
    for backend in BACKENDS {
        for (old, new) in [(DEFAULT, OTHER), (OTHER, DEFAULT)] {
            let fresh = World::new();
            fresh.apply(&format!("{new} --backend {backend}"));
            let world = World::new();
            world.apply(&format!("{old} --backend {backend}"));
            let changed = world.init(&format!("{new} --backend {backend} --on-drift fail")).output().unwrap();
            assert_eq!(changed.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&changed.stderr).contains("--on-drift=fail"));
            world.apply(&format!("{new} --backend {backend}"));
            assert_eq!(lines(&fresh.pod.state()), lines(&world.pod.state()), "{backend}: {old} then {new}");
        }
    }
}

#[test]
fn another_back_end_replaces_the_rules_of_the_one_before() {
    for old in BACKENDS {
        for new in BACKENDS.into_iter().filter(|new| *new != old) {
            let fresh = World::new();
            fresh.apply(&format!("{DEFAULT} --backend {new}"));
            let world = World::new();
            world.apply(&format!("{OTHER} --backend {old}"));
            world.apply(&format!("{DEFAULT} --backend {new}"));
            assert_eq!(lines(&fresh.pod.state()), lines(&world.pod.state()), "{old} then {new}");
        }
    }
}

#[test]
fn what_is_not_ours_stays() {
    for backend in BACKENDS {
        let world = World::new();
        foreign(&world, backend);
        let before = world.pod.state();
        for flags in [DEFAULT, OTHER, DEFAULT] {
            world.apply(&format!("{flags} --backend {backend}"));
            let now = world.pod.state();
            let mut rest = now.lines();
            for line in before.lines() {
                assert!(rest.any(|other| other == line), "{backend}: {line:?} went, or moved");
            }
        }
        world.apply("--cleanup-only");
        assert_eq!(lines(&before), lines(&world.pod.state()), "{backend}");
    }
}

#[test]
fn rules_that_others_put_into_our_chains_go() {
    for (backend, tool) in
        [("iptables-nft", "iptables-nft"), ("iptables-legacy", "iptables-legacy"), ("nftables", "nft")]
    {
        let world = World::new();
        world.apply(&format!("{DEFAULT} --backend {backend}"));
        let good = world.pod.state();
        let arguments = match tool {
            "nft" => "insert rule inet istio-proxy-nat istio-inbound tcp dport 8080 return",
            _ => "-t nat -I ISTIO_INBOUND -p tcp --dport 8080 -j RETURN",
        };
        must(world.pod.command(tool).args(arguments.split(' ')));
        assert_ne!(good, world.pod.state());
        let log = world.apply(&format!("{DEFAULT} --backend {backend}"));
        assert!(log.contains("capture replaced"), "{log}");
        assert_eq!(good, world.pod.state(), "{backend}");
    }
}

/// What looks like our rules, and does not work as they do.
#[test]
fn tables_put_to_sleep_and_other_policies_are_mended() {
    for spoil in [
        "add table inet istio-proxy-nat { flags dormant; }",
        "add chain inet istio-proxy-nat prerouting { policy drop; }",
        "delete rule inet istio-proxy-nat output handle",
        "add chain inet istio-proxy-nat another",
    ] {
        let world = World::new();
        world.apply(&format!("{DEFAULT} --backend nftables"));
        let good = world.pod.state();
        let mut command = spoil.to_owned();
        if spoil.ends_with("handle") {
            let list = must(world.pod.command("nft").args([
                "-a",
                "list",
                "chain",
                "inet",
                "istio-proxy-nat",
                "output",
            ]));
            let rule = list.lines().find(|line| line.contains("jump")).unwrap();
            command = format!("{spoil} {}", rule.split(' ').next_back().unwrap());
        }
        must(world.pod.command("nft").arg(&command));
        assert_ne!(good, world.pod.state(), "{command}");
        let log = world.apply(&format!("{DEFAULT} --backend nftables"));
        assert!(log.contains("capture replaced"), "{log}");
        assert_eq!(lines(&good), lines(&world.pod.state()), "{command}");
    }
}

/// Killed at each system call that could change something, by each back end; then run again.
#[test]
fn a_crash_at_any_moment_is_mended_by_the_next_run() {
    for backend in BACKENDS {
        let calls = if backend == "nftables" { "sendto" } else { "sendto,clone,clone3,vfork,write" };
        let mut killed = 0;
        for at in 1..80 {
            let world = World::new();
            let before = world.pod.state();
            let mut strace = world.pod.command("strace");
            strace.env("OUTRIGGER_ENABLE_IPV6", "true");
            strace.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
            strace.args([
                "-e",
                &format!("inject={calls}:signal=KILL:when={at}"),
                env!("CARGO_BIN_EXE_outrigger-init"),
            ]);
            let status =
                strace.args(OTHER.split_whitespace()).args(["--backend", backend]).output().unwrap().status;
            let done = status.success();
            killed += usize::from(!done);
            world.apply(&format!("{OTHER} --backend {backend}"));
            let log = world.apply(&format!("{OTHER} --backend {backend}"));
            assert!(is_in_place(&log), "{backend}, killed at {at}: {log}");
            world.apply("--cleanup-only");
            assert_eq!(lines(&before), lines(&world.pod.state()), "{backend}, killed at {at}");
            if done {
                break;
            }
        }
        assert!(killed > 5, "{backend}: killed {killed} times only");
    }
}

#[test]
fn of_many_runs_at_once_in_one_namespace_none_fails() {
    for backend in BACKENDS {
        let world = World::new();
        let runs: Vec<_> = (0..8)
            .map(|n| {
                let flags = if n % 2 == 0 { DEFAULT } else { OTHER };
                let mut command = world.init(&format!("{flags} --backend {backend}"));
                command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for run in runs {
            succeeded(run.wait_with_output().unwrap());
        }
        world.apply(&format!("{DEFAULT} --backend {backend}"));
        let log = world.apply(&format!("{DEFAULT} --backend {backend}"));
        assert!(is_in_place(&log), "{backend}: {log}");
    }
}

#[test]
fn of_many_runs_at_once_in_as_many_namespaces_none_fails() {
    for backend in BACKENDS {
        let worlds: Vec<World> = (0..20).map(|_| World::new()).collect();
        let runs: Vec<_> = worlds
            .iter()
            .map(|world| {
                let mut command = world.init(&format!("{DEFAULT} --backend {backend}"));
                command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for run in runs {
            succeeded(run.wait_with_output().unwrap());
        }
    }
}

/// While rules are replaced, every new connection is captured by the old ones or by the new ones.
#[test]
fn there_is_no_moment_without_capture() {
    for backend in BACKENDS {
        let world = World::new();
        world.listen(false);
        world.apply(&format!("{DEFAULT} --backend {backend}"));
        let to = SocketAddr::new(Family::V4.peer(), 80);
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let dialler = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let landing =
                        dial(&world.pod, APP, to, Dial::default()).map(|connection| connection.landing.name);
                    assert_eq!(landing.as_deref(), Ok("15001"), "{backend}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            for n in 0..20 {
                let exclude = ["-d 15090", "-d 15021 --drop-invalid"][n % 2];
                let before = count.load(Ordering::Relaxed);
                world.apply(&format!("-u 1337 -g 1337 -b * -i * {exclude} --backend {backend}"));
                while count.load(Ordering::Relaxed) == before && !dialler.is_finished() {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
            dialler.join().unwrap();
        });
    }
}

#[test]
fn a_dry_run_changes_nothing_and_prints_what_would_be() {
    for backend in BACKENDS {
        for flags in [DEFAULT, OTHER] {
            let world = World::new();
            let before = world.pod.state();
            let output = world.init(&format!("{flags} --backend {backend} --dry-run")).output().unwrap();
            assert!(output.status.success());
            assert_eq!(before, world.pod.state(), "{backend}");
            let text = String::from_utf8(output.stdout).unwrap();
            if backend == "nftables" {
                feed_nft(&world, &text);
            } else {
                let (v4, v6) = text.split_once("# IPv6").unwrap();
                for (tool, text) in [("iptables", v4), ("ip6tables", v6)] {
                    let restore = format!("{}-restore", backend.replace("iptables", tool));
                    feed(&world, &restore, &["--noflush"], text.split_once('\n').unwrap().1);
                }
            }
            // The same rules: only routes are left to be made.
            world.apply(&format!("{flags} --backend {backend} --on-drift fail"));
        }
    }
}

#[test]
fn a_dry_run_explains_and_speaks_json() {
    let world = World::new();
    let explained = world.init(&format!("{OTHER} --explain")).output().unwrap();
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.contains("# TCP to 10.0.0.0/8")
            || text.contains("to 10.0.0.0/8 goes on in ISTIO_REDIRECT: an included range."),
        "{text}"
    );
    let file = std::env::temp_dir().join(format!("oi-dry-{}", std::process::id()));
    let mut json = world.init(&format!("{OTHER} --dry-run-format json"));
    succeeded(json.env("DRY_RUN_FILE_PATH", &file).output().unwrap());
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(text.starts_with("{\"rules\":[") && text.contains("\"explanation\":"), "{text}");
    assert!(text.contains("ip -4 rule add fwmark 1337 lookup 133"), "{text}");
}

#[test]
fn choosing_a_back_end_leaves_no_trace() {
    let world = World::new();
    let log = world.apply(DEFAULT);
    assert!(log.contains("backend=nftables"), "{log}");
    let tables = world.pod.inside(|| {
        ["ip", "ip6"].map(|family| {
            std::fs::read_to_string(format!("/proc/thread-self/net/{family}_tables_names"))
                .unwrap_or_default()
        })
    });
    assert_eq!(tables, ["", ""], "a probe made legacy tables");
}

#[test]
fn legacy_in_use_is_kept_to() {
    let world = World::new();
    foreign(&world, "iptables-legacy");
    let log = world.apply(DEFAULT);
    assert!(log.contains("backend=iptables-legacy"), "{log}");
    assert!(is_in_place(&world.apply(DEFAULT)));
}

#[test]
fn nonsense_is_refused_before_anything_is_done() {
    let world = World::new();
    let before = world.pod.state();
    for (flags, named) in [
        ("--no-such-flag", "--no-such-flag"),
        ("-y", "-y"),
        ("-b 80,http", "http"),
        ("-b 0", "\"0\""),
        ("-b 70000", "70000"),
        ("-q 90-80", "90-80"),
        ("-i 10.0.0.0/33", "10.0.0.0/33"),
        ("-i ten", "ten"),
        ("-x *", "\"*\""),
        ("-c eth/0", "eth/0"),
        ("-k interface-with-a-long-name", "interface-with-a-long-name"),
        ("-u nobody-knows", "nobody-knows"),
        ("-m BOTH", "BOTH"),
        ("--probe-timeout 5", "\"5\""),
        ("--run-validation --probe-timeout soon", "soon"),
        ("--backend ipfw", "ipfw"),
        ("--dual-stack=maybe", "maybe"),
        ("-p", "--envoy-port"),
        ("word", "word"),
        ("linkerd-init -m false", "--port"),
        ("proxy-init -p 4143", "--outgoing-proxy-port"),
    ] {
        // These front ends have no self-test; the flag would be one more that they do not know.
        let validates = !flags.starts_with("linkerd-init") && !flags.starts_with("proxy-init");
        let more = if validates { "--run-validation" } else { "" };
        let output = world.init(&format!("{flags} {more}")).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{flags}: {log}");
        assert!(log.contains(named), "{flags}: {log}");
    }
    assert_eq!(before, world.pod.state());
}

#[test]
fn thousands_of_ranges_are_applied_and_found_in_place() {
    let ranges: Vec<String> = (0..4000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
    for backend in BACKENDS {
        let world = World::new();
        let flags = format!("-u 1337 -b * -i * -x {} --backend {backend}", ranges.join(","));
        world.apply(&flags);
        assert!(is_in_place(&world.apply(&flags)), "{backend}");
        world.apply("--cleanup-only");
    }
}

/// What netlink wrote, nft and its own text agree on.
#[test]
fn nft_reads_back_what_netlink_wrote() {
    for flags in [DEFAULT, OTHER] {
        let (ours, theirs) = (World::new(), World::new());
        ours.apply(&format!("{flags} --backend nftables"));
        let text = theirs.init(&format!("{flags} --dry-run")).output().unwrap().stdout;
        feed_nft(&theirs, &String::from_utf8(text).unwrap());
        let list = |world: &World| must(world.pod.command("nft").args(["-s", "list", "ruleset"]));
        let (ours, theirs) = (list(&ours), list(&theirs));
        assert_eq!(lines(&ours), lines(&theirs));
        assert!(ours.contains("istio-proxy-nat"));
    }
}
