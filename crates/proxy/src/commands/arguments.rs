//! Flags and positional arguments, tolerant of flags that it does not know: manifests of every age must start.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::Failure;

/// A parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    flags: BTreeMap<String, String>,
    /// Arguments that are no flags.
    pub(super) positional: Vec<String>,
    /// Flags that are not known.
    pub(super) unknown: Vec<String>,
}

impl Arguments {
    /// Reads `args`, of which `valued` flags take a value and `switches` may have one after `=`. The value of an
    /// unknown flag cannot be told from a positional argument, and is taken for one unless it follows an `=`.
    pub(super) fn parse(args: &[String], valued: &[&str], switches: &[&str]) -> Arguments {
        let mut parsed = Arguments::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                parsed.positional.push(arg.clone());
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if valued.contains(&name) {
                let value = value.or_else(|| args.next().cloned()).unwrap_or_default();
                parsed.flags.insert(name.to_owned(), value);
            } else if switches.contains(&name) {
                parsed.flags.insert(name.to_owned(), value.unwrap_or_else(|| "true".to_owned()));
            } else {
                parsed.unknown.push(name.to_owned());
            }
        }
        parsed
    }

    /// The value of flag `name`, if it was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// The value of flag `name`, read as a `T`.
    pub(super) fn read<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.parse().map_err(|_| Failure::Usage(format!("--{name}={value:?}: expected a whole number")))
    }

    /// Refuses unknown flags, for commands that people type.
    pub(super) fn known_only(&self) -> Result<(), Failure> {
        match self.unknown.first() {
            Some(flag) => Err(Failure::Usage(format!("there is no flag --{flag} here"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Arguments {
        let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&args, &["concurrency", "domain"], &["log_as_json"])
    }

    #[test]
    fn flags_come_in_every_spelling() {
        let parsed = parse("sidecar --concurrency 2 --domain=a.svc -log_as_json --new-flag x --other=y");
        assert_eq!(parsed.get("concurrency"), Some("2"));
        assert_eq!(parsed.get("domain"), Some("a.svc"));
        assert_eq!(parsed.get("log_as_json"), Some("true"));
        assert_eq!(parsed.positional, ["sidecar", "x"]);
        assert_eq!(parsed.unknown, ["new-flag", "other"]);
        assert!(parsed.known_only().is_err());
    }

    #[test]
    fn numbers_are_checked_by_name() {
        assert_eq!(parse("--concurrency 2").read("concurrency", 0_u8), Ok(2));
        let Err(Failure::Usage(message)) = parse("--concurrency two").read("concurrency", 0_u8) else {
            panic!()
        };
        assert!(message.contains("--concurrency=\"two\""), "{message}");
    }
}
