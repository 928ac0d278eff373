//! What a template may not do, found before anything is rendered.

use std::collections::{BTreeMap, BTreeSet};

use handlebars::Template;
use handlebars::template::{DecoratorTemplate, HelperTemplate, Parameter, TemplateElement};

use super::CompileError;

/// Refuses values written unmarked, partials that are not there, and partials that include themselves.
pub(super) fn all(templates: &BTreeMap<String, Template>) -> Result<(), CompileError> {
    let mut includes = BTreeMap::new();
    for (name, template) in templates {
        let shown = name.strip_prefix("template ").unwrap_or(name);
        let mut found = Found::default();
        walk(template, &mut found).map_err(|message| CompileError { name: shown.to_owned(), message })?;
        let missing = found.includes.iter().find(|i| !templates.contains_key(*i));
        if let Some(missing) = missing {
            let have: Vec<&str> =
                templates.keys().map(String::as_str).filter(|name| !name.starts_with("template ")).collect();
            let have = if have.is_empty() {
                String::new()
            } else {
                format!(", or include one of {}", have.join(", "))
            };
            let message = format!(
                "includes the partial {missing:?}, which is not in the pack; add the file _{missing}.yaml.hbs{have}"
            );
            return Err(CompileError { name: shown.to_owned(), message });
        }
        includes.insert(name.as_str(), found.includes);
    }
    for name in templates.keys() {
        if let Some(way) = cycle(name, &includes) {
            let message = format!("includes itself: {}", way.join(" > "));
            return Err(CompileError {
                name: name.strip_prefix("template ").unwrap_or(name).to_owned(),
                message,
            });
        }
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    includes: BTreeSet<String>,
}

fn walk(template: &Template, found: &mut Found) -> Result<(), String> {
    for (element, at) in template.elements.iter().zip(&template.mapping) {
        let place = |message: &str| format!("line {}, column {}: {message}", at.0, at.1);
        match element {
            TemplateElement::HtmlExpression(_) => {
                return Err(place("{{{…}}} would let a value become structure; write {{…}}, or {{json …}}"));
            }
            TemplateElement::Expression(helper) | TemplateElement::HelperBlock(helper) => {
                blocks(helper, found)?
            }
            TemplateElement::PartialExpression(partial) | TemplateElement::PartialBlock(partial) => {
                let Parameter::Name(name) = &partial.name else {
                    return Err(place("a partial must be named outright"));
                };
                found.includes.insert(name.clone());
                content(partial, found)?;
            }
            TemplateElement::DecoratorExpression(_) | TemplateElement::DecoratorBlock(_) => {
                return Err(place("{{*…}} is not supported; put the text into a partial of the pack"));
            }
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => {}
            // The enum may grow; what is not known to be safe is refused.
            _ => return Err(place("an expression of a kind that is not supported")),
        }
    }
    Ok(())
}

fn blocks(helper: &HelperTemplate, found: &mut Found) -> Result<(), String> {
    [&helper.template, &helper.inverse].into_iter().flatten().try_for_each(|template| walk(template, found))
}

fn content(decorator: &DecoratorTemplate, found: &mut Found) -> Result<(), String> {
    decorator.template.iter().try_for_each(|template| walk(template, found))
}

/// The way from a template back to itself, if there is one.
fn cycle<'a>(start: &'a str, includes: &'a BTreeMap<&str, BTreeSet<String>>) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start]];
    while let Some(way) = ways.pop() {
        let next = way.last().and_then(|last| includes.get(last))?;
        for name in next {
            if name == start {
                return Some(way.iter().copied().chain([name.as_str()]).collect());
            }
            if seen.insert(name) && includes.contains_key(name.as_str()) {
                ways.push(way.iter().copied().chain([name.as_str()]).collect());
            }
        }
    }
    None
}
