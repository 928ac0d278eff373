//! One run from beginning to end.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::backend;
use crate::error::{Outcome, failed};
use crate::facts;
use crate::istio;
use crate::log::Log;
use crate::nftables::Change;
use crate::options::{Backend, Capture, Options, Surroundings, Task};
use crate::routes::Routes;
use crate::rules::RuleSet;
use crate::sidecar::Dns;

/// Reads the command line and does what it says.
pub(crate) fn run(arguments: &[String], surroundings: &Surroundings) -> Outcome<()> {
    let arguments = match arguments.first().map(String::as_str) {
        Some("istio-iptables") => &arguments[1..],
        _ => arguments,
    };
    let options = istio::options(arguments, surroundings)?;
    let log = Log { json: options.log_json };
    for warning in &options.warnings {
        log.warn(warning);
    }
    enter(&options)?;
    let mut routes = Routes::open()?;
    if options.task == Task::Clean {
        let change = backend::clean()?;
        let routed = routes.clean(options.steering)?;
        log.info("capture removed", &[("changed", (change != Change::None || routed).into())]);
        return Ok(());
    }
    let rules = rules(&options, surroundings, &mut routes, log)?;
    let (backend, change) = backend::apply(&rules, &options, log)?;
    let routed = routes.apply(&rules, options.steering)?;
    report(log, &rules, backend, change, routed);
    Ok(())
}

/// Goes into the network namespace that the options name. This process has one thread, so all of it goes.
fn enter(options: &Options) -> Outcome<()> {
    let Some(name) = &options.netns else { return Ok(()) };
    let path = match name.parse::<u32>() {
        Ok(process) => format!("/proc/{process}/ns/net"),
        Err(_) => name.clone(),
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

fn rules(options: &Options, surroundings: &Surroundings, routes: &mut Routes, log: Log) -> Outcome<RuleSet> {
    match options.capture.clone() {
        Capture::Sidecar { mut plan, detect_dns } => {
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
            Ok(plan.rules())
        }
        Capture::ProxyInit(plan) => Ok(plan.rules()),
        Capture::Daemonset(plan) => Ok(plan.rules()),
    }
}

fn report(log: Log, rules: &RuleSet, backend: Backend, change: Change, routed: bool) {
    let message = match (change, routed) {
        (Change::None, false) => "capture is in place already",
        (Change::Replaced, _) => "capture replaced",
        _ => "capture applied",
    };
    log.info(
        message,
        &[
            ("backend", backend.name().into()),
            ("ipv4", rules.families.v4.into()),
            ("ipv6", rules.families.v6.into()),
            ("rules", rules.len().into()),
        ],
    );
}
