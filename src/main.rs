//! `outrigger`: parses the command line and runs one command.

#![forbid(unsafe_code)]

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A Kubernetes sidecar injector.
#[derive(Parser)]
#[command(version, about, long_about = None, after_help = "Examples:
  outrigger serve                                      # the webhook, without a cluster
  outrigger inject -f app.yaml | kubectl apply -f -    # what the webhook would do, by hand
  outrigger explain -f app.yaml                        # why a pod is, or is not, injected
  outrigger install --apply                            # into the cluster of the current context
  outrigger check                                      # is it sound, and if not, what to do

`outrigger COMMAND --help` has examples of each. The book is in docs/: docs/tutorial.md begins it, \
docs/troubleshoot.md goes from a message to its remedy.

Environment: KUBECONFIG names the kubeconfig, where --kubeconfig does not; NO_COLOR takes colours away.

Exit status: 0 done; 1 something failed, and standard error says what; 2 usage.")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(commands::serve::Serve),
    Inject(Box<commands::inject::Inject>),
    Uninject(Box<commands::uninject::Uninject>),
    Diff(Box<commands::diff::Diff>),
    Explain(Box<commands::explain::Explain>),
    Check(Box<commands::check::Check>),
    Install(Box<commands::install::Install>),
    Repair(Box<commands::repair::Repair>),
    Uninstall(Box<commands::uninstall::Uninstall>),
    Certs(commands::certs::Certs),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Serve(command) => command.run(),
        Command::Inject(command) => return command.run(),
        Command::Uninject(command) => return command.run(),
        Command::Diff(command) => return command.run(),
        Command::Explain(command) => return command.run(),
        Command::Check(command) => return command.run(),
        Command::Install(command) => command.run(),
        Command::Repair(command) => return command.run(),
        Command::Uninstall(command) => command.run(),
        Command::Certs(command) => command.run(),
        Command::Completions(command) => command.run(CommandLine::command()),
        Command::Man(command) => command.run(CommandLine::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap breaks lines at this width: an example must fit, and a paragraph must be one line for clap to break.
    const WIDTH: usize = 100;

    fn check(command: &clap::Command) {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for (line, next) in lines.iter().zip(lines.iter().skip(1).chain(&[""])) {
            let name = command.get_name();
            if line.starts_with("  ") {
                assert!(line.chars().count() <= WIDTH, "{name}: too long an example: {line}");
            } else {
                assert!(
                    line.is_empty() || next.is_empty() || next.starts_with("  "),
                    "{name}: a paragraph of two lines: {line}"
                );
            }
        }
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn examples_stand_in_one_line_and_paragraphs_are_broken_by_clap() {
        check(&CommandLine::command());
    }
}
