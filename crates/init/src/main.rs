//! Turns a pod's traffic to the sidecar: reads options, makes a plan of what is captured, turns the plan
//! into rules, and gives the rules to a back end that programs the kernel and checks the result.
//!
//! ```text
//! istio, linkerd, machine   command lines and environments that exist in the wild
//!   options                 what is asked for, whichever way it was asked
//!   facts                   what only the namespace knows
//!   sidecar, proxy_init, daemonset      plans, and the rules that they come to
//!   rules                   the rules in words that every back end knows
//!   backend                 which back end; nftables and iptables are the ends, routes is beside them,
//!                           netlink and expression are below
//!   print, self_test        the rules for people; the rules proved with packets
//! ```

mod backend;
mod connections;
mod daemonset;
mod error;
mod expression;
mod facts;
mod flags;
mod help;
mod iptables;
mod iptables_text;
mod istio;
mod legacy;
mod linkerd;
mod log;
mod machine;
mod netlink;
mod nft_batch;
mod nft_tables;
mod nftables;
mod options;
mod prepare_proxy;
mod print;
mod proxy_init;
mod resolve;
mod routes;
mod rules;
mod run;
mod self_test;
mod sidecar;
mod sidecar_nat;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::log::Log;
use crate::options::Surroundings;

fn main() -> ExitCode {
    // What is not Unicode is in no option that we know; replaced, it shows in the error.
    let text = |os: OsString| os.to_string_lossy().into_owned();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(text).collect();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    let surroundings = Surroundings { environment, etc: "/etc".into() };
    match run::run(&arguments, &surroundings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let json = arguments.iter().any(|a| a == "--log_as_json" || a == "--log-format=json");
            Log { json }.error(&failure.to_string());
            ExitCode::from(failure.status())
        }
    }
}
