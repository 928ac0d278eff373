//! The applications of `samples/`, in one program: which of them it is, its name says, or else its first argument.
//!
//! ```text
//! curl, sleep          where requests are sent from
//! httpbin, bookinfo    where they are sent to; what they answer is pure
//!   server             what servers share: a listener, a request as a value, the end at SIGTERM
//!   client             a connection and one exchange on it, for curl and for what bookinfo's parts ask of one another
//! ```

mod bookinfo;
mod client;
mod curl;
mod httpbin;
mod server;
mod sleep;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
outrigger-samples: the applications of samples/, in one program

  outrigger-samples sleep [SECONDS|infinity]             waits, and ends at SIGTERM
  outrigger-samples curl [OPTIONS] URL...                sends requests; curl --help has the options
  outrigger-samples httpbin [[ADDRESS:]PORT]             answers with what it was asked; port 8000
  outrigger-samples productpage [[ADDRESS:]PORT]         bookinfo's page; it asks details and reviews. Port 9080
  outrigger-samples details|reviews|ratings [[ADDRESS:]PORT]

Under the name of one of them (a link will do), the program is that one. Of reviews there are three versions:
SERVICE_VERSION=v1, v2, v3; all but v1 ask ratings. Where the others are is DETAILS_HOSTNAME and DETAILS_SERVICE_PORT,
and so on [default: details, 9080].
Exit status: 0 done, 1 failed, 2 the arguments make no sense; curl has its own.
";

/// How a program ended that did not do what was asked: its exit status, and why.
type Failed = (u8, String);

/// A program: takes its arguments.
type Run = fn(&[String]) -> Result<(), Failed>;

/// Every program by its name, but for curl, whose errors and statuses are curl's.
const PROGRAMS: [(&str, Run); 6] = [
    ("sleep", sleep::run),
    ("httpbin", httpbin::run),
    ("productpage", bookinfo::productpage::run),
    ("details", bookinfo::details::run),
    ("reviews", bookinfo::reviews::run),
    ("ratings", bookinfo::ratings::run),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = arguments.next().unwrap_or_default();
    let called = Path::new(&called).file_name().map(|name| name.to_string_lossy().into_owned());
    let mut arguments: Vec<String> = arguments.collect();
    let known = |name: &String| name == "curl" || PROGRAMS.iter().any(|(program, _)| program == name);
    let name = match called.filter(known) {
        Some(name) => name,
        None if arguments.is_empty() => "--help".to_owned(),
        None => arguments.remove(0),
    };
    let outcome = match name.as_str() {
        "curl" => return ExitCode::from(curl::run(&arguments)),
        "--help" | "-h" => print(HELP),
        "--version" => print(concat!("outrigger-samples ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => match PROGRAMS.iter().find(|(program, _)| *program == name) {
            Some((_, run)) => run(&arguments),
            None => Err((
                2,
                format!("no program is called {name:?}; outrigger-samples --help has those there are"),
            )),
        },
    };
    let Err((status, reason)) = outcome else { return ExitCode::SUCCESS };
    let _ = writeln!(std::io::stderr(), "error: {name}: {reason}");
    ExitCode::from(status)
}

fn print(text: &str) -> Result<(), Failed> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| (1, format!("stdout: {error}")))
}
