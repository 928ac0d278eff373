//! The recorded injections of `../shared/conformance`, where they are beside this clone.

use std::path::Path;

use serde_json::{Map, Value, json};

/// All of them, in the order of their names; none where there is no such folder.
pub(crate) fn cases() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/injection");
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = files.map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// The settings that a case was recorded under, as `../shared/conformance/injection.py` writes them: what is not there, or
/// is an empty text, has its default.
pub(crate) fn settings(case: &Value) -> Value {
    let (injector, env) = (&case["injector"], &case["env"]);
    let version = |node: &Value| {
        let version = node["kubeletVersion"].as_str().unwrap().trim_start_matches('v');
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let (major, minor) = case["nodes"].as_array().unwrap().iter().map(version).min().unwrap();
    let all = json!({
        "pack": "istio",
        "revision": case["revision"],
        "policy": injector["policy"],
        "neverInjectSelector": injector["neverInjectSelector"],
        "alwaysInjectSelector": injector["alwaysInjectSelector"],
        "injectedAnnotations": injector["injectedAnnotations"],
        "aliases": injector["aliases"],
        "defaultTemplates": injector["defaultTemplates"],
        "templates": case["customTemplates"],
        "nativeSidecars": env["ENABLE_NATIVE_SIDECARS"],
        "kubernetesVersion": format!("{major}.{minor}"),
        "platform": env["PLATFORM"],
        "compliancePolicy": env["COMPLIANCE_POLICY"],
        "values": case["values"],
        "meshConfig": case["meshConfig"],
    });
    let set = all.as_object().unwrap().iter().filter(|(_, value)| !value.is_null() && **value != "");
    Value::Object(set.map(|(field, value)| (field.clone(), value.clone())).collect::<Map<_, _>>())
}
