//! A stream of documents as text: where each begins and ends, and what is kept when one changes.
//!
//! Source: <https://yaml.org/spec/1.2.2/#92-streams>.

use std::ops::Range;

use serde_json::Value;

use super::json;
use crate::yaml::{self, Error};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML, block style.
    Yaml,
    /// JSON.
    Json,
}

/// One document of a stream, as it came. The sources of all documents, one after the other, are the stream.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// Its text, with the `---` before it and the comments around it.
    pub source: &'a [u8],
    /// Number in its stream, from 1.
    pub number: usize,
    /// Line of the stream on which the source begins, from 1.
    pub line: usize,
    /// How it is written.
    pub format: Format,
}

/// Splits a stream at its `---` and `...` lines, and JSON objects that follow each other. Never fails: what is
/// wrong with a document is said when it is parsed.
pub fn split(stream: &[u8]) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut line = 1;
    for range in documents_at(stream) {
        for (source, format) in json_values(&stream[range]) {
            documents.push(Document { source, number: documents.len() + 1, line, format });
            line += breaks(source);
        }
    }
    documents
}

impl<'a> Document<'a> {
    /// The value; `None` where the document holds nothing but comments.
    ///
    /// # Errors
    /// No UTF-8, no YAML, no JSON: with the line in the stream.
    pub fn parse(&self) -> Result<Option<Value>, Error> {
        let text = self.text()?;
        let value = match self.format {
            Format::Yaml => yaml::parse(text).map_err(|e| self.error(e.line, e.column, e.message))?,
            Format::Json => self.parse_json(text)?,
        };
        Ok(Some(value).filter(|value| !value.is_null()))
    }

    /// Line in the stream of a field by its JSON pointer, or of the nearest field around it.
    pub fn line_of(&self, pointer: &str) -> usize {
        let positions = self.text().ok().and_then(|text| yaml::parse_with_positions(text).ok());
        let mut pointer = pointer;
        loop {
            if let Some((line, _)) = positions.as_ref().and_then(|(_, at)| at.get(pointer)) {
                return self.line + line - 1;
            }
            match pointer.rfind('/') {
                Some(parent) => pointer = &pointer[..parent],
                None => return self.first_line_of_content(),
            }
        }
    }

    /// Line in the stream on which the content begins: after `---`, comments and blank lines.
    pub fn first_line_of_content(&self) -> usize {
        let frame = self.frame();
        self.line + breaks(&self.source[..frame.content.start])
    }

    /// What stands before the content: `---`, directives, comments, blank lines. Ends with a newline, if not empty.
    pub(super) fn head(&self) -> String {
        let frame = self.frame();
        let mut head = String::from_utf8_lossy(&self.source[..frame.content.start]).into_owned();
        if frame.content_on_marker_line {
            head.push_str("---\n");
        }
        head
    }

    /// The comments, blank lines and `...` after the content. Blank lines are empty: spaces would belong to a block of text
    /// before them.
    pub(super) fn tail(&self) -> String {
        let lines = lines(&self.source[self.frame().content.end..]);
        let indent = |line: &[u8]| match Line::of(line) {
            Line::Blank => line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count(),
            _ => 0,
        };
        lines.map(|(_, line)| String::from_utf8_lossy(&line[indent(line)..])).collect()
    }

    /// Whether its lines end with carriage return and line feed.
    pub(super) fn has_windows_lines(&self) -> bool {
        self.source.windows(2).any(|two| two == b"\r\n")
    }

    /// Whether the content stands on one line.
    pub(super) fn is_on_one_line(&self) -> bool {
        !self.source[self.frame().content].trim_ascii().contains(&b'\n')
    }

    fn text(&self) -> Result<&'a str, Error> {
        let source = self.source.strip_prefix(BYTE_ORDER_MARK).unwrap_or(self.source);
        std::str::from_utf8(source).map_err(|e| {
            let before = &source[..e.valid_up_to()];
            let column = 1 + before.iter().rev().take_while(|&b| !matches!(b, b'\n' | b'\r')).count();
            self.error(1 + breaks(before), column, "not UTF-8; save the file as UTF-8")
        })
    }

    fn error(&self, line: usize, column: usize, message: impl Into<String>) -> Error {
        Error { line: self.line + line - 1, column, message: message.into() }
    }

    fn parse_json(&self, text: &str) -> Result<Value, Error> {
        let mark = self.source.len() - text.len();
        let content = self.frame().content;
        let (before, content) =
            (&text[..content.start - mark], &text[content.start - mark..content.end - mark]);
        json::parse(content).or_else(|e| {
            // YAML's flow style looks like JSON, and takes a comma before a brace.
            yaml::parse(text).map_err(|_| {
                let message = if e.is_eof() {
                    "the document ends before its JSON does".to_owned()
                } else {
                    e.to_string()
                };
                let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(m, _)| m);
                self.error(breaks(before.as_bytes()) + e.line().max(1), e.column().max(1), message)
            })
        })
    }

    fn frame(&self) -> Frame {
        let mut frame =
            Frame { content: self.source.len()..self.source.len(), content_on_marker_line: false };
        for (range, line) in lines(self.source) {
            match Line::of(line) {
                Line::Blank | Line::Comment | Line::Directive | Line::End => {}
                Line::BareMarker => {}
                kind => {
                    frame.content_on_marker_line = kind == Line::Marker;
                    frame.content.start = range.end - without_mark(line).len();
                    break;
                }
            }
        }
        let content = &self.source[frame.content.start..];
        let length = self.json_length(content).unwrap_or_else(|| {
            let told = |line| !matches!(Line::of(line), Line::Blank | Line::Comment | Line::End);
            lines(content).filter(|(_, line)| told(line)).last().map_or(0, |(range, _)| range.end)
        });
        frame.content.end = frame.content.start + length;
        frame
    }

    /// How long the JSON is that content begins with, and the rest of its last line if that is blank. A line that looks
    /// like a comment may be in a string.
    fn json_length(&self, content: &[u8]) -> Option<usize> {
        if self.format == Format::Yaml {
            return None;
        }
        let begin = content.len() - content.trim_ascii_start().len();
        let Scan::Value(length) = scan_json(&content[begin..]) else { return None };
        let end = begin + length;
        let rest = lines(&content[end..]).next().filter(|(_, rest)| Line::of(rest) == Line::Blank);
        Some(end + rest.map_or(0, |(range, _)| range.end))
    }
}

/// Where the content stands in the source.
struct Frame {
    content: Range<usize>,
    /// As in `--- {a: 1}`: the content's range then begins with the marker.
    content_on_marker_line: bool,
}

/// What a line is, seen from outside of any scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Blank,
    Comment,
    Directive,
    /// `---`, alone or with a comment behind it.
    BareMarker,
    /// `---` with content behind it.
    Marker,
    /// `...`.
    End,
    Content,
}

impl Line {
    pub(super) fn of(line: &[u8]) -> Self {
        let line = without_mark(line);
        let marker = |three: &[u8]| {
            line.starts_with(three) && line.get(3).is_none_or(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
        };
        if marker(b"---") {
            if is_blank_or_comment(&line[3..]) { Self::BareMarker } else { Self::Marker }
        } else if marker(b"...") {
            Self::End
        } else if begins_with(line).is_none() {
            Self::Blank
        } else if line.starts_with(b"#") {
            Self::Comment
        } else if line.starts_with(b"%") {
            Self::Directive
        } else {
            Self::Content
        }
    }
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

fn is_blank_or_comment(text: &[u8]) -> bool {
    begins_with(text).is_none_or(|first| first == b'#')
}

/// The first byte that is not white space to YAML: a form feed is none (<https://yaml.org/spec/1.2.2/#55-white-space-characters>).
fn begins_with(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
}

/// The lines with their ends, and where they stand. A carriage return by itself ends one, too
/// (<https://yaml.org/spec/1.2.2/#54-line-break-characters>).
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (Range<usize>, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let length = match rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            Some(end) if rest[end..].starts_with(b"\r\n") => end + 2,
            Some(end) => end + 1,
            None => rest.len(),
        };
        at += length;
        Some((at - length..at, &rest[..length]))
    })
}

/// How many lines end in a text.
fn breaks(text: &[u8]) -> usize {
    lines(text).filter(|(_, line)| line.ends_with(b"\n") || line.ends_with(b"\r")).count()
}

/// The documents of a stream. A marker at the first column ends a document wherever it stands: it can be part
/// of no scalar.
fn documents_at(stream: &[u8]) -> Vec<Range<usize>> {
    let mut documents: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    let mut open = false;
    for (range, line) in lines(stream) {
        match Line::of(line) {
            Line::Marker | Line::BareMarker => {
                if open {
                    documents.push(start..range.start);
                    start = range.start;
                }
                open = true;
            }
            Line::End if open => {
                documents.push(start..range.end);
                start = range.end;
                open = false;
            }
            Line::Content => open = true,
            Line::Blank | Line::Comment | Line::Directive | Line::End => {}
        }
    }
    match documents.last_mut() {
        // Comments behind the last document are no document.
        Some(last) if !open => last.end = stream.len(),
        _ if start < stream.len() => documents.push(start..stream.len()),
        _ => {}
    }
    documents
}

/// The JSON values in a document that begins like JSON, one after the other; else the document as it is.
fn json_values(document: &[u8]) -> Vec<(&[u8], Format)> {
    let content = lines(document).find(|(_, line)| {
        !matches!(
            Line::of(line),
            Line::Blank | Line::Comment | Line::Directive | Line::BareMarker | Line::End
        )
    });
    let Some((first, _)) = content.filter(|(_, line)| Line::of(line) == Line::Content) else {
        return vec![(document, Format::Yaml)];
    };
    let mut values = Vec::new();
    let mut start = 0;
    let mut at = first.start;
    while at < document.len() {
        let rest = without_mark(&document[at..]);
        let begin = document.len() - rest.trim_ascii_start().len();
        let end = match scan_json(&document[begin..]) {
            Scan::Value(length) => begin + length,
            Scan::Unfinished => next_object(document, begin),
            Scan::Other => {
                values.push((&document[start..], Format::Yaml));
                return values;
            }
        };
        // The blanks, and comments, behind a value are its own.
        let blank = lines(&document[end..])
            .take_while(|(_, line)| is_blank_or_comment(line) || Line::of(line) == Line::End)
            .last();
        at = blank.map_or(end, |(range, _)| end + range.end);
        values.push((&document[start..at], Format::Json));
        start = at;
    }
    values
}

enum Scan {
    /// A value of this many bytes.
    Value(usize),
    /// Brackets that nothing closes.
    Unfinished,
    /// No JSON.
    Other,
}

/// The end of an object or array, by its brackets and strings.
fn scan_json(text: &[u8]) -> Scan {
    match text {
        [b'[', ..] => {}
        [b'{', rest @ ..] if rest.trim_ascii_start().starts_with(b"\"") => {}
        [b'{', rest @ ..] if rest.trim_ascii_start().starts_with(b"}") => {}
        _ => return Scan::Other,
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (i, &b) in text.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Scan::Value(i + 1);
                }
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' | b'+' | b'-' | b'.' => {}
            b if b.is_ascii_alphanumeric() => {}
            _ => return Scan::Other,
        }
    }
    Scan::Unfinished
}

/// Where the next object begins at the first column, behind one that does not end.
fn next_object(document: &[u8], from: usize) -> usize {
    let next = lines(&document[from..]).skip(1).find(|(_, line)| line.starts_with(b"{"));
    next.map_or(document.len(), |(range, _)| from + range.start)
}
