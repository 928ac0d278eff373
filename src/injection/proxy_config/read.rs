//! Reads a ProxyConfig as protobuf's JSON: types are checked, numbers and durations get their one spelling. The
//! messages are those that Istio's users know.

use serde_json::{Map, Number, Value};

use super::duration;
use super::schema::{Fields, Type};

/// A ProxyConfig, or a part of it. Fields that are not set are absent; those that are not known are left out, as in
/// Istio.
///
/// `keep_zero`: whether a field set to its type's zero (0, "", false) is kept, as where YAML is applied over another
/// layer directly.
pub(super) fn object(value: Value, fields: Fields, keep_zero: bool) -> Result<Map<String, Value>, String> {
    let mut given = match value {
        Value::Null => Map::new(),
        Value::Object(given) => given,
        other => return Err(mismatch(&other, "map[string]json.RawMessage")),
    };
    let mut read = Map::new();
    for (name, of) in fields {
        let value = given.shift_remove(*name).or_else(|| given.shift_remove(&snake_case(name)));
        let Some(value) = value.filter(|value| !value.is_null()) else { continue };
        if let Some(value) = field(value, *of, keep_zero)? {
            read.insert((*name).to_owned(), value);
        }
    }
    Ok(read)
}

/// The first field that [`object`] refuses, for whoever wrote the mesh configuration: its path (`.tracing.sampling`, empty
/// where it is the whole) and what is wrong with it. A pod's author gets the words of Istio, as in Istio.
pub(super) fn mistake(value: &Value, fields: Fields) -> Option<(String, String)> {
    let given = match value {
        Value::Null => return None,
        Value::Object(given) => given,
        other => return Some((String::new(), must_be(other, "an object: name: value"))),
    };
    fields.iter().find_map(|(name, of)| {
        let value = given.get(*name).or_else(|| given.get(&snake_case(name)))?;
        let (path, problem) = match (of, value) {
            (_, Value::Null) => None,
            (Type::Message(fields), value) => mistake(value, fields),
            (Type::Texts, Value::Array(items)) => {
                let other = items.iter().enumerate().find(|(_, item)| !item.is_string());
                other.map(|(i, item)| (format!("[{i}]"), must_be(item, &wanted(Type::Text))))
            }
            (Type::TextMap, Value::Object(items)) => {
                let other = items.iter().find(|(_, item)| !item.is_string());
                other.map(|(key, item)| (format!(".{key}"), must_be(item, &wanted(Type::Text))))
            }
            (of, value) => {
                let refused = field(value.clone(), *of, false).is_err();
                refused.then(|| (String::new(), must_be(value, &wanted(*of))))
            }
        }?;
        Some((format!(".{name}{path}"), problem))
    })
}

fn must_be(value: &Value, wanted: &str) -> String {
    match value {
        Value::Array(_) => format!("is a list, and must be {wanted}"),
        Value::Object(_) => format!("is an object, and must be {wanted}"),
        value => format!("is {value}, and must be {wanted}"),
    }
}

/// What a field of this type must be.
fn wanted(of: Type) -> String {
    let whole = |least: i64, most: i64| format!("a whole number from {least} to {most}");
    let fixed = match of {
        Type::Int32 | Type::OptionalInt32 => return whole(i32::MIN.into(), i32::MAX.into()),
        Type::UInt32 => return whole(0, u32::MAX.into()),
        Type::OptionalInt64 => return whole(i64::MIN, i64::MAX),
        Type::Enum(names) => return format!("one of {}", names.join(", ")),
        Type::Text => "a string; write it in quotes",
        Type::Bool | Type::OptionalBool => "true or false",
        Type::Double => "a number",
        Type::Duration => "a duration, such as 45s",
        Type::Texts => "a list of strings",
        Type::TextMap | Type::Message(_) | Type::Any => "an object: name: value",
    };
    fixed.to_owned()
}

fn field(value: Value, of: Type, keep_zero: bool) -> Result<Option<Value>, String> {
    let zero = |is_zero: bool, value: Value| Ok((keep_zero || !is_zero).then_some(value));
    match of {
        Type::Text => match value {
            Value::String(text) => zero(text.is_empty(), Value::String(text)),
            other => Err(mismatch(&other, "string")),
        },
        Type::Bool => match value {
            Value::Bool(b) => zero(!b, Value::Bool(b)),
            other => Err(mismatch(&other, "bool")),
        },
        Type::OptionalBool => match value {
            Value::Bool(b) => Ok(Some(Value::Bool(b))),
            other => Err(mismatch(&other, "bool")),
        },
        Type::Int32 => {
            let n = integer(value, "int32", i32::MIN.into(), i32::MAX.into())?;
            zero(n == 0, n.into())
        }
        Type::UInt32 => {
            let n = integer(value, "uint32", 0, u32::MAX.into())?;
            zero(n == 0, n.into())
        }
        Type::OptionalInt32 => {
            integer(value, "int32", i32::MIN.into(), i32::MAX.into()).map(|n| Some(n.into()))
        }
        Type::OptionalInt64 => {
            integer(value, "int64", i64::MIN, i64::MAX).map(|n| Some(Value::String(n.to_string())))
        }
        Type::Double => {
            let n = unquoted(value)?;
            let n = n.as_f64().ok_or_else(|| mismatch(&n, "float64"))?;
            zero(n == 0.0, number(n))
        }
        Type::Duration => match value {
            Value::String(text) => {
                let nanoseconds = duration::parse(&text).map_err(|e| format!("bad Duration: {e}"))?;
                Ok(Some(Value::String(duration::print(nanoseconds))))
            }
            other => Err(mismatch(&other, "string")),
        },
        Type::Enum(names) => {
            let index = match &value {
                Value::String(name) => names
                    .iter()
                    .position(|known| known == name)
                    .ok_or_else(|| format!("unknown value {name:?}; use one of {}", names.join(", ")))?,
                other => {
                    usize::try_from(integer(other.clone(), "int32", 0, i32::MAX.into())?).unwrap_or_default()
                }
            };
            let name = names.get(index).map(|name| Value::from(*name)).unwrap_or_else(|| index.into());
            zero(index == 0, name)
        }
        Type::Texts => match value {
            Value::Array(items) => match items.iter().find(|item| !item.is_string()) {
                Some(other) => Err(mismatch(other, "string")),
                None => Ok((!items.is_empty()).then_some(Value::Array(items))),
            },
            other => Err(mismatch(&other, "[]json.RawMessage")),
        },
        Type::TextMap => match value {
            Value::Object(items) => match items.values().find(|item| !item.is_string()) {
                Some(other) => Err(mismatch(other, "string")),
                None => Ok((!items.is_empty()).then_some(Value::Object(items))),
            },
            other => Err(mismatch(&other, "map[string]json.RawMessage")),
        },
        // A message within is replaced whole, so that its zeros say nothing.
        Type::Message(fields) => object(value, fields, false).map(|read| Some(Value::Object(read))),
        Type::Any => match value {
            Value::Object(_) => Ok(Some(value)),
            other => Err(mismatch(&other, "map[string]json.RawMessage")),
        },
    }
}

/// Protobuf's JSON has numbers as numbers or as text.
fn unquoted(value: Value) -> Result<Value, String> {
    match value {
        Value::String(text) => {
            serde_json::from_str::<Number>(&text).map(Value::Number).map_err(|_| match text.chars().next() {
                Some(first) => format!("invalid character '{first}' looking for beginning of value"),
                None => "unexpected end of JSON input".to_owned(),
            })
        }
        other => Ok(other),
    }
}

fn integer(value: Value, of: &str, min: i64, max: i64) -> Result<i64, String> {
    let value = unquoted(value)?;
    match &value {
        Value::Number(n) => {
            let whole = n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64));
            whole
                .filter(|n| (min..=max).contains(n))
                .ok_or_else(|| format!("json: cannot unmarshal number {n} into Go value of type {of}"))
        }
        other => Err(mismatch(other, of)),
    }
}

fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 1e15 { (n as i64).into() } else { n.into() }
}

fn mismatch(value: &Value, wanted: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go value of type {wanted}")
}

/// `proxyAdminPort` as protobuf spells it: `proxy_admin_port`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
