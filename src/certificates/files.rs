//! A certificate and its key in files, watched by their contents.
//!
//! Contents, not events: a kubelet swaps the `..data` link of a mounted Secret, and whoever watches the files
//! themselves misses that from the second time on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

use super::{Facts, Identity, Unusable, unix_now, written_date};
use crate::telemetry::Metrics;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
pub struct Files {
    /// PEM, the leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Why files cannot be served, with their names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(String);

/// What was read; not yet whether it is any good.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    certificate: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
}

/// A certificate that may be served.
#[derive(Debug)]
struct Served {
    config: Arc<ServerConfig>,
    facts: Facts,
}

impl Files {
    /// Reads the files, and keeps the returned configuration up to date from then on: a changed certificate
    /// that is good is published, a bad one is reported, and the last good one stays. Runs until all receivers
    /// are gone.
    ///
    /// # Errors
    /// The files cannot be read, do not belong together, or are expired.
    pub fn serve(self, metrics: Arc<Metrics>) -> Result<watch::Receiver<Arc<ServerConfig>>, Problem> {
        let contents = self.read();
        let served = self.check(&contents)?;
        announce(&self.certificate, &served.facts, &metrics);
        let (publisher, receiver) = watch::channel(served.config);
        tokio::spawn(self.watch(contents, publisher, metrics));
        Ok(receiver)
    }

    async fn watch(
        self,
        mut known: Contents,
        publisher: watch::Sender<Arc<ServerConfig>>,
        metrics: Arc<Metrics>,
    ) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The two files change one after the other: a change counts when it was seen twice.
        let mut seen_once = None;
        loop {
            tokio::select! {
                () = publisher.closed() => return,
                _ = ticks.tick() => {}
            }
            let found = self.read();
            if found == known {
                seen_once = None;
            } else if seen_once.as_ref() != Some(&found) {
                seen_once = Some(found);
            } else {
                match self.check(&found) {
                    Ok(served) => {
                        announce(&self.certificate, &served.facts, &metrics);
                        publisher.send_replace(served.config);
                        // Counted last, so that whoever sees the count meets the certificate.
                        metrics.certificate_reloaded(true);
                    }
                    Err(problem) => {
                        tracing::error!(%problem, "changed certificate refused; the last good one stays");
                        metrics.certificate_reloaded(false);
                    }
                }
                (known, seen_once) = (found, None);
            }
        }
    }

    fn read(&self) -> Contents {
        let read = |path: &Path| std::fs::read(path).map_err(|e| e.to_string());
        Contents { certificate: read(&self.certificate), key: read(&self.key) }
    }

    fn check(&self, contents: &Contents) -> Result<Served, Problem> {
        let unreadable = |what, path: &Path, error: &String| {
            Problem(format!("cannot read the {what} {}: {error}", path.display()))
        };
        let (certificate, key) = (&contents.certificate, &contents.key);
        let certificate =
            certificate.as_ref().map_err(|e| unreadable("certificate", &self.certificate, e))?;
        let key = key.as_ref().map_err(|e| unreadable("private key", &self.key, e))?;
        let unusable = |problem| self.name(problem);
        let identity = Identity::from_pem(certificate, key).map_err(unusable)?;
        let facts = identity.facts().map_err(unusable)?;
        if facts.not_after <= unix_now() {
            let date = written_date(facts.not_after);
            return Err(Problem(format!(
                "the certificate {} expired on {date}; put a renewed one in its place",
                self.certificate.display()
            )));
        }
        Ok(Served { config: identity.server_config().map_err(unusable)?, facts })
    }

    fn name(&self, problem: Unusable) -> Problem {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        Problem(match problem {
            Unusable::Certificate(why) => format!("the certificate {certificate}: {why}"),
            Unusable::Key(why) => format!("the private key {key}: {why}"),
            Unusable::Mismatch => {
                format!("the private key {key} does not belong to the certificate {certificate}; give a pair")
            }
        })
    }
}

fn announce(path: &Path, facts: &Facts, metrics: &Metrics) {
    let until = written_date(facts.not_after);
    metrics.certificate_expiry.set(facts.not_after as f64);
    tracing::info!(certificate = %path.display(), names = %facts.names.join(", "), until, "serving certificate");
    if facts.not_before > unix_now() {
        let from = written_date(facts.not_before);
        tracing::warn!(certificate = %path.display(), from, "the certificate is not valid yet: clients refuse it");
    }
}
