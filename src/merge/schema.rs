//! Which lists of a pod merge, and by which key: `x-kubernetes-patch-strategy` and `-merge-key` of the published
//! API schema. Lists that are not named here are replaced whole.
//!
//! Source: the OpenAPI document of the API server, `io.k8s.api.core.v1.Pod` and what it refers to. The test
//! `merge_keys` of `tests/kubernetes` compares this table with the one that a real API server serves.

/// How a field merges, where it is not as its JSON type suggests.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// An object with fields that merge in ways of their own.
    Object(Type),
    /// A list of objects, told apart by this key.
    List(&'static str, Type),
    /// A list of scalars without order or repetition.
    Set,
}

/// The fields of a type that do not merge as their JSON type suggests: objects by field, lists replaced.
pub type Type = &'static [(&'static str, Kind)];

use Kind::{List, Object, Set};

const PLAIN: Type = &[];

/// `Container`.
pub(crate) const CONTAINER: Type = &[
    ("env", List("name", PLAIN)),
    ("ports", List("containerPort", PLAIN)),
    ("volumeDevices", List("devicePath", PLAIN)),
    ("volumeMounts", List("mountPath", PLAIN)),
];

/// `Volume`.
const VOLUME: Type = &[("ephemeral", Object(EPHEMERAL_VOLUME))];
const EPHEMERAL_VOLUME: Type = &[("volumeClaimTemplate", Object(&[("metadata", Object(METADATA))]))];

/// `PodSpec`.
const SPEC: Type = &[
    ("containers", List("name", CONTAINER)),
    ("ephemeralContainers", List("name", CONTAINER)),
    ("hostAliases", List("ip", PLAIN)),
    ("imagePullSecrets", List("name", PLAIN)),
    ("initContainers", List("name", CONTAINER)),
    ("resourceClaims", List("name", PLAIN)),
    ("schedulingGates", List("name", PLAIN)),
    ("topologySpreadConstraints", List("topologyKey", PLAIN)),
    ("volumes", List("name", VOLUME)),
];

/// `ObjectMeta`.
const METADATA: Type = &[("finalizers", Set), ("ownerReferences", List("uid", PLAIN))];

/// `PodStatus`.
const STATUS: Type = &[
    ("conditions", List("type", PLAIN)),
    ("hostIPs", List("ip", PLAIN)),
    ("podIPs", List("ip", PLAIN)),
    ("resourceClaimStatuses", List("name", PLAIN)),
];

/// `Pod`.
pub const POD: Type = &[("metadata", Object(METADATA)), ("spec", Object(SPEC)), ("status", Object(STATUS))];

/// How a field of a type merges; `None`: as its JSON type suggests.
pub(crate) fn kind(of: Type, field: &str) -> Option<Kind> {
    of.iter().find(|(name, _)| *name == field).map(|(_, kind)| *kind)
}
