//! OpenTelemetry's attributes of the service that a pod runs.
//!
//! Source: <https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/#service-attributes>

use super::Input;

/// The value of OTEL_RESOURCE_ATTRIBUTES; empty where no provider of the mesh asks for it.
pub(super) fn attributes(input: &Input, wanted: bool, namespace: &str) -> String {
    if !wanted {
        return String::new();
    }
    let annotated = |name: &str| {
        let value = input.annotation(&format!("resource.opentelemetry.io/{name}"));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let containers = input.containers();
    let label = input.labels["app.kubernetes.io/version"].as_str().filter(|v| !v.is_empty());
    let of_image = || match containers {
        [only] => version(only["image"].as_str().unwrap_or_default()),
        _ => None,
    };
    let instance = || {
        let first = containers.first()?["name"].as_str()?;
        Some(format!("{namespace}.$(POD_NAME).{first}"))
    };
    let found = [
        (
            "service.namespace",
            annotated("service.namespace").or((!namespace.is_empty()).then(|| namespace.to_owned())),
        ),
        ("service.version", annotated("service.version").or(label.map(str::to_owned)).or_else(of_image)),
        ("service.instance.id", annotated("service.instance.id").or_else(instance)),
    ];
    let pairs: Vec<String> =
        found.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))).collect();
    pairs.join(",")
}

/// Tag and digest of an image, as far as it has them.
fn version(image: &str) -> Option<String> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag).filter(|tag| !tag.is_empty());
    match (tag, digest) {
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (tag, digest) => tag.or(digest).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn an_images_version_is_its_tag_and_digest() {
        for (image, want) in [
            ("nginx:1.21", Some("1.21")),
            ("nginx@sha256:abc", Some("sha256:abc")),
            ("nginx:1.21@sha256:abc", Some("1.21@sha256:abc")),
            ("registry:5000/nginx:1.21", Some("1.21")),
            ("registry:5000/nginx", None),
            ("nginx", None),
        ] {
            assert_eq!(version(image).as_deref(), want, "{image}");
        }
    }
}
