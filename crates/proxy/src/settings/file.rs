//! The one file: a flat mapping in YAML, of which each field is also an environment variable.
//!
//! `idleTimeout: 1h` in the file is `OUTRIGGER_IDLE_TIMEOUT=1h` in the environment. A list is what the variable has with
//! commas between, a mapping what it has as `key=value`. So there is one reader for both.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser};

/// Every field, and whether a change of it needs a restart.
pub(crate) const FIELDS: [(&str, bool); 20] = [
    ("bind", true),
    ("outboundPort", true),
    ("inboundPort", true),
    ("maxConnections", true),
    ("maxIdleUpstreams", true),
    ("accessLog", false),
    ("accessLogFormat", false),
    ("opaquePorts", false),
    ("inboundProtocols", false),
    ("outboundProtocols", false),
    ("connectTimeout", false),
    ("idleTimeout", false),
    ("headTimeout", false),
    ("requestTimeout", false),
    ("maxHeadBytes", false),
    ("maxHeaders", false),
    ("maxStreams", false),
    ("streamWindowBytes", false),
    ("connectionWindowBytes", false),
    ("maxReplayBytes", false),
];

/// The environment variable of a field: `idleTimeout` is `OUTRIGGER_IDLE_TIMEOUT`.
pub(crate) fn variable(field: &str) -> String {
    let mut name = "OUTRIGGER_".to_owned();
    for letter in field.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// A file's fields: name to value, as the environment would have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct File(BTreeMap<String, String>);

impl File {
    /// Reads the file's `text`.
    ///
    /// # Errors
    ///
    /// Text that is no YAML, and every field that is not known, is given twice, or whose value is neither a scalar, nor a
    /// list or mapping of scalars; each with its line.
    pub(crate) fn parse(text: &str) -> Result<File, Vec<String>> {
        let mut reader = Reader { parser: Parser::new_from_str(text), errors: Vec::new() };
        let fields = reader.document().unwrap_or_else(|error| {
            reader.errors.push(error);
            BTreeMap::new()
        });
        if reader.errors.is_empty() { Ok(File(fields)) } else { Err(reader.errors) }
    }

    /// The value of `field`, if the file has it.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// The fields that differ from `other`'s and need a restart.
    pub(crate) fn fixed(&self, other: &File) -> Vec<&'static str> {
        let fixed = FIELDS.iter().filter(|(_, fixed)| *fixed).map(|(field, _)| *field);
        fixed.filter(|field| self.get(field) != other.get(field)).collect()
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), String> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line().max(1))),
            Some(Err(error)) => {
                Err(format!("line {}: not YAML: {}", error.marker().line().max(1), error.info()))
            }
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn document(&mut self) -> Result<BTreeMap<String, String>, String> {
        loop {
            match self.next()? {
                (Event::MappingStart(..), _) => return self.fields(),
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                // Nothing but comments is a file of no fields.
                (Event::StreamEnd, _) => return Ok(BTreeMap::new()),
                (Event::Scalar(text, ..), _) if text.is_empty() || text == "~" => {}
                (Event::DocumentEnd, _) => return Ok(BTreeMap::new()),
                (_, line) => return Err(format!("line {line}: expected a mapping of fields")),
            }
        }
    }

    fn fields(&mut self) -> Result<BTreeMap<String, String>, String> {
        let mut fields = BTreeMap::new();
        loop {
            let (name, line) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(name, ..), line) => (name.into_owned(), line),
                (_, line) => return Err(format!("line {line}: expected the name of a field")),
            };
            let value = self.value(&name)?;
            if !FIELDS.iter().any(|(known, _)| *known == name) {
                let known: Vec<&str> = FIELDS.iter().map(|(known, _)| *known).collect();
                self.errors.push(format!(
                    "line {line}: {name}: there is no such field; expected one of {}",
                    known.join(", ")
                ));
            } else if fields.insert(name.clone(), value).is_some() {
                self.errors.push(format!("line {line}: {name}: given twice; leave one"));
            }
        }
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(fields),
                (Event::DocumentStart(_), line) => {
                    return Err(format!("line {line}: a second document; leave one"));
                }
                _ => {}
            }
        }
    }

    /// A field's value as the environment would have it.
    fn value(&mut self, field: &str) -> Result<String, String> {
        let wrong =
            |line: usize| format!("line {line}: {field}: expected a scalar, or a list or mapping of scalars");
        let (first, line) = self.next()?;
        let mapping = match first {
            Event::Scalar(text, ..) => return Ok(text.into_owned()),
            Event::SequenceStart(..) => false,
            Event::MappingStart(..) => true,
            _ => return Err(wrong(line)),
        };
        let mut items: Vec<String> = Vec::new();
        let mut key: Option<String> = None;
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::MappingEnd, _) => return Ok(items.join(",")),
                (Event::Scalar(text, ..), _) if !mapping => items.push(text.into_owned()),
                (Event::Scalar(text, ..), _) => match key.take() {
                    None => key = Some(text.into_owned()),
                    Some(key) => items.push(format!("{key}={text}")),
                },
                (_, line) => return Err(wrong(line)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_variable() {
        assert_eq!(variable("maxHeadBytes"), "OUTRIGGER_MAX_HEAD_BYTES");
        assert_eq!(variable("bind"), "OUTRIGGER_BIND");
    }

    #[test]
    fn values_become_what_the_environment_would_have() {
        let text = "# a comment\nidleTimeout: 1h\nopaquePorts: [25, 3306]\ninboundProtocols:\n  8080: http2\n  \
                    9000: redis\naccessLog: off\n";
        let file = File::parse(text).unwrap();
        assert_eq!(file.get("idleTimeout"), Some("1h"));
        assert_eq!(file.get("opaquePorts"), Some("25,3306"));
        assert_eq!(file.get("inboundProtocols"), Some("8080=http2,9000=redis"));
        assert_eq!(file.get("accessLog"), Some("off"));
        assert_eq!(file.get("headTimeout"), None);
        for nothing in ["", "# only a comment\n", "{}", "---\n"] {
            assert_eq!(File::parse(nothing), Ok(File::default()), "{nothing:?}");
        }
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "idleTimeOut: 1h\naccessLog: all\nbind: [[::]]\n";
        let errors = File::parse(text).unwrap_err();
        assert!(errors[0].starts_with("line 1: idleTimeOut: there is no such field"), "{errors:?}");
        assert!(errors[1].starts_with("line 3: bind: expected"), "{errors:?}");
        assert!(File::parse("bind: a\nbind: b\n").unwrap_err()[0].contains("line 2: bind: given twice"));
        for bad in ["[1]", "text", "a: [", "bind: a\n---\nbind: b\n", "bind: {a: {b: c}}", "{[a]: b}"] {
            assert!(File::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_needs_a_restart_is_told_apart() {
        let one = File::parse("bind: 127.0.0.1\nidleTimeout: 1h\n").unwrap();
        let other = File::parse("bind: 127.0.0.2\nidleTimeout: 2h\n").unwrap();
        assert_eq!(one.fixed(&other), ["bind"]);
    }
}
