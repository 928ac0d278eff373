//! The certificate that a replica serves: what is in the Secret.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

use super::{Installation, keeper, watches};
use crate::certificates::{Facts, Identity, Served, announce};
use crate::telemetry::Metrics;

/// Publishes what the Secret gives to replicas, whenever it changes, until nobody listens. What cannot be served is
/// reported, and the last good one stays; so it does when the Secret is deleted.
pub(super) async fn follow(installation: &Installation, publisher: watch::Sender<Served>, metrics: &Metrics) {
    let name = installation.secret();
    let secret = installation.api("", "Secret", true);
    let mut known = None;
    let follow = watches::one(secret, &name, |secret| {
        let Some(pair) = secret.and_then(keeper::served).filter(|pair| known.as_ref() != Some(pair)) else {
            return;
        };
        let usable = usable(&pair.certificate, &pair.key);
        let taken_up = usable.is_ok();
        match usable {
            Ok((facts, config)) => {
                announce(&format!("Secret {name}"), &facts, metrics);
                publisher.send_replace(Some(config));
            }
            Err(problem) => {
                tracing::error!(
                    problem,
                    secret = name,
                    "changed certificate refused; the last good one stays"
                );
            }
        }
        // Counted last, so that whoever sees the count meets the certificate.
        metrics.certificate_reloaded(taken_up);
        known = Some(pair);
    });
    tokio::select! {
        () = follow => {}
        () = publisher.closed() => {}
    }
}

fn usable(certificate: &str, key: &str) -> Result<(Facts, Arc<ServerConfig>), String> {
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).map_err(|e| e.to_string())?;
    let facts = identity.facts().map_err(|e| e.to_string())?;
    Ok((facts, identity.server_config().map_err(|e| e.to_string())?))
}
