//! The protocol by the specification, and lists of plugins.

use std::collections::BTreeMap;

use outrigger_contract::CAPTURE_ANNOTATION;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::chain::{chosen, with, without};
use super::request::{
    ANNOTATION, ANNOTATIONS, Asked, CONFIGURATION, ENVIRONMENT, INCOMPATIBLE, Refusal, Request, UNDECODABLE,
    VERSIONS, version_of,
};
use super::{answer, entry, is_called};
use crate::options::{Capture, Task};
use crate::sidecar::{Dns, Sidecar};

fn environment(command: &str) -> BTreeMap<String, String> {
    let all = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/pod"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1"),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn configuration(annotation: Option<&str>) -> Value {
    let annotations = annotation.map(|told| json!({CAPTURE_ANNOTATION: told, "other": "x"}));
    json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "outrigger-cni",
        "runtimeConfig": {ANNOTATIONS: annotations.unwrap_or(json!({"other": "x"}))},
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.244.0.7/24"}], "unknown": [1]}
    })
}

fn told(args: &[&str], env: Value) -> String {
    json!({"args": args, "env": env}).to_string()
}

fn read(command: &str, configuration: &Value) -> Result<Request, Refusal> {
    Request::read(&environment(command), &configuration.to_string())
}

fn plan(configuration: &Value) -> Sidecar {
    match read("ADD", configuration).unwrap().work.unwrap().options.capture {
        Capture::Sidecar { plan, detect_dns: false } => *plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runtime_calls_without_arguments() {
    assert!(is_called(&[], &environment("ADD")));
    assert!(!is_called(&["--version".to_owned()], &environment("ADD")));
    assert!(!is_called(&[], &BTreeMap::new()));
}

#[test]
fn the_versions_that_it_speaks() {
    let answered = answer(&environment("VERSION"), r#"{"cniVersion": "0.4.0"}"#).unwrap().unwrap();
    assert_eq!(answered, json!({"cniVersion": "0.4.0", "supportedVersions": VERSIONS}));
    // An unknown version is no error here: it is what is being asked about.
    let answered = answer(&environment("VERSION"), r#"{"cniVersion": "9.0.0"}"#).unwrap().unwrap();
    assert_eq!(answered["supportedVersions"][0], "0.3.0");
    for version in VERSIONS {
        let mut configuration = configuration(None);
        configuration["cniVersion"] = version.into();
        assert!(read("ADD", &configuration).is_ok(), "{version}");
    }
}

#[test]
fn a_pod_without_the_annotation_is_let_through() {
    let configuration = configuration(None);
    let answered = answer(&environment("ADD"), &configuration.to_string()).unwrap().unwrap();
    assert_eq!(answered, configuration["prevResult"], "the result of the plugins before is passed on whole");
    assert_eq!(answer(&environment("CHECK"), &configuration.to_string()), Ok(None));
    let mut old = configuration.clone();
    old["runtimeConfig"] = Value::Null;
    assert!(read("ADD", &old).unwrap().work.is_none(), "a runtime that passes no annotations");
}

#[test]
fn what_leaves_nothing_to_do() {
    for command in ["DEL", "GC", "STATUS"] {
        let mut environment = environment(command);
        // A namespace that is gone already has no path.
        environment.remove("CNI_NETNS");
        let input = r#"{"cniVersion": "1.1.0", "name": "pods", "type": "outrigger-cni"}"#;
        assert_eq!(answer(&environment, input), Ok(None), "{command}");
    }
}

#[test]
fn errors_have_the_codes_of_the_specification() {
    let whole = configuration(None);
    let refused = |command: &str, configuration: Value| read(command, &configuration).unwrap_err();
    let code = |command: &str, configuration: Value| refused(command, configuration).code;
    let with = |field: &str, value: Value| {
        let mut configuration = whole.clone();
        configuration[field] = value;
        configuration
    };
    assert_eq!(code("FLY", whole.clone()), ENVIRONMENT);
    assert_eq!(code("ADD", with("cniVersion", json!("0.2.0"))), INCOMPATIBLE);
    assert_eq!(code("ADD", with("prevResult", Value::Null)), CONFIGURATION);
    assert_eq!(code("CHECK", with("prevResult", Value::Null)), CONFIGURATION);
    assert_eq!(code("ADD", json!([])), UNDECODABLE);
    assert_eq!(Request::read(&environment("ADD"), "{").unwrap_err().code, UNDECODABLE);
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        let mut environment = environment("ADD");
        environment.insert(name.to_owned(), String::new());
        let refusal = Request::read(&environment, &whole.to_string()).unwrap_err();
        assert!(refusal.code == ENVIRONMENT && refusal.message.contains(name), "{refusal:?}");
    }
    let answered = refused("FLY", whole.clone()).answer(&version_of(&whole.to_string()));
    assert_eq!((&answered["cniVersion"], &answered["code"]), (&json!("1.0.0"), &json!(4)));
    assert!(answered["msg"].as_str().unwrap().contains("FLY") && answered["details"].is_string());
}

#[test]
fn the_annotation_is_the_containers_command_line() {
    let args =
        ["-p", "15002", "-u", "2000", "-b", "*", "-i", "10.0.0.0/8", "--skip-rule-apply", "--run-validation"];
    let configuration = configuration(Some(&told(&args, json!({"INVALID_DROP": "true"}))));
    let request = read("ADD", &configuration).unwrap();
    assert_eq!(request.asked, Asked::Add(configuration["prevResult"].clone()));
    let work = request.work.unwrap();
    assert_eq!((work.netns.as_str(), work.pod.as_str()), ("/run/netns/pod", "pod shop/cart-1"));
    assert_eq!((work.options.task, &work.options.self_test), (Task::Apply, &None));
    let plan = plan(&configuration);
    assert_eq!((plan.outbound_port, plan.proxy_uids, plan.drop_invalid), (15002, vec![2000], true));
    let mut args = args.to_vec();
    args.insert(0, "istio-iptables");
    assert_eq!(self::plan(&self::configuration(Some(&told(&args, json!({}))))).outbound_port, 15002);
}

#[test]
fn the_annotation_is_its_authors_and_asks_for_nothing_else() {
    let env = json!({"DRY_RUN_FILE_PATH": "/etc/shadow", "NETWORK_NAMESPACE": "/proc/1/ns/net"});
    let args = ["--netns", "1", "--dry-run", "--cleanup-only", "--force-apply", "--run-validation"];
    let work = read("ADD", &configuration(Some(&told(&args, env)))).unwrap().work.unwrap();
    assert_eq!(work.netns, "/run/netns/pod");
    let options = work.options;
    assert_eq!((options.netns, options.dry_run, options.self_test), (None, None, None));
    assert_eq!((options.task, options.force, options.close_wait), (Task::Apply, false, None));
    // A name is looked for in no file of the node.
    let refusal = read("ADD", &configuration(Some(&told(&["-u", "root"], json!({}))))).unwrap_err();
    assert_eq!(refusal.code, ANNOTATION);
    assert!(refusal.message.contains("pod shop/cart-1") && refusal.message.contains("root"), "{refusal:?}");
}

#[test]
fn an_annotation_that_makes_no_sense_is_an_error() {
    for told in [
        "",
        "[]",
        "{}",
        r#"{"args": "-p"}"#,
        r#"{"args": [1], "env": {}}"#,
        r#"{"args": [], "env": {"A": 1}}"#,
    ] {
        assert_eq!(read("ADD", &configuration(Some(told))).unwrap_err().code, ANNOTATION, "{told}");
    }
    let refusal = read("ADD", &configuration(Some(&told(&["-b", "8O"], json!({}))))).unwrap_err();
    assert!(refusal.message.contains("8O"), "{refusal:?}");
}

#[test]
fn name_servers_are_the_pods() {
    let mut configuration = configuration(Some(&told(&["--redirect-dns"], json!({}))));
    assert_eq!(plan(&configuration).dns, Dns::All, "nobody says which they are");
    configuration["runtimeConfig"]["dns"] = json!({"servers": ["10.96.0.10", "fd00::a"], "searches": ["x"]});
    let work = read("ADD", &configuration).unwrap().work.unwrap();
    let servers = crate::facts::dns_servers(&work.surroundings).unwrap();
    assert_eq!(servers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.10", "fd00::a"]);
}

const LIST: &str =
    r#"{"cniVersion": "1.0.0", "name": "pods", "x": {"z": 1, "a": 2}, "plugins": [{"type": "bridge"}]}"#;

#[test]
fn the_plugin_is_chained_at_the_end_and_once() {
    let chained = with(LIST).unwrap().unwrap();
    let mut wanted: Value = serde_json::from_str(LIST).unwrap();
    wanted["plugins"] = json!([{"type": "bridge"}, entry()]);
    assert_eq!(serde_json::from_str::<Value>(&chained).unwrap(), wanted);
    assert!(chained.find("\"z\"") < chained.find("\"a\""), "fields keep their order: {chained}");
    assert_eq!(with(&chained), Ok(None));
    // An entry of another version, or one that somebody has put something behind.
    for plugins in
        [json!([{"type": "bridge"}, {"type": "outrigger-cni"}]), json!([entry(), {"type": "bridge"}])]
    {
        let mut list = wanted.clone();
        list["plugins"] = plugins;
        assert_eq!(with(&list.to_string()).unwrap().unwrap(), chained);
    }
}

#[test]
fn taking_the_plugin_out_leaves_the_others() {
    let chained = with(LIST).unwrap().unwrap();
    let left = without(&chained).unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), serde_json::from_str::<Value>(LIST).unwrap());
    assert_eq!(without(&left), Ok(None));
}

#[test]
fn what_is_no_list_is_said_to_be_none() {
    for (text, reason) in [
        ("{", "JSON"),
        ("[]", "plugins"),
        (r#"{"type": "bridge"}"#, ".conflist"),
        (r#"{"plugins": []}"#, "plugins"),
    ] {
        assert!(with(text).unwrap_err().contains(reason), "{text}");
    }
}

#[test]
fn the_runtimes_choice_of_a_file() {
    assert_eq!(
        chosen(["20-b.conflist", "10-a.conflist", "05.txt", ".10-a.conflist.outrigger"]),
        Some("10-a.conflist")
    );
    assert_eq!(chosen(["10-a.conflist", "10-a.conf"]), Some("10-a.conf"));
    assert_eq!(chosen(["readme.md"]), None);
}

proptest! {
    #[test]
    fn nothing_that_others_write_makes_it_panic(told in any::<String>(), args in any::<Vec<String>>(), text in any::<String>()) {
        let _ = read("ADD", &configuration(Some(&told)));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _ = read("ADD", &configuration(Some(&self::told(&args, json!({"A": text})))));
        let _ = Request::read(&environment("CHECK"), &text);
        let _ = (with(&text), without(&text));
    }
}
