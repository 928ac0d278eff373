//! What is said of options that make no sense: whole, as it stands in the log of a container. Every line is a dry run, too,
//! so that none could change this machine.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

fn said(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let dry = if arguments.contains(&"install-cni") { "--check" } else { "--dry-run-format=json" };
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger-init"))
        .args(arguments)
        .arg(dry)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn options_that_make_no_sense_are_named_with_what_to_type() {
    let commands = "is neither a command nor a flag; the commands are istio-iptables, proxy-init, linkerd-init, prepare-proxy, vm \
                    and install-cni; see outrigger-init --help";
    let port = "is not a port; use a number from 1 to 65535";
    for (arguments, message) in [
        (&["up"][..], format!("\"up\" {commands}")),
        (&["istio-iptables", "up"], format!("\"up\" {commands}")),
        (
            &["proxy-init", "up"],
            "proxy-init takes flags alone, and \"up\" is none; see outrigger-init proxy-init --help".to_owned(),
        ),
        (
            &["linkerd-init", "up"],
            "linkerd-init takes flags alone, and \"up\" is none; see outrigger-init linkerd-init --help".to_owned(),
        ),
        (
            &["prepare-proxy", "up"],
            "prepare-proxy takes flags alone, and \"up\" is none; see outrigger-init prepare-proxy --help".to_owned(),
        ),
        (
            &["install-cni", "up"],
            "install-cni takes flags alone, and \"up\" is none; see outrigger-init install-cni --help".to_owned(),
        ),
        (
            &["vm", "up"],
            "vm takes flags and the word clean, and \"up\" is neither; see outrigger-init vm --help".to_owned(),
        ),
        (
            &["vm", "--cluster-env", "/no/cluster.env"],
            "--cluster-env: there is no file /no/cluster.env; name the one that the mesh gave this machine".to_owned(),
        ),
        (&["--bogus"], "unknown flag --bogus; see --help".to_owned()),
        (&["-p", "web"], format!("--envoy-port: \"web\" {port}")),
        (
            &["-b", "*,80"],
            "--istio-inbound-ports: in \"*,80\", * is all of them and must stand alone; leave out the others, or it".to_owned(),
        ),
        (
            &["-i", "10.0.0.0/40"],
            "--istio-service-cidr: \"10.0.0.0/40\" is not a range of addresses; write it like 10.0.0.0/8 or fd00::/8".to_owned(),
        ),
        (
            &["proxy-init", "-p", "1"],
            "--outgoing-proxy-port is required: the port that the proxy listens on, such as --outgoing-proxy-port 4143".to_owned(),
        ),
        (&["linkerd-init"], "--port (-p) is required: the port of the proxy, such as -p 4140".to_owned()),
        (
            &["prepare-proxy"],
            "--port (-p) and --uid (-u) are required: the proxy's port and its user, such as -p 15001 -u 1337".to_owned(),
        ),
        (
            &["-u", "nobody-at-all"],
            "--proxy-uid: \"nobody-at-all\" is neither a number nor in /etc/passwd; give the number".to_owned(),
        ),
    ] {
        let (status, out, err) = said(arguments, &[]);
        // The time comes first.
        let err = err.split_once(' ').map(|(_, line)| line.to_owned()).unwrap_or_default();
        assert_eq!((err, out.as_str(), status), (format!("error {message}\n"), "", Some(255)), "{arguments:?}");
    }
    let (status, _, err) = said(&[], &[("REDIRECT_DNS", "perhaps")]);
    assert_eq!(status, Some(255));
    assert!(err.ends_with(" error REDIRECT_DNS: \"perhaps\" is neither true nor false\n"), "{err}");
}

#[test]
fn a_plugin_that_is_not_there_is_told_with_what_puts_it_there() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let (status, out, err) = said(&["install-cni", "--bin-dir", &place, "--conf-dir", &place], &[]);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    let message = format!(
        " error {place}/outrigger-cni: it is not there, or of another version; run outrigger-init install-cni on this node, as \
         manifests/cni does\n"
    );
    assert!(err.ends_with(&message), "{err}");
}

#[test]
fn help_of_every_command_has_an_example_that_changes_nothing() {
    for command in ["istio-iptables", "proxy-init", "linkerd-init", "prepare-proxy", "vm", "install-cni"] {
        let (status, out, err) = said(&[command, "--help"], &[]);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{command}");
        let (_, examples) = out.split_once("\nExamples, which change nothing:\n").unwrap();
        for example in examples.lines() {
            let dry = ["--explain", " -n", "--simulate", "--skip-rule-apply", "--check"];
            assert!(
                example.starts_with("  outrigger-init ") && dry.iter().any(|dry| example.contains(dry)),
                "{example}"
            );
            assert!(command == "istio-iptables" || example.contains(&format!(" {command} ")), "{example}");
        }
    }
}
