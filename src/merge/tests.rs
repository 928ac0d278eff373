use serde_json::{Value, json};

fn merged(mut pod: Value, overlay: Value) -> Value {
    super::pod(&mut pod, overlay).unwrap();
    pod
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    pod["spec"][list].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
}

fn containers(names: &[&str]) -> Value {
    let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    json!({"spec": {"containers": containers}})
}

#[test]
fn keyed_lists_merge_by_their_key() {
    let pod = json!({"spec": {"containers": [
        {"name": "app", "image": "a", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}], "args": ["x"]},
    ]}});
    let overlay = json!({"spec": {"containers": [
        {"name": "app", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}],
         "ports": [{"containerPort": 80, "name": "http"}], "args": ["y", "z"]},
    ]}});
    let want = json!({"spec": {"containers": [
        {"name": "app", "image": "a", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}],
         "ports": [{"containerPort": 80, "name": "http"}], "args": ["y", "z"]},
    ]}});
    assert_eq!(merged(pod, overlay), want);
}

#[test]
fn the_order_is_kubernetes_own() {
    for (have, add, want) in [
        (&["A", "B", "P"][..], &["X", "P", "Y"][..], &["X", "A", "B", "P", "Y"][..]),
        (&["A", "B"], &["X"], &["X", "A", "B"]),
        (&["A", "B", "C"], &["C", "A"], &["B", "C", "A"]),
        (&["P", "A"], &["P"], &["P", "A"]),
        (&["A"], &[], &["A"]),
    ] {
        let pod = merged(containers(have), containers(add));
        assert_eq!(names(&pod, "containers"), want, "{have:?} + {add:?}");
    }
}

#[test]
fn nulls_take_away_and_leave_nothing_behind() {
    let pod = json!({"spec": {"nodeName": "n", "volumes": [{"name": "v", "csi": {"driver": "d"}}]}});
    let overlay = json!({"spec": {"nodeName": null, "hostIPC": null, "dnsConfig": {"searches": null, "options": []},
        "volumes": [{"name": "v", "emptyDir": null}, {"name": "w", "emptyDir": null}]}});
    let want = json!({"spec": {"volumes": [{"name": "v", "csi": {"driver": "d"}}, {"name": "w"}],
        "dnsConfig": {"options": []}}});
    assert_eq!(merged(pod, overlay), want);
}

#[test]
fn directives_replace_delete_and_reorder() {
    let pod = || {
        json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {
            "containers": [{"name": "x"}, {"name": "y"}],
            "securityContext": {"runAsUser": 1, "fsGroup": 2}, "tolerations": [1],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }})
    };
    let overlay = json!({"spec": {"securityContext": {"$patch": "replace", "fsGroup": 3}}});
    assert_eq!(merged(pod(), overlay)["spec"]["securityContext"], json!({"fsGroup": 3}));
    let overlay = json!({"spec": {"securityContext": {"$patch": "delete"}}});
    assert_eq!(merged(pod(), overlay)["spec"]["securityContext"], json!({}));
    let overlay = json!({"spec": {"containers": [{"name": "x", "$patch": "delete"}]}});
    assert_eq!(names(&merged(pod(), overlay), "containers"), ["y"]);
    let overlay = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}});
    assert_eq!(names(&merged(pod(), overlay), "containers"), ["z"]);
    let overlay = json!({"spec": {"$setElementOrder/containers": [{"name": "y"}, {"name": "x"}]}});
    assert_eq!(names(&merged(pod(), overlay), "containers"), ["y", "x"]);
    let overlay =
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"]}});
    assert_eq!(merged(pod(), overlay)["metadata"]["finalizers"], json!(["b", "c"]));
    let overlay = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}});
    assert_eq!(merged(pod(), overlay)["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/"}}]));
}

#[test]
fn what_cannot_be_merged_names_its_field() {
    let error =
        super::pod(&mut containers(&["a"]), json!({"spec": {"containers": [{"image": "x"}]}})).unwrap_err();
    assert_eq!(error.to_string(), "spec.containers: an item of the overlay lacks its key \"name\"");
    let error = super::pod(&mut containers(&["a"]), json!({"spec": {"$patch": "add"}})).unwrap_err();
    assert_eq!(error.to_string(), "spec: $patch: \"add\" is none of replace, delete, merge");
}

#[test]
fn lists_without_a_key_are_replaced_and_unknown_fields_survive() {
    let pod = json!({"spec": {"future": {"ports": [{"a": 1}]}, "containers": [{"name": "a", "novel": [1]}]}});
    let overlay =
        json!({"spec": {"future": {"ports": [{"b": 2}]}, "containers": [{"name": "a", "image": "i"}]}});
    let want = json!({"spec": {"future": {"ports": [{"b": 2}]}, "containers": [{"name": "a", "novel": [1], "image": "i"}]}});
    assert_eq!(merged(pod, overlay), want);
}

#[test]
fn a_key_that_stands_twice_meets_itself_twice() {
    let pod = json!({"spec": {"containers": [{"name": "a"}]}});
    let overlay = || {
        json!({"spec": {"containers": [{"name": "a", "env": [
            {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "f"}}}, {"name": "X", "value": "v"}]}]}})
    };
    let once = merged(pod, overlay());
    assert_eq!(once, overlay());
    assert_eq!(merged(once.clone(), overlay()), once);
}

#[test]
fn a_pods_own_container_wins_but_takes_nothing_away() {
    let mut injected = json!({"name": "a", "image": "i", "args": ["x"], "env": [{"name": "E", "value": "1"}],
        "securityContext": {"runAsUser": 1, "privileged": false}, "resources": {"limits": {"cpu": "1"}}});
    let own = json!({"name": "a", "image": null, "args": ["y"], "env": [{"name": "F"}, {"name": "E", "value": "2"}],
        "securityContext": {"$patch": "delete", "runAsUser": 5}, "extra": {"deep": [null, {"n": null}]}});
    super::own_container(&mut injected, &own);
    let want = json!({"name": "a", "image": "i", "args": ["y"], "env": [{"name": "E", "value": "2"}, {"name": "F"}],
        "securityContext": {"runAsUser": 5, "privileged": false, "$patch": "delete"}, "resources": {"limits": {"cpu": "1"}},
        "extra": {"deep": [null, {"n": null}]}});
    assert_eq!(injected, want);
}
