//! The smallest JSON patch (RFC 6902) from one value to another, pure.
//!
//! Lists are compared by the longest run of items that are equal or carry the same name, so that a container put
//! in front of others costs one `add`. Where spelling out the changes of a list would be longer than the list, it
//! is replaced.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

/// One operation of RFC 6902.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation<'a> {
    /// Adds a field, or an item before the one at this index.
    Add {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What is added.
        value: &'a Value,
    },
    /// Takes a field or an item away.
    Remove {
        /// JSON pointer (RFC 6901).
        path: String,
    },
    /// Puts another value in a field's or an item's place.
    Replace {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What stands there afterwards.
        value: &'a Value,
    },
}

/// The most pairs of items that are compared in one list; beyond, its middle is replaced item by item.
const MAX_PAIRS: usize = 250_000;

/// The operations that turn `before` into `after`, in order; none where they are equal.
pub fn diff<'a>(before: &Value, after: &'a Value) -> Vec<Operation<'a>> {
    let mut operations = Vec::new();
    compare(before, after, &Path::Root, &mut operations);
    operations
}

/// Where two values are compared, kept as links so that only what differs costs a string.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// As JSON pointer (RFC 6901).
    fn pointer(&self) -> String {
        let mut pointer = String::with_capacity(64);
        self.write(&mut pointer);
        pointer
    }

    fn write(&self, pointer: &mut String) {
        match self {
            Self::Root => {}
            Self::Field(parent, key) => {
                parent.write(pointer);
                pointer.push('/');
                for c in key.chars() {
                    match c {
                        '~' => pointer.push_str("~0"),
                        '/' => pointer.push_str("~1"),
                        c => pointer.push(c),
                    }
                }
            }
            Self::Item(parent, index) => {
                parent.write(pointer);
                let _ = write!(pointer, "/{index}");
            }
        }
    }
}

fn compare<'a>(before: &Value, after: &'a Value, path: &Path, operations: &mut Vec<Operation<'a>>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let path = Path::Field(path, key);
                match new.get(key) {
                    Some(new) => compare(value, new, &path, operations),
                    None => operations.push(Operation::Remove { path: path.pointer() }),
                }
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                operations.push(Operation::Add { path: Path::Field(path, key).pointer(), value });
            }
        }
        (Value::Array(old), Value::Array(new)) if old != new => {
            let start = operations.len();
            compare_lists(old, new, path, operations);
            // Spelling it out may be longer than saying it anew.
            let replace = Operation::Replace { path: path.pointer(), value: after };
            if operations.len() > start + 1
                && length(&operations[start..]) > length(std::slice::from_ref(&replace))
            {
                operations.truncate(start);
                operations.push(replace);
            }
        }
        _ if before != after => {
            operations.push(Operation::Replace { path: path.pointer(), value: after });
        }
        _ => {}
    }
}

fn compare_lists<'a>(old: &[Value], new: &'a [Value], path: &Path, operations: &mut Vec<Operation<'a>>) {
    // `at` is where the next item stands in the list as patched so far.
    let mut at = 0;
    for step in align(old, new) {
        let path = Path::Item(path, at);
        match step {
            Step::Keep(i, j) => {
                compare(&old[i], &new[j], &path, operations);
                at += 1;
            }
            Step::Remove => operations.push(Operation::Remove { path: path.pointer() }),
            Step::Add(j) => {
                operations.push(Operation::Add { path: path.pointer(), value: &new[j] });
                at += 1;
            }
        }
    }
}

enum Step {
    /// Item `.0` of the old list becomes item `.1` of the new one.
    Keep(usize, usize),
    Remove,
    Add(usize),
}

fn align(old: &[Value], new: &[Value]) -> Vec<Step> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| alike(a, b)).count();
    let (old_rest, new_rest) = (&old[prefix..], &new[prefix..]);
    let suffix = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| alike(a, b)).count();
    let (rows, columns) = (old_rest.len() - suffix, new_rest.len() - suffix);

    let mut steps: Vec<Step> = (0..prefix).map(|i| Step::Keep(i, i)).collect();
    if rows * columns > MAX_PAIRS {
        let common = rows.min(columns);
        steps.extend((0..common).map(|i| Step::Keep(prefix + i, prefix + i)));
        steps.extend((common..rows).map(|_| Step::Remove));
        steps.extend((common..columns).map(|j| Step::Add(prefix + j)));
    } else {
        middle(&old_rest[..rows], &new_rest[..columns], prefix, &mut steps);
    }
    steps.extend((0..suffix).map(|k| Step::Keep(prefix + rows + k, prefix + columns + k)));
    steps
}

/// The longest common subsequence of what differs.
fn middle(old: &[Value], new: &[Value], offset: usize, steps: &mut Vec<Step>) {
    let width = new.len() + 1;
    let mut longest = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if alike(&old[i], &new[j]) {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && alike(&old[i], &new[j]) {
            steps.push(Step::Keep(offset + i, offset + j));
            i += 1;
            j += 1;
        } else if j == new.len()
            || i < old.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]
        {
            steps.push(Step::Remove);
            i += 1;
        } else {
            steps.push(Step::Add(offset + j));
            j += 1;
        }
    }
}

/// Whether two items are one: equal, or objects of the same name.
fn alike(a: &Value, b: &Value) -> bool {
    match (a.get("name"), b.get("name")) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Bytes of the operations as JSON.
fn length(operations: &[Operation]) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, operations) {
        Ok(()) => counter.0,
        // JSON values always serialize.
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn operations(before: Value, after: Value) -> Value {
        serde_json::to_value(diff(&before, &after)).unwrap()
    }

    #[test]
    fn a_container_in_front_costs_one_add() {
        let before = json!({"c": [{"name": "a", "x": 1}, {"name": "b"}]});
        let after = json!({"c": [{"name": "p"}, {"name": "a", "x": 1}, {"name": "b"}]});
        assert_eq!(operations(before, after), json!([{"op": "add", "path": "/c/0", "value": {"name": "p"}}]));
    }

    #[test]
    fn fields_are_added_removed_and_replaced_where_they_are() {
        let before = json!({"a/b": 1, "m~n": {"k": 1}, "same": [1, 2]});
        let after = json!({"m~n": {"k": 2}, "same": [1, 2], "new": {}});
        let want = json!([
            {"op": "remove", "path": "/a~1b"},
            {"op": "replace", "path": "/m~0n/k", "value": 2},
            {"op": "add", "path": "/new", "value": {}},
        ]);
        assert_eq!(operations(before, after), want);
    }

    #[test]
    fn equal_values_need_nothing() {
        assert_eq!(operations(json!({"a": [{}]}), json!({"a": [{}]})), json!([]));
    }

    #[test]
    fn long_changed_lists_are_replaced_whole() {
        let before: Vec<u32> = (0..40).collect();
        let after = json!((100..140).collect::<Vec<u32>>());
        let operations = diff(&json!(before), &after);
        assert_eq!(operations, [Operation::Replace { path: String::new(), value: &after }]);
    }

    #[test]
    fn lists_too_long_to_compare_still_come_out_right() {
        let before: Vec<Value> = (0..700).map(|i| json!({"name": format!("a{i}")})).collect();
        let after: Vec<Value> = (0..600).map(|i| json!({"name": format!("b{i}")})).collect();
        assert_patches(&json!(before), &json!(after));
    }

    fn assert_patches(before: &Value, after: &Value) {
        let patch: json_patch::Patch =
            serde_json::from_value(serde_json::to_value(diff(before, after)).unwrap()).unwrap();
        let mut patched = before.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(&patched, after);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..4).prop_map(Value::from),
            "[a-c/~]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]{1,2}|name", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_the_patch_gives_the_other_value(before in any_json(), after in any_json()) {
            assert_patches(&before, &after);
        }
    }
}
