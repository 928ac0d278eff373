//! `wait`: hold the application back until the sidecar is ready (the postStart hook).

use std::time::{Duration, Instant};

use outrigger_contract as contract;

use super::Failure;
use super::arguments::Arguments;
use super::ask::ask;

pub(super) const FLAGS: &[&str] = &["url", "timeoutSeconds", "periodMillis", "requestTimeoutMillis"];

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.known_only()?;
    let timeout = Duration::from_secs(arguments.read("timeoutSeconds", 60)?);
    let period = Duration::from_millis(arguments.read("periodMillis", 500)?);
    let each = Duration::from_millis(arguments.read("requestTimeoutMillis", 500)?);
    let default = format!("http://127.0.0.1:{}{}", contract::READINESS_PORT, contract::READINESS_PATH);
    let url = arguments.get("url").unwrap_or(&default);
    let uri: http::Uri = url.parse().map_err(|error| Failure::Usage(format!("--url={url:?}: {error}")))?;
    if uri.scheme_str() != Some("http") {
        return Err(Failure::Usage(format!("--url={url:?}: expected http://host:port/path")));
    }
    let host = uri.host().unwrap_or("localhost");
    let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let deadline = Instant::now() + timeout;
    loop {
        let last = match ask(&authority, "GET", path, "", each) {
            Ok((200, _)) => return Ok(()),
            Ok((code, _)) => format!("HTTP status {code}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() + period > deadline {
            let seconds = timeout.as_secs();
            return Err(Failure::Failed(format!(
                "the sidecar was not ready in {seconds} s: {url}: {last}; its log says why (kubectl logs POD -c {})",
                contract::PROXY_CONTAINER
            )));
        }
        std::thread::sleep(period);
    }
}
