//! AdmissionReview, in and out; pure.
//!
//! Only the envelope is typed: the object stays raw JSON until somebody needs it, and fields that we do not
//! know survive. `v1` and `v1beta1` have the same fields here; each is answered in its own version.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

const KIND: &str = "AdmissionReview";
const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// Longest warning, in bytes: what the API server may cut off
/// (<https://kubernetes.io/blog/2020/09/03/warnings/>).
const WARNING: usize = 256;

/// What is wrong with a review, by field. Answered 400, so that `failurePolicy` decides.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// A review that asks.
#[derive(Debug)]
pub struct Review<'a> {
    api_version: Cow<'a, str>,
    /// What it asks.
    pub request: Request<'a>,
}

/// The fields of `request` that injection needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Echoed in the response.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    #[serde(borrow)]
    kind: Fields<Kind<'a>>,
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// `ephemeralcontainers` and such; empty for the object itself.
    #[serde(borrow, default)]
    pub sub_resource: Option<Cow<'a, str>>,
    /// Namespace of the request: a pod that is being created often has none of its own.
    #[serde(borrow, default)]
    pub namespace: Option<Cow<'a, str>>,
    /// Name of the object; empty where the API server makes it (`generateName`).
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// Whether nothing will be stored.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// The object, as it came.
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

/// Group, version and kind.
#[derive(Debug, Deserialize)]
pub(crate) struct Kind<'a> {
    /// Empty for the core group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// `Pod`.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<Fields<Request<'a>>>,
}

/// A struct that is written as a map. (serde would also take a list of its fields.)
#[derive(Debug)]
struct Fields<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Fields<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fields<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Fields)
            }
        }
        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

impl<'a> Review<'a> {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`Malformed`]: no JSON, no AdmissionReview of a version that we know, no request, or a field that is
    /// missing or of the wrong type.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let envelope = serde_json::from_slice(body).map_err(|error| explain(body, error))?;
        let Fields(Envelope { api_version, kind, request }) = envelope;
        if kind != KIND {
            return Err(Malformed(format!("kind is {kind:?}, not {KIND:?}")));
        }
        if !VERSIONS.contains(&api_version.as_ref()) {
            return Err(Malformed(format!(
                "apiVersion is {api_version:?}, not one of {}",
                VERSIONS.join(", ")
            )));
        }
        let Fields(request) =
            request.ok_or_else(|| Malformed("the AdmissionReview has no request".to_owned()))?;
        Ok(Self { api_version, request })
    }

    /// The answer, as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON, which none is known to do.
    pub fn answer(&self, answer: &Answer) -> Result<Vec<u8>, serde_json::Error> {
        let (patch, warnings, status) = match &answer.verdict {
            Verdict::Unchanged => (None, &[][..], None),
            Verdict::Allowed { patch, warnings } => (*patch, &warnings[..], None),
            Verdict::Refused { message } => {
                (None, &[][..], Some(Status { status: "Failure", message, reason: "BadRequest", code: 400 }))
            }
        };
        let mut reply = Vec::with_capacity(512 + patch.map_or(0, |patch| patch.get().len()));
        let written = serde_json::to_writer(
            &mut reply,
            &Reply {
                kind: KIND,
                api_version: &self.api_version,
                response: Response {
                    uid: &self.request.uid,
                    allowed: status.is_none(),
                    status,
                    patch_type: patch.map(|_| "JSONPatch"),
                    patch,
                    warnings: warnings.iter().map(|warning| shortened(warning)).collect(),
                    audit_annotations: answer.reason.map(|reason| Audit { reason }),
                },
            },
        );
        written.map(|()| reply)
    }
}

impl Request<'_> {
    /// Kind of the object.
    pub(crate) fn kind(&self) -> &Kind<'_> {
        &self.kind.0
    }

    /// Resource of the object, such as `pods`, or `pods/status`; empty where it is not said.
    pub(crate) fn resource(&self) -> String {
        #[derive(Deserialize)]
        struct Resource {
            resource: String,
        }
        let read = self.resource.and_then(|raw| serde_json::from_str::<Resource>(raw.get()).ok());
        let whole = read.map(|read| read.resource).unwrap_or_default();
        match self.sub_resource.as_deref().unwrap_or_default() {
            "" => whole,
            part => format!("{whole}/{part}"),
        }
    }

    /// The object, as JSON.
    ///
    /// # Errors
    /// [`Malformed`]: there is none.
    pub fn object(&self) -> Result<&str, Malformed> {
        let raw = self.object.map(RawValue::get).filter(|raw| *raw != "null");
        raw.ok_or_else(|| Malformed("request.object is missing".to_owned()))
    }

    /// What is wrong with the object.
    pub(crate) fn malformed(&self, why: &str) -> Malformed {
        Malformed(format!("request.object of {}: {why}", self.display()))
    }

    /// `Pod shop/cart`, for messages.
    pub fn display(&self) -> String {
        let [namespace, name] =
            [&self.namespace, &self.name].map(|field| field.as_deref().unwrap_or_default());
        format!("{} {namespace}/{}", self.kind().kind, if name.is_empty() { "(no name yet)" } else { name })
    }
}

/// Parses once more, slowly, to say which field it was.
fn explain(body: &[u8], error: serde_json::Error) -> Malformed {
    if error.classify() != serde_json::error::Category::Data {
        return Malformed(format!("the body is no JSON: {error}"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, Fields<Envelope>>(&mut reader) {
        Err(error) => {
            let path = error.path().to_string();
            let place = if path == "." { "the AdmissionReview".to_owned() } else { path };
            Malformed(format!("{place}: {}", error.inner()))
        }
        Ok(_) => Malformed(error.to_string()),
    }
}

/// What the API server hears.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Yes, with or without changes, or no.
    pub verdict: Verdict<'a>,
    /// The reason's code; stands in the API server's audit log as `<webhook>/reason`.
    pub reason: Option<&'static str>,
}

/// Yes, with or without changes, or no.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// None of our business: the object stays as it is.
    Unchanged,
    /// Come in.
    Allowed {
        /// The JSON patch in base64, as a JSON string, where something changes.
        patch: Option<&'a RawValue>,
        /// What `kubectl` shows the user.
        warnings: Vec<String>,
    },
    /// The object's author must mend something.
    Refused {
        /// What, where, and how.
        message: String,
    },
}

fn shortened(warning: &str) -> Cow<'_, str> {
    if warning.len() <= WARNING {
        return Cow::Borrowed(warning);
    }
    let end = warning.floor_char_boundary(WARNING - '…'.len_utf8());
    Cow::Owned(format!("{}…", &warning[..end]))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    kind: &'static str,
    api_version: &'a str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_annotations: Option<Audit>,
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    code: u16,
}

#[derive(Serialize)]
struct Audit {
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Vec<u8> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
                "namespace": "shop", "dryRun": true, "object": {"metadata": {"name": "cart"}, "spec": null}
            }
        });
        review.to_string().into_bytes()
    }

    #[test]
    fn escapes_in_strings_are_read_and_echoed() {
        let text = String::from_utf8(sample()).unwrap().replace("\"uid\":\"u\"", "\"uid\":\"\\u00fc\\\"\"");
        let review = Review::parse(text.as_bytes()).unwrap();
        assert_eq!(review.request.uid, "ü\"");
        let answer = review.answer(&Answer { verdict: Verdict::Unchanged, reason: None }).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            answer,
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                   "response": {"uid": "ü\"", "allowed": true}})
        );
    }

    #[test]
    fn a_long_warning_is_cut_between_characters() {
        for lead in 0..4 {
            let warning = "x".repeat(lead) + &"€".repeat(100);
            let cut = shortened(&warning);
            assert!(cut.len() <= WARNING && cut.len() > WARNING - 4, "{}", cut.len());
            assert!(warning.starts_with(cut.strip_suffix('…').unwrap()));
        }
    }

    proptest! {
        /// Whatever comes, there is an answer or an error that says something.
        #[test]
        fn broken_reviews_are_errors(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
                                     length in any::<prop::sample::Index>(), cut in any::<bool>()) {
            let mut body = sample();
            for (index, byte) in changes {
                let at = index.index(body.len());
                body[at] = byte;
            }
            if cut {
                body.truncate(length.index(body.len()));
            }
            match Review::parse(&body) {
                Ok(review) => {
                    if let Err(error) = review.request.object() {
                        prop_assert!(error.to_string().starts_with("request.object"));
                    }
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
