//! A pod in the API server's words, without what differs between the replicas of a workload.
//!
//! Two things do, and both are the API server's own: `metadata.managedFields` has the time of the request, and the
//! volume of the service account's token has a random name, `kube-api-access-x7k2p`, which mounts repeat. The first is
//! left out; the second gets a fixed name, which is put back in what comes of the pod.
//!
//! Sources: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>,
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-token-volume>

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Request;

/// What an API server's pod begins with.
const HEAD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":"#;
const MANAGED_FIELDS: &str = "\"managedFields\"";
const VOLUME: &str = "kube-api-access-";
/// Length of the random end of the volume's name, which is of small letters and digits.
const RANDOM: usize = 5;
/// What stands in its place: as long, and with a private-use character that no name has.
const FIXED: &str = "\u{E003}--";
const PRIVATE: &str = "\u{E003}";

/// A pod as it was sent, and the volume's name in it.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    text: &'a str,
    /// What is left out.
    managed: Option<&'a str>,
    /// The random end of the volume's name; `None` where there is no such volume, or where it cannot be told.
    random: Option<&'a str>,
}

/// All that injection sees, as one text: the request, and the pod without what differs.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) text: String,
    pod: usize,
}

impl Seen {
    /// The pod.
    pub(super) fn pod(&self) -> &str {
        &self.text[self.pod..]
    }
}

impl<'a> Sent<'a> {
    /// `rename`: whether the volume gets a fixed name.
    pub(super) fn new(text: &'a str, rename: bool) -> Self {
        let random = rename.then(|| random(text)).flatten();
        Self { text, managed: managed_fields(text), random }
    }

    /// What was made of the pod as it is seen, in parts: between them stands the random end of the volume's name.
    pub(super) fn parts(&self, made: &str) -> Vec<String> {
        if self.random.is_none() {
            return vec![made.to_owned()];
        }
        made.split(&format!("{VOLUME}{FIXED}")).map(str::to_owned).collect()
    }

    /// The whole of [`Self::parts`], of this pod or of another that is seen as this one.
    pub(super) fn join(&self, parts: &[String]) -> String {
        parts.join(&format!("{VOLUME}{}", self.random.unwrap_or_default()))
    }

    /// What injection sees of it.
    ///
    /// # Errors
    /// The request cannot be written as JSON, which none is known to do.
    pub(super) fn seen(&self, request: &Request) -> Result<Seen, serde_json::Error> {
        let mut seen = serde_json::to_string(request)?;
        let pod = seen.len();
        seen.reserve(self.text.len() + 8);
        match self.managed {
            None => self.push(&mut seen, self.text),
            Some(managed) => {
                let start = managed.as_ptr() as usize - self.text.as_ptr() as usize;
                self.push(&mut seen, &self.text[..start]);
                seen.push_str("null");
                self.push(&mut seen, &self.text[start + managed.len()..]);
            }
        }
        Ok(Seen { text: seen, pod })
    }

    fn push(&self, seen: &mut String, mut text: &str) {
        if self.random.is_some() {
            while let Some(at) = memmem::find(text.as_bytes(), VOLUME.as_bytes()) {
                let (before, after) = text.split_at(at + VOLUME.len());
                seen.push_str(before);
                seen.push_str(FIXED);
                text = &after[RANDOM..];
            }
        }
        seen.push_str(text);
    }
}

/// The value of `metadata.managedFields`, where an API server wrote the text.
fn managed_fields(text: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, rename = "managedFields")]
        managed_fields: Option<&'a RawValue>,
    }
    let metadata = text.strip_prefix(HEAD)?;
    memmem::find(metadata.as_bytes(), MANAGED_FIELDS.as_bytes())?;
    let mut reader = serde_json::Deserializer::from_str(metadata);
    Metadata::deserialize(&mut reader).ok()?.managed_fields.map(RawValue::get)
}

/// The random end of the volume's name, if all that begins as the name does is that name.
fn random(text: &str) -> Option<&str> {
    let mut found = None;
    for at in memmem::find_iter(text.as_bytes(), VOLUME.as_bytes()) {
        let end = text.get(at + VOLUME.len()..at + VOLUME.len() + RANDOM)?;
        let plain = end.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !plain || found.is_some_and(|found| found != end) {
            return None;
        }
        found = Some(end);
    }
    found.filter(|_| !may_hold_private(text))
}

/// Whether a text may hold the private-use character: as itself, or escaped as in JSON, YAML or Rust.
pub(super) fn may_hold_private(text: &str) -> bool {
    let spelled = [PRIVATE, "\\ue003", "\\uE003", "\\u{e003}"];
    spelled.iter().any(|spelled| memmem::find(text.as_bytes(), spelled.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> String {
        Sent::new(text, true).seen(&Request::default()).unwrap().pod().to_owned()
    }

    #[test]
    fn what_replicas_differ_in_is_not_seen() {
        let pod = |time: &str, random: &str| {
            format!(
                r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"generateName":"a-","managedFields":[{{"time":"{time}"}}]}},"spec":{{"volumes":[{{"name":"kube-api-access-{random}"}}],"x":"kube-api-access-{random}"}}}}"#
            )
        };
        let [one, other] = [pod("1", "aaaaa"), pod("2", "z9z9z")];
        assert_eq!(seen(&one), seen(&other));
        assert_eq!(seen(&one), pod("1", FIXED).replace(r#"[{"time":"1"}]"#, "null"));
        let [one, other] = [Sent::new(&one, true), Sent::new(&other, true)];
        let made = one.parts(&pod("2", FIXED));
        assert_eq!(other.join(&made), pod("2", "z9z9z"));
        let unnamed = Sent::new("{}", true);
        assert_eq!(unnamed.join(&unnamed.parts(&pod("2", FIXED))), pod("2", FIXED));
        let kept = Sent::new(other.text, false);
        assert_eq!(
            kept.seen(&Request::default()).unwrap().pod(),
            pod("2", "z9z9z").replace(r#"[{"time":"2"}]"#, "null")
        );
    }

    #[test]
    fn what_may_mean_something_else_is_seen_as_it_is() {
        for text in [
            r#"{"a":"kube-api-access-aaaaa","b":"kube-api-access-bbbbb"}"#,
            r#"{"a":"kube-api-access-aaaa"}"#,
            r#"{"a":"kube-api-access-aaaaa","b":"kube-api-access-"}"#,
            r#"{"a":"kube-api-access-AAAAA"}"#,
            r#"{"a":"kube-api-access-aaaaa","b":"\ue003"}"#,
            r#"{"a":"kube-api-access-aaaaa","b":"\uE003"}"#,
            "{\"a\":\"kube-api-access-aaaaa\",\"b\":\"\u{E003}\"}",
            r#"{"metadata":{"managedFields":[1]}}"#,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{},"spec":{"managedFields":[1]}}"#,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":5,"spec":{"managedFields":[1]}}"#,
            "kube-api-access-",
            "kube-api-access-é",
        ] {
            assert_eq!(seen(text), text);
        }
    }
}
