//! As a chained CNI plugin (<https://www.cni.dev/docs/spec/>, 0.3.0 to 1.1.0): the container runtime calls this program
//! on the node for each pod, and it programs capture in the pod's network namespace. So no container needs NET_ADMIN.
//!
//! ```text
//! request     what the runtime asks for: variables and standard input
//! chain       this plugin's place in a list of plugins
//! install     brings the program and its place in the list to a node, and keeps them there
//! ```
//!
//! What to capture stands in an annotation of the pod ([`outrigger_contract::CAPTURE_ANNOTATION`]), and the runtime
//! passes annotations on: the node needs no credentials. A pod without the annotation is let through as it is.

pub(crate) mod chain;
pub(crate) mod install;
pub(crate) mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use outrigger_contract::CNI_PLUGIN;
use rustix::fs::stat;
use serde_json::{Value, json};

use crate::backend;
use crate::error::{Outcome, failed};
use crate::log::Log;
use crate::routes::Routes;
use crate::run::{carry_out, enter, lock, planned};
use request::{Asked, Refusal, Request, Work};

/// Whether a runtime has called this program: plugins take no arguments.
pub(crate) fn is_called(arguments: &[String], environment: &BTreeMap<String, String>) -> bool {
    arguments.is_empty() && environment.contains_key("CNI_COMMAND")
}

/// Does what the runtime asks for, and answers on standard output. The status of the process says whether it did.
pub(crate) fn run(environment: &BTreeMap<String, String>) -> u8 {
    let mut input = String::new();
    let read = std::io::stdin().read_to_string(&mut input);
    let answer = match read {
        Ok(_) => answer(environment, &input),
        Err(error) => {
            Err(Refusal::new(request::IO, "cannot read the network configuration", error.to_string()))
        }
    };
    let (text, status) = match answer {
        Ok(None) => return 0,
        Ok(Some(answer)) => (answer, 0),
        Err(refusal) => (refusal.answer(&request::version_of(&input)), 1),
    };
    match std::io::stdout().write_all(format!("{text}\n").as_bytes()) {
        Ok(()) => status,
        Err(_) => 1,
    }
}

fn answer(environment: &BTreeMap<String, String>, input: &str) -> Result<Option<Value>, Refusal> {
    let Request { asked, work } = Request::read(environment, input)?;
    let done = match (asked, &work) {
        (Asked::Version(answer), _) => return Ok(Some(answer)),
        (Asked::Nothing, _) => return Ok(None),
        (Asked::Add(result), None) => return Ok(Some(result)),
        (Asked::Check, None) => return Ok(None),
        (Asked::Add(result), Some(work)) => add(work).map(|()| Some(result)),
        (Asked::Check, Some(work)) => check(work).map(|()| None),
    };
    let pod = work.map(|work| work.pod).unwrap_or_default();
    done.map_err(|failure| {
        Refusal::new(request::CAPTURE, &format!("capture for {pod}: {failure}"), "see docs/cni.md".to_owned())
    })
}

fn add(work: &Work) -> Outcome<()> {
    go_in(work)?;
    // Runtimes set the interfaces of a namespace up at the same time, or one after the other.
    Routes::open()?.loopback_up()?;
    carry_out(&work.options, &work.surroundings)
}

fn check(work: &Work) -> Outcome<()> {
    go_in(work)?;
    let _lock = lock()?;
    let rules = planned(&work.options, &work.surroundings, &mut Routes::open()?)?;
    backend::check(&rules)
}

/// Goes into the pod's namespace, unless that is the node's own.
fn go_in(work: &Work) -> Outcome<()> {
    let path = &work.netns;
    let identity = |path: &str| match stat(path) {
        Ok(stat) => Ok((stat.st_dev, stat.st_ino)),
        Err(errno) => failed(format!("{path} (CNI_NETNS): {errno}")),
    };
    if identity(path)? == identity("/proc/self/ns/net")? {
        return failed(format!(
            "{path} (CNI_NETNS) is the node's own network namespace: capture would turn the traffic of the whole node"
        ));
    }
    enter(path)
}

/// The plugin's entry in a list of plugins.
fn entry() -> Value {
    json!({"type": CNI_PLUGIN, "capabilities": {request::ANNOTATIONS: true, request::DNS: true}})
}

/// Failures of the installer are told like those of a run.
pub(crate) fn install(arguments: &[String]) -> Outcome<()> {
    let options = install::options(arguments)?;
    install::run(&options, Log { json: options.log_json })
}
