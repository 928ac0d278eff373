//! The injector as a library: rooms in the order in which data flows.
//!
//! ```text
//! settings ─┐
//!           ├─> policy ──> template ──> merge ──> injection ──> patch
//! pod ──────┘
//! ```
//!
//! The thinking is pure ([`manifest`], [`policy`], [`merge`], [`patch`], [`yaml`]); files, sockets and clocks are met only
//! in [`settings`] and in the rooms that hang from the command line.

#![forbid(unsafe_code)]

pub mod certificates;
pub mod changes;
pub mod check;
pub mod cluster;
pub mod diagnosis;
mod fields;
pub mod injection;
pub mod installation;
pub mod manifest;
pub mod merge;
pub mod mistakes;
pub mod notice;
pub mod owner;
pub mod patch;
pub mod policy;
pub mod provenance;
pub mod settings;
mod shape;
pub mod sidecars;
pub mod telemetry;
pub mod template;
pub mod uninject;
pub mod webhook;
pub mod yaml;
