//! What `curl` was asked: the options that are used most, with curl's own names and meaning (`man curl`).

use std::fmt::Write as _;
use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::{Failure, write_out};

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) urls: Vec<String>,
    /// Files for the bodies of the first URLs; the others go to stdout.
    pub(super) outputs: Vec<String>,
    /// Headers in the order given; without a value, one that is not sent.
    pub(super) headers: Vec<(HeaderName, Option<HeaderValue>)>,
    pub(super) method: Option<Method>,
    pub(super) data: Option<Bytes>,
    pub(super) write_out: String,
    pub(super) max_time: Option<Duration>,
    /// How many times more what fails for now is tried.
    pub(super) retry: u32,
    pub(super) head: bool,
    pub(super) include: bool,
    pub(super) fail: bool,
    pub(super) silent: bool,
    pub(super) show_error: bool,
    pub(super) verbose: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Wanted {
    Transfers(Options),
    /// To print this, and no more.
    Text(String),
}

/// What an option does.
enum Does {
    Sets(fn(&mut Options)),
    /// Takes a value of this name.
    Takes(&'static str, fn(&mut Options, String) -> Result<(), Failure>),
    Prints(fn() -> String),
}

struct Flag {
    short: Option<char>,
    long: &'static str,
    does: Does,
    help: &'static str,
}

const fn flag(short: Option<char>, long: &'static str, does: Does, help: &'static str) -> Flag {
    Flag { short, long, does, help }
}

/// Every option.
const FLAGS: [Flag; 15] = [
    flag(
        Some('d'),
        "data",
        Does::Takes("DATA", add_data),
        "POST this; @FILE for a file, @- for stdin; several are joined by &",
    ),
    flag(
        Some('f'),
        "fail",
        Does::Sets(|options| options.fail = true),
        "status 22, and no output, if the answer is 400 or more",
    ),
    flag(
        Some('H'),
        "header",
        Does::Takes("LINE", add_header),
        "send `Name: value`; `Name:` leaves one out, `Name;` sends it empty",
    ),
    flag(Some('I'), "head", Does::Sets(|options| options.head = true), "ask for the headers alone, by HEAD"),
    flag(
        Some('i'),
        "include",
        Does::Sets(|options| options.include = true),
        "print the answer's headers, too",
    ),
    flag(Some('m'), "max-time", Does::Takes("SECONDS", set_max_time), "status 28 if a transfer takes longer"),
    flag(
        Some('o'),
        "output",
        Does::Takes("FILE", add_output),
        "write the body of one URL there, instead of stdout",
    ),
    flag(
        Some('X'),
        "request",
        Does::Takes("METHOD", set_method),
        "another method than GET, or POST with data",
    ),
    flag(
        None,
        "retry",
        Does::Takes("TIMES", set_retry),
        "ask again where the answer is 408, 429, 500, 502, 503 or 504, or late",
    ),
    flag(Some('s'), "silent", Does::Sets(|options| options.silent = true), "no word about what failed"),
    flag(
        Some('S'),
        "show-error",
        Does::Sets(|options| options.show_error = true),
        "with -s: but say what failed",
    ),
    flag(
        Some('v'),
        "verbose",
        Does::Sets(|options| options.verbose = true),
        "what is sent and received, on stderr",
    ),
    flag(
        Some('w'),
        "write-out",
        Does::Takes("FORMAT", set_write_out),
        "print this afterwards; its variables are below",
    ),
    flag(Some('h'), "help", Does::Prints(help), "this"),
    flag(Some('V'), "version", Does::Prints(version), "which version it is"),
];

fn version() -> String {
    concat!("curl of outrigger-samples ", env!("CARGO_PKG_VERSION"), ": HTTP/1.1, without TLS\n").to_owned()
}

fn help() -> String {
    let mut text = "curl: sends HTTP/1.1 requests, as curl does, with its most used options\n\n  curl [OPTIONS] URL...\n\n".to_owned();
    for Flag { short, long, does, help } in &FLAGS {
        let value = if let Does::Takes(value, _) = does { format!(" {value}") } else { String::new() };
        let short = short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let _ = writeln!(text, "  {:<26} {help}", format!("{short}--{long}{value}"));
    }
    let _ = write!(
        text,
        "\nVariables of --write-out, as %{{http_code}}: {}; and %header{{Name}}.\nExit status, as curl's: 0 done, 2 options, 3 URL, 6 no address, \
         7 no connection, 22 --fail, 28 --max-time, 52 no answer.\n",
        write_out::names().join(", ")
    );
    text
}

/// A mistake in the options.
fn mistake(reason: String) -> Failure {
    Failure { status: 2, reason }
}

/// Reads the command line.
pub(super) fn read(arguments: &[String]) -> Result<Wanted, Failure> {
    let mut options = Options::default();
    let mut words = arguments.iter();
    let mut only_urls = false;
    while let Some(word) = words.next() {
        let long = word.strip_prefix("--");
        match (long, word.strip_prefix('-')) {
            _ if only_urls => options.urls.push(word.clone()),
            (Some(""), _) => only_urls = true,
            (Some(name), _) => {
                let flag = known(|flag| flag.long == name, word)?;
                let text = apply(flag, &mut options, word, || words.next().cloned())?;
                if let Some(text) = text {
                    return Ok(Wanted::Text(text));
                }
            }
            (None, Some(letters)) if !letters.is_empty() => {
                let mut letters = letters.chars();
                while let Some(letter) = letters.next() {
                    let name = format!("-{letter}");
                    let flag = known(|flag| flag.short == Some(letter), &name)?;
                    // What is left of the word is the value, or else the next word.
                    let rest = || {
                        let rest = std::mem::replace(&mut letters, "".chars());
                        Some(rest.as_str().to_owned())
                            .filter(|rest| !rest.is_empty())
                            .or_else(|| words.next().cloned())
                    };
                    let text = apply(flag, &mut options, &name, rest)?;
                    if let Some(text) = text {
                        return Ok(Wanted::Text(text));
                    }
                }
            }
            _ => options.urls.push(word.clone()),
        }
    }
    if options.urls.is_empty() {
        return Err(mistake("no URL specified\ncurl: try 'curl --help' for more information".to_owned()));
    }
    if options.head && options.data.is_some() {
        return Err(mistake("--head asks for headers, --data sends a body: one of the two".to_owned()));
    }
    Ok(Wanted::Transfers(options))
}

fn known(is: impl Fn(&Flag) -> bool, name: &str) -> Result<&'static Flag, Failure> {
    static ALL: &[Flag] = &FLAGS;
    let unknown =
        || mistake(format!("option {name}: is unknown\ncurl: this small one knows those of 'curl --help'"));
    ALL.iter().find(|flag| is(flag)).ok_or_else(unknown)
}

/// Does what an option does; what there is to print is for the caller.
fn apply(
    flag: &Flag,
    options: &mut Options,
    name: &str,
    value: impl FnOnce() -> Option<String>,
) -> Result<Option<String>, Failure> {
    match flag.does {
        Does::Sets(set) => set(options),
        Does::Takes(_, take) => {
            let value = value().ok_or_else(|| mistake(format!("option {name}: requires parameter")))?;
            take(options, value).map_err(|Failure { status, reason }| Failure {
                status,
                reason: format!("option {name}: {reason}"),
            })?;
        }
        Does::Prints(text) => return Ok(Some(text())),
    }
    Ok(None)
}

/// What a value that begins with @ stands for: the contents of a file, or of stdin.
fn content(value: &str) -> Result<Option<Vec<u8>>, Failure> {
    let Some(file) = value.strip_prefix('@') else { return Ok(None) };
    let mut content = Vec::new();
    let read = match file {
        "-" => std::io::stdin().read_to_end(&mut content).map(drop),
        file => std::fs::read(file).map(|read| content = read),
    };
    match read {
        Ok(()) => Ok(Some(content)),
        Err(error) => Err(Failure { status: 26, reason: format!("{file}: {error}") }),
    }
}

fn add_data(options: &mut Options, value: String) -> Result<(), Failure> {
    // A file's line ends are left out, as curl does.
    let read =
        content(&value)?.map(|read| read.into_iter().filter(|byte| !b"\r\n\0".contains(byte)).collect());
    let more = read.unwrap_or_else(|| value.into_bytes());
    let all = match options.data.take() {
        None => more,
        Some(before) => [&before[..], &more[..]].join(&b'&'),
    };
    options.data = Some(all.into());
    Ok(())
}

fn add_header(options: &mut Options, line: String) -> Result<(), Failure> {
    let wrong = || mistake(format!("{line:?} is no header: expected 'Name: value'"));
    let (name, value) = match (line.split_once(':'), line.strip_suffix(';')) {
        (Some((name, value)), _) => (name, Some(value.trim()).filter(|value| !value.is_empty())),
        (None, Some(name)) => (name, Some("")),
        (None, None) => return Err(wrong()),
    };
    let name = HeaderName::try_from(name).map_err(|_| wrong())?;
    let value = value.map(HeaderValue::try_from).transpose().map_err(|_| wrong())?;
    options.headers.push((name, value));
    Ok(())
}

fn set_max_time(options: &mut Options, value: String) -> Result<(), Failure> {
    let time = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.ok_or_else(|| mistake(format!("{value:?} is no time: expected seconds")))?;
    // None is no limit.
    options.max_time = Some(time).filter(|time| !time.is_zero());
    Ok(())
}

fn set_retry(options: &mut Options, value: String) -> Result<(), Failure> {
    let wrong = |_| mistake(format!("{value:?} is no number of times"));
    options.retry = value.parse().map_err(wrong)?;
    Ok(())
}

fn add_output(options: &mut Options, value: String) -> Result<(), Failure> {
    options.outputs.push(value);
    Ok(())
}

fn set_method(options: &mut Options, value: String) -> Result<(), Failure> {
    let method =
        Method::from_bytes(value.as_bytes()).map_err(|_| mistake(format!("{value:?} is no method")))?;
    options.method = Some(method);
    Ok(())
}

fn set_write_out(options: &mut Options, value: String) -> Result<(), Failure> {
    let read = content(&value)?.map(|read| String::from_utf8_lossy(&read).into_owned());
    options.write_out = read.unwrap_or(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn options(arguments: &[&str]) -> Options {
        match read(&words(arguments)).unwrap() {
            Wanted::Transfers(options) => options,
            Wanted::Text(text) => panic!("{text}"),
        }
    }

    fn mistake_of(arguments: &[&str]) -> (u8, String) {
        let failure = read(&words(arguments)).unwrap_err();
        (failure.status, failure.reason)
    }

    #[test]
    fn letters_may_stand_together_and_before_their_value() {
        let read = options(&["-sSo/dev/null", "-w", "%{http_code}", "-XPUT", "-m2.5", "http://a"]);
        assert!(read.silent && read.show_error && !read.include && !read.fail && !read.verbose && !read.head);
        assert_eq!((read.outputs, read.write_out.as_str()), (words(&["/dev/null"]), "%{http_code}"));
        assert_eq!((read.method, read.max_time), (Some(Method::PUT), Some(Duration::from_millis(2500))));
        assert_eq!(read.urls, ["http://a"]);

        let long =
            ["--silent", "--include", "--fail", "--verbose", "--head", "--output", "-", "--max-time", "0"];
        let read = options(&[&long[..], &["a", "--", "-b"]].concat());
        assert!(read.silent && read.include && read.fail && read.verbose && read.head && !read.show_error);
        assert_eq!((read.outputs, read.max_time, read.urls), (words(&["-"]), None, words(&["a", "-b"])));
    }

    #[test]
    fn data_is_joined_and_read_from_files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"c=d\r\ne\n").unwrap();
        let from_file = format!("@{}", file.path().display());
        let read = options(&["-d", "a=b", "--data", &from_file, "u"]);
        assert_eq!(read.data.unwrap(), "a=b&c=de");
        let (status, reason) = mistake_of(&["-d", "@/nowhere/at/all", "u"]);
        assert_eq!((status, reason.starts_with("option -d: /nowhere/at/all: ")), (26, true), "{reason}");
    }

    #[test]
    fn a_header_is_sent_left_out_or_empty() {
        let read = options(&["-H", "X-A: 1:2 ", "-HAccept:", "--header", "x-b;", "u"]);
        let sent: Vec<_> = read
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref().map(|v| v.to_str().unwrap())))
            .collect();
        assert_eq!(sent, [("x-a", Some("1:2")), ("accept", None), ("x-b", Some(""))]);
        for line in ["nothing", "a b: c", "a: \n", ": x"] {
            let wrong = format!("option -H: {line:?} is no header: expected 'Name: value'");
            if line == "a: \n" {
                // The end of a line is no part of the value.
                assert_eq!(options(&["-H", line, "u"]).headers[0].1, None);
            } else {
                assert_eq!(mistake_of(&["-H", line, "u"]), (2, wrong));
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let unknown = |name: &str| {
            (2, format!("option {name}: is unknown\ncurl: this small one knows those of 'curl --help'"))
        };
        assert_eq!(mistake_of(&["--compressed", "u"]), unknown("--compressed"));
        assert_eq!(mistake_of(&["--max-time=5", "u"]), unknown("--max-time=5"));
        assert_eq!(mistake_of(&["-sk", "u"]), unknown("-k"));
        assert_eq!(mistake_of(&["u", "-o"]), (2, "option -o: requires parameter".to_owned()));
        assert_eq!(mistake_of(&["u", "--header"]), (2, "option --header: requires parameter".to_owned()));
        for time in ["soon", "-1", "nan"] {
            let wrong = format!("option -m: {time:?} is no time: expected seconds");
            assert_eq!(mistake_of(&["-m", time, "u"]), (2, wrong));
        }
        assert_eq!(mistake_of(&["-X", "A B", "u"]), (2, "option -X: \"A B\" is no method".to_owned()));
        let nothing = "no URL specified\ncurl: try 'curl --help' for more information";
        assert_eq!(mistake_of(&["-s"]), (2, nothing.to_owned()));
        let both = "--head asks for headers, --data sends a body: one of the two";
        assert_eq!(mistake_of(&["-I", "-d", "x", "u"]), (2, both.to_owned()));
    }

    #[test]
    fn help_has_every_option() {
        let Wanted::Text(help) = read(&words(&["-s", "--help"])).unwrap() else { panic!("no text") };
        for flag in &FLAGS {
            assert!(
                help.contains(&format!("--{} ", flag.long))
                    && flag
                        .short
                        .is_none_or(|short| help.contains(&format!("\n  -{short}, --{} ", flag.long))),
                "{help}"
            );
        }
        assert!(help.contains("http_code, "), "{help}");
    }
}
