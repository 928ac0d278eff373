//! The leader's work on the certificate: the steps of [`rotation`], done on the Secret and on `caBundle`.
//!
//! `caBundle` has one writer, this one. It compares before it writes, names the version that it has read, and touches
//! nothing else of the object.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::fmt::rfc2822;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Change, Error, Installation, REGISTRATIONS, Signer, replicas, watches};
use crate::certificates::rotation::{self, Kept, LIFE_DAYS, Pair, Step, World};
use crate::certificates::{self, Bundle, make, written_date};
use crate::telemetry::Metrics;

/// How long API servers are given to see a changed `caBundle`. They watch the object; this is many times what they take.
const SETTLE: Duration = Duration::from_secs(10);
/// How long after a step that failed the next one is tried: at first, and at most.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// How often replicas are asked again what they serve.
const PROVE: Duration = Duration::from_secs(2);
/// How often a request that waits for its signer is looked at.
const ASK: Duration = Duration::from_secs(2);
/// The longest rest: who changes a clock, or a registration while no watch is there, is found out by then.
const REST: Duration = Duration::from_secs(60);

/// The annotation of the Secret by which somebody asks for the next certificate; `outrigger certs rotate` writes it.
pub const ROTATE_ANNOTATION: &str = "outrigger.dev/rotate";

/// What goes wrong with a step.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error(transparent)]
    Made(#[from] certificates::Error),
    #[error("{0}")]
    Other(String),
}

/// Keeps the certificate while we lead, until `stop` changes.
pub(super) async fn keep(
    installation: &Installation,
    signer: Option<&Signer>,
    mut leading: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
    metrics: &Metrics,
) {
    let changed = Notify::new();
    let secret = installation.api("", "Secret", true);
    let registrations =
        installation.api("admissionregistration.k8s.io", "MutatingWebhookConfiguration", false);
    let name = installation.secret();
    let (secret, registrations) =
        (watches::changes(secret, Some(&name), &changed), watches::changes(registrations, None, &changed));
    let work = async {
        let (mut bundles, mut back_off) = (Settling::default(), BACK_OFF[0]);
        while leading.wait_for(|leads| *leads).await.is_ok() {
            let pause = match turn(installation, signer, &mut bundles, metrics).await {
                Ok(pause) => {
                    back_off = BACK_OFF[0];
                    pause
                }
                Err(problem) => {
                    metrics.certificate_errors.inc();
                    tracing::error!(%problem, again_in = ?back_off, "cannot keep the certificate");
                    let pause = back_off;
                    back_off = (back_off * 2).min(BACK_OFF[1]);
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed.notified() => {}
            }
        }
    };
    tokio::select! {
        () = async { tokio::join!(secret, registrations, work); } => {}
        _ = stop.changed() => {}
    }
}

/// Since when the registrations have held what they hold.
#[derive(Debug, Default)]
struct Settling {
    bundles: Vec<Bundle>,
    since: Option<Instant>,
}

impl Settling {
    /// Whether API servers have had the time to see `bundles`, and if not, how long that takes. Where nothing was
    /// trusted before, no pod could be admitted anyway, and there is nothing to wait for.
    fn see(&mut self, bundles: &[Bundle]) -> Duration {
        if self.since.is_none() || self.bundles != bundles {
            // What is there at the first look may have been written a moment before.
            let before = if self.since.is_none() { bundles } else { &self.bundles };
            let nothing = before.iter().all(Bundle::is_empty);
            self.since = if nothing { Instant::now().checked_sub(SETTLE) } else { Some(Instant::now()) };
            self.bundles = bundles.to_vec();
        }
        SETTLE.saturating_sub(self.since.map(|since| since.elapsed()).unwrap_or_default())
    }
}

/// Does one step; how long to wait before the next one where nothing changes.
async fn turn(
    installation: &Installation,
    signer: Option<&Signer>,
    settling: &mut Settling,
    metrics: &Metrics,
) -> Result<Duration, Problem> {
    let cluster = &installation.cluster;
    let path = format!("/api/v1/namespaces/{}/secrets/{}", cluster.namespace, installation.secret());
    let (secret, date) = cluster.get_dated(&path).await?;
    let now = seconds(&date)?;
    let kept = secret.as_ref().map(kept).unwrap_or_default();
    let registrations: Vec<_> = registrations(installation).await?;
    let bundles: Vec<_> = registrations.iter().flat_map(|registration| registration.bundles()).collect();
    let (names, left) = (installation.names(), settling.see(&bundles));
    let mut world = World { now, names: &names, bundles: &bundles, settled: left.is_zero(), proven: false };
    let mut step = rotation::step(&kept, &world);
    if step == Step::Prove {
        let Some(served) = &kept.served else { return Ok(PROVE) };
        let others = replicas::not_serving(installation, served).await?;
        if !others.is_empty() {
            tracing::info!(replicas = %others.join(", "), "the old CA stays: not all replicas serve the new certificate yet");
            return Ok(PROVE);
        }
        world.proven = true;
        step = rotation::step(&kept, &world);
    }
    match step {
        Step::Make(kept) => {
            let kept = match signer {
                None => kept.with_next(make(&names, LIFE_DAYS, now)?),
                Some(signer) => match signer.sign(installation, kept, now).await? {
                    Some(kept) => kept,
                    None => return Ok(ASK),
                },
            };
            write(installation, &path, secret, &kept).await?;
            if let Some(next) = &kept.next {
                metrics.certificates_made.inc();
                let until = next.not_after().map(written_date).unwrap_or_default();
                tracing::info!(names = %names.join(", "), until, "have the next certificate");
            }
        }
        Step::Keep(kept) => {
            let (serving, trusted) = (kept.next.is_none(), kept.trusted.len());
            write(installation, &path, secret, &kept).await?;
            tracing::info!(serving, trusted, "wrote the Secret of the certificate");
        }
        Step::Trust(bundle) => {
            for registration in &registrations {
                if registration.trust(installation, &bundle).await? {
                    metrics.ca_bundle_writes.inc();
                    let count = bundle.len();
                    tracing::info!(registration = registration.name, authorities = count, "wrote caBundle");
                }
            }
        }
        Step::Settle => return Ok(left),
        Step::Prove => return Ok(PROVE),
        Step::Rest(until) => {
            let left = Duration::from_secs(u64::try_from(until - now).unwrap_or_default());
            return Ok(left.clamp(BACK_OFF[0], REST));
        }
    }
    Ok(Duration::ZERO)
}

/// The `Date` of an HTTP answer, in Unix seconds: the API server's clock is the one that judges certificates.
pub(super) fn seconds(date: &str) -> Result<i64, Problem> {
    let time = rfc2822::parse(date);
    let time = time.map_err(|e| Problem::Other(format!("the API server's Date {date:?}: {e}")))?;
    Ok(time.timestamp().as_second())
}

/// The keys of the Secret's data: a pair, the next one, and the CAs. A next key without a certificate is one that a signer
/// is asked for.
const SERVED: [&str; 2] = ["tls.crt", "tls.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const TRUSTED: &str = "ca.crt";

/// The pair that a Secret gives to replicas.
pub(super) fn served(secret: &Value) -> Option<Pair> {
    pair(secret, SERVED)
}

fn pair(secret: &Value, [certificate, key]: [&str; 2]) -> Option<Pair> {
    Some(Pair { certificate: text(secret, certificate)?, key: text(secret, key)? })
}

fn text(secret: &Value, key: &str) -> Option<String> {
    String::from_utf8(decoded(&secret["data"][key])).ok().filter(|text| !text.is_empty())
}

pub(super) fn decoded(base64: &Value) -> Vec<u8> {
    STANDARD.decode(base64.as_str().unwrap_or_default()).unwrap_or_default()
}

fn kept(secret: &Value) -> Kept {
    Kept {
        served: pair(secret, SERVED),
        next: pair(secret, NEXT),
        requested: text(secret, NEXT[1]).filter(|_| text(secret, NEXT[0]).is_none()),
        trusted: Bundle::from_pem(&decoded(&secret["data"][TRUSTED])),
        asked: secret["metadata"]["annotations"].get(ROTATE_ANNOTATION).is_some(),
    }
}

/// Writes what is kept: into the Secret as it was read, or into a new one.
async fn write(
    installation: &Installation,
    path: &str,
    secret: Option<Value>,
    kept: &Kept,
) -> Result<(), Error> {
    let cluster = &installation.cluster;
    let object = with_kept(
        secret.clone().unwrap_or_else(|| {
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": installation.secret(), "labels": installation.labels()},
            })
        }),
        kept,
    );
    match secret {
        Some(_) => cluster.replace(path, &object).await?,
        None => cluster.create(path.rsplit_once('/').map_or(path, |(secrets, _)| secrets), &object).await?,
    };
    Ok(())
}

/// A Secret with what is kept. What is not there is written as empty: a Secret of type `kubernetes.io/tls` must have
/// its keys.
fn with_kept(mut secret: Value, kept: &Kept) -> Value {
    let encoded = |text: &str| Value::from(STANDARD.encode(text));
    let mut data = Map::new();
    let requested = ("", kept.requested.as_deref().unwrap_or_default());
    for (keys, pair, none) in [(SERVED, &kept.served, ("", "")), (NEXT, &kept.next, requested)] {
        let (certificate, key) =
            pair.as_ref().map_or(none, |pair| (pair.certificate.as_str(), pair.key.as_str()));
        data.insert(keys[0].to_owned(), encoded(certificate));
        data.insert(keys[1].to_owned(), encoded(key));
    }
    data.insert(TRUSTED.to_owned(), encoded(&kept.trusted.pem()));
    secret["data"] = data.into();
    if let Some(annotations) = secret["metadata"]["annotations"].as_object_mut()
        && !kept.asked
    {
        annotations.shift_remove(ROTATE_ANNOTATION);
    }
    secret
}

/// A MutatingWebhookConfiguration with webhooks that lead to our Service.
struct Registration {
    name: String,
    version: String,
    /// The place of a webhook in the list, and its `caBundle`.
    webhooks: Vec<(usize, Bundle)>,
}

impl Registration {
    fn bundles(&self) -> impl Iterator<Item = Bundle> {
        self.webhooks.iter().map(|(_, bundle)| bundle.clone())
    }

    /// Writes `bundle` where another one is; whether there was one.
    async fn trust(&self, installation: &Installation, bundle: &Bundle) -> Result<bool, Error> {
        let encoded = STANDARD.encode(bundle.pem());
        let others = self.webhooks.iter().filter(|(_, known)| known != bundle);
        let operations: Vec<_> = others
            .map(|(place, _)| {
                let path = format!("/webhooks/{place}/clientConfig/caBundle");
                json!({"op": "add", "path": path, "value": encoded})
            })
            .collect();
        if operations.is_empty() {
            return Ok(false);
        }
        let unchanged = json!({"op": "test", "path": "/metadata/resourceVersion", "value": self.version});
        let change = Value::from_iter(std::iter::once(unchanged).chain(operations));
        let path = format!("{REGISTRATIONS}/{}", self.name);
        installation.cluster.patch(&path, &Change::Json(&change)).await.map(|_| true)
    }
}

async fn registrations(installation: &Installation) -> Result<Vec<Registration>, Error> {
    let list = installation.cluster.get(REGISTRATIONS).await?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().filter_map(|item| ours(item, installation)).collect())
}

fn ours(object: &Value, installation: &Installation) -> Option<Registration> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let webhooks: Vec<_> = object["webhooks"].as_array()?.iter().enumerate().collect();
    let webhooks: Vec<_> = webhooks
        .into_iter()
        .filter(|(_, webhook)| {
            let service = &webhook["clientConfig"]["service"];
            service["name"] == installation.name.as_str()
                && service["namespace"] == installation.cluster.namespace.as_str()
        })
        .map(|(place, webhook)| (place, Bundle::from_pem(&decoded(&webhook["clientConfig"]["caBundle"]))))
        .collect();
    let metadata = &object["metadata"];
    (!webhooks.is_empty()).then(|| Registration {
        name: text(&metadata["name"]),
        version: text(&metadata["resourceVersion"]),
        webhooks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::unix_now;

    #[test]
    fn what_is_kept_comes_back_from_the_secret() {
        let made = make(&["a.b.svc".to_owned()], 1, unix_now()).unwrap();
        let kept_before = Kept { asked: true, ..Kept::default() }.with_next(made);
        let secret = json!({"type": "kubernetes.io/tls", "metadata": {"annotations": {ROTATE_ANNOTATION: "x", "a": "b"}}});
        assert!(kept(&secret).asked);
        let secret = with_kept(secret, &kept_before);
        assert_eq!(kept(&secret), kept_before);
        assert_eq!(secret["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(
            (secret["type"].as_str(), secret["data"]["tls.crt"].as_str()),
            (Some("kubernetes.io/tls"), Some(""))
        );
        let requested = Kept { requested: Some("key".to_owned()), next: None, ..kept_before };
        assert_eq!(kept(&with_kept(secret, &requested)), requested);
        let damaged = json!({"data": {"tls.crt": "%%%", "tls.key": "AAAA", "ca.crt": 7}});
        assert_eq!(kept(&damaged), Kept::default());
    }

    #[test]
    fn api_servers_are_waited_for_where_they_trusted_another_ca_before() {
        let bundle = Bundle::from_pem(make(&["a.svc".to_owned()], 1, unix_now()).unwrap().ca.as_bytes());
        let (none, empty, one) = (vec![], vec![Bundle::default()], vec![bundle.clone()]);
        let waits = |seen: &[&Vec<Bundle>]| {
            let mut settling = Settling::default();
            seen.iter().fold(false, |_, bundles| !settling.see(bundles).is_zero())
        };
        assert!(!waits(&[&none]) && !waits(&[&empty]) && !waits(&[&empty, &one]) && !waits(&[&none, &one]));
        let two = vec![
            bundle.and(&Bundle::from_pem(make(&["b.svc".to_owned()], 1, unix_now()).unwrap().ca.as_bytes())),
        ];
        assert!(waits(&[&one]) && waits(&[&one, &two]) && waits(&[&one, &one]));
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(seconds("Thu, 29 Feb 2024 23:59:59 GMT").unwrap(), 1_709_251_199);
        assert!(seconds("yesterday").is_err());
    }
}
