//! The images of Istio's containers: `hub/image:tag`, with the variant in the tag.

use serde_json::{Value, json};

use super::{Input, text};

/// Variants that Istio publishes; one of them at the end of a tag is replaced by another.
const VARIANTS: [&str; 2] = ["distroless", "debug"];
/// The variant without a suffix.
const DEFAULT_VARIANT: &str = "default";

/// `proxy` and `init`. A name with a slash, from annotation or values, is a whole reference.
pub(super) fn images(input: &Input) -> Value {
    let of_config = input.proxy_config.get("image").and_then(|image| image["imageType"].as_str());
    json!({
        "proxy": image(input, &input.global["proxy"]["image"], of_config),
        "init": image(input, &input.global["proxy_init"]["image"], None),
    })
}

fn image(input: &Input, name: &Value, variant_of_config: Option<&str>) -> String {
    let whole = input.setting("sidecar.istio.io/proxyImage", name);
    if whole.contains('/') {
        return whole;
    }
    let name = name.as_str().filter(|name| !name.is_empty()).unwrap_or("proxyv2");
    let variant = variant_of_config.filter(|variant| !variant.is_empty());
    let variant = variant.or(input.global["variant"].as_str()).unwrap_or_default();
    let variant = input.annotation("sidecar.istio.io/proxyImageType").unwrap_or(variant);
    let tag = text(&input.global["tag"]);
    format!("{}/{name}:{}", input.global["hub"].as_str().unwrap_or_default(), with_variant(&tag, variant))
}

/// A tag with its variant's suffix.
fn with_variant(tag: &str, variant: &str) -> String {
    if variant.is_empty() {
        return tag.to_owned();
    }
    let known = VARIANTS.iter().find_map(|known| tag.strip_suffix(known)?.strip_suffix('-'));
    let bare = known.unwrap_or(tag);
    if variant == DEFAULT_VARIANT { bare.to_owned() } else { format!("{bare}-{variant}") }
}

#[cfg(test)]
mod tests {
    use super::with_variant;

    #[test]
    fn a_variant_replaces_a_known_one() {
        for (tag, variant, want) in [
            ("1.12", "", "1.12"),
            ("1.12", "distroless", "1.12-distroless"),
            ("1.12-debug", "distroless", "1.12-distroless"),
            ("1.12-distroless", "default", "1.12"),
            ("1.12-unusual-distroless", "default", "1.12-unusual"),
            ("1.12-unusual", "distroless", "1.12-unusual-distroless"),
        ] {
            assert_eq!(with_variant(tag, variant), want, "{tag} {variant}");
        }
    }
}
