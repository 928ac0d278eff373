//! The manifests, embedded: those of every installation, and those that are asked for.

use super::Options;

/// What can be installed besides. Its name is that of its folder in `manifests/options`, or in `certs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Part {
    /// HorizontalPodAutoscaler: more replicas under load
    Hpa,
    /// NetworkPolicy: who may speak to the webhook, and whom it may ask
    NetworkPolicy,
    /// ServiceMonitor, for the Prometheus operator
    ServiceMonitor,
    /// PrometheusRule: alerts, for the Prometheus operator
    PrometheusRule,
    /// A dashboard for Grafana, in a ConfigMap
    Dashboard,
    /// The certificate by cert-manager, in place of Outrigger's own
    CertManager,
}

macro_rules! manifest {
    ($file:literal) => {
        include_str!(concat!("../../manifests/", $file))
    };
}

const BEFORE: [&str; 4] = [
    manifest!("0-namespace.yaml"),
    manifest!("1-access.yaml"),
    manifest!("1-configuration.yaml"),
    manifest!("2-webhook.yaml"),
];

const PARTS: [(Part, &str); 6] = [
    (Part::Hpa, manifest!("options/hpa/hpa.yaml")),
    (Part::NetworkPolicy, manifest!("options/network-policy/network-policy.yaml")),
    (Part::ServiceMonitor, manifest!("options/service-monitor/service-monitor.yaml")),
    (Part::PrometheusRule, manifest!("options/prometheus-rule/prometheus-rule.yaml")),
    (Part::Dashboard, manifest!("options/dashboard/dashboard.yaml")),
    (Part::CertManager, include_str!("../../certs/cert-manager/cert-manager.yaml")),
];

/// The registration. It comes last, so that no pod is sent to a webhook that is not there.
pub(super) const REGISTRATION: &str = manifest!("3-registration.yaml");

/// Capture from the node. Its objects have the same names for all revisions.
const CNI: &str = manifest!("cni/cni.yaml");

/// What becomes of pods that came in without a sidecar, or have an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Repair {
    /// A controller says which they are
    Report,
    /// And restarts the workloads that make them
    Restart,
}

const REPAIR: &str = manifest!("options/repair/repair.yaml");
const RESTART: &str = manifest!("options/repair-restart/repair-restart.yaml");

/// What a signer of the cluster is asked with.
const SIGNER: &str = include_str!("../../certs/signer/signer.yaml");

/// The files of an installation, in order.
pub(super) fn texts(options: &Options) -> impl Iterator<Item = &'static str> {
    let chosen = PARTS.iter().filter(|(part, _)| options.parts.contains(part)).map(|(_, text)| *text);
    let signer = options.certificate_signer.as_ref().map(|_| SIGNER);
    let repair = options.repair.map(|_| REPAIR);
    let restart = options.repair.filter(|repair| *repair == Repair::Restart).map(|_| RESTART);
    let cni = options.cni.then_some(CNI);
    // The plugin first: pods that the settings leave to it fail on nodes that lack it.
    cni.into_iter()
        .chain(BEFORE)
        .chain(chosen)
        .chain(signer)
        .chain(repair)
        .chain(restart)
        .chain([REGISTRATION])
}
