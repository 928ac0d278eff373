//! `proxy`: be the sidecar.

use tokio::runtime::{Builder, LocalOptions};

use super::Failure;
use super::arguments::Arguments;
use crate::reload::Source;
use crate::settings::{File, Overrides, Settings};
use crate::{logging, sidecar};

/// Flags of Istio's sidecars that take a value, of every age: a value must not be taken for the role.
pub(super) const FLAGS: &[&str] = &[
    "concurrency",
    "statusPort",
    "proxyAdminPort",
    "log_output_level",
    "proxyLogLevel",
    "proxyComponentLogLevel",
    "domain",
    "meshConfig",
    "serviceCluster",
    "stsPort",
    "tokenManagerPlugin",
    "templateFile",
    "outlierLogPath",
    "configPath",
    "binaryPath",
    "drainDuration",
    "parentShutdownDuration",
    "discoveryAddress",
    "discoveryRefreshDelay",
    "zipkinAddress",
    "connectTimeout",
    "statsdUdpAddress",
    "controlPlaneAuthPolicy",
    "applicationPorts",
    "trust-domain",
    "log_target",
    "log_rotate",
    "log_stacktrace_level",
    "log_caller",
    "proxyLogPath",
    "id",
    "ip",
];
pub(super) const SWITCHES: &[&str] = &["log_as_json", "profiling", "controlPlaneBootstrap"];

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.positional.first().map_or("sidecar", String::as_str) {
        "router" | "waypoint" | "ingress" => {
            let message = "only the role `sidecar` is there; a gateway needs a control plane";
            return Err(Failure::Usage(message.to_owned()));
        }
        _ => {}
    }
    let json = arguments.get("log_as_json").is_some_and(|value| value != "false");
    let level =
        logging::start(arguments.get("log_output_level").unwrap_or("info"), json).map_err(Failure::Usage)?;
    if !arguments.unknown.is_empty() {
        tracing::info!(flags = ?arguments.unknown, "ignored flags that are not known");
    }
    let owned = |name: &str| arguments.get(name).map(str::to_owned);
    let flags = Overrides {
        concurrency: owned("concurrency"),
        status_port: owned("statusPort"),
        admin_port: owned("proxyAdminPort"),
    };
    let env = |name: &str| std::env::var(name).ok();
    let read = match env("OUTRIGGER_CONFIG").filter(|path| !path.is_empty()) {
        Some(path) => Source::open(path.into(), flags).map(|(settings, source)| (settings, Some(source))),
        None => Settings::read(&env, &File::default(), &flags).map(|settings| (settings, None)),
    };
    let (settings, source) =
        read.map_err(|errors| Failure::Usage(format!("settings are wrong:\n  {}", errors.join("\n  "))))?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(sidecar::run(settings, source, level)).map_err(Failure::Failed)
}
