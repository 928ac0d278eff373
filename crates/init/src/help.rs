//! What `--help` and `--version` print.

use std::fmt::Write as _;

use crate::flags::{Flag, Takes};
use crate::front_end::FrontEnd;
use crate::options::SHARED_FLAGS;
use crate::{cni, istio, linkerd, machine};

const HEAD: &str = "\
outrigger-init: turns a pod's traffic to the sidecar

  outrigger-init [istio-iptables] FLAGS     as istio-iptables
  outrigger-init proxy-init FLAGS           as linkerd2-proxy-init
  outrigger-init linkerd-init FLAGS         outbound to a proxy on the node, or behind a service
  outrigger-init prepare-proxy FLAGS        as the first init containers of Istio, 0.1 to 0.7
  outrigger-init vm [clean] FLAGS           on a virtual machine, by cluster.env and sidecar.env
  outrigger-init install-cni FLAGS          on a node, for pods without NET_ADMIN: as a chained CNI plugin

istio-iptables' flags, but for -p, may be variables instead: --redirect-dns is REDIRECT_DNS.
`outrigger-init COMMAND --help` shows the flags of each; docs/capture.md and docs/cni.md say more.
Exit status: 0 done, 1 failed, 126 the self-test failed, 255 the options make no sense.
";

/// Lines to try; none of them changes anything.
fn examples(front_end: FrontEnd) -> &'static str {
    match front_end {
        FrontEnd::Istio => {
            "  outrigger-init -b '*' -i '*' --explain               what a sidecar's pod captures, rule by rule
  outrigger-init -b 80,443 -i 10.0.0.0/8 -n            some ports in, a range out
  outrigger-init --run-validation --skip-rule-apply    do packets follow the rules that are there?
"
        }
        FrontEnd::ProxyInit => "  outrigger-init proxy-init -p 4143 -o 4140 --proxy-uid 2102 --simulate\n",
        FrontEnd::Daemonset => "  outrigger-init linkerd-init -p 4140 --proxy-address 10.0.0.7 --explain\n",
        FrontEnd::PrepareProxy => "  outrigger-init prepare-proxy -p 15001 -u 1337 --explain\n",
        FrontEnd::Machine => "  outrigger-init vm --explain\n  outrigger-init vm clean --explain\n",
        FrontEnd::InstallCni => "  outrigger-init install-cni --bin-dir /opt/cni/bin --conf-dir /etc/cni/net.d --check\n",
    }
}

/// The text, if the command line asks for one.
pub(crate) fn wanted(front_end: FrontEnd, arguments: &[String]) -> Option<String> {
    if arguments.iter().any(|argument| argument == "--version") {
        return Some(format!("outrigger-init {}\n", env!("CARGO_PKG_VERSION")));
    }
    if !arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return None;
    }
    let mut text = HEAD.to_owned();
    let sections: &[(&str, &[Flag])] = match front_end {
        FrontEnd::Istio => &[("What to capture", &istio::FLAGS)],
        FrontEnd::Daemonset => &[("Where the proxy is", &linkerd::DAEMONSET_FLAGS)],
        FrontEnd::ProxyInit => &[("What to capture", &linkerd::PROXY_INIT_FLAGS)],
        FrontEnd::PrepareProxy => &[("What to capture", &istio::PREPARE_PROXY_FLAGS)],
        FrontEnd::Machine => {
            &[("Files", &machine::FLAGS), ("What to capture, over the files", &istio::FLAGS)]
        }
        FrontEnd::InstallCni => &[("The node", &cni::install::FLAGS)],
    };
    let shared: &[(&str, &[Flag])] = match front_end {
        FrontEnd::InstallCni => &[],
        _ => &[("For every command", &SHARED_FLAGS)],
    };
    for (title, flags) in sections.iter().chain(shared) {
        let _ = writeln!(text, "\n{title}:");
        for flag in flags.iter().filter(|flag| !flag.help.is_empty()) {
            let short = flag.short.map_or("    ".to_owned(), |letter| format!("-{letter}, "));
            let value = if flag.takes == Takes::Value { " VALUE" } else { "" };
            let _ = writeln!(text, "  {:<46} {}", format!("{short}--{}{value}", flag.name), flag.help);
        }
    }
    let _ = write!(text, "\nExamples, which change nothing:\n{}", examples(front_end));
    Some(text)
}
