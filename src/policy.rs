//! Inject, or not: the truth table, pure.
//!
//! `RULES` are asked in order and the first that answers decides, so that every decision has exactly one
//! [`Reason`]. The same table, asked to its end, is what `outrigger explain` prints.
//!
//! Sources: Istio's injection policy
//! (<https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#controlling-the-injection-policy>),
//! Kubernetes label selectors
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>).

use outrigger_contract::{INJECT_KEY, NAMESPACE_LABEL, REVISION_LABEL};
use serde_json::Value;

use crate::settings::{Policy, Selector, Settings};

/// Why a pod is, or is not, injected. The code of each (`Reason::code`) appears in logs, metrics, warnings,
/// Events and `outrigger explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The mesh-wide policy is `off`.
    PolicyOff,
    /// The pod shares the node's network, so that capture would turn the node's own traffic.
    HostNetworkEnabled,
    /// The namespace belongs to Kubernetes or to this installation.
    NamespaceExempt,
    /// The namespace is not in `namespaces`.
    NamespaceNotSelected,
    /// The namespace is in `excludeNamespaces`.
    NamespaceExcluded,
    /// The namespace's label `istio-injection` is `disabled`.
    NamespaceInjectionDisabled,
    /// The namespace or the pod asks for another revision.
    RevisionMismatch,
    /// The pod's label `sidecar.istio.io/inject` is `true`.
    InjectLabelTrue,
    /// The pod's label `sidecar.istio.io/inject` is `false`.
    InjectLabelFalse,
    /// The pod's annotation `sidecar.istio.io/inject` is `true`.
    InjectAnnotationTrue,
    /// The pod's annotation `sidecar.istio.io/inject` is `false`.
    InjectAnnotationFalse,
    /// A selector of `neverInjectSelector` matches the pod's labels.
    NeverInjectSelector,
    /// A selector of `alwaysInjectSelector` matches the pod's labels.
    AlwaysInjectSelector,
    /// Nothing else decides and the mesh-wide policy is `enabled`.
    PolicyEnabled,
    /// Nothing else decides and the mesh-wide policy is `disabled`.
    PolicyDisabled,
}

impl Reason {
    /// Every reason, in the order of the rules.
    pub(crate) const ALL: [Reason; 15] = [
        Reason::PolicyOff,
        Reason::HostNetworkEnabled,
        Reason::NamespaceExempt,
        Reason::NamespaceNotSelected,
        Reason::NamespaceExcluded,
        Reason::NamespaceInjectionDisabled,
        Reason::RevisionMismatch,
        Reason::InjectLabelTrue,
        Reason::InjectLabelFalse,
        Reason::InjectAnnotationTrue,
        Reason::InjectAnnotationFalse,
        Reason::NeverInjectSelector,
        Reason::AlwaysInjectSelector,
        Reason::PolicyEnabled,
        Reason::PolicyDisabled,
    ];

    /// The code, in snake case, stable across versions.
    pub fn code(self) -> &'static str {
        match self {
            Reason::PolicyOff => "policy_off",
            Reason::HostNetworkEnabled => "host_network_enabled",
            Reason::NamespaceExempt => "namespace_exempt",
            Reason::NamespaceNotSelected => "namespace_not_selected",
            Reason::NamespaceExcluded => "namespace_excluded",
            Reason::NamespaceInjectionDisabled => "namespace_injection_disabled",
            Reason::RevisionMismatch => "revision_mismatch",
            Reason::InjectLabelTrue => "inject_label_true",
            Reason::InjectLabelFalse => "inject_label_false",
            Reason::InjectAnnotationTrue => "inject_annotation_true",
            Reason::InjectAnnotationFalse => "inject_annotation_false",
            Reason::NeverInjectSelector => "never_inject_selector",
            Reason::AlwaysInjectSelector => "always_inject_selector",
            Reason::PolicyEnabled => "policy_enabled",
            Reason::PolicyDisabled => "policy_disabled",
        }
    }

    /// Whether a pod is injected for this reason.
    pub fn injects(self) -> bool {
        matches!(
            self,
            Reason::InjectLabelTrue
                | Reason::InjectAnnotationTrue
                | Reason::AlwaysInjectSelector
                | Reason::PolicyEnabled
        )
    }
}

impl Reason {
    /// What to do where a sidecar is wanted and this is why there is none; `None` where it is the pod's own wish.
    pub(crate) fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::PolicyOff => "set policy: enabled in the settings",
            Self::HostNetworkEnabled => "take hostNetwork away, or what asks for a sidecar",
            Self::NamespaceExempt => "run it in another namespace",
            Self::NamespaceNotSelected => "add the namespace to the settings' namespaces",
            Self::NamespaceExcluded => "take the namespace out of the settings' excludeNamespaces",
            Self::NamespaceInjectionDisabled => "take that label off the namespace",
            Self::RevisionMismatch => {
                "change that label to this revision, or see that the other one is installed"
            }
            _ => return None,
        })
    }
}

/// Inject or not, why, and what the user had asked for. One type for the response's warning, the metric's
/// label, the log line, the Event and what `outrigger explain` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The rule that decided.
    pub reason: Reason,
    /// What that rule saw, as a sentence without its full stop: `the pod's label sidecar.istio.io/inject is "true"`.
    pub because: String,
    /// Whether label or annotation of the pod ask for injection (`true`).
    pub asked: bool,
    /// A label or annotation `sidecar.istio.io/inject` that is neither `true` nor `false`, and so has no effect.
    pub ignored: Option<String>,
}

impl Decision {
    /// Whether the pod is injected.
    pub fn inject(&self) -> bool {
        self.reason.injects()
    }

    /// What a user ought to hear about it: injection asked for and not given, a value that has no effect.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.remarks().iter().map(|remark| format!("outrigger: {remark}")).collect()
    }

    /// `warnings`, where it is said elsewhere that they are ours.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.asked && !self.inject() {
            remarks.push(format!(
                "no sidecar was injected although {INJECT_KEY} is \"true\": {} ({})",
                self.because,
                self.reason.code()
            ));
        }
        if let Some(ignored) = &self.ignored {
            remarks.push(format!("{ignored}; use \"true\" or \"false\""));
        }
        remarks
    }
}

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The pod, or a pod template: an object with `metadata` and `spec`.
    pub pod: &'a Value,
    /// The namespace's name; empty where it is not known.
    pub namespace: &'a str,
    /// The labels of the Namespace object, where it is known.
    pub namespace_labels: Option<&'a Value>,
    /// The revision's tag by which the pod was sent: another name of it.
    pub tag: Option<&'a str>,
}

impl<'a> Facts<'a> {
    fn label(&self, key: &str) -> Option<&'a str> {
        self.pod.pointer("/metadata/labels")?.get(key)?.as_str()
    }

    fn annotation(&self, key: &str) -> Option<&'a str> {
        self.pod.pointer("/metadata/annotations")?.get(key)?.as_str()
    }

    fn namespace_label(&self, key: &str) -> Option<&'a str> {
        self.namespace_labels?.get(key)?.as_str()
    }

    /// Value and place of `sidecar.istio.io/inject`. A label that is there wins, even when it is empty.
    fn asked(&self) -> Option<(&'static str, &'a str)> {
        let label = self.label(INJECT_KEY).map(|v| ("label", v));
        label.or_else(|| self.annotation(INJECT_KEY).map(|v| ("annotation", v)))
    }
}

/// A rule's answer: the reason, and what it saw.
type Verdict = Option<(Reason, String)>;

/// One row of the truth table.
#[derive(Debug)]
pub(crate) struct Rule {
    /// What the rule looks at, in a few words.
    pub name: &'static str,
    ask: fn(&Facts, &Settings) -> Verdict,
}

/// The truth table: asked in this order, the first rule that answers decides.
pub(crate) const RULES: &[Rule] = &[
    Rule { name: "mesh policy off", ask: policy_off },
    Rule { name: "host network", ask: host_network },
    Rule { name: "exempt namespaces", ask: exempt_namespace },
    Rule { name: "namespaces", ask: selected_namespace },
    Rule { name: "excludeNamespaces", ask: excluded_namespace },
    Rule { name: "namespace label istio-injection", ask: namespace_label },
    Rule { name: "revision", ask: revision },
    Rule { name: "pod's sidecar.istio.io/inject", ask: inject_key },
    Rule { name: "neverInjectSelector", ask: never_selector },
    Rule { name: "alwaysInjectSelector", ask: always_selector },
    Rule { name: "mesh policy", ask: default_policy },
];

/// Inject or not: the first rule of [`RULES`] that answers.
pub(crate) fn decide(facts: &Facts, settings: &Settings) -> Decision {
    // The last rule always answers; the fallback keeps the function total.
    let (reason, because) = RULES
        .iter()
        .find_map(|rule| (rule.ask)(facts, settings))
        .unwrap_or((Reason::PolicyDisabled, "no rule decided".to_owned()));
    let asked = facts.asked();
    Decision {
        reason,
        because,
        asked: asked.is_some_and(|(_, value)| value == "true"),
        ignored: asked.filter(|(_, value)| !matches!(*value, "" | "true" | "false")).map(|(place, value)| {
            format!("the pod's {place} {INJECT_KEY} is {value:?}, which is neither \"true\" nor \"false\" and has no effect")
        }),
    }
}

/// Every rule with what it would decide by itself (`None`: it does not apply), in order. The first that
/// answers is the decision; the later ones show what it overrode.
pub(crate) fn explain(facts: &Facts, settings: &Settings) -> Vec<(&'static str, Option<(Reason, String)>)> {
    RULES.iter().map(|rule| (rule.name, (rule.ask)(facts, settings))).collect()
}

fn policy_off(_: &Facts, settings: &Settings) -> Verdict {
    (settings.policy == Policy::Off).then(|| (Reason::PolicyOff, "the mesh policy is off".to_owned()))
}

fn host_network(facts: &Facts, _: &Settings) -> Verdict {
    let on = facts.pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    on.then(|| {
        (
            Reason::HostNetworkEnabled,
            "spec.hostNetwork is true, and capture would turn the node's own traffic".to_owned(),
        )
    })
}

fn exempt_namespace(facts: &Facts, settings: &Settings) -> Verdict {
    settings.is_exempt(facts.namespace).then(|| {
        (
            Reason::NamespaceExempt,
            format!("namespace {:?} belongs to the cluster or to this installation", facts.namespace),
        )
    })
}

fn selected_namespace(facts: &Facts, settings: &Settings) -> Verdict {
    let all = settings.namespaces.iter().any(|n| n.is_empty());
    let selected = all || settings.namespaces.iter().any(|n| n == facts.namespace);
    (!selected).then(|| {
        (
            Reason::NamespaceNotSelected,
            format!("namespace {:?} is not in the settings' namespaces", facts.namespace),
        )
    })
}

fn excluded_namespace(facts: &Facts, settings: &Settings) -> Verdict {
    settings.exclude_namespaces.iter().any(|n| n == facts.namespace).then(|| {
        (
            Reason::NamespaceExcluded,
            format!("namespace {:?} is in the settings' excludeNamespaces", facts.namespace),
        )
    })
}

fn namespace_label(facts: &Facts, _: &Settings) -> Verdict {
    (facts.namespace_label(NAMESPACE_LABEL) == Some("disabled")).then(|| {
        (
            Reason::NamespaceInjectionDisabled,
            format!("namespace {:?} has the label {NAMESPACE_LABEL}=disabled", facts.namespace),
        )
    })
}

/// The revision, or the tag of one, that a pod is to be injected by; `None` where nobody asks for one.
/// `istio-injection=enabled` asks for the default revision and beats `istio.io/rev`; a namespace's revision beats the pod's.
pub(crate) fn asked_revision<'a>(
    pod: &'a Value,
    namespace_labels: Option<&'a Value>,
) -> Option<(&'static str, &'a str)> {
    let facts = Facts { pod, namespace: "", namespace_labels, tag: None };
    if facts.namespace_label(NAMESPACE_LABEL) == Some("enabled") {
        Some(("namespace's label istio-injection=enabled", "default"))
    } else if let Some(revision) = facts.namespace_label(REVISION_LABEL) {
        Some(("namespace's label istio.io/rev", revision))
    } else {
        Some(("pod's label istio.io/rev", facts.label(REVISION_LABEL)?))
    }
}

fn revision(facts: &Facts, settings: &Settings) -> Verdict {
    let (place, asked) = asked_revision(facts.pod, facts.namespace_labels)?;
    (asked != settings.revision && Some(asked) != facts.tag).then(|| {
        (
            Reason::RevisionMismatch,
            format!("the {place} asks for revision {asked:?}, and this is revision {:?}", settings.revision),
        )
    })
}

fn inject_key(facts: &Facts, _: &Settings) -> Verdict {
    let (place, value) = facts.asked()?;
    let reason = match (place, value) {
        ("label", "true") => Reason::InjectLabelTrue,
        ("label", "false") => Reason::InjectLabelFalse,
        (_, "true") => Reason::InjectAnnotationTrue,
        (_, "false") => Reason::InjectAnnotationFalse,
        _ => return None,
    };
    Some((reason, format!("the pod's {place} {INJECT_KEY} is {value:?}")))
}

fn never_selector(facts: &Facts, settings: &Settings) -> Verdict {
    let selector = matching(&settings.never_inject_selector, facts)?;
    Some((Reason::NeverInjectSelector, format!("the pod's labels match neverInjectSelector {selector}")))
}

fn always_selector(facts: &Facts, settings: &Settings) -> Verdict {
    let selector = matching(&settings.always_inject_selector, facts)?;
    Some((Reason::AlwaysInjectSelector, format!("the pod's labels match alwaysInjectSelector {selector}")))
}

fn matching<'s>(selectors: &'s [Selector], facts: &Facts) -> Option<&'s Selector> {
    let none = Value::Null;
    let labels = facts.pod.pointer("/metadata/labels").unwrap_or(&none);
    selectors.iter().find(|selector| selector.matches(labels))
}

fn default_policy(_: &Facts, settings: &Settings) -> Verdict {
    Some(match settings.policy {
        Policy::Enabled => {
            (Reason::PolicyEnabled, "the mesh policy is enabled and nothing else decides".to_owned())
        }
        Policy::Disabled | Policy::Off => (
            Reason::PolicyDisabled,
            "the mesh policy is disabled and the pod does not ask for injection".to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests;
