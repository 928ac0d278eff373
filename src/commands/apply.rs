//! Applying an installation to a cluster, and waiting until it works. Progress goes to standard error.

use std::time::{Duration, Instant};

use outrigger::cluster::Cluster;
use outrigger::cluster::apply::{Applied, path};
use outrigger::installation::rollout::{obstacles, rollout};
use outrigger::installation::{self, Names, Object, TrialPod, trust, verify};
use outrigger::settings::Settings;
use serde_json::{Value, json};

use super::report::{BAD, DIM, GOOD, STRONG};

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(500);
/// What the registration's kind is called.
const REGISTRATION: &str = "MutatingWebhookConfiguration";

/// An installation, or a tag, that is applied.
pub(super) struct Apply<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) names: &'a Names,
    /// The revision, or the tag, that namespaces ask for.
    pub(super) asked: &'a str,
    pub(super) objects: &'a [Object],
    pub(super) timeout: Duration,
}

impl Apply<'_> {
    /// Applies the objects, the registration when the webhook is there; then waits until a pod comes back injected.
    pub(super) async fn run(&self) -> Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        for object in self.objects {
            if object.kind() == REGISTRATION
                && let Some(webhook) = self.objects.iter().find(|object| object.kind() == "Deployment")
            {
                self.rolled_out(webhook, deadline).await?;
            }
            let tag = self.is_tag() && object.kind() == REGISTRATION;
            if tag {
                self.lead(object).await?;
            }
            let applied = self.cluster.apply(&object.value, false).await;
            say(applied, object)?;
            if object.kind() == "DaemonSet" {
                self.rolled_out(object, deadline).await?;
            }
            if tag {
                self.lead(object).await?;
            }
        }
        self.works(deadline).await
    }

    fn is_tag(&self) -> bool {
        self.asked != self.names.revision
    }

    /// Sends the pods of a tag to its revision's webhook, and makes its registration trust that, in one step: before the
    /// rest is applied, so that none is refused while it moves, and afterwards where it is new.
    async fn lead(&self, tag: &Object) -> Result<(), String> {
        let (version, name) = (&tag.value["apiVersion"], &self.names.name);
        let revision = json!({"apiVersion": version, "kind": REGISTRATION, "metadata": {"name": name}});
        let revision = self.cluster.get(&path(&revision)).await;
        let revision = revision.map_err(|e| format!("the registration that the tag points to: {e}"))?;
        let Some(bundle) = trust::bundle(&revision) else { return Ok(()) };
        match self.cluster.change(&path(&tag.value), |now| trust::lead(now, &tag.value, bundle)).await {
            Err(error) if error.is(404) => Ok(()), // nobody can ask for it yet
            other => other.map_err(|e| e.to_string()),
        }
    }

    /// Says what [`Self::run`] would do, as the API server sees it. Nothing is stored.
    pub(super) async fn dry_run(&self) -> Result<(), String> {
        let mut no_namespace = false;
        for object in self.objects {
            if no_namespace && object.value["metadata"].get("namespace").is_some() {
                anstream::eprintln!(
                    "{DIM}not tried{DIM:#}   {}: its namespace is not there yet",
                    object.title()
                );
                continue;
            }
            let applied = self.cluster.apply(&object.value, true).await;
            no_namespace |= object.kind() == "Namespace" && matches!(applied, Ok(Applied::Created));
            say(applied, object)?;
        }
        anstream::eprintln!("by dry run: nothing is stored");
        Ok(())
    }

    async fn rolled_out(&self, workload: &Object, deadline: Instant) -> Result<(), String> {
        let (mut told, mut requested) = (None, Vec::new());
        loop {
            let now = self.cluster.get(&path(&workload.value)).await.map_err(|e| e.to_string())?;
            let now = rollout(&now);
            let of =
                format!("{}: {} of {} replicas are new and ready", workload.title(), now.ready, now.wanted);
            if now.complete {
                anstream::eprintln!("{GOOD}rolled out{GOOD:#}  {of}");
                return Ok(());
            }
            if told.as_ref() != Some(&now) {
                anstream::eprintln!("{DIM}waiting{DIM:#}     {of}");
            }
            told = Some(now);
            if is_signed(&workload.value) {
                let waiting = self.requests().await?;
                for name in waiting.iter().filter(|name| !requested.contains(*name)) {
                    anstream::eprintln!(
                        "{DIM}waiting{DIM:#}     for the signer of CertificateSigningRequest {name}: {STRONG}kubectl \
                         certificate approve {name}{STRONG:#}"
                    );
                }
                requested = waiting;
            }
            if Instant::now() > deadline {
                return Err(self.not_rolled_out(workload).await);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The installation's requests for a certificate that nobody has decided on.
    async fn requests(&self) -> Result<Vec<String>, String> {
        let Names { name, namespace, .. } = self.names;
        let list = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let list = format!("{list}?labelSelector=app.kubernetes.io/name%3D{name}");
        let requests = self.cluster.list(&list).await.map_err(|e| e.to_string())?;
        let open = requests.iter().filter(|request| request["status"]["conditions"].is_null());
        let names = open.filter_map(|request| request["metadata"]["name"].as_str());
        let own = format!("{name}.{namespace}.");
        Ok(names.filter(|request| request.starts_with(&own)).map(str::to_owned).collect())
    }

    async fn not_rolled_out(&self, workload: &Object) -> String {
        let metadata = &workload.value["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let (title, name, namespace) = (workload.title(), text("name"), text("namespace"));
        let selector = format!("app.kubernetes.io/name%3D{name}");
        let pods =
            self.cluster.get(&format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")).await;
        let why = match pods {
            Ok(pods) => obstacles(pods["items"].as_array().map_or(&[], Vec::as_slice)).join("; "),
            Err(error) => error.to_string(),
        };
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        format!(
            "{title} is not rolled out within {} s{why}; see kubectl -n {namespace} describe pods, or give it longer by \
             --timeout",
            self.timeout.as_secs()
        )
    }

    /// Sends a pod by dry run until it comes back injected: the API server learns of a registration, and the registration
    /// of its CA, a moment later.
    async fn works(&self, deadline: Instant) -> Result<(), String> {
        let settings = self.settings().await?;
        let mut told = None;
        loop {
            // Chosen anew each time: a namespace may go meanwhile.
            let namespaces = self.cluster.list("/api/v1/namespaces").await.map_err(|e| e.to_string())?;
            let Some(trial) = TrialPod::choose(&namespaces, self.asked, &settings) else {
                anstream::eprintln!(
                    "{DIM}not tried{DIM:#}   in no namespace may a pod ask for {} yet: kubectl label namespace NAME \
                     istio-injection- istio.io/rev={}",
                    self.asked,
                    self.asked
                );
                return Ok(());
            };
            let TrialPod { namespace, pod } = &trial;
            if told.as_ref() != Some(namespace) {
                anstream::eprintln!(
                    "{DIM}waiting{DIM:#}     until a pod of namespace {namespace} comes back injected, by dry run"
                );
                told = Some(namespace.clone());
            }
            let sent =
                self.cluster.create(&format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), pod).await;
            let verified = sent.map_err(|e| e.to_string()).and_then(|pod| verify(&pod, &self.names.revision));
            let Err(why) = verified else {
                anstream::eprintln!(
                    "{GOOD}works{GOOD:#}       a pod of namespace {STRONG}{namespace}{STRONG:#} came back injected"
                );
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(format!(
                    "no pod of namespace {namespace} comes back injected within {} s: {why}",
                    self.timeout.as_secs()
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The settings in force: those that are applied, or, for a tag, those of the installation that it points to.
    async fn settings(&self) -> Result<Settings, String> {
        let Names { name, namespace, .. } = self.names;
        let is_ours = |object: &&Object| {
            object.kind() == "ConfigMap" && object.value["metadata"]["name"] == name.as_str()
        };
        if let Some(object) = self.objects.iter().find(is_ours) {
            return installation::settings(&object.value);
        }
        let map = self.cluster.get(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await;
        installation::settings(&map.map_err(|e| format!("the installation that the tag points to: {e}"))?)
    }
}

/// Whether the webhook's certificate is signed by a signer of the cluster.
fn is_signed(deployment: &Value) -> bool {
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
    arguments.is_some_and(|arguments| arguments.iter().any(|argument| argument == "--certificate-signer"))
}

/// One line for an object.
fn say(applied: Result<Applied, outrigger::cluster::Error>, object: &Object) -> Result<(), String> {
    let title = object.title();
    let (style, word) = match applied {
        Ok(Applied::Created) => (GOOD, "created"),
        Ok(Applied::Configured) => (GOOD, "configured"),
        Ok(Applied::Unchanged) => (DIM, "unchanged"),
        Err(error) => {
            anstream::eprintln!("{BAD}failed{BAD:#}      {title}");
            let hint = if error.is(404) && object.is_foreign() {
                "; this cluster does not have the CRD of this kind: install what brings it, or leave the part out of --with"
            } else {
                ""
            };
            return Err(format!("{title}: {error}{hint}"));
        }
    };
    anstream::eprintln!("{style}{word}{style:#}{:width$}{title}", "", width = 12 - word.len());
    Ok(())
}
