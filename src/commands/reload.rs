//! The settings of a running webhook, kept up to date with their files.
//!
//! Contents are compared, not events: a kubelet swaps the `..data` link of a mounted ConfigMap, and whoever watches
//! the files themselves misses that from the second time on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger::injection::Injector;
use outrigger::settings::Settings;
use outrigger::telemetry::Metrics;
use outrigger::template::packs;
use tokio::sync::watch;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// All that an injector is made of, as it was read; not yet whether it is any good.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    settings: Result<String, String>,
    packs: Vec<Result<packs::Files, String>>,
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
    pub(super) fn follow(self, metrics: Arc<Metrics>) -> watch::Receiver<Arc<Injector>> {
        let (publisher, receiver) = watch::channel(Arc::new(self.injector));
        if let Some((file, known)) = self.file {
            tokio::spawn(watch(file, known, publisher, metrics));
        }
        receiver
    }
}

async fn watch(
    file: PathBuf,
    mut known: Contents,
    publisher: watch::Sender<Arc<Injector>>,
    metrics: Arc<Metrics>,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A file may be half written: a change counts when it was seen twice.
    let mut seen_once = None;
    loop {
        tokio::select! {
            () = publisher.closed() => return,
            _ = ticks.tick() => {}
        }
        let found = read(&file, publisher.borrow().settings());
        if found == known {
            seen_once = None;
        } else if seen_once.as_ref() != Some(&found) {
            seen_once = Some(found);
        } else {
            let made = make(&file, found.settings.clone());
            let taken_up = made.is_ok();
            match made {
                Ok((injector, contents)) => {
                    tracing::info!(settings = %file.display(), "changed settings taken up");
                    warn(&injector);
                    known = contents;
                    publisher.send_replace(Arc::new(injector));
                }
                Err(problem) => {
                    tracing::error!(%problem, "changed settings refused; the last good ones stay");
                    known = found;
                }
            }
            // Counted last, so that whoever sees the count meets the settings.
            metrics.settings_reloaded(taken_up);
            seen_once = None;
        }
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
    Ok((Injector::new(settings).map_err(|e| e.to_string())?, known))
}
