//! The caBundle of a tag's registration: what that of its revision has.

use serde_json::{Value, json};

/// The bundle that a registration has: Base64 of PEM.
pub fn bundle(registration: &Value) -> Option<&str> {
    registration["webhooks"][0]["clientConfig"]["caBundle"].as_str().filter(|bundle| !bundle.is_empty())
}

/// The JSON patch that sends the pods of a tag's registration to where `tag` says, and makes it trust who is there, in one
/// step; `None` where it is so. It fails where the registration has changed meanwhile.
pub fn lead(registration: &Value, tag: &Value, bundle: &str) -> Option<Value> {
    let wanted = |name: &Value| {
        let webhook = tag["webhooks"].as_array()?.iter().find(|webhook| webhook["name"] == *name)?;
        let mut config = webhook["clientConfig"].clone();
        config["caBundle"] = bundle.into();
        Some(config)
    };
    let version = &registration["metadata"]["resourceVersion"];
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    for (i, webhook) in registration["webhooks"].as_array()?.iter().enumerate() {
        if let Some(config) = wanted(&webhook["name"]).filter(|config| *config != webhook["clientConfig"]) {
            let path = format!("/webhooks/{i}/clientConfig");
            operations.push(json!({"op": "replace", "path": path, "value": config}));
        }
    }
    (operations.len() > 1).then_some(Value::Array(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_led_to_where_they_are_trusted() {
        let registration = |service: &str, bundles: [Option<&str>; 2]| {
            let webhook = |(name, bundle): (&str, Option<&str>)| {
                let mut config = json!({"service": {"name": service}});
                if let Some(bundle) = bundle {
                    config["caBundle"] = bundle.into();
                }
                json!({"name": name, "clientConfig": config})
            };
            let webhooks: Vec<_> = ["a", "b"].into_iter().zip(bundles).map(webhook).collect();
            json!({"metadata": {"resourceVersion": "3"}, "webhooks": webhooks})
        };
        let tag = registration("canary", [None, None]);
        assert_eq!(lead(&registration("canary", [Some("x"), Some("x")]), &tag, "x"), None);
        let moved = lead(&registration("stable", [Some("y"), Some("y")]), &tag, "x").unwrap();
        let config = json!({"service": {"name": "canary"}, "caBundle": "x"});
        assert_eq!(
            moved,
            json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": "3"},
                {"op": "replace", "path": "/webhooks/0/clientConfig", "value": config},
                {"op": "replace", "path": "/webhooks/1/clientConfig", "value": config},
            ])
        );
        let trusted = lead(&registration("canary", [Some("x"), None]), &tag, "x").unwrap();
        assert_eq!(trusted[1]["path"], "/webhooks/1/clientConfig");
        assert_eq!(bundle(&registration("canary", [Some(""), None])), None);
        assert_eq!(bundle(&registration("canary", [Some("x"), None])), Some("x"));
    }
}
