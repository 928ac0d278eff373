//! What holds for whatever is read, said once: tests try it with changed inputs ([`fuzz`](crate::fuzz)), the targets of
//! `fuzz/` with inputs that follow what was executed. Each function says whether the input was taken for what it is
//! about, and panics where something does not hold.

use std::collections::BTreeMap;

use crate::client_hello::{ServerName, server_name};
use crate::detect::{Protocol, detect};
use crate::identity;
use crate::settings::{File, Overrides, Settings};
use crate::trace::context::{Header, Incoming, Span};

pub use crate::http1::properties as http1;

/// The protocol, and that every shorter prefix is either undecided or has the same answer.
pub(crate) fn decided(bytes: &[u8]) -> Option<Protocol> {
    let answer = detect(bytes);
    let mut before = None;
    for end in 0..=bytes.len() {
        let now = detect(&bytes[..end]);
        assert!(before.is_none() || now == before, "{:?} at {end}", String::from_utf8_lossy(bytes));
        before = now;
    }
    answer
}

/// Bytes that come one by one are what they are all at once. (Every prefix is looked at, so a long input takes long.)
pub fn detection(bytes: &[u8]) -> bool {
    decided(&bytes[..bytes.len().min(200)]).is_some()
}

/// The name of a ClientHello stands in it, can be a host's, and stays what it is when more bytes come.
pub fn client_hello(bytes: &[u8]) -> bool {
    let ServerName::Name(name) = server_name(bytes) else { return false };
    assert!(bytes.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
    assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'), "{name}");
    assert_eq!(server_name(&[bytes, b"more"].concat()), ServerName::Name(name));
    let whole = (1..bytes.len()).find(|end| server_name(&bytes[..*end]) != ServerName::Incomplete);
    assert!(whole.is_none_or(|end| server_name(&bytes[..end]) == ServerName::Name(name)));
    true
}

/// A file of settings, and behind a line `---` the environment: settings, or errors that each say something. A file that
/// is read once more asks for nothing that cannot change.
pub fn settings(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (file, environment) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let variables: BTreeMap<&str, &str> =
        environment.lines().filter_map(|line| line.split_once('=')).collect();
    let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    identity::Identity::read(&env, &identity::parse_labels(file));
    crate::dns::servers(file);
    let read = File::parse(file).and_then(|file| {
        assert!(file.fixed(&file).is_empty());
        Settings::read(&env, &file, &Overrides::default())
    });
    if let Err(errors) = &read {
        assert!(!errors.is_empty() && errors.iter().all(|error| error.len() > 10), "{errors:?}");
    }
    read.is_ok()
}

/// A trace goes on: whoever gets the fields that are passed on is in the same trace, with our span for its parent.
pub fn trace_context(bytes: &[u8]) -> bool {
    let fields: Vec<(Header, &[u8])> = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':')?;
            Some((Header::named(std::str::from_utf8(&line[..at]).ok()?)?, &line[at + 1..]))
        })
        .collect();
    let mut incoming = Incoming::default();
    fields.iter().for_each(|(header, value)| incoming.note(*header, value));
    let span = Span::begin(&incoming, 1.0);
    assert!(span.trace != 0 && span.id != 0);
    let passed: Vec<(Header, Vec<u8>)> = fields
        .iter()
        .map(|(header, came)| {
            (*header, span.header(&incoming, *header).map_or(came.to_vec(), String::into_bytes))
        })
        .chain(span.begins(&incoming).map(|value| (Header::Traceparent, value.into_bytes())))
        .collect();
    let mut next = Incoming::default();
    passed.iter().for_each(|(header, value)| next.note(*header, value));
    // A trace that came sampled, and so goes on; who begins one with B3's separate fields may leave that open.
    let decided = Span::begin(&incoming, 0.0).sampled;
    if span.parent != 0 && decided {
        let after = Span::begin(&next, 0.0);
        assert_eq!((after.trace, after.parent, after.sampled), (span.trace, span.id, true));
    }
    span.parent != 0
}

/// An answer stays the answer to its question, however long it was kept; no message is too strange.
pub fn dns(bytes: &[u8]) -> bool {
    crate::dns::properties(bytes)
}

/// What the injector leaves in a sidecar's environment, by variables: the sidecar starts with it.
///
/// # Errors
/// What it would say instead.
pub fn starts(variables: &BTreeMap<String, String>) -> Result<(), Vec<String>> {
    Settings::read(&|name| variables.get(name).cloned(), &File::default(), &Overrides::default()).map(|_| ())
}
