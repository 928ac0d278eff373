//! YAML out: JSON values to text, in the block style that kubectl prints.
//!
//! The text means the same to every reader: a string that a YAML 1.1 or 1.2 reader could take for something
//! else (`on`, `0644`, `1:30`, `~`, a date) is quoted, and numbers have the one spelling on which both agree.
//!
//! Sources: <https://yaml.org/type/> (YAML 1.1 types), <https://yaml.org/spec/1.2.2/#103-core-schema>.

use std::fmt::Write;

use serde_json::{Map, Number, Value};

/// The longest key that YAML allows on one line with its colon
/// (<https://yaml.org/spec/1.2.2/#rule-c-s-implicit-json-key>), with room for the escapes of quoting.
const LONGEST_IMPLICIT_KEY: usize = 1000;

/// Writes a value as one document, without `---`, with a newline at its end. Keys keep their order; sequences
/// stand at the column of their key. `parse(write(v)) == v` for every value nested at most 128 deep.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => mapping(&mut out, fields, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        scalar => {
            inline(&mut out, scalar);
            out.push('\n');
        }
    }
    out
}

/// The fields, of which the first stands where `out` ends and the others at `indent`.
fn mapping(out: &mut String, fields: &Map<String, Value>, indent: usize) {
    for (i, (key, value)) in fields.iter().enumerate() {
        if i > 0 {
            pad(out, indent);
        }
        let before = out.len();
        string(out, key);
        if out.len() - before > LONGEST_IMPLICIT_KEY {
            out.insert_str(before, "? ");
            out.push('\n');
            pad(out, indent);
        }
        out.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                pad(out, indent + 2);
                mapping(out, fields, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                pad(out, indent);
                sequence(out, items, indent);
            }
            scalar => {
                out.push(' ');
                leaf(out, scalar, indent + 2);
            }
        }
    }
}

/// The items, of which the first stands where `out` ends and the others at `indent`.
fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => mapping(out, fields, indent + 2),
            Value::Array(items) if !items.is_empty() => sequence(out, items, indent + 2),
            scalar => leaf(out, scalar, indent + 2),
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A scalar and its newline; text of several lines as a literal block where that is exact.
fn leaf(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) if is_literal(text) => {
            out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
            for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    pad(out, indent);
                    out.push_str(line);
                }
            }
        }
        other => inline(out, other),
    }
    out.push('\n');
}

/// A scalar, or an empty collection, on one line.
fn inline(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => string(out, text),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// A number, so that YAML 1.1 reads a float too: it wants a point, and a sign in the exponent.
fn write_number(out: &mut String, number: &Number) {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return out.push_str(&text);
    };
    out.push_str(mantissa);
    if !mantissa.contains('.') {
        out.push_str(".0");
    }
    out.push('e');
    if !exponent.starts_with(['-', '+']) {
        out.push('+');
    }
    out.push_str(exponent);
}

fn string(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else if text.contains(['"', '\\']) && text.chars().all(is_printable) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        double_quoted(out, text);
    }
}

fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x100 => push(out, format_args!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => push(out, format_args!("\\u{:04x}", c as u32)),
            c => push(out, format_args!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
}

fn push(out: &mut String, text: std::fmt::Arguments) {
    // A String takes whatever is written.
    let _ = out.write_fmt(text);
}

/// Whether a character stands for itself on one line, to every reader: no control, no break, no byte order
/// mark, nothing outside of YAML's printable set.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
        && (c as u32) & 0xfffe != 0xfffe
}

/// Whether a literal block gives this text back to the byte: several lines, none of them blank in disguise,
/// the first neither empty nor indented, at most one newline at the end.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    text.contains('\n')
        && !body.is_empty()
        && !body.starts_with([' ', '\t', '\n'])
        && !body.ends_with('\n')
        && text.chars().all(|c| is_printable(c) || matches!(c, '\n' | '\t'))
        && body.split('\n').all(|line| line.is_empty() || !line.trim_matches([' ', '\t']).is_empty())
}

/// Whether a string needs no quotes. Errs on the side of quoting.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let starts_well = match first {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '.' | '_' | '$' | '(' | '+' => true,
        '-' => {
            text[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '-') && !text.starts_with("---")
        }
        other => other.is_alphabetic(),
    };
    starts_well
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| c == ' ' || (is_printable(c) && !c.is_whitespace()))
        && !is_word(text)
        && !looks_like_a_number(text)
}

/// Booleans and nulls of YAML 1.1 and 1.2, in any case.
fn is_word(text: &str) -> bool {
    const WORDS: [&str; 13] =
        ["y", "n", "yes", "no", "true", "false", "on", "off", "null", ".inf", "+.inf", ".nan", "nan"];
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Numbers in every base, with underscores or commas, sexagesimals, dates, versions: whatever begins like one
/// and holds only characters that some reader accepts in one.
fn looks_like_a_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.contains(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| {
            b.is_ascii_hexdigit()
                || matches!(b, b'+' | b'-' | b'.' | b',' | b':' | b'_' | b' ')
                || matches!(b, b'x' | b'X' | b'o' | b'O' | b't' | b'T' | b'z' | b'Z')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_manifest_looks_as_kubectl_prints_it() {
        let value = json!({
            "apiVersion": "v1",
            "metadata": {"name": "web", "annotations": {"a/b": "true", "json": "{\"a\": 1}"}, "labels": {}},
            "spec": {
                "containers": [
                    {"name": "app", "args": ["-c", "--port=80", "8080", "sleep 1"], "ports": [{"containerPort": 80}]},
                    {"name": "b", "command": [], "script": "#!/bin/sh\n\necho a: b\n", "tail": "a\nb"},
                ],
                "matrix": [[1, 2], []],
                "nothing": null,
                "cpu": "100m",
                "float": 1e300,
            },
        });
        let text = r#"apiVersion: v1
metadata:
  name: web
  annotations:
    a/b: "true"
    json: '{"a": 1}'
  labels: {}
spec:
  containers:
  - name: app
    args:
    - -c
    - --port=80
    - "8080"
    - sleep 1
    ports:
    - containerPort: 80
  - name: b
    command: []
    script: |
      #!/bin/sh

      echo a: b
    tail: |-
      a
      b
  matrix:
  - - 1
    - 2
  - []
  nothing: null
  cpu: 100m
  float: 1.0e+300
"#;
        assert_eq!(write(&value), text);
        assert_eq!(parse(text), Ok(value));
    }

    #[test]
    fn what_a_reader_could_mistake_is_quoted() {
        let mistaken = [
            "",
            "on",
            "Off",
            "y",
            "N",
            "yes",
            "NO",
            "true",
            "False",
            "null",
            "NULL",
            "~",
            "0644",
            "0o17",
            "0x1F",
            "0b11",
            "1_000",
            "1,000",
            "1e3",
            "1E-3",
            "-1",
            "+1",
            ".5",
            "1.",
            "1.5",
            "1.2.3",
            ".inf",
            "-.INF",
            ".nan",
            "1:30",
            "190:20:30",
            "2001-12-14",
            "2001-12-14t21:59:43.10-05:00",
            "2001-12-14 21:59:43",
            " a",
            "a ",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "- a",
            "-",
            "---",
            "--- a",
            "...",
            "? a",
            "?",
            ": a",
            "{a",
            "[a",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "'a",
            "\"a",
            ",a",
            "<<",
            "=",
            "a\tb",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{2029}b",
            "\u{feff}a",
            "a\rb",
            "\n",
            "a\n\n",
            " a\nb",
            "\na",
            "a\n \nb",
            "a\u{0}b",
            "-1a",
        ];
        for text in mistaken {
            let written = write(&json!({ text: text }));
            assert!(written.starts_with(['"', '\'']), "the key {text:?} is not quoted: {written}");
            let value = written.split_once(['"', '\'']).unwrap().1.trim_end();
            assert!(value.ends_with(['"', '\'']), "the value {text:?} is not quoted: {written}");
            assert_eq!(parse(&written), Ok(json!({ text: text })), "{written}");
        }
    }

    #[test]
    fn what_nobody_mistakes_is_not_quoted() {
        for text in [
            "web",
            "a/b",
            "nginx:1.25",
            "100m",
            "1Gi",
            "10.0.0.0/8",
            "$(POD_NAME).svc",
            "-c",
            "--a=b",
            "a b",
            "a,b",
            "x[0]",
            "it's",
            "/bin/sh",
            ".hidden",
            "yes, sir",
            "http://a:80/",
            "grüße",
            "日本",
            "a#b",
            "5s",
            "istio-proxy",
        ] {
            assert_eq!(write(&json!([text])), format!("- {text}\n"));
            assert_eq!(parse(&write(&json!([text]))), Ok(json!([text])));
        }
    }

    #[test]
    fn a_key_too_long_for_one_line_is_written_explicitly() {
        let value = json!({"a": {"k".repeat(5000): [{"\u{1}".repeat(400): 1}]}});
        assert!(write(&value).contains("? kkk"));
        assert_eq!(parse(&write(&value)), Ok(value));
    }

    fn awkward_string() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "a",
            "on",
            "0",
            "1",
            ":",
            " ",
            "#",
            "-",
            "\n",
            "\t",
            "\r",
            "'",
            "\"",
            "\\",
            "{",
            "}",
            "[",
            "]",
            ",",
            "&",
            "*",
            "!",
            "|",
            ">",
            "%",
            "@",
            "`",
            "?",
            "=",
            "<",
            "~",
            ".",
            "e",
            "_",
            "+",
            "---",
            "...",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\u{0}",
            "\u{fffe}",
            "\u{1f600}",
            "é",
            "null",
            "{{",
            "$(",
        ]);
        prop_oneof![
            prop::collection::vec(pieces, 0..12).prop_map(|p| p.concat()),
            any::<String>(),
            "[a-z]{1,8}",
        ]
    }

    /// Any JSON that a manifest could hold.
    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL).prop_map(Value::from),
            awkward_string().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((awkward_string(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_written_reads_back(value in json_value()) {
            let text = write(&value);
            prop_assert_eq!(parse(&text), Ok(value), "{}", text);
        }

        #[test]
        fn a_document_stays_one_document_line_by_line(value in json_value()) {
            for line in write(&value).lines() {
                prop_assert!(!line.starts_with("---") && !line.starts_with("..."), "{line}");
            }
        }
    }
}
