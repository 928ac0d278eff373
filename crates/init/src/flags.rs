//! Reads a command line the way Go's pflag does, because the manifests that this program meets were written
//! for it: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, and `--flag` alone or with
//! `=true`.

use crate::error::{Outcome, usage};
use crate::values;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Value,
    /// Alone it means `true`.
    Switch,
    /// Accepted and forgotten, with a value.
    IgnoredValue,
    /// Accepted and forgotten, alone.
    IgnoredSwitch,
}

/// A flag that a front end knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) help: &'static str,
}

impl Flag {
    pub(crate) const fn value(name: &'static str, short: Option<char>, help: &'static str) -> Flag {
        Flag { name, short, takes: Takes::Value, help }
    }

    pub(crate) const fn switch(name: &'static str, short: Option<char>, help: &'static str) -> Flag {
        Flag { name, short, takes: Takes::Switch, help }
    }

    pub(crate) const fn ignored(name: &'static str, short: Option<char>, takes: Takes) -> Flag {
        Flag { name, short, takes, help: "" }
    }
}

/// What a command line said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Flags by their long name; a later one wins. A switch is `true` or `false`, whichever way Go writes that.
    flags: Vec<(&'static str, String)>,
    pub(crate) words: Vec<String>,
    /// Flags that were accepted and mean nothing (any more).
    pub(crate) ignored: Vec<String>,
}

impl Given {
    /// The value that counts.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub(crate) fn switched(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// Refuses words: `command` takes flags alone.
    pub(crate) fn flags_alone(&self, command: &str) -> Outcome<()> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => usage(format!(
                "{command} takes flags alone, and {word:?} is none; see outrigger-init {command} --help"
            )),
        }
    }
}

/// Reads `arguments` by the flags in `known`.
pub(crate) fn parse(arguments: &[String], known: &[Flag]) -> Outcome<Given> {
    let mut given = Given::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            given.words.extend(rest.by_ref().cloned());
        } else if let Some(long) = argument.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let Some(flag) = known.iter().find(|flag| flag.name == name) else {
                return usage(format!("unknown flag --{name}; see --help"));
            };
            take(&mut given, flag, value, &mut rest)?;
        } else if argument.len() > 1 && argument.starts_with('-') {
            shorts(&mut given, &argument[1..], known, &mut rest)?;
        } else {
            given.words.push(argument.clone());
        }
    }
    Ok(given)
}

fn shorts<'a>(
    given: &mut Given,
    letters: &str,
    known: &[Flag],
    rest: &mut impl Iterator<Item = &'a String>,
) -> Outcome<()> {
    let mut letters = letters.chars();
    while let Some(letter) = letters.next() {
        let Some(flag) = known.iter().find(|flag| flag.short == Some(letter)) else {
            return usage(format!("unknown flag -{letter}; see --help"));
        };
        let tail = letters.as_str();
        let attached = match (flag.takes, tail.strip_prefix('=')) {
            (_, Some(value)) => Some(value),
            (Takes::Value | Takes::IgnoredValue, None) if !tail.is_empty() => Some(tail),
            _ => None,
        };
        take(given, flag, attached, rest)?;
        if attached.is_some() {
            break;
        }
    }
    Ok(())
}

fn take<'a>(
    given: &mut Given,
    flag: &Flag,
    attached: Option<&str>,
    rest: &mut impl Iterator<Item = &'a String>,
) -> Outcome<()> {
    let value = match (flag.takes, attached) {
        (_, Some(value)) => value.to_owned(),
        (Takes::Switch | Takes::IgnoredSwitch, None) => "true".to_owned(),
        (Takes::Value | Takes::IgnoredValue, None) => match rest.next() {
            Some(value) => value.clone(),
            None => return usage(format!("--{} needs a value; see --help", flag.name)),
        },
    };
    match flag.takes {
        Takes::Value => given.flags.push((flag.name, value)),
        Takes::Switch => {
            let on = values::boolean(&format!("--{}", flag.name), &value)?;
            given.flags.push((flag.name, on.to_string()));
        }
        Takes::IgnoredValue | Takes::IgnoredSwitch => given.ignored.push(flag.name.to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Flag; 4] = [
        Flag::value("port", Some('p'), ""),
        Flag::switch("dry", Some('n'), ""),
        Flag::ignored("old", Some('f'), Takes::IgnoredSwitch),
        Flag::ignored("level", None, Takes::IgnoredValue),
    ];

    fn given(arguments: &[&str]) -> Outcome<Given> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        parse(&arguments, &KNOWN)
    }

    #[test]
    fn every_way_to_give_a_value() {
        for arguments in [&["--port", "1"][..], &["--port=1"], &["-p", "1"], &["-p1"], &["-p=1"], &["-np1"]] {
            assert_eq!(given(arguments).unwrap().get("port"), Some("1"), "{arguments:?}");
        }
        assert_eq!(given(&["-p", "1", "-p", "2"]).unwrap().get("port"), Some("2"), "a later one wins");
        assert_eq!(given(&["-p", ""]).unwrap().get("port"), Some(""));
        assert_eq!(given(&["-p", "-n"]).unwrap().get("port"), Some("-n"), "a value is whatever comes next");
    }

    #[test]
    fn switches_words_and_what_is_ignored() {
        assert_eq!(given(&["-n"]).unwrap().get("dry"), Some("true"));
        assert_eq!(given(&["--dry=false"]).unwrap().get("dry"), Some("false"));
        for (value, on) in [("1", true), ("T", true), ("0", false), ("F", false)] {
            let given = given(&[&format!("--dry={value}")]).unwrap();
            assert_eq!(
                (given.get("dry"), given.switched("dry")),
                (Some(if on { "true" } else { "false" }), on)
            );
        }
        let all = given(&["--level", "info", "-f", "word", "--", "-n"]).unwrap();
        assert_eq!(all.ignored, ["level", "old"]);
        assert_eq!(all.words, ["word", "-n"]);
        assert_eq!(all.get("dry"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (arguments, named) in [
            (&["--what"][..], "--what"),
            (&["-y"], "-y"),
            (&["--port"], "--port"),
            (&["-nyp"], "-y"),
            (&["--dry=so"], "so"),
        ] {
            let error = given(arguments).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
