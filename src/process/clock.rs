//! The wall clock, as something that is handed in: tests turn it instead of sleeping.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// Returns the time and waits for a time. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// How far it was moved against the system's time.
    offset: Arc<watch::Sender<SignedDuration>>,
    is_adjustable: bool,
}

/// The longest nap: a stepped wall clock or a resumed laptop is noticed after at most this long.
/// Timers alone would not do, as they count monotonic time, which stands still during suspend.
const MAX_NAP: SignedDuration = SignedDuration::from_secs(30);

// === impl Clock ===

impl Clock {
    /// The system's time.
    pub fn system() -> Self {
        Self::default()
    }

    /// The system's time until [`advance`](Self::advance) moves it.
    pub fn adjustable() -> Self {
        Self {
            is_adjustable: true,
            ..Self::default()
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.saturating_add(*self.offset.borrow()).unwrap_or(now)
    }

    /// Moves an adjustable clock and all its clones forward, or back by a negative duration, and
    /// wakes whoever sleeps on it. Panics on the system's clock, which nobody may move.
    pub fn advance(&self, by: SignedDuration) {
        assert!(
            self.is_adjustable,
            "only a clock made by Clock::adjustable can be moved"
        );
        self.offset
            .send_modify(|offset| *offset = offset.saturating_add(by));
    }

    /// Returns once `now() >= at`, when the clock was moved, or after 30 s: whoever waits looks at the time again.
    pub async fn nap_until(&self, at: Timestamp) {
        let mut changes = self.offset.subscribe();
        let remaining = at.duration_since(self.now());
        if remaining.is_positive() {
            let nap = Duration::try_from(remaining.min(MAX_NAP)).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                // Cannot fail: the sender lives as long as the clock that sleeps.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    async fn sleep_until(clock: &Clock, at: Timestamp) {
        while clock.now() < at {
            clock.nap_until(at).await;
        }
    }

    fn later(clock: &Clock, by: SignedDuration) -> Timestamp {
        clock.now() + by
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_does_not_wait() {
        for clock in [Clock::system(), Clock::adjustable()] {
            let started = Instant::now();
            sleep_until(&clock, clock.now()).await;
            sleep_until(&clock, later(&clock, -HOUR)).await;
            sleep_until(&clock, Timestamp::MIN).await;
            assert_eq!(started.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn advancing_any_clone_wakes_every_sleeper() {
        let clock = Clock::adjustable();
        let before = clock.now();
        let sleepers = [1, 2, 3].map(|_| {
            let clock = clock.clone();
            let at = later(&clock, HOUR);
            tokio::spawn(async move { sleep_until(&clock, at).await })
        });
        // Lets the sleepers fall asleep first, so that it is the change that wakes them.
        tokio::task::yield_now().await;
        let started = Instant::now();
        clock.clone().advance(HOUR);
        for sleeper in sleepers {
            sleeper.await.unwrap();
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "woken, not timed out");
        assert!(clock.now() >= before + HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn turning_the_clock_back_makes_the_wait_longer() {
        let clock = Clock::adjustable();
        let at = later(&clock, HOUR);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { sleep_until(&clock, at).await }
        });
        tokio::task::yield_now().await;
        clock.advance(-HOUR);
        clock.advance(HOUR);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(HOUR);
        sleeper.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_nobody_announces_is_noticed_within_a_nap() {
        let clock = Clock::adjustable();
        let at = later(&clock, HOUR);
        let sender = clock.offset.clone();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { sleep_until(&clock, at).await }
        });
        tokio::task::yield_now().await;
        let started = Instant::now();
        sender.send_if_modified(|offset| {
            *offset = HOUR;
            false
        });
        sleeper.await.unwrap();
        assert!(
            started.elapsed() <= Duration::from_secs(31),
            "{:?}",
            started.elapsed()
        );
        assert!(started.elapsed() > Duration::ZERO);
    }

    #[tokio::test]
    async fn real_time_passes() {
        for clock in [Clock::system(), Clock::adjustable()] {
            let at = later(&clock, SignedDuration::from_millis(20));
            timeout(Duration::from_secs(5), sleep_until(&clock, at))
                .await
                .unwrap();
            assert!(clock.now() >= at);
        }
    }

    #[test]
    #[should_panic(expected = "only a clock made by Clock::adjustable")]
    fn the_system_clock_cannot_be_moved() {
        Clock::system().advance(HOUR);
    }

    #[test]
    fn an_absurd_offset_does_not_panic() {
        let clock = Clock::adjustable();
        clock.advance(SignedDuration::MAX);
        clock.advance(SignedDuration::MAX);
        let _ = clock.now();
    }
}
