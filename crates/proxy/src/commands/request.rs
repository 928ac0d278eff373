//! `request`: ask the sidecar and print its answer (the preStop hook uses it for `POST /drain`).

use std::io::Write;
use std::time::Duration;

use outrigger_contract as contract;

use super::Failure;
use super::arguments::Arguments;
use super::ask::ask;

pub(super) const FLAGS: &[&str] = &["debug-port"];
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.known_only()?;
    // Any port, since those of the sidecar can be moved.
    let port = arguments.read("debug-port", contract::ADMIN_PORT)?;
    if port == 0 {
        return Err(Failure::Usage("--debug-port=0: expected a port, 1 to 65535".to_owned()));
    }
    let (method, path, body) = match arguments.positional.as_slice() {
        [method, path] => (method, path, ""),
        [method, path, body] => (method, path, body.as_str()),
        _ => {
            return Err(Failure::Usage(
                "expected METHOD PATH [BODY], such as request GET /config_dump".to_owned(),
            ));
        }
    };
    let separator = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{separator}{path}");
    if !method.bytes().all(|byte| byte.is_ascii_alphabetic())
        || !path.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(Failure::Usage(format!(
            "{method:?} {path:?}: expected a method and a path without blanks"
        )));
    }
    let authority = format!("127.0.0.1:{port}");
    let (code, answer) = ask(&authority, &method.to_ascii_uppercase(), &path, body, Duration::from_secs(60))
        .map_err(|error| {
            let why = if error.kind() == std::io::ErrorKind::ConnectionRefused {
                "nobody listens there; is the sidecar running in this pod?".to_owned()
            } else {
                error.to_string()
            };
            Failure::Failed(format!("{method} http://{authority}{path}: {why}"))
        })?;
    // A reader that has gone does not want the rest.
    let _ = std::io::stdout().write_all(&answer);
    match code {
        404 | ..=399 => Ok(()),
        _ => Err(Failure::Failed(format!("{method} http://{authority}{path}: HTTP status {code}"))),
    }
}
