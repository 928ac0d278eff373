//! The settings' file, followed while the sidecar runs: a good change is taken, a bad one refused and said, and no
//! connection notices.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::settings::{File, Live, Overrides, Settings};
use crate::telemetry::Telemetry;

/// How often the file is read. It is small, and reading it sees what no watch on a path does: that the kubelet swapped
/// the folder `..data`, through which a mounted ConfigMap's files are reached.
const PERIOD: Duration = Duration::from_secs(1);

/// Where settings come from.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    flags: Overrides,
    /// What was read last, whether it was good or not.
    seen: Result<String, String>,
    /// The last good one.
    file: Option<File>,
}

impl Source {
    /// Reads the file at `path`, and the settings that it, the process's environment and `flags` give.
    ///
    /// # Errors
    ///
    /// All that is wrong with any of them.
    pub(crate) fn open(path: PathBuf, flags: Overrides) -> Result<(Settings, Source), Vec<String>> {
        let mut source = Source { path, flags, seen: Err(String::new()), file: None };
        // Nothing has been seen yet, so that whatever is there is a change.
        let settings = source.changed().unwrap_or_else(|| Err(Vec::new()))?;
        Ok((settings, source))
    }

    /// The settings, if the file has changed since it was read last; or what is wrong with it now.
    fn changed(&mut self) -> Option<Result<Settings, Vec<String>>> {
        let path = self.path.display();
        let seen = std::fs::read_to_string(&self.path)
            .map_err(|error| format!("OUTRIGGER_CONFIG={path}: cannot be read: {error}"));
        if seen == self.seen {
            return None;
        }
        let place =
            |errors: Vec<String>| errors.iter().map(|error| format!("{path}: {error}")).collect::<Vec<_>>();
        let file = match &seen {
            Ok(text) => File::parse(text).map_err(place),
            Err(error) => Err(vec![error.clone()]),
        };
        self.seen = seen;
        Some(self.settings(file))
    }

    fn settings(&mut self, file: Result<File, Vec<String>>) -> Result<Settings, Vec<String>> {
        let env = |name: &str| std::env::var(name).ok();
        // With a bad file, the rest is looked at, too: all errors come at once.
        let rest = Settings::read(&env, file.as_ref().unwrap_or(&File::default()), &self.flags);
        match (file, rest) {
            (Ok(file), Ok(settings)) => {
                let fixed = self.file.as_ref().map(|before| before.fixed(&file)).unwrap_or_default();
                if !fixed.is_empty() {
                    tracing::warn!(fields = ?fixed, "these fields take effect when the sidecar starts again");
                }
                self.file = Some(file);
                Ok(settings)
            }
            (file, rest) => Err([file.err(), rest.err()].into_iter().flatten().flatten().collect()),
        }
    }
}

/// Follows `source` and gives what is good to `live`.
pub(crate) async fn follow(mut source: Source, live: watch::Sender<Arc<Live>>, telemetry: Arc<Telemetry>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        match source.changed() {
            None => {}
            Some(Ok(settings)) => {
                telemetry.reloads.taken.add(1);
                tracing::info!(path = %source.path.display(), "took the changed settings over");
                live.send_replace(Arc::new(settings.live));
            }
            Some(Err(errors)) => {
                telemetry.reloads.refused.add(1);
                for error in errors {
                    tracing::error!(error, "refused the changed settings; the last good ones stay");
                }
            }
        }
    }
}
