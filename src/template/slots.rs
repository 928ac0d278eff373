//! Why an interpolated value can never become YAML structure.
//!
//! What a template interpolates is written between marks ([`text`], [`json`]). Before anything reads the rendered
//! text as YAML, [`split`] takes the values out and leaves numbered slots, so that the YAML reader never sees a byte
//! of them; [`Shape::fill`] puts them into the tree that was read. A value can hold newlines, quotes, `: ` or a
//! megabyte: it is one scalar.
//!
//! It is also why injection is fast: the text that is left is the same for all pods that take the same branches of a
//! template, so that it is read as YAML once and its [`Shape`] used again.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::yaml;

// Private-use characters: printable in YAML, and without meaning in text. No template has one.
/// Begins a slot.
pub(super) const OPEN: char = '\u{E000}';
/// Ends a slot.
pub(super) const CLOSE: char = '\u{E001}';
const ESCAPE: char = '\u{E002}';
/// Marks a name that injection puts into a pod for a while (`injection/sent.rs`).
const NAME: char = '\u{E003}';
const FIRST: u8 = 0xEE;
const TEXT: char = 't';
const JSON: char = 'j';

/// Whether text has one of the marks.
pub(super) fn has_mark(text: &str) -> bool {
    text.contains([OPEN, CLOSE, ESCAPE, NAME])
}

/// A value between marks that is text, whatever it looks like.
pub(super) fn text(value: &str) -> String {
    mark(TEXT, value)
}

/// A value between marks that is JSON: in a slot of its own it is that value, within other text its spelling.
pub(super) fn json(value: &Value) -> String {
    mark(JSON, &value.to_string())
}

fn mark(kind: char, value: &str) -> String {
    let mut marked = String::with_capacity(value.len() + 8);
    marked.push(OPEN);
    marked.push(kind);
    // All three marks begin with the same byte.
    if !value.bytes().any(|byte| byte == b'\n' || byte == FIRST) {
        marked.push_str(value);
        marked.push(CLOSE);
        return marked;
    }
    for c in value.chars() {
        // The line break is marked too, or Handlebars would indent a partial's values.
        let code = match c {
            OPEN => '0',
            CLOSE => '1',
            ESCAPE => '2',
            '\n' => 'n',
            c => {
                marked.push(c);
                continue;
            }
        };
        marked.push(ESCAPE);
        marked.push(code);
    }
    marked.push(CLOSE);
    marked
}

/// A value taken out of rendered text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Slot {
    /// Text, whatever it looks like.
    Text(String),
    /// JSON.
    Json(Value),
}

/// Rendered text without its values: numbered slots are left in their places.
///
/// # Errors
/// Marks that do not match, which only a template that writes marks itself can cause.
pub(super) fn split(rendered: &str) -> Result<(String, Vec<Slot>), String> {
    let mut skeleton = String::with_capacity(rendered.len());
    let mut slots = Vec::new();
    let mut rest = rendered;
    while let Some(start) = rest.find(OPEN) {
        let (before, from) = rest.split_at(start);
        skeleton.push_str(before);
        let end = from.find(CLOSE).ok_or("a value's mark does not end")?;
        slots.push(unmark(&from[OPEN.len_utf8()..end])?);
        let _ = write!(skeleton, "{OPEN}{}{CLOSE}", slots.len() - 1);
        rest = &from[end + CLOSE.len_utf8()..];
    }
    skeleton.push_str(rest);
    Ok((skeleton, slots))
}

/// A line of a skeleton for its reader, a dot-dot-dot for each slot: `image: …/…`.
pub(super) fn shown(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some((before, from)) = rest.split_once(OPEN) {
        shown.push_str(before);
        shown.push('…');
        rest = from.split_once(CLOSE).map_or("", |(_, after)| after);
    }
    shown + rest
}

fn unmark(marked: &str) -> Result<Slot, String> {
    let mut chars = marked.chars();
    let kind = chars.next();
    let body = chars.as_str();
    let body = if body.contains(ESCAPE) { unescape(body)? } else { body.to_owned() };
    match kind {
        Some(TEXT) => Ok(Slot::Text(body)),
        Some(JSON) => {
            serde_json::from_str(&body).map(Slot::Json).map_err(|e| format!("a value is no JSON: {e}"))
        }
        _ => Err("a value's mark has no kind".to_owned()),
    }
}

fn unescape(body: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        plain.push(if c != ESCAPE {
            c
        } else {
            match chars.next() {
                Some('0') => OPEN,
                Some('1') => CLOSE,
                Some('2') => ESCAPE,
                Some('n') => '\n',
                _ => return Err("a value's mark is broken".to_owned()),
            }
        });
    }
    Ok(plain)
}

/// The tree of a rendered template, with slots where values go.
#[derive(Debug)]
pub(super) struct Shape(Node);

#[derive(Debug)]
enum Node {
    Constant(Value),
    Slot(usize),
    Text(Vec<Piece>),
    List(Vec<Node>),
    /// Constant keys: the object with what is constant in it, and what is to be filled in, by its place.
    Record(Map<String, Value>, Vec<(usize, Node)>),
    Object(Vec<(Vec<Piece>, Node)>),
}

#[derive(Debug)]
enum Piece {
    Constant(String),
    Slot(usize),
}

impl Shape {
    /// Reads a skeleton as YAML.
    ///
    /// # Errors
    /// It is no YAML; line and column are those of the skeleton.
    pub(super) fn parse(skeleton: &str) -> Result<Self, yaml::Error> {
        yaml::parse(skeleton).map(|value| Self(node(value)))
    }

    /// The tree with its values.
    ///
    /// # Errors
    /// Two keys of one object that came to be the same.
    pub(super) fn fill(&self, slots: &[Slot]) -> Result<Value, String> {
        fill(&self.0, slots)
    }
}

fn node(value: Value) -> Node {
    match value {
        Value::String(text) if has_mark(&text) => {
            let pieces = pieces(&text);
            match pieces[..] {
                [Piece::Slot(slot)] => Node::Slot(slot),
                _ => Node::Text(pieces),
            }
        }
        Value::Array(items) => {
            let items: Vec<Node> = items.into_iter().map(node).collect();
            if items.iter().all(Node::is_constant) {
                Node::Constant(items.into_iter().map(Node::into_constant).collect())
            } else {
                Node::List(items)
            }
        }
        Value::Object(fields) => {
            let fields: Vec<(Vec<Piece>, Node)> =
                fields.into_iter().map(|(key, value)| (pieces(&key), node(value))).collect();
            if fields.iter().any(|(key, _)| key.iter().any(Piece::is_slot)) {
                return Node::Object(fields);
            }
            let (mut constant, mut filled) = (Map::new(), Vec::new());
            for (place, (key, value)) in fields.into_iter().enumerate() {
                let value = match value {
                    Node::Constant(value) => value,
                    node => {
                        filled.push((place, node));
                        Value::Null
                    }
                };
                constant.insert(join(&key, &[]), value);
            }
            if filled.is_empty() { Node::Constant(constant.into()) } else { Node::Record(constant, filled) }
        }
        scalar => Node::Constant(scalar),
    }
}

impl Node {
    fn is_constant(&self) -> bool {
        matches!(self, Node::Constant(_))
    }

    fn into_constant(self) -> Value {
        match self {
            Node::Constant(value) => value,
            _ => Value::Null,
        }
    }
}

impl Piece {
    fn is_slot(&self) -> bool {
        matches!(self, Piece::Slot(_))
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once(OPEN) {
        if !before.is_empty() {
            pieces.push(Piece::Constant(before.to_owned()));
        }
        let (number, after) = from.split_once(CLOSE).unwrap_or((from, ""));
        if let Ok(slot) = number.parse() {
            pieces.push(Piece::Slot(slot));
        }
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Constant(rest.to_owned()));
    }
    pieces
}

fn fill(node: &Node, slots: &[Slot]) -> Result<Value, String> {
    Ok(match node {
        Node::Constant(value) => value.clone(),
        Node::Slot(slot) => match slots.get(*slot) {
            Some(Slot::Text(text)) => Value::String(text.clone()),
            Some(Slot::Json(value)) => value.clone(),
            None => Value::Null,
        },
        Node::Text(pieces) => Value::String(join(pieces, slots)),
        Node::List(items) => {
            Value::Array(items.iter().map(|item| fill(item, slots)).collect::<Result<_, _>>()?)
        }
        Node::Record(constant, filled) => {
            let mut record = constant.clone();
            let mut values = record.values_mut();
            let mut next = 0;
            for (place, node) in filled {
                if let Some(value) = values.nth(place - next) {
                    *value = fill(node, slots)?;
                }
                next = place + 1;
            }
            Value::Object(record)
        }
        Node::Object(fields) => {
            let mut filled = Map::with_capacity(fields.len());
            for (key, value) in fields {
                let key = join(key, slots);
                let value = fill(value, slots)?;
                if filled.contains_key(&key) {
                    return Err(format!("the key {key:?} stands twice in one object"));
                }
                filled.insert(key, value);
            }
            Value::Object(filled)
        }
    })
}

fn join(pieces: &[Piece], slots: &[Slot]) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Constant(constant) => text.push_str(constant),
            Piece::Slot(slot) => match slots.get(*slot) {
                Some(Slot::Text(value)) => text.push_str(value),
                Some(Slot::Json(value)) => text.push_str(&value.to_string()),
                None => {}
            },
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn through(rendered: &str) -> Value {
        let (skeleton, slots) = split(rendered).unwrap();
        Shape::parse(&skeleton).unwrap().fill(&slots).unwrap()
    }

    #[test]
    fn slots_stand_alone_within_text_in_keys_and_in_blocks() {
        let rendered = format!(
            "a: {}\n'b': pre-{}-post\n{}: 1\nblock: |\n  x {}\nlist: [{}]\nsame: {{k: v}} # {}\n",
            text("x: y"),
            text("1"),
            text("k{e}y"),
            text("multi\nline"),
            json(&json!({"n": [1, null]})),
            text("comment"),
        );
        let want = json!({"a": "x: y", "b": "pre-1-post", "k{e}y": 1, "block": "x multi\nline\n",
            "list": [{"n": [1, null]}], "same": {"k": "v"}});
        assert_eq!(through(&rendered), want);
    }

    #[test]
    fn keys_that_come_to_be_the_same_are_refused() {
        let (skeleton, slots) = split(&format!("{}: 1\n{}: 2\n", text("k"), text("k"))).unwrap();
        assert!(Shape::parse(&skeleton).unwrap().fill(&slots).unwrap_err().contains("twice"));
    }

    proptest! {
        #[test]
        fn any_value_is_one_scalar(value in any::<String>(), other in "[\u{E000}-\u{E003}\n:{}'\"&*-]{0,12}") {
            let rendered = format!("a: {}\nb: \"{}/{}\"\nc: {}\n", text(&value), text(&other), text(&value), json(&json!(other)));
            prop_assert_eq!(through(&rendered), json!({"a": value, "b": format!("{other}/{value}"), "c": other}));
        }
    }
}
