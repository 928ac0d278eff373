//! What a run is asked to do, whichever front end it was asked through, and the flags that all front ends
//! share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use outrigger_contract as contract;

use crate::daemonset::Daemonset;
use crate::error::{Outcome, usage};
use crate::flags::{Flag, Given};
use crate::prepare_proxy::PrepareProxy;
use crate::proxy_init::ProxyInit;
use crate::rules::Steering;
use crate::sidecar::Sidecar;
use crate::values::{self, Families};

/// A way to program the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Nftables => "nftables",
            Backend::IptablesNft => "iptables-nft",
            Backend::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// The form in which a dry run shows the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The chosen back end's own.
    Native,
    Iptables,
    Nft,
    Json,
}

/// Show the rules and change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DryRun {
    pub(crate) form: Form,
    /// With a sentence for each rule.
    pub(crate) explain: bool,
    /// Instead of standard output.
    pub(crate) file: Option<PathBuf>,
}

/// What to do with the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Apply,
    /// Take ours away.
    Clean,
    /// Leave them alone.
    Nothing,
}

/// Prove the rules with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelfTest {
    /// Port that is dialled and that nothing listens on.
    pub(crate) port: u16,
    pub(crate) timeout: Duration,
}

/// What is to be captured; facts about the namespace are still missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    Sidecar {
        plan: Box<Sidecar>,
        /// The servers of /etc/resolv.conf are to be put into the plan.
        detect_dns: bool,
    },
    ProxyInit(ProxyInit),
    PrepareProxy(PrepareProxy),
    Daemonset(Daemonset),
}

/// Which IP families are wanted; what is not said is detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FamilyWish {
    pub(crate) given: Option<Families>,
    /// Istio's flag: `false` lets the first address decide on IPv6.
    pub(crate) dual_stack: Option<bool>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) capture: Capture,
    pub(crate) task: Task,
    pub(crate) families: FamilyWish,
    /// `None`: chosen by what the kernel can do.
    pub(crate) backend: Option<Backend>,
    /// Path of a network namespace, or the id of a process in it.
    pub(crate) netns: Option<String>,
    pub(crate) dry_run: Option<DryRun>,
    pub(crate) self_test: Option<SelfTest>,
    /// Policy routing that a run with these options makes, or an earlier one may have made.
    pub(crate) steering: Steering,
    /// Write the rules even if they are there.
    pub(crate) force: bool,
    /// Replace other rules of ours; otherwise they are an error.
    pub(crate) repair: bool,
    pub(crate) allow_host_network: bool,
    /// Seconds for nf_conntrack_tcp_timeout_close_wait.
    pub(crate) close_wait: Option<u32>,
    pub(crate) log_json: bool,
    pub(crate) warnings: Vec<String>,
}

/// Mark and table that Istio uses.
pub(crate) const STEERING: Steering = Steering { mark: contract::TPROXY_MARK, table: 133 };
/// How long a self-test may take if nothing is said.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Our own flags, which every front end takes.
pub(crate) const SHARED_FLAGS: [Flag; 11] = [
    Flag::value("backend", None, "auto, nftables, iptables-nft or iptables-legacy (auto)"),
    Flag::value("netns", None, "work in this network namespace: a path, or the id of a process in it"),
    Flag::value(
        "ip-families",
        None,
        "auto, ipv4, ipv6 or both (auto: IPv4, and IPv6 where there is an address)",
    ),
    Flag::value("dry-run-format", None, "native, iptables, nft or json (native: as the back end has it)"),
    Flag::switch("explain", None, "a dry run with a sentence for each rule"),
    Flag::value("on-drift", None, "repair, or fail when other capture rules are there (repair)"),
    Flag::switch("allow-host-netns", None, "capture even the node's own network namespace"),
    Flag::value("log-format", None, "plain or json (plain)"),
    Flag::switch("cleanup-only", None, "take our rules and routes away, add nothing"),
    Flag::switch("help", Some('h'), "show this"),
    Flag::switch("version", None, "show the version"),
];

/// What front ends know beside their arguments.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) environment: BTreeMap<String, String>,
    /// Where `passwd`, `group`, `hosts` and `resolv.conf` are: /etc. They are read as files: a lookup by the
    /// C library may load modules or ask the network, which a half-built namespace does not have.
    pub(crate) etc: PathBuf,
}

impl Surroundings {
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Id of a user or group, by number or by name in `file` (`passwd` or `group`).
    pub(crate) fn id(&self, option: &str, file: &str, text: &str) -> Outcome<u32> {
        match text.parse() {
            Ok(id) => Ok(id),
            Err(_) => match self.named(file, text) {
                Some(id) => Ok(id),
                None => usage(format!(
                    "{option}: {text:?} is neither a number nor in {}; give the number",
                    self.etc.join(file).display()
                )),
            },
        }
    }

    /// Id of a name in `passwd` or `group`.
    pub(crate) fn named(&self, file: &str, name: &str) -> Option<u32> {
        let content = std::fs::read_to_string(self.etc.join(file)).ok()?;
        content.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    }

    /// Ids, comma separated.
    pub(crate) fn ids(&self, option: &str, file: &str, text: &str) -> Outcome<Vec<u32>> {
        values::items(text).map(|item| self.id(option, file, item)).collect()
    }
}

/// Reads [`SHARED_FLAGS`] into a run of `capture`.
pub(crate) fn shared(given: &Given, surroundings: &Surroundings, capture: Capture) -> Outcome<Options> {
    let explain = given.switched("explain");
    let form = match given.get("dry-run-format") {
        None | Some("native") => Form::Native,
        Some("iptables") => Form::Iptables,
        Some("nft") => Form::Nft,
        Some("json") => Form::Json,
        Some(other) => {
            return usage(format!("--dry-run-format: {other:?} is none of native, iptables, nft, json"));
        }
    };
    let dry = explain || given.get("dry-run-format").is_some();
    let file = surroundings.variable("DRY_RUN_FILE_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let log_json = match given.get("log-format") {
        None | Some("plain") => false,
        Some("json") => true,
        Some(other) => return usage(format!("--log-format: {other:?} is neither plain nor json")),
    };
    let repair = match given.get("on-drift") {
        None | Some("repair") => true,
        Some("fail") => false,
        Some(other) => return usage(format!("--on-drift: {other:?} is neither repair nor fail")),
    };
    let warnings = given.ignored.iter().filter(|name| !name.starts_with("log_") && *name != "vklog");
    Ok(Options {
        capture,
        task: if given.switched("cleanup-only") { Task::Clean } else { Task::Apply },
        families: FamilyWish { given: families(given, surroundings)?, dual_stack: None },
        backend: backend(given.get("backend"))?,
        netns: given.get("netns").map(str::to_owned),
        dry_run: dry.then_some(DryRun { form, explain, file }),
        self_test: None,
        steering: STEERING,
        force: false,
        repair,
        close_wait: None,
        allow_host_network: given.switched("allow-host-netns"),
        log_json,
        warnings: warnings.map(|name| format!("--{name} means nothing here and is ignored")).collect(),
    })
}

fn backend(text: Option<&str>) -> Outcome<Option<Backend>> {
    Ok(Some(match text {
        None | Some("auto") => return Ok(None),
        Some("nftables" | "nft") => Backend::Nftables,
        Some("iptables-nft") => Backend::IptablesNft,
        Some("iptables-legacy") => Backend::IptablesLegacy,
        Some(other) => {
            return usage(format!(
                "--backend: {other:?} is none of auto, nftables, iptables-nft, iptables-legacy"
            ));
        }
    }))
}

fn families(given: &Given, surroundings: &Surroundings) -> Outcome<Option<Families>> {
    match given.get("ip-families") {
        None | Some("auto") => {}
        Some("ipv4") => return Ok(Some(Families { v4: true, v6: false })),
        Some("ipv6") => return Ok(Some(Families { v4: false, v6: true })),
        Some("both") => return Ok(Some(Families::BOTH)),
        Some(other) => return usage(format!("--ip-families: {other:?} is none of auto, ipv4, ipv6, both")),
    }
    let variable = "OUTRIGGER_ENABLE_IPV6";
    match surroundings.variable(variable) {
        None => Ok(None),
        Some(text) => Ok(Some(Families { v4: true, v6: values::boolean(variable, text)? })),
    }
}
