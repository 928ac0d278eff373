use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const KINDS: &str = include_str!("../../tests/fixtures/manifests/kinds.yaml");
const LIST: &str = include_str!("../../tests/fixtures/manifests/list.yaml");
const AWKWARD: &str = include_str!("../../tests/fixtures/manifests/awkward.yaml");
const BAD: &str = include_str!("../../tests/fixtures/manifests/bad.yaml");
const OBJECTS: &str = include_str!("../../tests/fixtures/manifests/objects.json");

fn sources(stream: &str) -> Vec<&str> {
    split(stream.as_bytes()).iter().map(|d| std::str::from_utf8(d.source).unwrap()).collect()
}

fn values(stream: &str) -> Vec<Option<Value>> {
    split(stream.as_bytes()).iter().map(|d| d.parse().unwrap()).collect()
}

fn text(output: Output) -> String {
    String::from_utf8(output.into_bytes()).unwrap()
}

#[test]
fn a_pod_is_found_in_every_kind_and_version() {
    let mut titles = Vec::new();
    for value in values(KINDS).into_iter().flatten() {
        let objects = objects(&value).unwrap();
        let [object] = &objects[..] else { panic!("one object a document") };
        let pod = object.pod().unwrap().unwrap();
        assert_eq!(pod.value["spec"]["containers"][0]["name"], "app");
        assert_eq!(pod.value["metadata"]["labels"]["app"], object.name);
        assert_eq!(value.pointer(&pod.pointer), Some(pod.value));
        match &pod.owner {
            None => assert_eq!(object.kind, "Pod"),
            Some(owner) => assert_eq!(
                (&*owner.api_version, &*owner.kind, &*owner.name),
                (object.api_version, object.kind, object.name)
            ),
        }
        titles.push(object.title("default"));
    }
    assert_eq!(titles.len(), 19);
    assert_eq!(titles[0], "Pod default/pod");
    assert_eq!(titles[18], "CronJob default/cronjob-batch-v2alpha1");
}

#[test]
fn kinds_of_other_groups_are_no_workloads() {
    for (api_version, kind) in [
        ("batch.volcano.sh/v1alpha1", "Job"),
        ("serving.knative.dev/v1", "Service"),
        ("apps.kruise.io/v1alpha1", "StatefulSet"),
        ("argoproj.io/v1alpha1", "Rollout"),
        ("v1", "PodTemplate"),
        ("v1", "ServiceList"),
        ("example.com/v1", "List"),
        ("", ""),
    ] {
        let value = json!({"apiVersion": api_version, "kind": kind, "spec": {"template": 1}, "items": 1});
        let objects = objects(&value).unwrap();
        assert_eq!(objects.len(), 1, "{kind}");
        assert!(!objects[0].is_workload() && objects[0].pod().unwrap().is_none(), "{kind}");
    }
}

#[test]
fn the_items_of_lists_are_found_in_order() {
    let value = values(LIST).remove(0).unwrap();
    let found: Vec<_> = objects(&value)
        .unwrap()
        .iter()
        .map(|o| (o.title(o.namespace), o.pointer.clone(), o.is_workload()))
        .collect();
    let want = [
        ("Service first", "/items/0", false),
        ("Deployment shop/second", "/items/1", true),
        ("Pod third", "/items/2/items/0", true),
        ("ConfigMap fourth", "/items/2/items/1", false),
        ("Deployment fifth", "/items/3/items/0", true),
    ];
    assert_eq!(
        found,
        want.map(|(title, pointer, workload)| (title.to_owned(), pointer.to_owned(), workload))
    );
    let fifth = objects(&value).unwrap().remove(4);
    assert_eq!(fifth.pod().unwrap().unwrap().owner.unwrap().api_version, "apps/v1");
}

#[test]
fn a_document_that_is_no_object_is_told() {
    for (value, message) in [
        (json!([{}]), "the document is a list, and must be an object with apiVersion and kind"),
        (json!("text"), "the document is a string, and must be an object with apiVersion and kind"),
        (json!({"apiVersion": "v1", "kind": "List", "items": {}}), "items is an object, and must be a list"),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": [{}, 1]}),
            "items[1] is a number, and must be an object with apiVersion and kind",
        ),
    ] {
        assert_eq!(objects(&value).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_field_that_is_not_what_it_must_be_is_named() {
    let pod = |pod: Value| {
        let mut value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "a"}]}});
        crate::settings::layers::lay(value.as_object_mut().unwrap(), pod.as_object().unwrap().clone());
        objects(&value).unwrap()[0].pod().unwrap_err().to_string()
    };
    for (value, message) in [
        (json!({"spec": 5}), "spec is a number, and must be an object"),
        (json!({"spec": null}), "spec is missing, and must be an object"),
        (json!({"metadata": []}), "metadata is a list, and must be an object"),
        (json!({"metadata": {"name": 7}}), "metadata.name is a number, and must be a string"),
        (json!({"metadata": {"labels": "a=b"}}), "metadata.labels is a string, and must be an object"),
        (
            json!({"metadata": {"labels": {"sidecar.istio.io/inject": true}}}),
            "metadata.labels[\"sidecar.istio.io/inject\"] is a boolean, and must be a string; write it in quotes: \"true\"",
        ),
        (
            json!({"metadata": {"annotations": {"a": null}}}),
            "metadata.annotations.a is null, and must be a string",
        ),
        (json!({"spec": {"hostNetwork": "true"}}), "spec.hostNetwork is a string, and must be true or false"),
        (json!({"spec": {"containers": null}}), "spec.containers is empty, and a pod needs a container"),
        (json!({"spec": {"containers": {}}}), "spec.containers is an object, and must be a list"),
        (json!({"spec": {"containers": ["a"]}}), "spec.containers[0] is a string, and must be an object"),
        (json!({"spec": {"containers": [{}]}}), "spec.containers[0].name is missing, and must be a string"),
        (
            json!({"spec": {"containers": [{"name": "a", "env": {"A": "b"}}]}}),
            "spec.containers[0].env is an object, and must be a list",
        ),
        (
            json!({"spec": {"initContainers": [{"name": "a", "ports": [80]}]}}),
            "spec.initContainers[0].ports[0] is a number, and must be an object",
        ),
        (json!({"spec": {"volumes": "data"}}), "spec.volumes is a string, and must be a list"),
    ] {
        assert_eq!(pod(value), message);
    }
    let cron_job = json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"jobTemplate": {"spec": 1}}});
    assert_eq!(
        objects(&cron_job).unwrap()[0].pod().unwrap_err().to_string(),
        "spec.jobTemplate.spec is a number, and must be an object"
    );
}

#[test]
fn markers_comments_and_directives_are_told_from_text() {
    for (stream, documents) in [
        ("", vec![]),
        ("a: 1", vec!["a: 1"]),
        ("a: 1\n---\nb: 2\n", vec!["a: 1\n", "---\nb: 2\n"]),
        ("---\na: 1\n---\n", vec!["---\na: 1\n", "---\n"]),
        ("# c\n\n---\na: 1\n", vec!["# c\n\n---\na: 1\n"]),
        ("%YAML 1.1\n---\na: 1\n", vec!["%YAML 1.1\n---\na: 1\n"]),
        ("a: 1\n...\n# c\n", vec!["a: 1\n...\n# c\n"]),
        ("a: 1\n...\n# c\n---\nb: 2\n", vec!["a: 1\n...\n", "# c\n---\nb: 2\n"]),
        ("a: |\n  ---\n ---\n---x: 1\n", vec!["a: |\n  ---\n ---\n---x: 1\n"]),
        ("a: 1\r\n---\r\nb: 2\r\n", vec!["a: 1\r\n", "---\r\nb: 2\r\n"]),
        ("\u{feff}---\na: 1\n---\nb: 1", vec!["\u{feff}---\na: 1\n", "---\nb: 1"]),
        ("--- {a: 1}\n--- {b: 2}\n", vec!["--- {a: 1}\n", "--- {b: 2}\n"]),
        ("---\n---\n---\na: 1\n", vec!["---\n", "---\n", "---\na: 1\n"]),
        ("{\"a\":1}{\"b\":2}\n\n{\"c\":3}", vec!["{\"a\":1}", "{\"b\":2}\n\n", "{\"c\":3}"]),
        ("---\n{\"a\":\n1}\n---\nb: 2\n", vec!["---\n{\"a\":\n1}\n", "---\nb: 2\n"]),
        ("{\"a\": {\n{\"b\": 2}\n", vec!["{\"a\": {\n", "{\"b\": 2}\n"]),
        ("{\"a\": 1}}\n", vec!["{\"a\": 1}", "}\n"]),
        ("{a: 1}\n{b: 1}\n", vec!["{a: 1}\n{b: 1}\n"]),
        ("[1, 2]\n", vec!["[1, 2]\n"]),
    ] {
        assert_eq!(sources(stream), documents, "{stream:?}");
    }
}

#[test]
fn an_awkward_stream_parses_to_what_it_means() {
    let values = values(AWKWARD);
    assert_eq!(values.len(), 4);
    let text = values[0].as_ref().unwrap();
    assert_eq!(
        text["data"]["block"],
        "--- looks like a marker\n---\n... and this like an end\n# and this like a comment\n"
    );
    assert_eq!(text["data"]["quoted"], "a b");
    assert_eq!((&values[1], &values[2]), (&None, &None));
    let pod = &values[3].as_ref().unwrap()["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"], json!({"app": "anchors", "on": "off", "version": "1.10"}));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["args"][0], "# a script\ncat <<EOF\n---\nEOF\n");
    assert_eq!(container["futureField"]["deep"], json!([1, 2.5, null, null, {"deeper": true}]));
    let lines: Vec<_> =
        split(AWKWARD.as_bytes()).iter().map(|d| (d.number, d.line, d.first_line_of_content())).collect();
    assert_eq!(lines, [(1, 1, 7), (2, 19, 22), (3, 22, 23), (4, 23, 24)]);
}

#[test]
fn each_bad_document_is_told_with_its_line_and_loses_no_other() {
    let documents = split(BAD.as_bytes());
    let told: Vec<String> = documents
        .iter()
        .map(|document| {
            let value = match document.parse() {
                Ok(value) => value.unwrap(),
                Err(e) => return format!("line {}", e.line),
            };
            let objects = match objects(&value) {
                Ok(objects) => objects,
                Err(problem) => {
                    return format!("line {}: {}", document.line_of(&problem.pointer), problem.field);
                }
            };
            match objects[0].pod() {
                Ok(_) => "good".to_owned(),
                Err(problem) => format!("line {}: {}", document.line_of(&problem.pointer), problem.field),
            }
        })
        .collect();
    assert_eq!(
        told,
        [
            "good",
            "line 12",
            "line 17",
            "line 19: the document",
            "line 25: spec",
            "line 32: spec.containers",
            "line 42: spec.template.metadata.annotations[\"sidecar.istio.io/inject\"]",
            "line 52: spec.template",
            "good",
        ]
    );
}

#[test]
fn text_that_is_no_utf8_loses_no_other_document() {
    let documents = split(b"a: 1\n---\nb: \xff\n---\nc: 1\n");
    assert_eq!(documents[0].parse().unwrap(), Some(json!({"a": 1})));
    let error = documents[1].parse().unwrap_err();
    assert_eq!((error.line, error.column), (3, 4));
    assert_eq!(documents[2].parse().unwrap(), Some(json!({"c": 1})));
}

#[test]
fn json_is_read_as_json_or_as_yaml_in_its_clothes() {
    assert_eq!(values(OBJECTS).len(), 3);
    assert_eq!(
        values(OBJECTS)[1].as_ref().unwrap()["spec"]["containers"][0]["args"],
        json!(["}", "\"{", "---"])
    );
    assert_eq!(values("{\"a\": \"\\ud83d\\ude00\", \"b\": 1e3}"), [Some(json!({"a": "😀", "b": 1000.0}))]);
    assert_eq!(values("{\"a\": 1,} # a comment"), [Some(json!({"a": 1}))]);
    assert_eq!(values("{a: on}"), [Some(json!({"a": true}))]);
    for (stream, line, message) in [
        ("\n{\"a\": 1,\n\"a\": 2}", 3, "the key \"a\" stands twice in one object"),
        ("{\"a\": 1}\n{\"b\": tru}}\n", 2, ""),
        ("{\"a\": [1}", 1, ""),
        ("{\"a\": 1,\n\"b\": {\n", 3, "the document ends before its JSON does"),
    ] {
        let documents = split(stream.as_bytes());
        let error = documents.iter().find_map(|d| d.parse().err()).unwrap();
        assert_eq!(error.line, line, "{stream}: {error}");
        assert!(error.message.contains(message), "{stream}: {error}");
    }
}

#[test]
fn what_nobody_touches_comes_out_byte_for_byte() {
    let windows = AWKWARD.replace('\n', "\r\n");
    for stream in [KINDS, LIST, AWKWARD, &windows, OBJECTS, "a: 1", "{\"a\":1}{\"b\":2}", "# nothing\n", ""] {
        let mut output = Output::new(None);
        for document in split(stream.as_bytes()) {
            output.keep(&document, document.parse().unwrap().as_ref());
        }
        assert_eq!(text(output), stream);
    }
}

/// Puts `{"new": "x\ny\n"}` in place of every document that holds something.
fn changed(stream: &str, format: Option<Format>) -> String {
    let mut output = Output::new(format);
    for document in split(stream.as_bytes()) {
        match document.parse().unwrap() {
            Some(_) => output.change(&document, &json!({"new": "x\ny\n"})),
            None => output.keep(&document, None),
        }
    }
    text(output)
}

#[test]
fn what_changes_keeps_the_comments_around_it_and_its_line_ends() {
    let new = "new: |\n  x\n  y\n";
    for (stream, want) in [
        ("# before\na: 1 # inside\n# behind\n", format!("# before\n{new}# behind\n")),
        ("a: 1", new.to_owned()),
        ("--- {a: 1}\n--- {b: 1}", format!("---\n{new}---\n{new}")),
        (
            "%YAML 1.1\n--- # c\na: 1\n...\n# d\n---\nb: 1\n",
            format!("%YAML 1.1\n--- # c\n{new}...\n# d\n---\n{new}"),
        ),
        ("\u{feff}a: 1\n", format!("\u{feff}{new}")),
        ("a: 1\r\n---\r\n# c\r\nb: 1\r\n", format!("{new}---\n# c\n{new}").replace('\n', "\r\n")),
        ("a:\n  \u{c}\n", new.to_owned()),
        ("a: 1\n     \n  ", format!("{new}\n")),
        (
            "{\"a\n#b\":1}{\"c\n#d\": 1} # behind\n",
            "{\n    \"new\": \"x\\ny\\n\"\n}\n".repeat(2) + " # behind\n",
        ),
        ("{\"a\":1}\n{\n\"b\":1}", "{\"new\":\"x\\ny\\n\"}\n{\n    \"new\": \"x\\ny\\n\"\n}\n".to_owned()),
    ] {
        assert_eq!(changed(stream, None), want, "{stream:?}");
    }
    assert_eq!(changed("{\"a\":1}{\"b\":1}", Some(Format::Yaml)), format!("{new}---\n{new}"));
    assert_eq!(
        changed("# c\na: 1\n---\n---\nb: 1\n", Some(Format::Json)),
        "{\n    \"new\": \"x\\ny\\n\"\n}\n".repeat(2)
    );
}

#[test]
fn a_carriage_return_by_itself_ends_a_line() {
    let stream = "# said before\rfirst: 1\r---\r# and again\rsecond: [\r";
    assert_eq!(sources(stream), ["# said before\rfirst: 1\r", "---\r# and again\rsecond: [\r"]);
    let documents = split(stream.as_bytes());
    assert_eq!(documents[0].parse().unwrap(), Some(json!({"first": 1})));
    assert_eq!(documents[0].line_of("/first"), 2);
    assert_eq!(documents[1].parse().unwrap_err().line, 6);
    assert_eq!(changed("# said before\rfirst: 1\r", None), "# said before\rnew: |\n  x\n  y\n");
}

#[test]
fn streams_that_follow_each_other_stay_apart() {
    let mut output = Output::new(None);
    let streams =
        ["a: 1", "# c\nb: 2\n", "{\"c\": 3}", "{\"d\": 4}", "\u{feff}e: 5\n...\n", "%YAML 1.1\n---\nf: 6\n"];
    for stream in streams {
        for document in split(stream.as_bytes()) {
            output.keep(&document, document.parse().unwrap().as_ref());
        }
    }
    let want = "a: 1\n---\n# c\nb: 2\n---\n{\"c\": 3}\n{\"d\": 4}\n---\ne: 5\n...\n%YAML 1.1\n---\nf: 6\n";
    let text = text(output);
    assert_eq!(text, want);
    let values: Vec<_> = values(&text).into_iter().flatten().collect();
    assert_eq!(
        values,
        [
            json!({"a": 1}),
            json!({"b": 2}),
            json!({"c": 3}),
            json!({"d": 4}),
            json!({"e": 5}),
            json!({"f": 6})
        ]
    );
}

fn awkward_stream() -> impl Strategy<Value = String> {
    let lines = prop::sample::select(vec![
        "---",
        "--- # c",
        "--- {a: 1}",
        "...",
        "# c",
        "",
        " ",
        "a: 1",
        "b: |",
        "  ---",
        "%YAML 1.1",
        "{\"a\": 1}",
        "{",
        "}",
        "[",
        "{\"a\":",
        "\"x\": 2}",
        "- x",
        "{\"a\":1}{\"b\":2}",
        "text",
    ]);
    let ends = prop::sample::select(vec!["\n", "\r\n", ""]);
    let mark = prop::sample::select(vec!["", "\u{feff}"]);
    (mark, prop::collection::vec((lines, ends), 0..16)).prop_map(|(mark, lines)| {
        std::iter::once(mark).chain(lines.into_iter().flat_map(|(line, end)| [line, end])).collect()
    })
}

proptest! {
    #[test]
    fn the_sources_are_the_stream_and_number_and_line_are_true(stream in awkward_stream()) {
        let documents = split(stream.as_bytes());
        let mut before = Vec::new();
        for (i, document) in documents.iter().enumerate() {
            prop_assert_eq!(document.number, i + 1);
            prop_assert_eq!(document.line, 1 + before.iter().filter(|&&b| b == b'\n').count());
            before.extend_from_slice(document.source);
            // Whatever it holds, asking does not fail.
            let _ = (document.parse(), document.line_of("/a/b"), document.head(), document.tail());
        }
        prop_assert_eq!(String::from_utf8(before).unwrap(), stream);
    }

    #[test]
    fn any_bytes_are_split_and_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for document in split(&bytes) {
            let _ = document.parse();
        }
    }

    #[test]
    fn a_changed_document_is_read_back_between_its_neighbours(stream in awkward_stream(), changes in any::<u16>()) {
        let mut output = Output::new(None);
        let mut want = Vec::new();
        for document in split(stream.as_bytes()) {
            match document.parse() {
                Ok(Some(_)) if changes >> (document.number % 16) & 1 == 1 => {
                    output.change(&document, &json!({"new": document.number}));
                    want.push(json!({"new": document.number}));
                }
                Ok(value) => {
                    output.keep(&document, value.as_ref());
                    want.extend(value);
                }
                Err(_) => {}
            }
        }
        let text = text(output);
        let got: Vec<_> = split(text.as_bytes()).iter().map(|d| d.parse()).collect::<Result<_, _>>().map_err(|e| {
            TestCaseError::fail(format!("{e}: {stream:?} became {text:?}"))
        })?;
        prop_assert_eq!(got.into_iter().flatten().collect::<Vec<_>>(), want, "{:?} became {:?}", stream, text);
    }
}
