//! A certificate and its key in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

use super::{Facts, Identity, Served, Unusable, unix_now, written_date};
use crate::changes;
use crate::telemetry::Metrics;

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

impl Files {
    /// Reads the files, and keeps the returned configuration up to date from then on: a changed certificate
    /// that is good is published, a bad one is reported, and the last good one stays. Runs until all receivers
    /// are gone.
    ///
    /// # Errors
    /// The files cannot be read, do not belong together, or are expired.
    pub fn serve(self, metrics: Arc<Metrics>) -> Result<watch::Receiver<Served>, Problem> {
        let contents = self.read();
        let (config, facts) = self.check(&contents)?;
        announce(&self.place(), &facts, &metrics);
        let (publisher, receiver) = watch::channel(Some(config));
        tokio::spawn(self.watch(contents, publisher, metrics));
        Ok(receiver)
    }

    async fn watch(self, mut known: Contents, publisher: watch::Sender<Served>, metrics: Arc<Metrics>) {
        loop {
            tokio::select! {
                () = publisher.closed() => return,
                found = changes::next(&known, || self.read()) => known = found,
            }
            let checked = self.check(&known);
            let taken_up = checked.is_ok();
            match checked {
                Ok((config, facts)) => {
                    announce(&self.place(), &facts, &metrics);
                    publisher.send_replace(Some(config));
                }
                Err(problem) => {
                    tracing::error!(%problem, "changed certificate refused; the last good one stays");
                }
            }
            // Counted last, so that whoever sees the count meets the certificate.
            metrics.certificate_reloaded(taken_up);
        }
    }

    fn place(&self) -> String {
        self.certificate.display().to_string()
    }

    fn read(&self) -> Contents {
        let read = |path: &Path| std::fs::read(path).map_err(|e| e.to_string());
        Contents { certificate: read(&self.certificate), key: read(&self.key) }
    }

    fn check(&self, contents: &Contents) -> Result<(Arc<ServerConfig>, Facts), Problem> {
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
        Ok((identity.server_config().map_err(unusable)?, facts))
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

/// Says in log and metrics which certificate is served from now on; `place` is where it comes from.
pub(crate) fn announce(place: &str, facts: &Facts, metrics: &Metrics) {
    let until = written_date(facts.not_after);
    metrics.certificate_expiry.set(facts.not_after as f64);
    tracing::info!(certificate = place, names = %facts.names.join(", "), until, "serving certificate");
    if facts.not_before > unix_now() {
        let from = written_date(facts.not_before);
        tracing::warn!(certificate = place, from, "the certificate is not valid yet: clients refuse it");
    }
}
