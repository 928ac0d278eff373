//! Handlebars templates that render pod overlays.
//!
//! Templates compile once, when settings load. An interpolated value is always one scalar (`slots`);
//! `{{json value}}` gives a number, a list or an object where an operator wants one. A template that does not parse,
//! that includes itself, or that would write a value unmarked (`{{{value}}}`) is refused at compile time, with line
//! and column.

mod check;
mod helpers;
mod inline;
mod library;
pub mod packs;
mod schema;
mod slots;
mod syntax;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use handlebars::{Context, Handlebars, Template};
use serde_json::Value;

pub use helpers::{FUNCTIONS, Function};
pub(crate) use library::{Library, Sources};
use packs::Pack;
use slots::Shape;

/// The most bytes that a template may render; a bound against loops. A pod's values, of up to 3 MB, may be
/// interpolated several times.
const MAX_RENDERED: usize = 64 << 20;
/// Shapes that are kept, and the longest skeleton of one: templates have few, so the bounds are against odd ones.
const MAX_SHAPES: usize = 512;
const MAX_SKELETON: usize = 64 << 10;

/// Why templates do not compile: the template, the line, the column, and what is wrong there.
#[derive(Debug, thiserror::Error)]
#[error("template {name:?}: {message}")]
pub(crate) struct CompileError {
    /// The template, or partial.
    pub(crate) name: String,
    /// `line 3, column 7: …`
    pub(crate) message: String,
}

/// Why a template does not render.
#[derive(Debug, thiserror::Error)]
#[error("template {name:?}: {message}")]
pub(crate) struct RenderError {
    /// The template.
    pub(crate) name: String,
    /// What went wrong, with line and column where known.
    pub(crate) message: String,
}

/// A pack's templates and the operator's own, compiled.
#[derive(Debug)]
pub(crate) struct Templates {
    registry: Handlebars<'static>,
    names: Vec<String>,
    shapes: RwLock<HashMap<String, Arc<Shape>>>,
}

impl Templates {
    /// Compiles a pack with more templates by name, which win over the pack's.
    ///
    /// # Errors
    /// [`CompileError`].
    pub(crate) fn compile(pack: &Pack, more: &BTreeMap<String, String>) -> Result<Self, CompileError> {
        let mut registry = Handlebars::new();
        registry.set_strict_mode(true);
        registry.register_escape_fn(slots::text);
        helpers::register(&mut registry);
        let partials = pack.partials.iter().map(|(name, text)| (name, text, true));
        let templates = pack.templates.iter().filter(|(name, _)| !more.contains_key(*name)).chain(more);
        let mut parsed = BTreeMap::new();
        let mut texts = Vec::new();
        for (name, text, partial) in partials.chain(templates.map(|(name, text)| (name, text, false))) {
            let template = parse(name, text)?;
            if !partial {
                texts.push((name, text));
            }
            // Partials and templates have names of their own, so that a template cannot shadow a partial.
            let name = if partial { name.clone() } else { template_key(name) };
            registry.register_template(&name, template.clone());
            parsed.insert(name, template);
        }
        check::all(&parsed)?;
        for (name, text) in texts {
            // Where writing out makes no template, the one with partials serves.
            let template = inline::compile(text, &pack.partials);
            let template = template.or_else(|| parsed.get(&template_key(name)).cloned());
            if let Some(template) = template {
                registry.register_template(&inline_key(name), template);
            }
        }
        let mut names: Vec<String> = pack.templates.keys().chain(more.keys()).cloned().collect();
        names.sort();
        names.dedup();
        Ok(Self { registry, names, shapes: RwLock::default() })
    }

    /// The names of the templates, sorted.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Renders a template to a pod overlay. Null where it renders nothing.
    ///
    /// # Errors
    /// [`RenderError`].
    pub(crate) fn render(&self, name: &str, data: &Context) -> Result<Value, RenderError> {
        let error = |message: String| RenderError { name: name.to_owned(), message };
        let mut output = Bounded(Vec::with_capacity(16 << 10));
        if self.registry.render_with_context_to_write(&inline_key(name), data, &mut output).is_err() {
            output.0.clear();
            self.render_with_partials(name, data, &mut output).map_err(error)?;
        }
        let rendered = String::from_utf8(output.0).map_err(|e| error(e.to_string()))?;
        let (skeleton, slots) = slots::split(&rendered).map_err(error)?;
        self.shape(skeleton).and_then(|shape| shape.fill(&slots)).map_err(error)
    }

    /// The slow way, which knows the place of an error.
    fn render_with_partials(&self, name: &str, data: &Context, output: &mut Bounded) -> Result<(), String> {
        self.registry.render_with_context_to_write(&template_key(name), data, output).map_err(|e| {
            let place = match (e.line_no, e.column_no) {
                (Some(line), Some(column)) => format!("line {line}, column {column}: "),
                _ => String::new(),
            };
            // The template's internal name is of no use to a reader.
            let partial = e.template_name.as_deref().filter(|n| *n != template_key(name));
            let partial = partial.map(|n| format!("partial {n:?}: ")).unwrap_or_default();
            format!("{partial}{place}{}", helpers::reason(&e))
        })
    }

    fn shape(&self, skeleton: String) -> Result<Arc<Shape>, String> {
        let known = self.shapes.read().unwrap_or_else(PoisonError::into_inner).get(&skeleton).cloned();
        if let Some(shape) = known {
            return Ok(shape);
        }
        let shape = Arc::new(Shape::parse(&skeleton).map_err(|e| {
            let line = skeleton.lines().nth(e.line - 1).unwrap_or_default();
            let shown = slots::shown(line);
            let at = if shown.trim().is_empty() { String::new() } else { format!(", at {:?}", shown.trim()) };
            format!("what it renders is no YAML: {e}{at}")
        })?);
        if skeleton.len() <= MAX_SKELETON {
            let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
            if shapes.len() >= MAX_SHAPES {
                shapes.clear();
            }
            shapes.insert(skeleton, Arc::clone(&shape));
        }
        Ok(shape)
    }
}

/// Templates are registered under a name that no partial can have.
fn template_key(name: &str) -> String {
    format!("template {name}")
}

/// A template's own name, or a partial's, by the name it is registered under.
fn plain_name(key: &str) -> &str {
    key.strip_prefix("template ").unwrap_or(key)
}

/// And with its partials written out under another.
fn inline_key(name: &str) -> String {
    format!("inline {name}")
}

fn parse(name: &str, text: &str) -> Result<Template, CompileError> {
    let error = |message: String| CompileError { name: name.to_owned(), message };
    if slots::has_mark(text) {
        return Err(error("holds a character of U+E000 to U+E003, which mark values".to_owned()));
    }
    Template::compile(text).map_err(|e| {
        let (line, column) = e.pos().unwrap_or((1, 1));
        error(syntax::mistake(text, line, column))
    })
}

/// A writer that refuses to grow without bound.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(std::io::Error::other(format!("renders more than {MAX_RENDERED} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
