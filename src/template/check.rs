//! What a template may not do, found before anything is rendered.

use std::collections::{BTreeMap, BTreeSet};

use handlebars::Template;
use handlebars::template::{DecoratorTemplate, HelperTemplate, Parameter, TemplateElement};

use super::{CompileError, plain_name};

/// Refuses values written unmarked, partials that are not there, and partials that include themselves.
pub(super) fn all(templates: &BTreeMap<String, Template>) -> Result<(), CompileError> {
    let mut includes = BTreeMap::new();
    let error = |name: &str, message: String| CompileError { name: plain_name(name).to_owned(), message };
    for (name, template) in templates {
        let mut included = BTreeSet::new();
        walk(template, &mut included).map_err(|message| error(name, message))?;
        let missing = included.iter().find(|i| !templates.contains_key(*i));
        if let Some(missing) = missing {
            let have: Vec<&str> =
                templates.keys().map(String::as_str).filter(|n| plain_name(n) == *n).collect();
            let have = match have.is_empty() {
                true => String::new(),
                false => format!(", or include one of {}", have.join(", ")),
            };
            let message = format!(
                "includes the partial {missing:?}, which is not in the pack; add the file _{missing}.yaml.hbs{have}"
            );
            return Err(error(name, message));
        }
        includes.insert(name.as_str(), included);
    }
    for name in templates.keys() {
        if let Some(way) = cycle(name, &includes) {
            return Err(error(name, format!("includes itself: {}", way.join(" > "))));
        }
    }
    Ok(())
}

/// Refuses what a template may not write; collects the partials that it includes.
fn walk(template: &Template, included: &mut BTreeSet<String>) -> Result<(), String> {
    for (element, at) in template.elements.iter().zip(&template.mapping) {
        let place = |message: &str| format!("line {}, column {}: {message}", at.0, at.1);
        match element {
            TemplateElement::HtmlExpression(_) => {
                return Err(place("{{{…}}} would let a value become structure; write {{…}}, or {{json …}}"));
            }
            TemplateElement::Expression(helper) | TemplateElement::HelperBlock(helper) => {
                blocks(helper, included)?
            }
            TemplateElement::PartialExpression(partial) | TemplateElement::PartialBlock(partial) => {
                let Parameter::Name(name) = &partial.name else {
                    return Err(place("a partial must be named outright"));
                };
                included.insert(name.clone());
                content(partial, included)?;
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

fn blocks(helper: &HelperTemplate, included: &mut BTreeSet<String>) -> Result<(), String> {
    [&helper.template, &helper.inverse]
        .into_iter()
        .flatten()
        .try_for_each(|template| walk(template, included))
}

fn content(decorator: &DecoratorTemplate, included: &mut BTreeSet<String>) -> Result<(), String> {
    decorator.template.iter().try_for_each(|template| walk(template, included))
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
