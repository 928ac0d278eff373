//! One run from beginning to end.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use outrigger_contract as contract;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::backend;
use crate::error::{Failure, Outcome, failed};
use crate::facts;
use crate::log::{Log, Value};
use crate::manner::Change;
use crate::options::{Backend, Capture, DryRun, Options, Surroundings, Task};
use crate::print;
use crate::routes::Routes;
use crate::rules::RuleSet;
use crate::self_test;
use crate::sidecar::Dns;

/// How long a run waits for another one in the same namespace.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Does what the options say, in the network namespace that this process is in.
pub(crate) fn carry_out(options: &Options, surroundings: &Surroundings) -> Outcome<()> {
    let log = Log { json: options.log_json };
    options.warnings.iter().for_each(|warning| log.warn(warning));
    // Held until the end; a dry run changes nothing that somebody else could mind.
    let _lock = if options.dry_run.is_none() { Some(lock()?) } else { None };
    let mut routes = Routes::open()?;
    if !options.allow_host_network && options.dry_run.is_none() {
        refuse_host_network(surroundings, &mut routes)?;
    }
    if options.task == Task::Clean && options.dry_run.is_none() {
        let change = backend::clean()?;
        let routed = routes.clean(options.steering)?;
        log.info("capture removed", &[("changed", (change != Change::None || routed).into())]);
        return Ok(());
    }
    let capture = complete(options.capture.clone(), options, surroundings, &mut routes, log)?;
    let rules = match options.task {
        Task::Clean => RuleSet::empty(),
        Task::Apply | Task::Nothing => rules(&capture),
    };
    if let Some(dry_run) = &options.dry_run {
        return show(&rules, dry_run, options.backend.unwrap_or(Backend::Nftables));
    }
    if options.task == Task::Apply {
        let (backend, change) = backend::apply(&rules, options, log)?;
        let routed = routes.apply(&rules, options.steering)?;
        report(log, &capture, &rules, backend, change, routed);
        if let Some(seconds) = options.close_wait {
            set_close_wait(seconds)?;
        }
    }
    match (options.self_test, &capture) {
        (Some(test), Capture::Sidecar { plan, .. }) => {
            let tested = self_test::run(plan, test, &routes.addresses()?, log);
            // Where the rules were to come from somebody else, it has to be said who that is.
            tested.map_err(|failure| match failure {
                Failure::SelfTest(text) if options.task == Task::Nothing => Failure::SelfTest(format!(
                    "{text}; capture is not programmed in this pod: the CNI plugin {} was not there when the pod's \
                     network was made, or does not work on this node; install it there (manifests/cni) and delete \
                     this pod, so that it is made anew",
                    contract::CNI_PLUGIN
                )),
                failure => failure,
            })
        }
        _ => Ok(()),
    }
}

/// The rules that a run with these options would make.
pub(crate) fn planned(
    options: &Options,
    surroundings: &Surroundings,
    routes: &mut Routes,
) -> Outcome<RuleSet> {
    let log = Log { json: options.log_json };
    Ok(rules(&complete(options.capture.clone(), options, surroundings, routes, log)?))
}

/// Goes into a network namespace, given by its path or by a process in it. This process has one thread, so all of it
/// goes.
pub(crate) fn enter(name: &str) -> Outcome<()> {
    let path = match name.parse::<u32>() {
        Ok(process) => format!("/proc/{process}/ns/net"),
        Err(_) => name.to_owned(),
    };
    let entered = File::open(&path)
        .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
    match entered {
        Ok(()) => Ok(()),
        Err(error) => failed(format!(
            "cannot enter the network namespace {path}: {error}; give the path of one (as under /run/netns) or the id \
             of a process, and the capability SYS_ADMIN"
        )),
    }
}

/// One run at a time in a namespace. The lock is on the namespace itself, so that it needs no place to write. The tools
/// that a run starts inherit it: one that outlives a run which was killed is not taken unawares by the next run.
pub(crate) fn lock() -> Outcome<OwnedFd> {
    let path = "/proc/self/ns/net";
    let file = match rustix::fs::open(path, OFlags::RDONLY, Mode::empty()) {
        Ok(file) => file,
        Err(error) => return failed(format!("cannot open {path}: {error}")),
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                return failed(
                    "another run has been at work in this network namespace for 30 seconds; find out why",
                );
            }
            Err(errno) => return failed(format!("cannot lock {path}: {errno}")),
        }
    }
}

fn refuse_host_network(surroundings: &Surroundings, routes: &mut Routes) -> Outcome<()> {
    match facts::host_network(surroundings, routes)? {
        None => Ok(()),
        Some(reason) => failed(format!(
            "this is the node's own network namespace ({reason}): capture would turn the traffic of the whole node; \
             leave out the sidecar for pods with hostNetwork, or give --allow-host-netns"
        )),
    }
}

/// Puts the facts into a plan that it still lacks.
fn complete(
    capture: Capture,
    options: &Options,
    surroundings: &Surroundings,
    routes: &mut Routes,
    log: Log,
) -> Outcome<Capture> {
    let (mut plan, detect_dns) = match capture {
        Capture::Sidecar { plan, detect_dns } => (plan, detect_dns),
        Capture::PrepareProxy(mut plan) => {
            plan.families = facts::families(options.families, routes)?;
            return Ok(Capture::PrepareProxy(plan));
        }
        Capture::ProxyInit(_) | Capture::Daemonset(_) => return Ok(capture),
    };
    plan.families = facts::families(options.families, routes)?;
    if detect_dns {
        let servers = facts::dns_servers(surroundings)?;
        plan.dns = if servers.is_empty() {
            log.warn("there is no name server to capture; name service is left alone");
            Dns::Off
        } else {
            Dns::Servers(servers)
        };
    }
    Ok(Capture::Sidecar { plan, detect_dns })
}

pub(crate) fn rules(capture: &Capture) -> RuleSet {
    match capture {
        Capture::Sidecar { plan, .. } => plan.rules(),
        Capture::ProxyInit(plan) => plan.rules(),
        Capture::PrepareProxy(plan) => plan.rules(),
        Capture::Daemonset(plan) => plan.rules(),
    }
}

fn show(rules: &RuleSet, dry_run: &DryRun, native: Backend) -> Outcome<()> {
    let text = print::render(rules, dry_run.form, native, dry_run.explain);
    match &dry_run.file {
        None => print::out(&text),
        Some(path) => std::fs::write(path, text).map_err(|error| {
            Failure::Run(format!("{} (DRY_RUN_FILE_PATH): cannot write it: {error}", path.display()))
        }),
    }
}

fn set_close_wait(seconds: u32) -> Outcome<()> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
    match std::fs::write(path, seconds.to_string()) {
        Ok(()) => Ok(()),
        Err(error) => failed(format!(
            "--timeout-close-wait-secs: cannot write {path}: {error}; the container has to be privileged for this"
        )),
    }
}

fn report(log: Log, capture: &Capture, rules: &RuleSet, backend: Backend, change: Change, routed: bool) {
    let message = match (change, routed) {
        (Change::None, false) => "capture is in place already",
        (Change::Replaced, _) => "capture replaced",
        _ => "capture applied",
    };
    let mut fields: Vec<(&str, Value)> = vec![
        ("backend", backend.name().into()),
        ("ipv4", rules.families.v4.into()),
        ("ipv6", rules.families.v6.into()),
        ("rules", rules.len().into()),
    ];
    match capture {
        Capture::Sidecar { plan, .. } => {
            let (inbound, outbound) = plan.summary();
            fields.extend([("inbound", inbound.into()), ("outbound", outbound.into())]);
            if let Dns::Servers(servers) = &plan.dns {
                fields.push((
                    "dns",
                    servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",").into(),
                ));
            } else if plan.dns == Dns::All {
                fields.push(("dns", "all".into()));
            }
        }
        Capture::PrepareProxy(plan) => fields.push(("port", usize::from(plan.port).into())),
        Capture::ProxyInit(plan) => fields.push(("inbound_port", usize::from(plan.inbound_port).into())),
        Capture::Daemonset(plan) => fields.push(("proxy", plan.proxy.to_string().into())),
    }
    log.info(message, &fields);
}
