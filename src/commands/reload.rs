//! The settings of a running webhook, kept up to date with their files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger::changes;
use outrigger::injection::Injector;
use outrigger::notice::{Notice, Notices, Reference};
use outrigger::settings::Settings;
use outrigger::telemetry::Metrics;
use outrigger::template::packs;
use ring::digest;
use tokio::sync::watch;

/// How often it is told again that settings are refused: an API server that was away is back some time, and forgets an Event
/// after an hour.
const AGAIN: Duration = Duration::from_secs(300);

/// All that an injector is made of, as it was read; not yet whether it is any good.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    settings: Result<String, String>,
    packs: Vec<Result<packs::Files, String>>,
}

impl Contents {
    /// Sixteen hexadecimal digits, the same wherever the same was read.
    fn hash(&self) -> String {
        let digest = digest::digest(&digest::SHA256, format!("{self:?}").as_bytes());
        digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// An injector, and the file that it was made of, if any.
#[derive(Debug)]
pub(super) struct Source {
    file: Option<(PathBuf, Contents)>,
    pub(super) injector: Injector,
}

impl Source {
    /// Reads the settings, and the packs that they name; without a file the defaults hold.
    ///
    /// # Errors
    /// Settings or templates that cannot be used, with their place.
    pub(super) fn load(file: Option<PathBuf>) -> Result<Self, String> {
        let Some(file) = file else {
            let injector = Injector::new(Settings::default()).map_err(|e| e.to_string())?;
            return Ok(Self { file: None, injector });
        };
        let settings = std::fs::read_to_string(&file).map_err(|e| e.to_string());
        let (injector, known) = make(&file, settings)?;
        Ok(Self { file: Some((file, known)), injector })
    }

    /// Keeps the injector up to date from now on: a change that is good is published, a bad one is reported, and the
    /// last good one stays. Runs until all receivers are gone.
    pub(super) fn follow(self, metrics: Arc<Metrics>, told: Told) -> watch::Receiver<Arc<Injector>> {
        metrics.settings(&self.file.as_ref().map(|(_, contents)| contents.hash()).unwrap_or_default());
        let (publisher, receiver) = watch::channel(Arc::new(self.injector));
        if let Some((file, known)) = self.file {
            tokio::spawn(watch(file, known, publisher, metrics, told));
        }
        receiver
    }
}

/// Who is told of settings that are refused: whoever looks at their ConfigMap. Nobody by default.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) notices: Notices,
    pub(super) about: Option<Reference>,
}

impl Told {
    fn refused(&self, problem: &str) {
        let reason = "SettingsRefused";
        let message = format!(
            "the changed settings are refused, and the last good ones stay in force: {problem}; mend them in this ConfigMap, \
             and they are taken up within some 90 s"
        );
        let notice = |about| Notice { about, warning: true, reason, message };
        self.notices.tell(|| self.about.clone().map(notice));
    }
}

async fn watch(
    file: PathBuf,
    mut known: Contents,
    publisher: watch::Sender<Arc<Injector>>,
    metrics: Arc<Metrics>,
    told: Told,
) {
    let mut refused: Option<String> = None;
    loop {
        let now = publisher.borrow().clone();
        let found = tokio::select! {
            () = publisher.closed() => return,
            found = changes::next(&known, || read(&file, now.settings())) => found,
            () = tokio::time::sleep(AGAIN), if refused.is_some() => {
                refused.iter().for_each(|problem| told.refused(problem));
                continue;
            }
        };
        let made = make(&file, found.settings.clone());
        let taken_up = made.is_ok();
        match made {
            Ok((injector, contents)) => {
                tracing::info!(settings = %file.display(), "changed settings taken up");
                warn(&injector);
                known = contents;
                refused = None;
                metrics.settings(&known.hash());
                publisher.send_replace(Arc::new(injector));
            }
            Err(problem) => {
                tracing::error!(%problem, "changed settings refused; the last good ones stay");
                known = found;
                told.refused(&problem);
                refused = Some(problem);
            }
        }
        // Counted last, so that whoever sees the count meets the settings.
        metrics.settings_reloaded(taken_up);
    }
}

/// Logs what is odd about settings.
pub(super) fn warn(injector: &Injector) {
    for warning in injector.warnings() {
        tracing::warn!("settings: {warning}");
    }
}

/// What is there now, of the packs that `settings` name.
fn read(file: &Path, settings: &Settings) -> Contents {
    let packs = std::iter::once(&settings.pack).chain(&settings.packs);
    Contents {
        settings: std::fs::read_to_string(file).map_err(|e| e.to_string()),
        packs: packs.map(|pack| packs::files(pack)).collect(),
    }
}

/// An injector from settings as read. The packs' files are read first, so that a change from then on is seen.
fn make(file: &Path, text: Result<String, String>) -> Result<(Injector, Contents), String> {
    let place = file.display().to_string();
    let text = text.map_err(|e| format!("cannot read the settings {place}: {e}"))?;
    let settings = Settings::parse(&text, &place).map_err(|e| e.to_string())?;
    let known = Contents { settings: Ok(text), ..read(file, &settings) };
    Ok((Injector::new(settings).map_err(|e| e.within(&place))?, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refused_settings_are_told_until_they_are_mended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("policy: disabled");
        let (notices, mut told) = Notices::channel();
        let about = Reference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: "outrigger-system".to_owned(),
            name: "outrigger".to_owned(),
            uid: String::new(),
        };
        let source = Source::load(Some(file.clone())).unwrap();
        let mut injector =
            source.follow(Arc::new(Metrics::default()), Told { notices, about: Some(about.clone()) });
        write("polcy: off");
        let first = told.recv().await.unwrap();
        assert_eq!((&first.about, first.reason), (&about, "SettingsRefused"));
        assert!(first.message.contains("polcy: there is no such field"), "{}", first.message);
        // Nothing changes, and it is told again: the same, so that it is counted.
        assert_eq!([told.recv().await.unwrap(), told.recv().await.unwrap()], [first.clone(), first]);
        write("policy: enabled");
        injector.changed().await.unwrap();
        tokio::time::sleep(AGAIN * 3).await;
        assert!(told.try_recv().is_err());
    }
}
