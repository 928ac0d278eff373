use std::collections::BTreeMap;

use handlebars::Context;
use serde_json::{Value, json};

use super::packs::Pack;
use super::{CompileError, Templates};

fn compile(templates: &[(&str, &str)]) -> Result<Templates, CompileError> {
    let mut pack = Pack::default();
    for (name, text) in templates {
        match name.strip_prefix('_') {
            Some(name) => pack.partials.insert(name.to_owned(), text.to_string()),
            None => pack.templates.insert(name.to_string(), text.to_string()),
        };
    }
    Templates::compile(&pack, &BTreeMap::new())
}

fn render(text: &str, data: Value) -> Result<Value, String> {
    let templates = compile(&[("t", text)]).map_err(|e| e.to_string())?;
    templates.render("t", &Context::wraps(data).unwrap()).map_err(|e| e.to_string())
}

#[test]
fn values_are_text_unless_json_is_asked_for() {
    let text =
        "a: {{n}}\nb: {{json n}}\nc: x{{n}}\nd: {{json o}}\n{{#each o}}\n{{@key}}: {{this}}\n{{/each}}\n";
    let want = json!({"a": "1", "b": 1, "c": "x1", "d": {"k": "v: w"}, "k": "v: w"});
    assert_eq!(render(text, json!({"n": 1, "o": {"k": "v: w"}})), Ok(want));
}

#[test]
fn partials_indent_their_text_and_leave_values_alone() {
    let templates = compile(&[("t", "spec:\n  {{> p}}\n"), ("_p", "a: {{v}}\nb: |\n  {{v}}\n")]).unwrap();
    let data = Context::wraps(json!({"v": "1\n2\n- 3"})).unwrap();
    let want = json!({"spec": {"a": "1\n2\n- 3", "b": "1\n2\n- 3\n"}});
    assert_eq!(templates.render("t", &data).unwrap(), want);
}

#[test]
fn helpers_take_what_is_not_there_as_null() {
    let text = "a: {{default no.thing \"d\"}}\nb: {{json (not nothing)}}\nc: {{get o \"x/y\"}}\nd: {{json (get o \"z\")}}\n\
                e: {{join l \",\"}}\nf: {{json (and yes (eq n 1))}}\ng: {{text o}}\nh: {{json (contains l \"p\")}}\n";
    let data = json!({"o": {"x/y": "v"}, "l": ["p", "q"], "n": 1, "yes": true});
    let want = json!({"a": "d", "b": true, "c": "v", "d": null, "e": "p,q", "f": true, "g": "{\"x/y\":\"v\"}", "h": true});
    assert_eq!(render(text, data), Ok(want));
}

#[test]
fn templates_that_cannot_work_are_refused_with_their_place() {
    for (text, part) in [
        ("a: 1\nb: {{#if x}}", "line 2"),
        ("a: {{{x}}}", "line 1, column 4: {{{…}}} would let a value become structure"),
        ("a: {{&x}}", "would let a value become structure"),
        ("{{#if x}}\n{{{x}}}\n{{/if}}", "line 2"),
        ("{{> nowhere}}", "includes the partial \"nowhere\""),
        ("{{#*inline \"x\"}}{{/inline}}", "not supported"),
        ("a: \u{E000}", "U+E000"),
    ] {
        let error = compile(&[("t", text)]).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn partials_that_include_themselves_are_refused() {
    let error = compile(&[("t", "{{> a}}"), ("_a", "{{> b}}"), ("_b", "{{> a}}")]).unwrap_err();
    assert_eq!(error.to_string(), "template \"a\": includes itself: a > b > a");
}

#[test]
fn rendering_that_fails_says_where() {
    assert_eq!(
        render("a: 1\nb: {{values.x}}", json!({"values": {}})).unwrap_err(),
        "template \"t\": line 2, column 4: \"values.x\" is not set; give it a default, or test it with {{#if …}}"
    );
    let error = render("a: [{{v}}", json!({"v": "secret"})).unwrap_err();
    assert!(error.contains("no YAML: line"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn output_without_end_is_bounded() {
    let line = "a".repeat(1000);
    let text = format!(
        "{{{{#each l}}}}{{{{#each ../l}}}}{{{{#each ../../l}}}}{line}\n{{{{/each}}}}{{{{/each}}}}{{{{/each}}}}"
    );
    let list: Vec<u32> = (0..200).collect();
    let error = render(&text, json!({"l": list})).unwrap_err();
    assert!(error.contains("renders more than"), "{error}");
}

#[test]
fn the_operators_templates_win_over_the_packs() {
    let pack = Pack { templates: [("t".to_owned(), "a: 1".to_owned())].into(), ..Pack::default() };
    let more = [("t".to_owned(), "a: 2".to_owned()), ("u".to_owned(), String::new())].into();
    let templates = Templates::compile(&pack, &more).unwrap();
    assert_eq!(templates.names(), ["t", "u"]);
    let data = Context::wraps(json!({})).unwrap();
    assert_eq!(templates.render("t", &data).unwrap(), json!({"a": 2}));
    assert_eq!(templates.render("u", &data).unwrap(), Value::Null);
}

#[test]
fn the_documented_helpers_are_those_that_are_there() {
    let docs = include_str!("../../docs/templates.md");
    let table = docs.split("\n## Helpers\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    let json = ("json", "the value itself, not its text");
    let mut there: Vec<_> = super::FUNCTIONS.iter().map(|f| (f.name, f.gives)).chain([json]).collect();
    there.sort();
    assert_eq!(rows.collect::<Vec<_>>(), there);
}
