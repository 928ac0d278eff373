//! What a person reads on standard error: aligned and coloured on a terminal, plain elsewhere.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};

/// What became of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It changed as it should.
    Done,
    /// It stays as it is, for a reason.
    Left,
    /// It could not be done, and is not in the output.
    Failed,
}

/// Green, and bold where it matters.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// For what is not done, and for remarks.
pub(crate) const DIM: Style = Style::new().dimmed();
/// For what asks for attention.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// For failures.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// For titles.
pub(crate) const STRONG: Style = Style::new().bold();

/// The lines of a report, in order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Workload { title: String, outcome: Outcome, word: &'static str, detail: String },
    Warning(String),
    Failure(String),
}

impl Report {
    /// A workload: `Deployment default/web: injected (policy_enabled)`.
    pub(crate) fn workload(&mut self, title: &str, outcome: Outcome, word: &'static str, detail: String) {
        self.lines.push(Line::Workload { title: title.to_owned(), outcome, word, detail });
    }

    /// Something that a person ought to hear.
    pub(crate) fn warning(&mut self, message: impl Into<String>) {
        self.lines.push(Line::Warning(message.into()));
    }

    /// Something that went wrong.
    pub(crate) fn failure(&mut self, message: impl Into<String>) {
        self.lines.push(Line::Failure(message.into()));
    }

    /// Whether something went wrong.
    pub(crate) fn has_failures(&self) -> bool {
        self.lines.iter().any(|line| matches!(line, Line::Failure(_)))
    }

    /// How many workloads came out so.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        let is = |line: &&Line| matches!(line, Line::Workload { outcome: o, .. } if *o == outcome);
        self.lines.iter().filter(is).count()
    }

    /// Prints the lines and a closing one.
    pub(crate) fn print(&self, summary: &str) {
        let terminal = std::io::stderr().is_terminal();
        let titles = self.lines.iter().filter_map(|line| match line {
            Line::Workload { title, .. } => Some(title.chars().count()),
            _ => None,
        });
        let width = if terminal { titles.max().unwrap_or(0) } else { 0 };
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Workload { title, outcome, word, detail } => {
                    let style = match outcome {
                        Outcome::Done => GOOD,
                        Outcome::Left => DIM,
                        Outcome::Failed => BAD,
                    };
                    let gap = " ".repeat(width.saturating_sub(title.chars().count()));
                    text += &format!("{title}:{gap} {style}{word}{style:#} {detail}");
                    text.truncate(text.trim_end().len());
                }
                Line::Warning(message) => text += &format!("{WARNING}warning:{WARNING:#} {message}"),
                Line::Failure(message) => text += &format!("{BAD}error:{BAD:#} {message}"),
            }
            text.push('\n');
        }
        if !summary.is_empty() {
            text += &format!("{STRONG}{summary}{STRONG:#}\n");
        }
        // Nobody can be told that standard error is closed.
        let _ = anstream::stderr().write_all(text.as_bytes());
    }
}

/// `1 workload`, `2 workloads`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
