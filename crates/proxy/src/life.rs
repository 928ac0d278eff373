//! Starting, ready, draining, gone.

use std::future::pending;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

use crate::destination::Direction;
use crate::settings::Drain;
use crate::telemetry::Telemetry;

/// Where the sidecar stands; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Listeners are being bound.
    Starting,
    /// Traffic is carried.
    Ready,
    /// `POST /drain` was given: clients are asked to go elsewhere, everything is still carried. Still ready.
    Draining,
    /// SIGTERM was given: as draining, and no longer ready.
    Terminating,
    /// Inbound accepts no more; what is in flight goes on.
    Closing,
    /// `POST /quitquitquit` was given, or all is done: leave now.
    Gone,
}

/// The one place that knows the [`Phase`], shared by all threads.
#[derive(Debug)]
pub(crate) struct Life {
    phase: watch::Sender<Phase>,
    /// The same, to be read on every request.
    draining: AtomicU8,
}

impl Default for Life {
    fn default() -> Self {
        Life { phase: watch::Sender::new(Phase::Starting), draining: AtomicU8::new(0) }
    }
}

impl Life {
    /// Moves to `next`; an earlier phase than the present one changes nothing.
    pub(crate) fn advance(&self, next: Phase) {
        if next >= Phase::Draining {
            self.draining.store(1, Relaxed);
        }
        self.phase.send_if_modified(|phase| {
            let forward = next > *phase;
            if forward {
                *phase = next;
            }
            forward
        });
    }

    /// The present phase.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether the sidecar can carry traffic and is not about to leave.
    pub(crate) fn ready(&self) -> bool {
        matches!(self.phase(), Phase::Ready | Phase::Draining)
    }

    /// Whether inbound clients are asked to go elsewhere. Cheap.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Relaxed) != 0
    }

    /// Waits until the phase is `phase` or later.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut changes = self.phase.subscribe();
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = changes.wait_for(|now| *now >= phase).await;
    }

    /// The same for what belongs to one direction. Outbound never gets there: the application may need the world until its
    /// end.
    pub(crate) async fn reached_in(&self, direction: Direction, phase: Phase) {
        match direction {
            Direction::Inbound => self.reached(phase).await,
            Direction::Outbound => pending().await,
        }
    }

    /// What SIGTERM asks for: stop being ready, let connections in flight go on within `drain`, then be gone.
    ///
    /// - After `POST /drain` (the kubelet gives it to a native sidecar before SIGTERM, which it sends when the
    ///   application has ended): leave as soon as no connection is active, after `drain.termination` at the latest.
    /// - With `exit_on_zero`: go on accepting for `drain.minimum`, as endpoints spread slowly; then leave as soon as no
    ///   connection is active. The kubelet's grace period is the bound.
    /// - Else: go on for `drain.termination`, then leave whatever is active.
    pub(crate) async fn terminate(&self, drain: Drain, telemetry: &Telemetry) {
        let drained = self.phase() == Phase::Draining;
        self.advance(Phase::Terminating);
        if drained {
            self.advance(Phase::Closing);
            let _ = tokio::time::timeout(drain.termination, idle(telemetry)).await;
        } else if drain.exit_on_zero {
            tokio::time::sleep(drain.minimum).await;
            self.advance(Phase::Closing);
            idle(telemetry).await;
        } else {
            tokio::time::sleep(drain.termination).await;
        }
        self.advance(Phase::Gone);
    }
}

/// Waits until no connection is active.
async fn idle(telemetry: &Telemetry) {
    while telemetry.active() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::identity::Identity;

    const CLASSIC: Drain =
        Drain { termination: Duration::from_secs(5), exit_on_zero: false, minimum: Duration::from_secs(3) };

    /// How long termination takes when the one connection ends after `ends`.
    async fn takes(life: &Life, drain: Drain, ends: Duration) -> Duration {
        let telemetry = Telemetry::new(1, Identity::unknown());
        let shard = telemetry.shard(0);
        let active = shard.inbound.accept();
        let started = Instant::now();
        let end = async {
            tokio::time::sleep(ends).await;
            drop(active);
        };
        let terminated = async {
            life.terminate(drain, &telemetry).await;
            started.elapsed()
        };
        tokio::join!(terminated, end).0
    }

    #[test]
    fn phases_only_move_forward() {
        let life = Life::default();
        assert!(!life.ready());
        life.advance(Phase::Ready);
        assert!(life.ready() && !life.draining());
        life.advance(Phase::Draining);
        assert!(life.ready() && life.draining());
        life.advance(Phase::Ready);
        assert_eq!(life.phase(), Phase::Draining);
        life.advance(Phase::Terminating);
        assert!(!life.ready());
    }

    #[tokio::test(start_paused = true)]
    async fn classic_termination_takes_its_time_whatever_is_active() {
        let taken = takes(&Life::default(), CLASSIC, Duration::from_secs(60)).await;
        assert_eq!(taken.as_secs(), 5);
        let taken = takes(&Life::default(), CLASSIC, Duration::ZERO).await;
        assert_eq!(taken.as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn exit_on_zero_waits_the_minimum_and_then_for_the_last_connection() {
        let drain = Drain { exit_on_zero: true, ..CLASSIC };
        assert_eq!(takes(&Life::default(), drain, Duration::from_secs(60)).await.as_secs(), 60);
        assert_eq!(takes(&Life::default(), drain, Duration::ZERO).await.as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drained_sidecar_leaves_with_its_last_connection() {
        let life = Life::default();
        life.advance(Phase::Draining);
        assert_eq!(takes(&life, CLASSIC, Duration::from_secs(2)).await.as_secs(), 2);
        let life = Life::default();
        life.advance(Phase::Draining);
        assert_eq!(takes(&life, CLASSIC, Duration::from_secs(60)).await.as_secs(), 5);
        assert_eq!(life.phase(), Phase::Gone);
    }
}
