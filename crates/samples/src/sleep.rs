//! Waits. It is a container's first process, which SIGTERM ends only if it asks for it.

use std::time::Duration;

use crate::Failed;
use crate::server::{Ends, runtime};

/// Waits for as long as the only argument says, or for ever, and ends at SIGTERM.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let time = match arguments {
        [] => None,
        [word] => time(word).map_err(|reason| (2, reason))?,
        [_, second, ..] => return Err((2, format!("one time at most; {second:?} is a second"))),
    };
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut ends = Ends::new()?;
        match time {
            None => ends.wait().await,
            Some(time) => tokio::select! {
                () = ends.wait() => {}
                () = tokio::time::sleep(time) => {}
            },
        }
        Ok(())
    })
}

/// The time that a word stands for; `None` is for ever.
fn time(word: &str) -> Result<Option<Duration>, String> {
    if word == "infinity" {
        return Ok(None);
    }
    let seconds = word.strip_suffix('s').unwrap_or(word).parse().ok();
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map(Some).ok_or_else(|| format!("{word:?} is no time: expected seconds, or infinity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_or_for_ever() {
        assert_eq!(time("infinity"), Ok(None));
        assert_eq!(time("1.5"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(time("3600s"), Ok(Some(Duration::from_secs(3600))));
        for word in ["", "-1", "1m", "inf", "nan", "soon"] {
            assert_eq!(time(word), Err(format!("{word:?} is no time: expected seconds, or infinity")));
        }
    }
}
