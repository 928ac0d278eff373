//! Partials written out where they are included.
//!
//! Handlebars copies all data whenever it enters a partial, which was two thirds of a rendering. A template that is
//! written out renders the same text without; where it fails, the one with partials is rendered once more, because it
//! knows in which partial, and on which of its lines.
//!
//! Each text is compiled by itself and the parts are put together: the time that compiling takes grows with the square
//! of a text's length.

use std::collections::BTreeMap;
use std::fmt::Write;

use handlebars::template::{HelperTemplate, TemplateElement};
use handlebars::{Template, TemplateError};

use super::slots::{CLOSE, OPEN};

/// A template with its partials written out; those that stand alone on a line and look at nothing above them. `None`
/// where that would not render the same, or makes no template.
pub(super) fn compile(text: &str, partials: &BTreeMap<String, String>) -> Option<Template> {
    // What takes whitespace away takes it from beyond a partial's end, too.
    let trims = |text: &str| text.contains("{{~") || text.contains("~}}");
    if trims(text) || partials.values().any(|partial| trims(partial)) {
        return None;
    }
    written_out(text, partials).ok()
}

/// A slot's marks stand around a partial's name and the spaces before it, until [`put_together`] puts it there.
fn written_out(text: &str, partials: &BTreeMap<String, String>) -> Result<Template, TemplateError> {
    // What stands alone on the first line is to be taken for it.
    let mut marked = String::from("\n");
    for line in text.split_inclusive('\n') {
        match included(line).filter(|name| partials.get(*name).is_some_and(|p| !p.contains("../"))) {
            Some(name) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                let end = if line.ends_with('\n') { "\n" } else { "" };
                let _ = write!(marked, "{OPEN}{indent}{name}{CLOSE}{end}");
            }
            None => marked.push_str(line),
        }
    }
    let mut template = Template::compile(&marked)?;
    if let Some(TemplateElement::RawString(first)) = template.elements.first_mut() {
        first.remove(0);
    }
    put_together(&mut template, partials)?;
    Ok(template)
}

fn put_together(template: &mut Template, partials: &BTreeMap<String, String>) -> Result<(), TemplateError> {
    let mut elements = Vec::with_capacity(template.elements.len());
    for element in template.elements.drain(..) {
        match element {
            TemplateElement::RawString(text) => replace(&text, partials, &mut elements)?,
            TemplateElement::HelperBlock(mut helper) => {
                let HelperTemplate { template, inverse, .. } = &mut *helper;
                for part in [template, inverse].into_iter().flatten() {
                    put_together(part, partials)?;
                }
                elements.push(TemplateElement::HelperBlock(helper));
            }
            other => elements.push(other),
        }
    }
    template.elements = elements;
    Ok(())
}

/// Text between the elements, with the partials that are marked in it.
fn replace(
    mut text: &str,
    partials: &BTreeMap<String, String>,
    elements: &mut Vec<TemplateElement>,
) -> Result<(), TemplateError> {
    let push = |text: &str, elements: &mut Vec<TemplateElement>| {
        if !text.is_empty() {
            elements.push(TemplateElement::RawString(text.to_owned()));
        }
    };
    while let Some((before, (mark, after))) =
        text.split_once(OPEN).and_then(|(before, from)| Some((before, from.split_once(CLOSE)?)))
    {
        push(before, elements);
        let name = mark.trim_start();
        let after_line = after.strip_prefix('\n');
        if let Some(partial) = partials.get(name) {
            let partial = indented(partial, &mark[..mark.len() - name.len()], after_line.is_some());
            elements.extend(written_out(&partial, partials)?.elements);
        }
        text = after_line.unwrap_or(after);
    }
    push(text, elements);
    Ok(())
}

fn indented(text: &str, indent: &str, whole_line: bool) -> String {
    let mut indented = String::with_capacity(text.len() * 2);
    for line in text.split_inclusive('\n') {
        if !line.trim().is_empty() {
            indented.push_str(indent);
        }
        indented.push_str(line);
    }
    if whole_line && !indented.ends_with('\n') {
        indented.push('\n');
    }
    indented
}

/// The name in a line that is `{{> name}}` and nothing else.
fn included(line: &str) -> Option<&str> {
    let name = line.trim().strip_prefix("{{>")?.strip_suffix("}}")?.trim();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use handlebars::Handlebars;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_out_renders_as_what_includes() {
        let partials = BTreeMap::from(
            [
                ("a", "{{#if y}}\nx: 1\n{{> b}}\n{{/if}}\n"),
                ("b", "- {{y}}\n  {{#unless n}}\n  {{> c}}\n  {{/unless}}"),
                ("c", "{{!-- said --}}\nz: {{y}}\n"),
                ("up", "{{#with o}}\n{{../y}}\n{{/with}}\n"),
                ("trim", "{{~y}}\n"),
            ]
            .map(|(name, text)| (name.to_owned(), text.to_owned())),
        );
        for text in [
            "s:\n  {{> a}}\nt: {{> b}}\n{{> up}}\n{{> b k=1}}\n",
            "{{> a}}\n{{> a}}",
            "{{#if y}}\n  {{> c}}\n{{else}}\n  {{> a}}\n{{/if}}\n{{> c}}\n",
            "{{#if n}}\n  {{> c}}\n{{else}}\n  {{> a}}\n{{/if}}\n{{> c}}\n",
            "{{#each l}}\n{{#if this}}\n    {{> c}}\n{{/if}}\n{{/each}}",
            "a\n{{> missing}}\n",
        ] {
            let mut registry = Handlebars::new();
            let mut partials = partials.clone();
            partials.remove("trim");
            for (name, text) in &partials {
                registry.register_partial(name, text).unwrap();
            }
            registry.register_template_string("includes", text).unwrap();
            registry.register_template("written out", compile(text, &partials).unwrap());
            let data = json!({"y": "v", "n": false, "l": [0, 1, 2], "o": {"p": 1}});
            let [includes, written] = ["includes", "written out"]
                .map(|name| registry.render(name, &data).map_err(|e| e.to_string()).ok());
            assert_eq!(written, includes, "{text}");
        }
        assert!(compile("{{> trim}}\n", &partials).is_none());
    }
}
