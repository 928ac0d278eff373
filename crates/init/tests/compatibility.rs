//! What becomes of each flag of istio-iptables: it is given to a dry run, and the rules are compared with those without it.
//! `docs/compatibility/capture.md` is what was found.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../tests/compatibility/document.rs"]
mod document;

use std::process::Command;

/// A flag with a value, the flags beside it under which it means something, and what is to be said of it: that the rules
/// are the same needs a reason.
const FLAGS: &[(&str, &str, &str)] = &[
    ("-p 16001", "", ""),
    ("--envoy-port 16001", "", ""),
    ("-z 16006", "", ""),
    ("--inbound-capture-port 16006", "", ""),
    ("-e 16008", "", ""),
    ("--inbound-tunnel-port 16008", "", ""),
    ("-u 2000", "", ""),
    ("--proxy-uid 2000", "", ""),
    ("-g 2000", "", ""),
    ("--proxy-gid 2000", "", ""),
    ("-m TPROXY", "", ""),
    ("--istio-inbound-interception-mode TPROXY", "", ""),
    ("-b 8080", "", ""),
    ("--istio-inbound-ports 8080", "", ""),
    ("-d 9090", "", ""),
    ("--istio-local-exclude-ports 9090", "", ""),
    ("-c eth1", "", ""),
    ("--istio-exclude-interfaces eth1", "", ""),
    ("-i 10.0.0.0/8", "", ""),
    ("--istio-service-cidr 10.0.0.0/8", "", ""),
    ("-x 10.1.0.0/16", "", ""),
    ("--istio-service-exclude-cidr 10.1.0.0/16", "", ""),
    ("-q 3306", "", ""),
    ("--istio-outbound-ports 3306", "", ""),
    ("-o 3306", "", ""),
    ("--istio-local-outbound-ports-exclude 3306", "", ""),
    ("-k eth1", "", ""),
    ("--kube-virt-interfaces eth1", "", ""),
    ("-t 7", "-m TPROXY", ""),
    ("--istio-inbound-tproxy-mark 7", "-m TPROXY", ""),
    ("-r 7", "-m TPROXY", ""),
    ("--istio-inbound-tproxy-route-table 7", "-m TPROXY", ""),
    ("--redirect-dns --capture-all-dns", "", ""),
    ("--capture-all-dns", "--redirect-dns", ""),
    ("--drop-invalid", "", ""),
    ("--native-nftables", "", "this is what is chosen wherever the kernel has nftables"),
    ("--force-iptables-binary legacy", "", ""),
    ("--iptables-probe-port 7", "", "of the self-test, not of the rules"),
    ("--probe-timeout 7s", "", "of the self-test, not of the rules"),
    ("--run-validation", "", "a self-test after the rules"),
    ("--skip-rule-apply", "", "the rules are left alone"),
    ("--cleanup-only", "", "the rules are taken away"),
    ("--force-apply", "", "writes the rules even if they are there"),
    ("--reconcile", "", "this is what always happens"),
    ("--cni-mode", "", "nothing depends on it: there are no host's binaries, and no lock"),
    ("--dual-stack", "", "IPv6 has rules wherever the pod has an address of it, asked for or not"),
    ("--restore-format", "", "removed from istio-iptables; taken and of no effect, as there"),
    ("-f", "", "removed from istio-iptables; taken and of no effect, as there"),
    ("--iptables-trace-logging", "", "removed from istio-iptables; taken and of no effect, as there"),
    ("--log_as_json", "", "of the log, not of the rules"),
    ("--log_output_level default:info", "", "there is one level"),
];

/// The rules as JSON; `None` where the command line is refused.
fn rules(flags: &str) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-init"));
    command.env_clear().env("OUTRIGGER_ENABLE_IPV6", "false").env("OUTRIGGER_DNS_SERVERS_V4", "10.96.0.10");
    command.args(["istio-iptables", "--dry-run"]).args(flags.split_whitespace());
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_page_on_capture_says_what_each_flag_does() {
    let row = |&(flag, beside, note): &(&str, &str, &str)| {
        let beside = format!("-b * -i * {beside}");
        let with = rules(&format!("{beside} {flag}")).unwrap_or_else(|| panic!("{flag} is refused"));
        let changes = with != rules(&beside).unwrap();
        assert!(changes || !note.is_empty(), "{flag} changes no rule: say why");
        let outcome = if changes { "changes the rules" } else { "is taken" };
        vec![format!("`{flag}`"), outcome.to_owned(), note.to_owned()]
    };
    let rows: Vec<_> = FLAGS.iter().map(row).collect();
    let mut page = String::from(
        "# Capture\n\nFlags of istio-iptables, each given to a dry run of `outrigger-init istio-iptables -b '*' -i '*'`.\n\n",
    );
    page += &document::table(&["flag", "", ""], &rows);
    document::holds("capture.md", &page);
}
