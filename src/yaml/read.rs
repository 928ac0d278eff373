//! YAML in: text to JSON values.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

/// The most values that aliases may repeat in one document; a bound against "billion laughs".
const MAX_ALIASED: usize = 100_000;
/// The deepest nesting that is read, as in serde_json.
const MAX_DEPTH: usize = 128;

/// Text that is no YAML, or no JSON in YAML's clothes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for Error {}

/// Where the fields of a document stand: JSON pointer to line and column, both from 1. The root is `""`.
pub type Positions = HashMap<String, (usize, usize)>;

/// Reads one document. Text without any document is null.
///
/// # Errors
/// Text that does not parse, a second document, a key twice in one mapping, a key that is no scalar, an
/// unknown tag, nesting beyond 128 levels, aliases that unfold beyond 100,000 values.
pub fn parse(text: &str) -> Result<Value, Error> {
    read(text, None)
}

/// [`parse`], with the place of every field.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_positions(text: &str) -> Result<(Value, Positions), Error> {
    let mut positions = Positions::new();
    let value = read(text, Some(&mut positions))?;
    Ok((value, positions))
}

fn read(text: &str, positions: Option<&mut Positions>) -> Result<Value, Error> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), aliased: 0, positions };
    let mut document = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(document.unwrap_or(Value::Null)),
            (Event::DocumentStart(_), span) if document.is_some() => {
                return Err(error(&span, "a second document starts here, where one is expected"));
            }
            (Event::DocumentStart(_), _) => {
                let (event, span) = reader.next()?;
                document = Some(reader.value(event, &span, "", 0)?);
            }
            _ => {}
        }
    }
}

fn error(span: &Span, message: impl Into<String>) -> Error {
    Error { line: span.start.line().max(1), column: span.start.col() + 1, message: message.into() }
}

/// What the parser says, by how it begins, and the same for whoever wrote the text. It says where it noticed; the mistake
/// may be before.
const SAID: [(&str, &str); 17] = [
    ("tab", "a tab; indent with spaces, for YAML knows no tabs"),
    ("while scanning a plain scalar, found a tab", "a tab; indent with spaces, for YAML knows no tabs"),
    (
        "while scanning a quoted scalar, found unexpected end of stream",
        "the quote that opens here is never closed; write it at the end of the text",
    ),
    (
        "while scanning a quoted scalar, found unexpected document indicator",
        "the quote that opens here is not closed in its document; write it at the end of the text",
    ),
    (
        "while parsing a quoted scalar, found unknown escape character",
        "a backslash escape that YAML does not know; put the text into single quotes, or write \\\\ for a backslash",
    ),
    (
        "mapping values are not allowed in this context",
        "a `name: value` where none can stand; put a value with a colon in quotes, or indent the field like its neighbours",
    ),
    (
        "illegal placement of ':' indicator",
        "a colon where none can stand; a [ or a quote before it may not be closed",
    ),
    (
        "while parsing a flow sequence, expected ',' or ']'",
        "a list in [ ] goes on here without a comma, or its ] is missing",
    ),
    (
        "while parsing a flow mapping, did not find expected ',' or '}'",
        "fields in { } go on here without a comma, or their } is missing",
    ),
    (
        "while parsing a node, did not find expected node content",
        "a value is missing here; a [ or { before it may not be closed",
    ),
    (
        "while parsing node, found unknown anchor",
        "an alias of an anchor (&name) that stands nowhere before it",
    ),
    (
        "while parsing a block mapping, did not find expected key",
        "a line that is no `name: value`, or is not indented like its neighbours",
    ),
    (
        "while parsing a block collection, did not find expected '-' indicator",
        "a line that is no list item (- value), or is not indented like its neighbours",
    ),
    ("simple key expect", "a line that is no `name: value`; write a colon and a blank behind the name"),
    (
        "block sequence entries are not allowed in this context",
        "a list item (- value) where none can stand; begin it on a line of its own, under its field",
    ),
    ("misplaced bracket", "a bracket that closes nothing; take it away, or open one before it"),
    ("recursion limit exceeded", "nested deeper than can be read"),
];

fn said(parser: &str) -> &str {
    SAID.iter().find(|(begin, _)| parser.starts_with(begin)).map_or(parser, |(_, said)| said)
}

struct Reader<'input, 'p> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
    positions: Option<&'p mut Positions>,
}

impl<'input> Reader<'input, '_> {
    fn next(&mut self) -> Result<(Event<'input>, Span), Error> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(e)) => Err(Error {
                line: e.marker().line().max(1),
                column: e.marker().col() + 1,
                message: said(e.info()).to_owned(),
            }),
            None => Ok((Event::StreamEnd, Span::empty(saphyr_parser::Marker::new(0, 1, 0)))),
        }
    }

    fn value(&mut self, event: Event<'input>, span: &Span, path: &str, depth: usize) -> Result<Value, Error> {
        if depth > MAX_DEPTH {
            return Err(error(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if let Some(positions) = &mut self.positions {
            positions.insert(path.to_owned(), (span.start.line().max(1), span.start.col() + 1));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), span)?, anchor),
            Event::SequenceStart(anchor, _) => (self.sequence(path, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(path, depth)?, anchor),
            Event::Alias(anchor) => (self.alias(anchor, span)?, 0),
            other => return Err(error(span, format!("a value is expected, not {other:?}"))),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Value, Error> {
        let value =
            self.anchors.get(&anchor).ok_or_else(|| error(span, "an alias of something not yet whole"))?;
        self.aliased += size(value);
        if self.aliased > MAX_ALIASED {
            return Err(error(span, format!("aliases unfold to more than {MAX_ALIASED} values")));
        }
        Ok(value.clone())
    }

    fn sequence(&mut self, path: &str, depth: usize) -> Result<Value, Error> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            let path = self.child(path, &items.len().to_string());
            items.push(self.value(event, &span, &path, depth + 1)?);
        }
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Value, Error> {
        let mut fields = Map::new();
        let mut merged = Map::new();
        loop {
            let (event, span) = self.next()?;
            let (key, merges) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, tag) => (
                    key(scalar(&text, style, tag.as_deref(), &span)?, &span)?,
                    text == "<<" && style == ScalarStyle::Plain,
                ),
                _ => return Err(error(&span, "a key that is no scalar")),
            };
            let path = self.child(path, &key);
            let (event, value_span) = self.next()?;
            let value = self.value(event, &value_span, &path, depth + 1)?;
            if let Some(positions) = &mut self.positions {
                // A field is where its key is.
                positions.insert(path, (span.start.line().max(1), span.start.col() + 1));
            }
            if merges {
                merge_key(&mut merged, value, &span)?;
            } else if fields.insert(key.clone(), value).is_some() {
                return Err(error(&span, format!("the key {key:?} stands twice in one mapping")));
            }
        }
        for (key, value) in merged {
            fields.entry(key).or_insert(value);
        }
        Ok(Value::Object(fields))
    }

    /// The JSON pointer of a child; empty where nobody asked for positions.
    fn child(&self, path: &str, key: &str) -> String {
        match self.positions {
            Some(_) => format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")),
            None => String::new(),
        }
    }
}

/// `<<`: fields of one mapping, or of several of which the first wins.
fn merge_key(into: &mut Map<String, Value>, value: Value, span: &Span) -> Result<(), Error> {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                into.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) => items.into_iter().try_for_each(|item| merge_key(into, item, span)),
        _ => Err(error(span, "<< merges mappings only")),
    }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Value, Error> {
    let tag = tag.map(|t| if t.is_yaml_core_schema() { t.suffix.as_str() } else { "?" });
    match tag {
        None if style == ScalarStyle::Plain => plain(text, span),
        None | Some("str") => Ok(Value::String(text.to_string())),
        Some("int" | "float" | "bool" | "null") => match plain(text, span)? {
            Value::String(_) => Err(error(span, format!("{text:?} does not fit its tag"))),
            value => Ok(value),
        },
        Some(_) => Err(error(span, "a tag that has no meaning in JSON")),
    }
}

/// A key as JSON has it: kubectl writes out what a plain one means, so that `on: 1` is a field `true`.
/// Source: `convertToJSONableObject` of <https://github.com/kubernetes-sigs/yaml>.
fn key(value: Value, span: &Span) -> Result<String, Error> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) if number.is_f64() => Ok(go_float(&number)),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(error(span, "a key that is null; put it in quotes")),
    }
}

/// A number as Go's `strconv.FormatFloat(n, 'g', -1, 32)` spells it: `1.5`, `1e+06`.
fn go_float(number: &Number) -> String {
    let single = number.as_f64().unwrap_or_default() as f32;
    let scientific = format!("{single:e}");
    match scientific.split_once('e').map(|(mantissa, exponent)| (mantissa, exponent.parse::<i32>())) {
        Some((mantissa, Ok(exponent))) if !(-4..6).contains(&exponent) => {
            format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => single.to_string(),
    }
}

/// What a plain scalar means: the YAML 1.1 rules of go-yaml v2, which kubectl uses.
fn plain(text: &str, span: &Span) -> Result<Value, Error> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf"
        | "-.Inf" | "-.INF" => {
            return Err(error(span, format!("{text} is no JSON number")));
        }
        _ => match number(text) {
            Some(number) => Value::Number(number),
            None => Value::String(text.to_owned()),
        },
    })
}

/// The number that a plain scalar spells, if it spells one.
fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits = text.replace('_', "");
    let unsigned = digits.trim_start_matches(['+', '-']);
    if digits.len() - unsigned.len() > 1 {
        return None;
    }
    let (radix, body) = match unsigned.get(..2) {
        Some("0x" | "0X") => (16, &unsigned[2..]),
        Some("0b" | "0B") => (2, &unsigned[2..]),
        Some("0o" | "0O") => (8, &unsigned[2..]),
        _ if unsigned.len() > 1 && unsigned.starts_with('0') => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if !body.is_empty() && body.bytes().all(|b| (b as char).is_digit(radix)) {
        let magnitude = u64::from_str_radix(body, radix).ok();
        match (digits.starts_with('-'), magnitude) {
            (false, Some(n)) => return Some(n.into()),
            (true, Some(n)) if n <= i64::MIN.unsigned_abs() => {
                return Some(0i64.wrapping_sub_unsigned(n).into());
            }
            _ => {}
        }
    }
    is_float(unsigned).then(|| digits.parse().ok().and_then(Number::from_f64)).flatten()
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits =
        all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_mean_what_kubectl_reads() {
        for (text, value) in [
            ("on", json!(true)),
            ("No", json!(false)),
            ("~", json!(null)),
            ("0644", json!(420)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("1_000", json!(1000)),
            ("-12", json!(-12)),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("18446744073709551615", json!(18446744073709551615u64)),
            ("089", json!(89.0)),
            ("1.2.3", json!("1.2.3")),
            ("100m", json!("100m")),
            ("2001-12-14", json!("2001-12-14")),
            ("1:30", json!("1:30")),
            ("'on'", json!("on")),
            ("!!str 12", json!("12")),
            ("-", json!([null])),
            ("+-1", json!("+-1")),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn keys_are_what_kubectl_makes_of_them() {
        for (text, key) in [
            ("on: x", "true"),
            ("N: x", "false"),
            ("'on': x", "on"),
            ("!!str on: x", "on"),
            ("0644: x", "420"),
            ("-1: x", "-1"),
            ("1.10: x", "1.1"),
            ("1e3: x", "1000"),
            ("1e6: x", "1e+06"),
            ("0.00001: x", "1e-05"),
            ("1.2.3: x", "1.2.3"),
            ("? on\n: x", "true"),
        ] {
            assert_eq!(parse(text), Ok(json!({ key: "x" })), "{text}");
        }
        for text in ["~: x", ": x"] {
            assert!(parse(text).unwrap_err().message.contains("a key that is null"), "{text}");
        }
        assert!(parse("on: 1\nyes: 2").unwrap_err().message.contains("\"true\" stands twice"));
    }

    #[test]
    fn aliases_and_merge_keys_unfold() {
        let text = "base: &b {a: 1, b: 2}\nlist: [*b]\nmerged:\n  <<: *b\n  b: 3\n";
        let value = json!({"base": {"a": 1, "b": 2}, "list": [{"a": 1, "b": 2}], "merged": {"b": 3, "a": 1}});
        assert_eq!(parse(text), Ok(value));
    }

    #[test]
    fn positions_point_at_keys() {
        let (_, positions) = parse_with_positions("a: 1\nb:\n  c/d:\n  - x\n  - z: 2\n").unwrap();
        assert_eq!(positions["/b"], (2, 1));
        assert_eq!(positions["/b/c~1d"], (3, 3));
        assert_eq!(positions["/b/c~1d/0"], (4, 5));
        assert_eq!(positions["/b/c~1d/1/z"], (5, 5));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for (text, line, part) in [
            ("a: 1\na: 2", 2, "twice"),
            ("a: [1", 1, ""),
            ("a: .inf", 1, "no JSON number"),
            ("? [a]\n: 1", 1, "no scalar"),
            ("a: 1\n---\nb: 2", 2, "second document"),
            ("a: !ruby/object x", 1, "tag"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
            assert!(error.line >= line, "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_told_by_its_mistake() {
        for (text, message) in [
            ("a:\n\tb: 1\n", "line 2, column 2: a tab; indent with spaces, for YAML knows no tabs"),
            (
                "a: \"b\n",
                "line 1, column 4: the quote that opens here is never closed; write it at the end of the text",
            ),
            (
                "a: b: c",
                "line 1, column 5: a `name: value` where none can stand; put a value with a colon in quotes, or indent the \
                 field like its neighbours",
            ),
            (
                "a: [1\nb: 2\n",
                "line 2, column 2: a colon where none can stand; a [ or a quote before it may not be closed",
            ),
            ("a: [1 \n", "line 2, column 1: a list in [ ] goes on here without a comma, or its ] is missing"),
            (
                "a: {b: 1 \n",
                "line 2, column 1: fields in { } go on here without a comma, or their } is missing",
            ),
            ("a: [", "line 2, column 1: a value is missing here; a [ or { before it may not be closed"),
            ("a: *x", "line 1, column 4: an alias of an anchor (&name) that stands nowhere before it"),
            ("a: ]", "line 1, column 4: a bracket that closes nothing; take it away, or open one before it"),
            (
                "a: 1\n  b\nc: 2\nd\n",
                "line 5, column 1: a line that is no `name: value`; write a colon and a blank behind the name",
            ),
            (
                "a: - b",
                "line 1, column 4: a list item (- value) where none can stand; begin it on a line of its own, under its field",
            ),
            (
                "a: \"\\q\"",
                "line 1, column 4: a backslash escape that YAML does not know; put the text into single quotes, or write \\\\ \
                 for a backslash",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn hostile_nesting_and_aliases_are_bounded() {
        assert!(parse(&"[".repeat(5000)).is_err());
        let nested = "- ".repeat(129) + "x";
        assert!(parse(&nested).unwrap_err().message.contains("nested deeper"));
        let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let previous = format!("*a{}", i - 1);
            laughs += &format!("a{i}: &a{i} [{}]\n", vec![previous; 10].join(","));
        }
        assert!(parse(&laughs).unwrap_err().message.contains("aliases unfold"));
    }
}
