//! `outrigger completions SHELL`.

use clap_complete::Shell;

use super::output;

/// Print a script that completes `outrigger` commands in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "For a shell that is open, or in its start-up file:
  source <(outrigger completions bash)
  source <(outrigger completions zsh)
  outrigger completions fish | source

For zsh, compinit comes first:  autoload -U compinit && compinit")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Runs the command; `program` is the whole command line's definition.
    pub(crate) fn run(self, mut program: clap::Command) -> Result<(), String> {
        let mut script = Vec::new();
        let name = program.get_name().to_owned();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        output::write(None, &script)
    }
}
