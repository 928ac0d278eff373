//! Pods that come in one after the other, none of which may be refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::cluster::{Namespace, dry_run};
use crate::pods;

/// Somebody who creates one pod after the other, until told to stop.
#[derive(Debug)]
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    creating: JoinHandle<u32>,
}

impl Stream {
    /// Begins to create pods, which are not stored; each must come back injected.
    pub(crate) fn start(namespace: Namespace) -> Stream {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let creating = std::thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                let pod = dry_run(&namespace.name, &pods::stored("one-of-many"));
                let pod = pod.unwrap_or_else(|error| panic!("pod {count} was refused: {error}"));
                assert!(pods::injected(&pod.json()), "pod {count}: {}", pod.stderr);
                count += 1;
            }
            count
        });
        Stream { stop, creating }
    }

    /// How many pods came in; none was refused.
    pub(crate) fn finish(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.creating.join().expect("no pod was refused")
    }
}
