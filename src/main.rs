//! `outrigger`: parses the command line and runs one command.

mod commands;

use clap::{Parser, Subcommand};

/// A Kubernetes sidecar injector.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {}

fn main() -> std::process::ExitCode {
    match CommandLine::parse().command {}
}
