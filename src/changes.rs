//! Files that are followed by their contents.
//!
//! Contents, not events: a kubelet swaps the `..data` link of a mounted ConfigMap or Secret, and whoever watches the files
//! themselves misses that from the second time on.

use std::time::Duration;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// Waits until `read` gives something else than `known`, twice the same: files change one after the other, and one may
/// be half written.
pub async fn next<T: PartialEq>(known: &T, mut read: impl FnMut() -> T) -> T {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen_once = None;
    loop {
        ticks.tick().await;
        let found = read();
        if found == *known {
            seen_once = None;
        } else if seen_once.as_ref() == Some(&found) {
            return found;
        } else {
            seen_once = Some(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_counts_when_it_was_seen_twice() {
        let mut contents = ["a", "b", "a", "b", "c", "c", "d"].into_iter();
        assert_eq!(next(&"a", || contents.next().unwrap()).await, "c");
        assert_eq!(contents.next(), Some("d"));
    }
}
