//! The command line: `proxy`, `wait`, `request`, `istio-iptables`, `version`, as Istio's `pilot-agent` has them.

mod arguments;
mod ask;
mod capture;
mod proxy;
mod request;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "\
The sidecar that carries a pod's traffic. Also answers as pilot-agent.

Usage: outrigger-proxy COMMAND

Commands:
  proxy [sidecar]              carry traffic until SIGTERM (settings come from the environment)
      --concurrency N            worker threads; 0 is one a core
      --statusPort N             port of merged metrics and orders, 15020
      --proxyAdminPort N         port of admin on loopback, 15000
      --log_output_level LEVEL   none, error, warn, info (default) or debug
      --log_as_json              log as JSON
      other flags of Istio's sidecars are accepted and ignored
  wait                         wait until the sidecar is ready (for postStart)
      --url URL                  http://127.0.0.1:15021/healthz/ready
      --timeoutSeconds N         60
      --periodMillis N           500
      --requestTimeoutMillis N   500
  request METHOD PATH [BODY]   ask the sidecar and print its answer (for preStop)
      --debug-port N             port on loopback: 15000 (admin; default), 15020, 15021
  istio-iptables [OPTION…]     program capture, as outrigger-init does (for init containers)
  version                      print the version

Examples:
  outrigger-proxy request GET /stats/prometheus      what the sidecar of this pod has counted
  outrigger-proxy request GET /config_dump           the settings in force
  outrigger-proxy request POST /drain_listeners      let it leave
  outrigger-proxy wait --timeoutSeconds 5

Environment: OUTRIGGER_CONFIG names a file of settings; each of its fields is a variable, too (idleTimeout is
OUTRIGGER_IDLE_TIMEOUT). docs/sidecar.md has them all, with defaults. Exit status: 0 done, 1 failed, 2 usage.
";

/// Runs the command line `args`, whose first item is the program's name. Exit codes: 0 done, 1 failed, 2 usage.
pub fn run(args: Vec<String>) -> ExitCode {
    let (command, rest) = match args.get(1) {
        Some(command) => (command.as_str(), &args[2..]),
        None => ("help", &args[args.len()..]),
    };
    // `proxy` takes flags that it does not know, and would start.
    let asked = |arg: &String| arg == "--help" || arg == "-h";
    let command = if command != "istio-iptables" && rest.iter().any(asked) { "help" } else { command };
    let result = match command {
        "proxy" => proxy::run(&Arguments::parse(rest, proxy::FLAGS, proxy::SWITCHES)),
        "wait" => wait::run(&Arguments::parse(rest, wait::FLAGS, &[])),
        "request" => request::run(&Arguments::parse(rest, request::FLAGS, &[])),
        "istio-iptables" => capture::run(rest),
        "version" | "--version" | "-V" => print(&format!("outrigger-proxy {}\n", env!("CARGO_PKG_VERSION"))),
        "help" | "--help" | "-h" => print(USAGE),
        other => Err(Failure::Usage(format!(
            "there is no command {other:?}; have proxy, wait, request, istio-iptables and version"
        ))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            eprintln!("outrigger-proxy: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(message)) => {
            eprintln!("outrigger-proxy: {message}\nTry `outrigger-proxy help`.");
            ExitCode::from(2)
        }
    }
}

/// Writes to standard output; a reader that has gone does not want the rest.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The command line is right, and it failed.
    Failed(String),
}
