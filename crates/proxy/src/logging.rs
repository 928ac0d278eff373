//! The sidecar's own log, on standard error; standard output is for access logs.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// The log level, which can be changed while the program runs.
#[derive(Debug)]
pub(crate) struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// The present level.
    pub(crate) fn get(&self) -> String {
        match self.0.clone_current() {
            None | Some(LevelFilter::OFF) => "none".to_owned(),
            Some(level) => level.to_string(),
        }
    }

    /// Sets the level; false if there is none of that name.
    pub(crate) fn set(&self, name: &str) -> bool {
        named(name).is_some_and(|level| self.0.reload(level).is_ok())
    }
}

/// Starts logging at level `given`: `none`, `error`, `warn`, `info` or `debug`, or Istio's `scope:level,…`, of whose
/// scopes the sidecar has one, `default`.
///
/// # Errors
///
/// There is no such level.
pub(crate) fn start(given: &str, json: bool) -> Result<Level, String> {
    let mut levels = given.split(',').filter_map(|part| match part.split_once(':') {
        Some(("default" | "all", level)) => Some(level),
        Some(_) => None,
        None => Some(part),
    });
    let level = named(levels.next_back().unwrap_or("info"))
        .ok_or_else(|| format!("--log_output_level={given:?}: expected none, error, warn, info or debug"))?;
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(lines.json().flatten_event(true)).init();
    } else {
        registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).init();
    }
    Ok(Level(handle))
}

fn named(name: &str) -> Option<LevelFilter> {
    match name {
        "none" => Some(LevelFilter::OFF),
        "fatal" | "error" => Some(LevelFilter::ERROR),
        "warn" | "warning" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "debug" | "trace" => Some(LevelFilter::DEBUG),
        _ => None,
    }
}
