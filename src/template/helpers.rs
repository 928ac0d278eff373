//! The helpers of templates: one table. All but `json` are plain functions of their arguments; an argument that is
//! not there is null.

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError,
    RenderErrorReason, ScopedJson,
};
use serde_json::Value;

use super::slots;

/// A helper that is a function.
pub struct Function {
    /// Its name in templates.
    pub name: &'static str,
    /// What it gives, for the reference in `docs/`.
    pub gives: &'static str,
    call: fn(&[&Value]) -> Result<Value, String>,
}

/// All helpers that are functions, beside Handlebars' own `if`, `unless`, `each`, `with`, `lookup` and `len`.
pub const FUNCTIONS: &[Function] = &[
    Function { name: "and", gives: "the first empty argument, or the last one", call: and },
    Function { name: "concat", gives: "the arguments' texts, one after the other", call: concat },
    Function {
        name: "contains",
        gives: "whether a list, a text or an object holds an item, a text or a key",
        call: contains,
    },
    Function {
        name: "default",
        gives: "the first argument that is not empty (\"\", 0, false, null, [], {})",
        call: or,
    },
    Function { name: "eq", gives: "whether two arguments are the same", call: eq },
    Function {
        name: "get",
        gives: "the field of an object by name, or the third argument where it is not there",
        call: get,
    },
    Function { name: "isset", gives: "whether the argument is there, even if it is empty", call: isset },
    Function {
        name: "join",
        gives: "a list's items as one text, with the second argument between",
        call: join,
    },
    Function { name: "lower", gives: "a text in lower case", call: lower },
    Function { name: "ne", gives: "whether two arguments differ", call: ne },
    Function { name: "not", gives: "whether the argument is empty", call: not },
    Function { name: "or", gives: "the first argument that is not empty, or the last one", call: or },
    Function { name: "text", gives: "a value's compact JSON as text; a text as it is", call: text },
];

/// Registers [`FUNCTIONS`] and `json`.
pub(super) fn register(registry: &mut Handlebars) {
    for function in FUNCTIONS {
        registry.register_helper(function.name, Box::new(Adapter(function)));
    }
    registry.register_helper("json", Box::new(write_json));
}

/// What went wrong, without the place, which is said apart.
pub(super) fn reason(error: &RenderError) -> String {
    match error.reason() {
        RenderErrorReason::MissingVariable(Some(name)) => {
            format!("{name:?} is not set; give it a default, or test it with {{{{#if …}}}}")
        }
        RenderErrorReason::HelperNotFound(name) => {
            let have: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).chain(BUILT_IN).collect();
            format!("there is no helper {name:?}; have {}", have.join(", "))
        }
        RenderErrorReason::ParamNotFoundForIndex(name, index) => format!("{name}: {}", wants(index + 1)),
        RenderErrorReason::IOError(error) => error.to_string(),
        reason => reason.to_string(),
    }
}

/// What Handlebars brings, and `json`.
const BUILT_IN: [&str; 7] = ["each", "if", "json", "len", "lookup", "unless", "with"];

fn wants(count: usize) -> String {
    format!(
        "wants {count} argument{}, such as a value's name or a \"text\"",
        if count == 1 { "" } else { "s" }
    )
}

struct Adapter(&'static Function);

impl HelperDef for Adapter {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let arguments: Vec<&Value> = helper.params().iter().map(|p| p.value()).collect();
        (self.0.call)(&arguments)
            .map(ScopedJson::Derived)
            .map_err(|message| RenderErrorReason::Other(format!("{}: {message}", self.0.name)).into())
    }
}

/// `{{json value}}`: the value itself, not its text.
fn write_json(
    helper: &Helper,
    _: &Handlebars,
    _: &Context,
    _: &mut RenderContext,
    out: &mut dyn Output,
) -> HelperResult {
    let value = helper.param(0).map(|p| p.value()).unwrap_or(&Value::Null);
    Ok(out.write(&slots::json(value))?)
}

/// Whether a value is empty, as `{{#if}}` sees it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn argument<'a>(arguments: &[&'a Value], index: usize) -> Result<&'a Value, String> {
    arguments.get(index).copied().ok_or_else(|| wants(index + 1))
}

fn and(arguments: &[&Value]) -> Result<Value, String> {
    let found = arguments.iter().find(|a| is_empty(a)).or(arguments.last());
    found.map(|&a| a.clone()).ok_or_else(|| wants(1))
}

fn or(arguments: &[&Value]) -> Result<Value, String> {
    let found = arguments.iter().find(|a| !is_empty(a)).or(arguments.last());
    found.map(|&a| a.clone()).ok_or_else(|| wants(1))
}

fn not(arguments: &[&Value]) -> Result<Value, String> {
    Ok(Value::Bool(is_empty(argument(arguments, 0)?)))
}

fn eq(arguments: &[&Value]) -> Result<Value, String> {
    Ok(Value::Bool(argument(arguments, 0)? == argument(arguments, 1)?))
}

fn ne(arguments: &[&Value]) -> Result<Value, String> {
    Ok(Value::Bool(argument(arguments, 0)? != argument(arguments, 1)?))
}

fn get(arguments: &[&Value]) -> Result<Value, String> {
    let key = argument(arguments, 1)?.as_str().ok_or("the field's name must be a text")?;
    let otherwise = arguments.get(2).copied().unwrap_or(&Value::Null);
    Ok(argument(arguments, 0)?.get(key).unwrap_or(otherwise).clone())
}

fn isset(arguments: &[&Value]) -> Result<Value, String> {
    Ok(Value::Bool(!argument(arguments, 0)?.is_null()))
}

fn contains(arguments: &[&Value]) -> Result<Value, String> {
    let item = argument(arguments, 1)?;
    Ok(Value::Bool(match (argument(arguments, 0)?, item) {
        (Value::Array(items), _) => items.contains(item),
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        (Value::Object(fields), Value::String(key)) => fields.contains_key(key),
        (Value::Null, _) => false,
        (other, _) => return Err(format!("{other} holds nothing")),
    }))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn concat(arguments: &[&Value]) -> Result<Value, String> {
    Ok(Value::String(arguments.iter().map(|a| plain(a)).collect()))
}

fn join(arguments: &[&Value]) -> Result<Value, String> {
    let between = plain(argument(arguments, 1)?);
    match argument(arguments, 0)? {
        Value::Null => Ok(Value::String(String::new())),
        Value::Array(items) => Ok(Value::String(items.iter().map(plain).collect::<Vec<_>>().join(&between))),
        other => Err(format!("{other} is no list")),
    }
}

fn lower(arguments: &[&Value]) -> Result<Value, String> {
    Ok(Value::String(plain(argument(arguments, 0)?).to_lowercase()))
}

fn text(arguments: &[&Value]) -> Result<Value, String> {
    Ok(Value::String(plain(argument(arguments, 0)?)))
}
