//! Patches of the pods injected last, for their replicas.
//!
//! A patch is kept by all that injection saw when it was made (`Seen`, in `sent`): injection has no other input, so that the
//! same text gives the same patch. Settings are an injector's own, and so is what it keeps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::sent::Sent;
use crate::patch::Operation;
use crate::policy::Decision;

/// Bytes of one generation of [`Replicas`], of which there are two, and the most that one pod may take of it.
const GENERATION: usize = 1 << 20;
const LARGEST: usize = 128 << 10;
/// What an entry takes beside its texts, about.
const ENTRY: usize = 256;

/// What was made of a pod, ready for its replicas.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) decision: Decision,
    /// `metadata.generateName`; empty where it has none.
    pub(super) generate_name: String,
    /// `None` where nothing changes.
    pub(super) patch: Option<Patch>,
}

/// A JSON patch.
#[derive(Debug)]
pub(super) enum Patch {
    /// The same for all replicas.
    Same {
        /// As a review carries it.
        encoded: Box<RawValue>,
        /// Bytes as JSON.
        bytes: usize,
    },
    /// With the random name of a volume between its parts.
    Parts(Vec<String>),
}

impl Patch {
    pub(super) fn new(operations: &[Operation], sent: &Sent) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_string(operations)?;
        let parts = sent.parts(&json);
        if parts.len() > 1 {
            return Ok(Self::Parts(parts));
        }
        Ok(Self::Same { encoded: encode(&json)?, bytes: json.len() })
    }

    /// What it takes in memory.
    fn size(&self) -> usize {
        match self {
            Self::Same { encoded, .. } => encoded.get().len(),
            Self::Parts(parts) => parts.iter().map(|part| part.len() + size_of::<String>()).sum(),
        }
    }
}

/// Base64 as a JSON string, which needs no escapes.
fn encode(json: &str) -> Result<Box<RawValue>, serde_json::Error> {
    let mut encoded = String::with_capacity(json.len() / 3 * 4 + 8);
    encoded.push('"');
    STANDARD.encode_string(json, &mut encoded);
    encoded.push('"');
    RawValue::from_string(encoded)
}

/// What comes of a pod that was sent as text.
#[derive(Debug)]
pub struct Patched {
    made: Arc<Made>,
    /// The patch, where it is the pod's alone.
    own: Option<(Box<RawValue>, usize)>,
}

impl Patched {
    pub(super) fn new(made: Arc<Made>, sent: &Sent) -> Result<Self, serde_json::Error> {
        let own = match &made.patch {
            Some(Patch::Parts(parts)) => {
                let json = sent.join(parts);
                Some((encode(&json)?, json.len()))
            }
            Some(Patch::Same { .. }) | None => None,
        };
        Ok(Self { made, own })
    }

    /// Inject or not, and why.
    pub fn decision(&self) -> &Decision {
        &self.made.decision
    }

    /// What the pod's name will begin with; empty where it has no `generateName`.
    pub(crate) fn generate_name(&self) -> &str {
        &self.made.generate_name
    }

    /// The patch from the pod as sent to the pod as injected, as an AdmissionReview carries it: a JSON string of
    /// base64. `None` where nothing changes.
    pub fn patch(&self) -> Option<&RawValue> {
        self.encoded().map(|(encoded, _)| encoded)
    }

    /// Bytes of the patch as JSON.
    pub fn patch_bytes(&self) -> usize {
        self.encoded().map_or(0, |(_, bytes)| bytes)
    }

    fn encoded(&self) -> Option<(&RawValue, usize)> {
        match (&self.own, &self.made.patch) {
            (Some((encoded, bytes)), _) => Some((encoded, *bytes)),
            (None, Some(Patch::Same { encoded, bytes })) => Some((encoded, *bytes)),
            (None, _) => None,
        }
    }
}

/// What was made, by what injection saw. Bounded in bytes: what was not asked for while one generation filled is
/// forgotten.
#[derive(Debug, Default)]
pub(super) struct Replicas(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, Arc<Made>>,
    old: HashMap<String, Arc<Made>>,
    /// Of the young ones.
    bytes: usize,
}

impl Replicas {
    pub(super) fn get(&self, seen: &str) -> Option<Arc<Made>> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = generations.young.get(seen) {
            return Some(Arc::clone(made));
        }
        let (seen, made) = generations.old.remove_entry(seen)?;
        generations.keep(seen, Arc::clone(&made));
        Some(made)
    }

    pub(super) fn keep(&self, seen: String, made: &Arc<Made>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keep(seen, Arc::clone(made));
    }
}

impl Generations {
    fn keep(&mut self, mut seen: String, made: Arc<Made>) {
        seen.shrink_to_fit();
        let bytes = ENTRY + seen.len() + made.patch.as_ref().map_or(0, Patch::size);
        if bytes > LARGEST {
            return;
        }
        if self.bytes + bytes > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(seen, made);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::Reason;

    fn made(length: usize) -> Arc<Made> {
        let decision =
            Decision { reason: Reason::PolicyEnabled, because: String::new(), asked: false, ignored: None };
        let value = Value::from("x".repeat(length));
        let patch =
            Patch::new(&[Operation::Add { path: String::new(), value: &value }], &Sent::new("{}", true))
                .unwrap();
        Arc::new(Made { decision, generate_name: String::new(), patch: Some(patch) })
    }

    fn size(replicas: &Replicas) -> usize {
        let generations = replicas.0.lock().unwrap();
        let all = generations.young.iter().chain(&generations.old);
        all.map(|(seen, made)| seen.len() + made.patch.as_ref().map_or(0, Patch::size)).sum()
    }

    #[test]
    fn it_is_bounded_in_bytes_and_keeps_what_is_asked_for() {
        let replicas = Replicas::default();
        for n in 0..2000 {
            replicas.keep(format!("{n}"), &made(9000));
            assert!(replicas.get("0").is_some(), "{n}");
            assert!(size(&replicas) <= 2 * GENERATION);
        }
        assert!(replicas.get("1").is_none());
        assert!(replicas.get("1999").is_some());
        replicas.keep("large".to_owned(), &made(LARGEST));
        assert!(replicas.get("large").is_none());
    }
}
