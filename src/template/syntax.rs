//! Why a text is no template, in words for its author: the parser knows only which of its tokens could have come next.

/// A `{{…}}` of a text.
struct Tag<'a> {
    /// Where it begins, in bytes.
    at: usize,
    /// What stands in it, without tildes and blanks; `None` where it is not closed.
    inside: Option<&'a str>,
}

/// What is wrong with `text`, with line and column. `line` and `column` are where the parser gave up.
pub(super) fn mistake(text: &str, line: usize, column: usize) -> String {
    let (at, message) = find(text).unwrap_or_else(|| {
        let at = offset(text, line, column);
        let tag = tags(text).into_iter().rev().find(|tag| tag.at <= at);
        let shown = tag.and_then(|tag| Some((tag.at, tag.inside?)));
        match shown {
            Some((at, inside)) => (
                at,
                format!(
                    "{{{{{inside}}}}} is no expression of Handlebars; write {{{{name}}}}, {{{{helper argument}}}} or \
                     {{{{#if name}}}}…{{{{/if}}}}"
                ),
            ),
            None => (at, "no Handlebars; see docs/templates.md".to_owned()),
        }
    });
    let (line, column) = place(text, at);
    format!("line {line}, column {column}: {message}")
}

/// The mistakes that are made: tags that are not closed, blocks that are not, ends without a beginning.
fn find(text: &str) -> Option<(usize, String)> {
    let mut open: Vec<(usize, &str)> = Vec::new();
    for Tag { at, inside } in tags(text) {
        let Some(inside) = inside else {
            return Some((at, "this {{ is never closed; write }} behind its expression".to_owned()));
        };
        if inside.is_empty() {
            let message = "{{}} says nothing; write what is to stand there, such as {{values.image}}";
            return Some((at, message.to_owned()));
        } else if let Some(rest) = inside.strip_prefix('#') {
            open.push((at, rest.split_whitespace().next().unwrap_or_default()));
        } else if let Some(closed) = inside.strip_prefix('/').map(str::trim) {
            match open.pop() {
                None => {
                    return Some((
                        at,
                        format!(
                            "{{{{/{closed}}}}} closes a block that is not open; take it away, or write {{{{#{closed} …}}}} \
                             before it"
                        ),
                    ));
                }
                Some((from, opened)) if opened != closed => {
                    return Some((
                        at,
                        format!(
                            "{{{{/{closed}}}}} closes the {{{{#{opened}}}}} of line {}; write {{{{/{opened}}}}}",
                            place(text, from).0
                        ),
                    ));
                }
                Some(_) => {}
            }
        } else if open.is_empty() && (inside == "else" || inside == "^" || inside.starts_with("else ")) {
            let message = "{{else}} stands in no block; write {{#if …}} before it and {{/if}} after it";
            return Some((at, message.to_owned()));
        }
    }
    let (at, opened) = open.pop()?;
    Some((
        at,
        format!(
            "{{{{#{opened} …}}}} is never closed; write {{{{/{opened}}}}} on the line behind the last of its block"
        ),
    ))
}

/// The tags of a text, but for comments and what a backslash makes text.
fn tags(text: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find("{{").map(|at| from + at) {
        let rest = &text[at + 2..];
        let comment = if rest.starts_with("!--") { "--}}" } else { "}}" };
        if text[..at].ends_with('\\') {
            from = at + 2;
            continue;
        }
        let end = rest.find(comment);
        // The next {{ comes first: this one is not closed.
        let end =
            end.filter(|end| rest.starts_with('!') || !rest[..*end].trim_start_matches('{').contains("{{"));
        let inside = end.map(|end| rest[..end].trim_matches(['~', '{']).trim());
        if !rest.starts_with('!') || end.is_none() {
            tags.push(Tag { at, inside });
        }
        from = end.map_or(text.len(), |end| at + 2 + end + comment.len());
    }
    tags
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The byte at line and column.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let of_line = &text[start..];
    start + of_line.char_indices().nth(column.saturating_sub(1)).map_or(of_line.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn what_is_no_template_is_told_by_its_mistake() {
        for (text, message) in [
            (
                "a: 1\n{{#if x}}\nb: 2\n",
                "line 2, column 1: {{#if …}} is never closed; write {{/if}} on the line behind the last of its block",
            ),
            (
                "{{#each l}}\n  {{#if x}}1{{/if}}\n",
                "line 1, column 1: {{#each …}} is never closed; write {{/each}} on the line behind the last of its block",
            ),
            (
                "{{#if x}}1{{else}}",
                "line 1, column 1: {{#if …}} is never closed; write {{/if}} on the line behind the last of its block",
            ),
            (
                "a: {{/if}}",
                "line 1, column 4: {{/if}} closes a block that is not open; take it away, or write {{#if …}} before it",
            ),
            (
                "{{#if x}}\n{{/unless}}",
                "line 2, column 1: {{/unless}} closes the {{#if}} of line 1; write {{/if}}",
            ),
            (
                "a: {{else}}",
                "line 1, column 4: {{else}} stands in no block; write {{#if …}} before it and {{/if}} after it",
            ),
            ("ä: {{values.x", "line 1, column 4: this {{ is never closed; write }} behind its expression"),
            ("a: {{x\nb: {{y}}", "line 1, column 4: this {{ is never closed; write }} behind its expression"),
            (
                "a: {{}}",
                "line 1, column 4: {{}} says nothing; write what is to stand there, such as {{values.image}}",
            ),
            (
                "a: 1\nb: {{\"x}}",
                "line 2, column 4: {{\"x}} is no expression of Handlebars; write {{name}}, {{helper argument}} or \
                 {{#if name}}…{{/if}}",
            ),
            (
                "{{!-- {{ --}}\\{{ {{! x }}{{ a | b }}",
                "line 1, column 26: {{a | b}} is no expression of Handlebars; write {{name}}, {{helper argument}} or \
                 {{#if name}}…{{/if}}",
            ),
        ] {
            let error = parse("t", text).unwrap_err();
            assert_eq!(error.message, message, "{text}");
        }
    }
}
