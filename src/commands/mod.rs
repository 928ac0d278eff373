//! One file a command, thin: each reads its options, calls the library, prints.

mod apply;
mod arguments;
pub(crate) mod certs;
pub(crate) mod check;
mod cluster;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod inject;
pub(crate) mod install;
pub(crate) mod man;
mod manifests;
mod output;
mod reload;
pub(crate) mod repair;
mod report;
mod rewrite;
mod rotate;
pub(crate) mod serve;
mod settings;
mod trial;
pub(crate) mod uninject;
pub(crate) mod uninstall;
