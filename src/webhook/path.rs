//! Settings by request path: `/inject/cluster/east/net/blue`.
//!
//! Installations of several clusters give each its own path in the webhook's configuration; what stands
//! in it becomes environment of the sidecar. The form is Istio's, so that its configurations keep working.

/// What stands for `/` in a value of the slash form.
const SLASH: &str = "--slash--";
/// What parts the pairs in the legacy form, `:ENV:cluster=east:ENV:net=blue`.
const SEPARATOR: &str = ":ENV:";

/// The key of a revision's tag, which is no environment.
const TAG: &str = "tag";

/// The environment that a path asks for, as (name, value) in the order of the path; the last of a name wins.
///
/// `below` is what follows `/inject/`, percent-decoded. `cluster` is `ISTIO_META_CLUSTER_ID`, `net` is
/// `ISTIO_META_NETWORK`, any other key is upper-cased. A key without a value, and an empty key, say nothing.
pub fn environment(below: &str) -> Vec<(String, String)> {
    let below = below.strip_suffix('/').unwrap_or(below);
    let mut environment: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| {
        if !key.is_empty() {
            let name = name(key);
            environment.retain(|(known, _)| *known != name);
            environment.push((name, value));
        }
    };
    if let Some(legacy) = below.strip_prefix(SEPARATOR) {
        for (key, value) in legacy.split(SEPARATOR).filter_map(|pair| pair.split_once('=')) {
            add(key, value.to_owned());
        }
    } else {
        let mut parts = below.split('/');
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            if key != TAG {
                add(key, value.replace(SLASH, "/"));
            }
        }
    }
    environment
}

/// The tag by whose registration we are called: `prod` in `tag/prod`. It is the last pair that a path has of it.
pub(crate) fn tag(below: &str) -> Option<&str> {
    let mut parts = below.split('/');
    let mut tag = None;
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        if key == TAG && !value.is_empty() {
            tag = Some(value);
        }
    }
    tag
}

fn name(key: &str) -> String {
    match key {
        "cluster" => "ISTIO_META_CLUSTER_ID".to_owned(),
        "net" => "ISTIO_META_NETWORK".to_owned(),
        other => other.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::{environment, tag};

    #[test]
    fn a_tag_is_no_environment() {
        assert_eq!(tag("tag/prod"), Some("prod"));
        assert_eq!((tag("zone/a/tag/prod/"), environment("zone/a/tag/prod/").len()), (Some("prod"), 1));
        for none in ["", "tag", "tag/", "zone/tag", ":ENV:tag=prod"] {
            assert_eq!(tag(none), None, "{none}");
        }
    }

    #[test]
    fn paths_become_environment() {
        #[rustfmt::skip]
        let table: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("cluster", &[]),
            ("cluster/", &[]),
            ("cluster/east", &[("ISTIO_META_CLUSTER_ID", "east")]),
            ("cluster/east/net/blue/", &[("ISTIO_META_CLUSTER_ID", "east"), ("ISTIO_META_NETWORK", "blue")]),
            ("cluster/east/net", &[("ISTIO_META_CLUSTER_ID", "east")]),
            ("cluster/a--slash--1/net/b--slash--2", &[("ISTIO_META_CLUSTER_ID", "a/1"), ("ISTIO_META_NETWORK", "b/2")]),
            ("zone/a/rack/b", &[("ZONE", "a"), ("RACK", "b")]),
            ("zone/a/zone/b", &[("ZONE", "b")]),
            ("/a/zone/b", &[("ZONE", "b")]),
            ("a--slash--b/c", &[("A--SLASH--B", "c")]),
            (":ENV:cluster=east:ENV:root=/foo/bar", &[("ISTIO_META_CLUSTER_ID", "east"), ("ROOT", "/foo/bar")]),
            (":ENV:root=a--slash--b", &[("ROOT", "a--slash--b")]),
            (":ENV:root=a=b", &[("ROOT", "a=b")]),
            (":ENV:root=x:ENV:=abb:ENV:=:ENV:nothing", &[("ROOT", "x")]),
            ("one/1/two/:ENV:abcd=efgh", &[("ONE", "1"), ("TWO", ":ENV:abcd=efgh")]),
        ];
        for (below, want) in table {
            let got = environment(below);
            let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(&got, want, "{below}");
        }
    }
}
