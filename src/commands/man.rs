//! `outrigger man`.

use std::path::PathBuf;

/// Write the manual pages: one for `outrigger`, and one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  outrigger man ~/.local/share/man/man1 && man -M ~/.local/share/man outrigger-inject

Where ~/.local/bin is in the PATH, `man outrigger-inject` finds them by itself.")]
pub(crate) struct Man {
    /// The folder, which is made where it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    /// Runs the command; `program` is the whole command line's definition.
    pub(crate) fn run(self, program: clap::Command) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("cannot write to the folder {}: {e}", self.folder.display());
        if self.folder.is_file() {
            return Err(format!(
                "{} is a file; give a folder, which is made where it is not there",
                self.folder.display()
            ));
        }
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        clap_mangen::generate_to(program, &self.folder).map_err(failed)
    }
}
