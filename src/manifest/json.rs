//! JSON in and out, where serde_json's own `Value` is too kind: a key that stands twice is an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Number, Serializer, Value};

/// Reads one value.
///
/// # Errors
/// No JSON, a key twice in one object, more than 128 levels, something after the value.
pub(super) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(|Strict(value)| value)
}

/// A value as text with a newline at its end: on one line, or indented by four spaces, as kubectl does.
pub(super) fn write(value: &Value, on_one_line: bool) -> String {
    let mut out = Vec::new();
    let written = if on_one_line {
        value.serialize(&mut Serializer::new(&mut out))
    } else {
        value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    ")))
    };
    // A Vec takes whatever is written, and a Value is always JSON.
    debug_assert!(written.is_ok());
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Strict)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice in one object")));
            }
            let Strict(value) = fields.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_value_is_read_and_written() {
        let value = json!({"a": [null, true, -1, u64::MAX, 0.1, "é\n"], "b": {}});
        assert_eq!(parse(&value.to_string()).unwrap(), value);
        assert_eq!(write(&value, true), format!("{value}\n"));
        assert_eq!(write(&json!({"a": 1}), false), "{\n    \"a\": 1\n}\n");
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error_with_its_place() {
        let error = parse("{\"a\": {\"b\": 1,\n \"b\": 2}}").unwrap_err();
        assert!(error.to_string().contains("\"b\" stands twice"), "{error}");
        assert_eq!(error.line(), 2);
    }

    #[test]
    fn floats_keep_their_last_digit() {
        for text in
            ["2.2250738585072014e-308", "0.30000000000000004", "9007199254740993.0", "1.7976931348623157e308"]
        {
            assert_eq!(parse(text).unwrap().as_f64(), text.parse().ok(), "{text}");
        }
    }
}
