//! What Outrigger does with each word of Istio's, found out by trying it: a row's outcome is never written down here, only
//! what is to be tried, and why where nothing comes of it. The pages in `docs/compatibility/` are what was found.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod annotations;
mod document;
mod flags;
mod labels;
mod metrics;
mod policy;

use outrigger::injection::{Injector, Request};
use outrigger::settings::Settings;
use serde_json::{Value, json};

/// The two packs that stand for Istio's templates.
const PACKS: [&str; 2] = ["istio", "outrigger"];

/// What a row is worth. `note` says how, where something comes of it, and must say why where nothing does.
fn outcome(effect: bool, name: &str, note: &str) -> String {
    match (effect, note) {
        (true, "") => "yes".to_owned(),
        (true, _) => "differently".to_owned(),
        (false, "") => panic!("{name} has no effect: say why, or give it one"),
        (false, _) => "no".to_owned(),
    }
}

fn injector(pack: &str, settings: &Value) -> Injector {
    let mut all = json!({"pack": pack});
    all.as_object_mut().unwrap().extend(settings.as_object().cloned().into_iter().flatten());
    Injector::new(Settings::parse(&all.to_string(), "compatibility").unwrap()).unwrap()
}

/// What comes of a pod, as a text to compare: the pod, the refusal, or why it is let through.
fn comes_of(injector: &Injector, pod: &Value, namespace: &Value) -> String {
    let request = Request { namespace: "shop", namespace_metadata: Some(namespace), ..Request::default() };
    match injector.inject(pod, &request) {
        Ok(injection) => match injection.pod {
            Some(pod) => pod.to_string(),
            None => format!("{:?}", injection.decision.reason),
        },
        Err(error) => error.to_string(),
    }
}
