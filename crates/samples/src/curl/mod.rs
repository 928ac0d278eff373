//! A small curl: HTTP/1.1 without TLS, for an image that has nothing else to send requests with.
//!
//! ```text
//! options      the command line
//! url          where a request goes
//! transfer     the request, and what comes back
//! write_out    what is said of it afterwards
//! ```

mod options;
mod transfer;
mod url;
mod write_out;

use std::io::Write as _;
use std::time::{Duration, Instant};

use options::{Options, Wanted};
use write_out::Record;

use crate::server::runtime;

/// Why a transfer failed: curl's exit status, and its reason.
#[derive(Debug, PartialEq)]
struct Failure {
    status: u8,
    reason: String,
}

impl Failure {
    fn new(status: u8, reason: impl Into<String>) -> Failure {
        Failure { status, reason: reason.into() }
    }
}

/// Writes to stderr; who has closed it does not want to know.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Does what the arguments ask, one URL after the other. The exit status is that of the last.
pub(crate) fn run(arguments: &[String]) -> u8 {
    let outcome = options::read(arguments).and_then(|wanted| match wanted {
        Wanted::Text(text) => print(&text).map(|()| 0),
        Wanted::Transfers(options) => transfers(&options),
    });
    outcome.unwrap_or_else(|failure| {
        tell(&format!("curl: {}", failure.reason));
        failure.status
    })
}

fn transfers(options: &Options) -> Result<u8, Failure> {
    let runtime = runtime().map_err(|(_, reason)| Failure::new(2, reason))?;
    let mut last = 0;
    for (at, url) in options.urls.iter().enumerate() {
        let output = options.outputs.get(at).map(String::as_str);
        let record = runtime.block_on(tried(options, url, output));
        last = record.exit;
        let (text, unknown) = write_out::text(&options.write_out, &record);
        for name in unknown {
            tell(&format!("curl: unknown --write-out variable: '{name}'"));
        }
        if let Err(failure) = print(&text) {
            runtime.shutdown_background();
            return Err(failure);
        }
    }
    // A name may still be looked up that nobody waits for.
    runtime.shutdown_background();
    Ok(last)
}

/// The transfer that did, or the last that was tried: a second later, two, four, as curl waits.
async fn tried(options: &Options, url: &str, output: Option<&str>) -> Record {
    let mut wait = Duration::from_secs(1);
    for left in (1..=options.retry).rev() {
        let record = one(options, url, output).await;
        if !record.is_transient() {
            return record;
        }
        if !options.silent {
            tell(&format!("curl: this may pass; trying again in {} s, {left} times at most", wait.as_secs()));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(600));
    }
    one(options, url, output).await
}

/// One transfer, within its time; what failed is said.
async fn one(options: &Options, url: &str, output: Option<&str>) -> Record {
    let mut record = Record { url: url.to_owned(), ..Record::default() };
    let start = Instant::now();
    let transfer = transfer::transfer(options, url, output, start, &mut record);
    let outcome = match options.max_time {
        None => transfer.await,
        Some(time) => {
            tokio::time::timeout(time, transfer).await.unwrap_or_else(|_| Err(Failure::new(28, "")))
        }
    };
    record.ended = start.elapsed();
    if let Err(Failure { status, mut reason }) = outcome {
        if status == 28 {
            let bytes = record.received;
            reason = format!(
                "Operation timed out after {} milliseconds with {bytes} bytes received",
                record.ended.as_millis()
            );
        }
        if !options.silent || options.show_error {
            tell(&format!("curl: ({status}) {reason}"));
        }
        record.exit = status;
        record.error = reason;
    }
    record
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(unwritten)
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::new(23, format!("Failure writing output to destination: {error}"))
}
