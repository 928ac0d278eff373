//! Turns a pod's traffic to the sidecar: reads options, makes a plan of what is captured, turns the plan
//! into rules, and gives the rules to a back end that programs the kernel and checks the result.
//!
//! ```text
//! istio, linkerd, prepare_proxy, machine    command lines and environments that exist in the wild
//!   options                 what is asked for, whichever way it was asked
//!   facts                   what only the namespace knows
//!   sidecar, proxy_init, daemonset      plans, and the rules that they come to
//!   rules                   the rules in words that every back end knows
//!   backend                 which back end; nftables and iptables are the ends, routes is beside them,
//!                           netlink, nft_batch, nft_tables, expression, iptables_text, legacy, tool and memory are
//!                           below
//!   print, self_test        the rules for people; the rules proved with packets
//!   cni                     the same from the node, as a plugin of the container runtime
//! ```

// What C hands to its `main`, and the signal for which the standard library has no word.
#![allow(unsafe_code)]
#![cfg_attr(not(any(test, feature = "fuzzing")), no_main)]

mod backend;
mod cni;
mod command_line;
mod connections;
mod daemonset;
mod error;
mod expression;
mod facts;
mod flags;
mod front_end;
mod help;
mod iptables;
mod iptables_text;
mod istio;
mod kernel_file;
mod legacy;
mod linkerd;
mod log;
mod machine;
mod manner;
// A library leaves memory to whom it is part of.
#[cfg(not(feature = "fuzzing"))]
mod memory;
mod netlink;
mod nft_batch;
mod nft_tables;
mod nftables;
mod options;
mod prepare_proxy;
mod print;
#[cfg(feature = "fuzzing")]
pub mod properties;
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
mod tool;
mod values;

use std::ffi::{CStr, c_char, c_int};

use crate::log::Log;
use crate::options::Surroundings;

unsafe extern "C" {
    safe fn signal(number: c_int, handler: usize) -> usize;
}

const SIGPIPE: c_int = 13;
const IGNORE: usize = 1;

/// C's `main`, and not the standard library's: that one first finds out where the stack ends, from a file in /proc, and
/// makes another stack for the message that it ran over. This takes longer than asking the kernel for its rules.
#[cfg_attr(not(any(test, feature = "fuzzing")), unsafe(no_mangle))]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    // What is not Unicode is in no option that we know; replaced, it shows in the error.
    let argument = |at: usize| {
        // SAFETY: the C library hands over `count` pointers to texts that stay, and none of them is changed.
        unsafe { CStr::from_ptr(*arguments.add(at)) }.to_string_lossy().into_owned()
    };
    let arguments: Vec<String> = (1..usize::try_from(count).unwrap_or(0)).map(argument).collect();
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    if cni::is_called(&arguments, &environment) {
        return cni::run(&environment).into();
    }
    let surroundings = Surroundings { environment, etc: "/etc".into() };
    // A tool that ends before it has read its rules says why; its end is not to be ours.
    signal(SIGPIPE, IGNORE);
    match command_line::run(&arguments, &surroundings) {
        Ok(()) => 0,
        Err(failure) => {
            let json = arguments.iter().any(|a| a == "--log_as_json" || a == "--log-format=json");
            Log { json }.error(&failure.to_string());
            failure.status().into()
        }
    }
}
