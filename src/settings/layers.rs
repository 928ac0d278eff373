//! Values over values: a file's, and `--set`'s.

use serde_json::{Map, Value};

/// The largest list index that an assignment may name, as in Helm.
const MAX_INDEX: usize = 65536;

/// Lays `over` on `base`: objects field by field, everything else replaced. A null stays, so that it can take away
/// a pack's default later.
pub fn lay(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => lay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Makes the assignments of one `--set`: `a.b=1,list[0].name=x,names={p,q}`. `true`, `false`, `null` and integers
/// are what they look like, everything else is text; a backslash takes the meaning from `,` `.` `=` `[` `{` `}`.
///
/// Source: <https://helm.sh/docs/intro/using_helm/#the-format-and-limitations-of---set>.
///
/// # Errors
/// An assignment without `=` or with an empty name, an index that is no number, an index into what is no list.
pub fn set(values: &mut Map<String, Value>, assignments: &str) -> Result<(), String> {
    let mut root = Value::Object(std::mem::take(values));
    let outcome = Reader { rest: assignments }.assignments(&mut root);
    if let Value::Object(fields) = root {
        *values = fields;
    }
    outcome
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn assignments(&mut self, root: &mut Value) -> Result<(), String> {
        loop {
            self.assignment(root)?;
            match self.rest.strip_prefix(',') {
                Some(rest) if !rest.is_empty() => self.rest = rest,
                _ => return Ok(()),
            }
        }
    }

    fn assignment(&mut self, root: &mut Value) -> Result<(), String> {
        let mut at = root;
        loop {
            let key = self.word(&['.', '=', '[', ',']);
            if key.is_empty() {
                return Err("a name is missing; write it as name=value or a.b=value".to_owned());
            }
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[key.as_str()];
            while let Some(rest) = self.rest.strip_prefix('[') {
                let (index, rest) = rest
                    .split_once(']')
                    .ok_or_else(|| format!("the [ behind {key} is never closed; write ] behind its index"))?;
                let index: usize = index
                    .parse()
                    .map_err(|_| format!("[{index}] is no index; write a number, such as {key}[0]"))?;
                if index > MAX_INDEX {
                    return Err(format!("the index {index} is over {MAX_INDEX}"));
                }
                self.rest = rest;
                at = item(at, index, &key)?;
            }
            match self.rest.chars().next() {
                Some('.') => self.rest = &self.rest[1..],
                Some('=') => break,
                _ => return Err(format!("{key} has no value; write {key}=value")),
            }
        }
        self.rest = &self.rest[1..];
        *at = match self.rest.strip_prefix('{') {
            Some(rest) => {
                self.rest = rest;
                self.list()?
            }
            None => typed(&self.word(&[','])),
        };
        Ok(())
    }

    fn list(&mut self) -> Result<Value, String> {
        let mut items = Vec::new();
        loop {
            let word = self.word(&[',', '}']);
            let next = self.rest.chars().next();
            if !(word.is_empty() && items.is_empty() && next == Some('}')) {
                items.push(typed(&word));
            }
            self.rest = self.rest.get(1..).unwrap_or_default();
            match next {
                Some(',') => {}
                Some(_) => return Ok(Value::Array(items)),
                None => return Err("the { is never closed; write } behind its last item".to_owned()),
            }
        }
    }

    /// The text up to one of the characters, with backslashes taken out.
    fn word(&mut self, until: &[char]) -> String {
        let mut word = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => word.extend(chars.next().map(|(_, escaped)| escaped)),
                c if until.contains(&c) => {
                    self.rest = &self.rest[i..];
                    return word;
                }
                c => word.push(c),
            }
        }
        self.rest = "";
        word
    }
}

fn item<'v>(list: &'v mut Value, index: usize, key: &str) -> Result<&'v mut Value, String> {
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    let items = list.as_array_mut().ok_or_else(|| format!("{key} is no list"))?;
    if items.len() <= index {
        items.resize(index + 1, Value::Null);
    }
    Ok(&mut items[index])
}

fn typed(word: &str) -> Value {
    let leading_zero = word.len() > 1 && word.trim_start_matches('-').starts_with('0');
    match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        _ => match word.parse::<i64>() {
            Ok(number) if !leading_zero && !word.starts_with('+') => number.into(),
            _ => word.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(before: Value, assignments: &str) -> Value {
        let mut values = before.as_object().unwrap().clone();
        set(&mut values, assignments).unwrap();
        Value::Object(values)
    }

    #[test]
    fn assignments_mean_what_helm_reads() {
        for (assignments, value) in [
            ("a=b", json!({"a": "b"})),
            ("a.b.c=1,d=true", json!({"a": {"b": {"c": 1}}, "d": true})),
            ("a=null", json!({"a": null})),
            ("a=", json!({"a": ""})),
            ("a=007,b=0,c=-5,d=1.5,e=+1", json!({"a": "007", "b": 0, "c": -5, "d": "1.5", "e": "+1"})),
            ("a={x,1,true}", json!({"a": ["x", 1, true]})),
            ("a={}", json!({"a": []})),
            ("a={x},b=2", json!({"a": ["x"], "b": 2})),
            ("a[1].b=x", json!({"a": [null, {"b": "x"}]})),
            ("a[0][1]=x", json!({"a": [[null, "x"]]})),
            (r"a\.b/c=x\,y", json!({"a.b/c": "x,y"})),
            ("a=x=y", json!({"a": "x=y"})),
            ("a=http://h:80/p?q", json!({"a": "http://h:80/p?q"})),
            ("a=b,", json!({"a": "b"})),
        ] {
            assert_eq!(after(json!({}), assignments), value, "{assignments}");
        }
    }

    #[test]
    fn an_assignment_goes_over_what_is_there() {
        let before = json!({"a": {"b": 1, "c": [1, 2]}, "d": "text"});
        assert_eq!(after(before, "a.b=2,a.c[1]=3,d.e=4"), json!({"a": {"b": 2, "c": [1, 3]}, "d": {"e": 4}}));
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        for (assignments, part) in [
            ("a", "no value"),
            ("=1", "name is missing"),
            ("a..b=1", "name is missing"),
            ("", "name is missing"),
            ("a={x", "the { is never closed"),
            ("a[x]=1", "no index"),
            ("a[99999999]=1", "over"),
            ("a[0=1", "the [ behind a is never closed"),
            ("a=1,b", "no value"),
        ] {
            let error = set(&mut Map::new(), assignments).unwrap_err();
            assert!(error.contains(part), "{assignments}: {error}");
        }
        let mut text = json!({"a": "text"}).as_object().unwrap().clone();
        assert!(set(&mut text, "a[0]=1").unwrap_err().contains("no list"));
    }

    #[test]
    fn layers_merge_by_field_and_nulls_stay() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "l": [1]}).as_object().unwrap().clone();
        lay(&mut base, json!({"a": {"b": null}, "l": [2], "n": 3}).as_object().unwrap().clone());
        assert_eq!(Value::Object(base), json!({"a": {"b": null, "c": 2}, "l": [2], "n": 3}));
    }
}
