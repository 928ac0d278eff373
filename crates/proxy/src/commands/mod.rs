//! The command line: `proxy`, `wait`, `request`, `istio-iptables`, `version`, as Istio's `pilot-agent` has them.

mod arguments;
mod ask;
mod capture;
mod proxy;
mod request;
mod wait;

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
      --debug-port N             15000 (default), 15004, 15020 or 15021
  istio-iptables [OPTION…]     program capture, as outrigger-init does (for init containers)
  version                      print the version
";

/// Runs the command line `args`, whose first item is the program's name. Exit codes: 0 done, 1 failed, 2 usage.
pub fn run(args: Vec<String>) -> ExitCode {
    let (command, rest) = match args.get(1) {
        Some(command) => (command.as_str(), &args[2..]),
        None => ("help", &args[args.len()..]),
    };
    let result = match command {
        "proxy" => proxy::run(&Arguments::parse(rest, proxy::FLAGS, proxy::SWITCHES)),
        "wait" => wait::run(&Arguments::parse(rest, wait::FLAGS, &[])),
        "request" => request::run(&Arguments::parse(rest, request::FLAGS, &[])),
        "istio-iptables" => capture::run(rest),
        "version" | "--version" | "-V" => {
            println!("outrigger-proxy {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(Failure::Usage(format!("unknown command {other:?}"))),
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

/// Why a command did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The command line is right, and it failed.
    Failed(String),
}
