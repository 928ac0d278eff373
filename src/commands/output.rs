//! Where a command's data goes: standard output, or a file that is there whole or not at all.

use std::fs::Permissions;
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::ValueEnum;

/// How a command writes what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFlag {
    Text,
    Json,
}

/// Writes to a file, or to standard output for `-` and for nothing. A file is replaced in one step and keeps its
/// mode; what is no regular file (a pipe, `/dev/stdout`) is written to.
pub(crate) fn write(to: Option<&Path>, bytes: &[u8]) -> Result<(), String> {
    let Some(path) = to.filter(|path| *path != Path::new("-")) else {
        let mut out = std::io::stdout().lock();
        return to_stdout(out.write_all(bytes).and_then(|()| out.flush()));
    };
    let failed = |e: Error| match e.kind() {
        ErrorKind::NotFound => format!("cannot write {}: {e}; make its folder first", path.display()),
        _ => format!("cannot write {}: {e}", path.display()),
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            // Through a link, to the file behind it.
            let target = path.canonicalize().map_err(failed)?;
            replace(&target, bytes, metadata.permissions()).map_err(failed)
        }
        Ok(metadata) if metadata.is_dir() => Err(failed(ErrorKind::IsADirectory.into())),
        Ok(_) => std::fs::write(path, bytes).map_err(failed),
        // The process's mask takes its bits away from these.
        Err(_) => replace(path, bytes, Permissions::from_mode(0o666)).map_err(failed),
    }
}

/// Writes text with colours to standard output; the colours go where they are not to be seen.
pub(crate) fn write_styled(text: &str) -> Result<(), String> {
    let mut out = anstream::stdout().lock();
    to_stdout(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// A reader that has seen enough is no failure.
fn to_stdout(written: std::io::Result<()>) -> Result<(), String> {
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write standard output: {e}")),
        _ => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8], permissions: Permissions) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let existing = path.exists();
    let make =
        tempfile::Builder::new().prefix(".outrigger-").permissions(permissions.clone()).tempfile_in(folder);
    // The name of a file that nobody asked for explains nothing.
    let plain = |e: Error| e.to_string().split(" at path ").next().unwrap_or_default().to_owned();
    let mut file = make.map_err(|e| Error::new(e.kind(), plain(e)))?;
    file.write_all(bytes)?;
    if existing {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
