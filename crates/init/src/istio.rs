//! The front ends that Istio has had: istio-iptables with its flags, long and short, and its environment, and the script
//! that came before it. The first stands in for `istio-iptables` and `pilot-agent istio-iptables` in Istio's own pod template.

use outrigger_contract as contract;

use crate::error::{Outcome, usage};
use crate::flags::{Flag, Given, Takes, parse};
use crate::options::{
    Backend, Capture, DryRun, Form, Options, PROBE_TIMEOUT, SHARED_FLAGS, SelfTest, Surroundings, Task,
    shared,
};
use crate::prepare_proxy::PrepareProxy;
use crate::rules::Steering;
use crate::sidecar::{Dns, Groups, Mode, Sidecar};
use crate::values::{self, Families, Net, Selection};

/// iptables cannot hold more tests than this in one rule, and Istio refuses more.
const MOST_GROUPS: usize = 64;
const LOOPBACK_VARIABLE: &str = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR";

pub(crate) const FLAGS: [Flag; 47] = [
    Flag::value("envoy-port", Some('p'), "port that outbound connections are turned to (15001)"),
    Flag::value("inbound-capture-port", Some('z'), "port that inbound connections are turned to (15006)"),
    Flag::value("inbound-tunnel-port", Some('e'), "port of tunnels, never turned (15008)"),
    Flag::value("proxy-uid", Some('u'), "users whose own traffic is let through (1337)"),
    Flag::value("proxy-gid", Some('g'), "groups whose own traffic is let through (as --proxy-uid)"),
    Flag::value(
        "istio-inbound-interception-mode",
        Some('m'),
        "REDIRECT, or TPROXY, which keeps addresses (REDIRECT)",
    ),
    Flag::value("istio-inbound-ports", Some('b'), "inbound ports to capture; * is all, none by default"),
    Flag::value("istio-local-exclude-ports", Some('d'), "inbound ports to let through where -b is *"),
    Flag::value("istio-exclude-interfaces", Some('c'), "interfaces to leave alone in both directions"),
    Flag::value("istio-service-cidr", Some('i'), "outbound ranges to capture; * is all, none by default"),
    Flag::value("istio-service-exclude-cidr", Some('x'), "outbound ranges to let through"),
    Flag::value("istio-outbound-ports", Some('q'), "outbound ports to capture whatever the address"),
    Flag::value("istio-local-outbound-ports-exclude", Some('o'), "outbound ports to let through"),
    Flag::value(
        "kube-virt-interfaces",
        Some('k'),
        "interfaces of virtual machines: what arrives there is outbound",
    ),
    Flag::value("istio-inbound-tproxy-mark", Some('t'), "packet mark of TPROXY (1337)"),
    Flag::value("istio-inbound-tproxy-route-table", Some('r'), "routing table of TPROXY (133)"),
    Flag::switch("dry-run", Some('n'), "show the rules and change nothing"),
    Flag::value("iptables-probe-port", None, "port that the self-test dials (15002)"),
    Flag::value("probe-timeout", None, "how long the self-test may take (5s)"),
    Flag::switch("skip-rule-apply", None, "leave the rules alone: only --run-validation"),
    Flag::switch("run-validation", None, "prove with packets on loopback that capture works"),
    Flag::switch("redirect-dns", None, "turn name service to the proxy's port 15053"),
    Flag::switch("capture-all-dns", None, "with --redirect-dns: to whichever server, not only resolv.conf's"),
    Flag::switch("drop-invalid", None, "drop packets that belong to no connection"),
    Flag::switch("dual-stack", None, "IPv6 as soon as there is an IPv6 address; false: if it is the first"),
    Flag::value("network-namespace", None, "the same as --netns"),
    Flag::switch("cni-mode", None, "accepted: nothing here depends on it"),
    Flag::switch("reconcile", None, "accepted: this is what always happens; see --on-drift"),
    Flag::switch("force-apply", None, "write the rules even if they are there"),
    Flag::switch("native-nftables", None, "the same as --backend nftables"),
    Flag::value(
        "force-iptables-binary",
        None,
        "legacy or nft: the same as --backend iptables-legacy or iptables-nft",
    ),
    Flag::switch("log_as_json", None, "the same as --log-format json"),
    Flag::ignored("restore-format", Some('f'), Takes::IgnoredSwitch),
    Flag::ignored("iptables-trace-logging", None, Takes::IgnoredSwitch),
    Flag::ignored("host-nsenter-exec", None, Takes::IgnoredSwitch),
    Flag::ignored("clean", None, Takes::IgnoredSwitch),
    Flag::ignored("output-paths", None, Takes::IgnoredValue),
    Flag::ignored("iptables-version", None, Takes::IgnoredValue),
    Flag::ignored("log_caller", None, Takes::IgnoredValue),
    Flag::ignored("log_output_level", None, Takes::IgnoredValue),
    Flag::ignored("log_rotate", None, Takes::IgnoredValue),
    Flag::ignored("log_rotate_max_age", None, Takes::IgnoredValue),
    Flag::ignored("log_rotate_max_backups", None, Takes::IgnoredValue),
    Flag::ignored("log_rotate_max_size", None, Takes::IgnoredValue),
    Flag::ignored("log_stacktrace_level", None, Takes::IgnoredValue),
    Flag::ignored("log_target", None, Takes::IgnoredValue),
    Flag::ignored("vklog", None, Takes::IgnoredValue),
];

pub(crate) const PREPARE_PROXY_FLAGS: [Flag; 4] = [
    Flag::value("port", Some('p'), "port of the proxy, for both directions (required)"),
    Flag::value("uid", Some('u'), "user whose own traffic is let through (required)"),
    Flag::value("ranges", Some('i'), "outbound ranges to capture; none is all"),
    Flag::ignored("exclude", Some('e'), Takes::IgnoredValue),
];

/// Flags that also have a variable of another name.
const ALIASES: [(&str, &str); 3] = [
    ("redirect-dns", "ISTIO_META_DNS_CAPTURE"),
    ("drop-invalid", "INVALID_DROP"),
    ("dual-stack", "ISTIO_DUAL_STACK"),
];

/// The command line, then the environment.
struct Settings<'a> {
    given: &'a Given,
    surroundings: &'a Surroundings,
}

impl Settings<'_> {
    /// The value of a flag and the name under which it was given.
    fn find(&self, flag: &str) -> Option<(String, &str)> {
        if let Some(value) = self.given.get(flag) {
            return Some((format!("--{flag}"), value));
        }
        let alias =
            ALIASES.iter().find(|(name, _)| *name == flag).map(|(_, variable)| (*variable).to_owned());
        // Istio gives this one no variable: ENVOY_PORT is the name of something else in its scripts.
        let derived = (flag != "envoy-port").then(|| flag.to_uppercase().replace('-', "_"));
        alias.into_iter().chain(derived).find_map(|name| {
            let value = self.surroundings.variable(&name)?;
            Some((name, value))
        })
    }

    fn read<T>(&self, flag: &str, default: T, parser: impl Fn(&str, &str) -> Outcome<T>) -> Outcome<T> {
        match self.find(flag) {
            Some((name, value)) => parser(&name, value),
            None => Ok(default),
        }
    }

    fn switched(&self, flag: &str) -> Outcome<bool> {
        self.read(flag, false, values::boolean)
    }
}

/// Reads a command line.
pub(crate) fn options(arguments: &[String], surroundings: &Surroundings) -> Outcome<Options> {
    let known = [SHARED_FLAGS.as_slice(), FLAGS.as_slice()].concat();
    let given = parse(arguments, &known)?;
    if let Some(word) = given.words.first() {
        return usage(format!(
            "{word:?} is neither a command nor a flag; the commands are istio-iptables, proxy-init, linkerd-init, \
             prepare-proxy, vm and install-cni; see outrigger-init --help"
        ));
    }
    let settings = Settings { given: &given, surroundings };
    let plan = Box::new(plan(&settings)?);
    let steering = steering(&settings)?;
    let redirect_dns = plan.dns != Dns::Off;
    let detect_dns = redirect_dns && plan.dns != Dns::All;
    let mut options = shared(&given, surroundings, Capture::Sidecar { plan, detect_dns })?;
    options.steering = steering;
    options.families.dual_stack = match settings.find("dual-stack") {
        Some((name, value)) => Some(values::boolean(&name, value)?),
        None => None,
    };
    options.backend = match options.backend {
        None => backend(&settings)?,
        chosen => chosen,
    };
    if settings.switched("dry-run")? && options.dry_run.is_none() {
        let file = surroundings.variable("DRY_RUN_FILE_PATH").filter(|path| !path.is_empty()).map(Into::into);
        options.dry_run = Some(DryRun { form: Form::Native, explain: false, file });
    }
    if options.netns.is_none() {
        options.netns =
            settings.find("network-namespace").map(|(_, path)| path.to_owned()).filter(|p| !p.is_empty());
    }
    if settings.switched("cleanup-only")? {
        options.task = Task::Clean;
    } else if settings.switched("skip-rule-apply")? {
        options.task = Task::Nothing;
    }
    if settings.switched("run-validation")? && options.task != Task::Clean {
        let port = settings.read("iptables-probe-port", 15002, values::port)?;
        let timeout = settings.read("probe-timeout", PROBE_TIMEOUT, values::duration)?;
        options.self_test = Some(SelfTest { port, timeout });
    }
    options.force = settings.switched("force-apply")?;
    options.log_json |= given.switched("log_as_json");
    Ok(options)
}

/// Reads a command line of Istio's first init containers.
pub(crate) fn prepare_proxy(arguments: &[String], surroundings: &Surroundings) -> Outcome<Options> {
    let known = [SHARED_FLAGS.as_slice(), PREPARE_PROXY_FLAGS.as_slice()].concat();
    let given = parse(arguments, &known)?;
    given.flags_alone("prepare-proxy")?;
    let (Some(port), Some(uid)) = (given.get("port"), given.get("uid")) else {
        return usage(
            "--port (-p) and --uid (-u) are required: the proxy's port and its user, such as -p 15001 -u 1337",
        );
    };
    let nets = values::nets("--ranges", given.get("ranges").unwrap_or_default())?;
    let plan = PrepareProxy {
        families: Families::BOTH,
        port: values::port("--port", port)?,
        uid: surroundings.id("--uid", "passwd", uid)?,
        ranges: if nets.is_empty() { Selection::All } else { Selection::Only(nets) },
    };
    shared(&given, surroundings, Capture::PrepareProxy(plan))
}

fn backend(settings: &Settings<'_>) -> Outcome<Option<Backend>> {
    if settings.switched("native-nftables")? {
        return Ok(Some(Backend::Nftables));
    }
    match settings.find("force-iptables-binary") {
        None | Some((_, "")) => Ok(None),
        Some((_, "legacy")) => Ok(Some(Backend::IptablesLegacy)),
        Some((_, "nft")) => Ok(Some(Backend::IptablesNft)),
        Some((name, other)) => usage(format!("{name}: {other:?} is neither legacy nor nft")),
    }
}

fn steering(settings: &Settings<'_>) -> Outcome<Steering> {
    Ok(Steering {
        mark: settings.read("istio-inbound-tproxy-mark", crate::options::STEERING.mark, values::number)?,
        table: settings.read(
            "istio-inbound-tproxy-route-table",
            crate::options::STEERING.table,
            values::number,
        )?,
    })
}

fn plan(settings: &Settings<'_>) -> Outcome<Sidecar> {
    let none = || Selection::Only(Vec::new());
    let proxy_uids = proxy_users(settings)?;
    let proxy_gids = match settings.find("proxy-gid").filter(|(_, value)| !value.trim().is_empty()) {
        Some((name, value)) => settings.surroundings.ids(&name, "group", value)?,
        None => proxy_uids.clone(),
    };
    let dns = match (settings.switched("redirect-dns")?, settings.switched("capture-all-dns")?) {
        (false, _) => Dns::Off,
        (true, true) => Dns::All,
        (true, false) => Dns::Servers(Vec::new()),
    };
    Ok(Sidecar {
        families: Families::BOTH,
        outbound_port: settings.read("envoy-port", contract::OUTBOUND_PORT, values::port)?,
        inbound_port: settings.read("inbound-capture-port", contract::INBOUND_PORT, values::port)?,
        tunnel_port: settings.read("inbound-tunnel-port", contract::TUNNEL_PORT, values::port)?,
        proxy_uids,
        proxy_gids,
        mode: settings.read("istio-inbound-interception-mode", Mode::Redirect, |name, text| match text {
            // NONE is what a pod asks for that shall not be captured inbound; its template has no init
            // container. Where it has one all the same, istio-iptables takes it as REDIRECT.
            "" | "REDIRECT" | "NONE" => Ok(Mode::Redirect),
            "TPROXY" => Ok(Mode::Tproxy(steering(settings)?)),
            other => usage(format!("{name}: {other:?} is neither REDIRECT nor TPROXY")),
        })?,
        inbound_ports: settings
            .read("istio-inbound-ports", none(), |n, t| values::selection(n, t, values::ports))?,
        inbound_excluded_ports: settings.read("istio-local-exclude-ports", Vec::new(), values::ports)?,
        outbound_ranges: settings.read("istio-service-cidr", Selection::Only(Vec::new()), |n, t| {
            values::selection(n, t, values::nets)
        })?,
        outbound_excluded_ranges: settings.read("istio-service-exclude-cidr", Vec::new(), values::nets)?,
        outbound_ports: settings.read("istio-outbound-ports", Vec::new(), values::ports)?,
        outbound_excluded_ports: settings.read(
            "istio-local-outbound-ports-exclude",
            Vec::new(),
            values::ports,
        )?,
        groups: groups(settings.surroundings)?,
        excluded_interfaces: settings.read("istio-exclude-interfaces", Vec::new(), values::interfaces)?,
        virtual_interfaces: settings.read("kube-virt-interfaces", Vec::new(), values::interfaces)?,
        dns,
        drop_invalid: settings.switched("drop-invalid")?,
        loopback_v4: loopback(settings.surroundings)?,
    })
}

/// Users as given; else the user that ENVOY_USER names, if this container has it; else the contract's.
fn proxy_users(settings: &Settings<'_>) -> Outcome<Vec<u32>> {
    if let Some((name, value)) = settings.find("proxy-uid").filter(|(_, value)| !value.trim().is_empty()) {
        return settings.surroundings.ids(&name, "passwd", value);
    }
    let user = settings.surroundings.variable("ENVOY_USER").filter(|user| !user.is_empty());
    let found = settings.surroundings.named("passwd", user.unwrap_or(contract::PROXY_CONTAINER));
    Ok(vec![found.unwrap_or(contract::PROXY_UID)])
}

fn groups(surroundings: &Surroundings) -> Outcome<Groups> {
    let (only, except) = ("ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE");
    let excluded = || surroundings.ids(except, "group", surroundings.variable(except).unwrap_or_default());
    match surroundings.variable(only).map(str::trim) {
        None | Some("*") => Ok(Groups::AllExcept(excluded()?)),
        Some(text) => {
            let groups = surroundings.ids(only, "group", text)?;
            if groups.len() > MOST_GROUPS {
                return usage(format!(
                    "{only}: {} groups are too many; the most is {MOST_GROUPS}",
                    groups.len()
                ));
            }
            Ok(Groups::Only(groups))
        }
    }
}

fn loopback(surroundings: &Surroundings) -> Outcome<Net> {
    let text = match surroundings.variable(LOOPBACK_VARIABLE) {
        None | Some("") => "127.0.0.1/32",
        Some(text) => text,
    };
    let net = values::net(LOOPBACK_VARIABLE, text)?;
    if !net.address.is_ipv4() || !net.address.is_loopback() || net.prefix < 8 {
        return usage(format!("{LOOPBACK_VARIABLE}: {text:?} is not a part of 127.0.0.0/8"));
    }
    Ok(net)
}
