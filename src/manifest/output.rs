//! A stream of documents, written: what nobody touched as it came, what changed as a new document.

use serde_json::Value;

use super::json;
use super::stream::{Document, Format, Line, lines};
use crate::yaml;

/// A stream that grows document by document.
#[derive(Debug, Default)]
pub struct Output {
    format: Option<Format>,
    bytes: Vec<u8>,
    last: Option<Format>,
    /// Whether the last line that is neither blank nor comment is `...`.
    ended: bool,
}

impl Output {
    /// An empty stream; `format`: of every document, else each as it came.
    pub fn new(format: Option<Format>) -> Self {
        Self { format, ..Self::default() }
    }

    /// Adds a document that did not change: byte for byte, unless the stream wants another format. `value` is
    /// what it parses to, `None` where it holds nothing.
    pub fn keep(&mut self, document: &Document, value: Option<&Value>) {
        match (self.format.filter(|&format| format != document.format), value) {
            (None, None) if self.format == Some(Format::Json) => {}
            (None, _) => self.append(document.source, document.format, document.number > 1),
            (Some(_), None) => {}
            (Some(format), Some(value)) => self.append(&plain(value, format), format, false),
        }
    }

    /// Adds a document that did change. The comments before and behind it stay, those inside it go.
    pub fn change(&mut self, document: &Document, value: &Value) {
        match self.format.unwrap_or(document.format) {
            format if format != document.format => self.append(&plain(value, format), format, false),
            format => {
                let mut text = match format {
                    Format::Yaml => yaml::write(value),
                    Format::Json => json::write(value, document.is_on_one_line()),
                };
                if document.has_windows_lines() {
                    text = text.replace('\n', "\r\n");
                }
                let text = format!("{}{text}{}", document.head(), document.tail());
                self.append(text.as_bytes(), format, document.number > 1);
            }
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The stream.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// `follows`: JSON may stand right behind JSON, as it did in the stream that it came from.
    fn append(&mut self, document: &[u8], format: Format, follows: bool) {
        let mut document = document;
        if let Some(last) = self.last {
            // A byte order mark may stand before the first document only.
            document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
            let both_json = last == Format::Json && format == Format::Json;
            let begins = document.trim_ascii_start().first();
            let stands_apart = !(both_json && follows && matches!(begins, Some(b'{' | b'[')));
            if stands_apart && !self.bytes.ends_with(b"\n") {
                self.bytes.push(b'\n');
            }
            // What does not begin with a marker is part of what stands before it, unless that has ended.
            if !self.ended {
                match told(document).next() {
                    Some(Line::Marker | Line::BareMarker) => {}
                    Some(Line::Directive) => self.bytes.extend_from_slice(b"...\n"),
                    _ if both_json => {}
                    _ => self.bytes.extend_from_slice(b"---\n"),
                }
            }
        }
        if let Some(line) = told(document).last() {
            self.ended = line == Line::End;
        }
        self.bytes.extend_from_slice(document);
        self.last = Some(format);
    }
}

fn plain(value: &Value, format: Format) -> Vec<u8> {
    match format {
        Format::Yaml => yaml::write(value).into_bytes(),
        Format::Json => json::write(value, false).into_bytes(),
    }
}

/// What the lines are that are neither blank nor comment.
fn told(document: &[u8]) -> impl Iterator<Item = Line> {
    lines(document)
        .map(|(_, line)| Line::of(line))
        .filter(|line| !matches!(line, Line::Blank | Line::Comment))
}
