//! `outrigger`: parses the command line and runs one command.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Kubernetes sidecar injector.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(commands::serve::Serve),
    Certs(commands::certs::Certs),
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Serve(command) => command.run(),
        Command::Certs(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("outrigger: {message}");
            ExitCode::FAILURE
        }
    }
}
