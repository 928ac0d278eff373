//! Partials written out where they are included.
//!
//! Handlebars copies all data whenever it enters a partial, which was two thirds of a rendering. A template that is
//! written out renders the same text without; where it fails, the one with partials is rendered once more, because it
//! knows in which partial, and on which of its lines.

use std::collections::BTreeMap;

/// A template with its partials written out; those that stand alone on a line and look at nothing above them.
pub(super) fn inline(text: &str, partials: &BTreeMap<String, String>) -> String {
    let mut written = String::with_capacity(text.len() * 4);
    for line in text.split_inclusive('\n') {
        let Some(partial) = included(line).and_then(|name| partials.get(name)).filter(|p| !p.contains("../"))
        else {
            written.push_str(line);
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        for line in inline(partial, partials).split_inclusive('\n') {
            if !line.trim().is_empty() {
                written.push_str(indent);
            }
            written.push_str(line);
        }
        if line.ends_with('\n') && !written.ends_with('\n') {
            written.push('\n');
        }
    }
    written
}

/// The name in a line that is `{{> name}}` and nothing else.
fn included(line: &str) -> Option<&str> {
    let name = line.trim().strip_prefix("{{>")?.strip_suffix("}}")?.trim();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_include_are_replaced_with_their_indent() {
        let partials = BTreeMap::from([
            ("a".to_owned(), "x: 1\n\n{{> b}}\n".to_owned()),
            ("b".to_owned(), "- {{y}}".to_owned()),
            ("up".to_owned(), "{{../z}}\n".to_owned()),
        ]);
        let text = "s:\n  {{> a}}\nt: {{> b}}\n{{> up}}\n{{> b k=1}}\n";
        assert_eq!(inline(text, &partials), "s:\n  x: 1\n\n  - {{y}}\nt: {{> b}}\n{{> up}}\n{{> b k=1}}\n");
    }
}
