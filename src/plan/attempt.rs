//! What failed before, and when it is tried again. Kept in memory only: a restart tries again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::fraction::fraction_of;
use crate::credential::{Class, MintError, saturating_add};

/// Failed attempts by login server; one that succeeds leaves none.
pub type Attempts = BTreeMap<String, Attempt>;

/// The failures of one registry since its last success.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The last failure.
    pub error: MintError,
    /// How many in a row since a change of the spec started the count anew.
    pub failures: u32,
    /// Since when failures happen of the classes that are only borne for a while.
    borne: Borne,
    /// When the next attempt is due.
    retry_at: Timestamp,
    /// Before this the upstream wants no other, whatever changes.
    floor_at: Timestamp,
    /// What asked for the last attempt.
    revision: Revision,
    /// Before this, a change of the spec neither brings the next attempt forward nor starts anew.
    reset_after: Timestamp,
}

/// When the first failure of each class happened that is only borne for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Borne {
    propagation: Option<Timestamp>,
    escalating: Option<Timestamp>,
}

/// What asks for an attempt: a change of it starts the count anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// When a refresh was asked for.
    pub refresh: Option<Timestamp>,
}

const RETRY_FIRST: SignedDuration = SignedDuration::from_secs(1);
const PROPAGATION_FIRST: SignedDuration = SignedDuration::from_secs(5);
const BACKOFF_CAP: SignedDuration = SignedDuration::from_secs(60);
/// Roles and federated credentials need up to 10 minutes to spread; then somebody must act.
const PROPAGATION_LIMIT: SignedDuration = SignedDuration::from_mins(15);
const TERMINAL: SignedDuration = SignedDuration::from_mins(10);
/// Entra may hold on to an issuer's old keys for up to an hour; then somebody must act.
const ESCALATION_LIMIT: SignedDuration = SignedDuration::from_hours(1);
/// A spec that flips all the time resets its backoff this often at most.
const RESET_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// Delays are spread over ± this part.
const SPREAD: f64 = 0.2;

// === impl Attempt ===

impl Attempt {
    /// The attempt that failed with `error` at `now`, following `previous`. `seed` spreads the delay.
    pub fn failed(
        previous: Option<&Self>,
        error: MintError,
        revision: Revision,
        seed: &str,
        now: Timestamp,
    ) -> Self {
        let is_same =
            |previous: &&Self| previous.revision == revision || now < previous.reset_after;
        let same = previous.filter(is_same);
        let failures = same.map_or(1, |same| same.failures.saturating_add(1));
        let borne = same.map(|same| same.borne).unwrap_or_default();
        let borne = borne.with(error.class(), now);
        let delay = delay(&error, failures, borne, now);
        let spread = 1.0 + SPREAD * (2.0 * fraction_of(&[seed, &failures.to_string()]) - 1.0);
        let delay = SignedDuration::from_secs_f64(delay.as_secs_f64() * spread);
        let floor = error.retry_after.unwrap_or(SignedDuration::ZERO);
        Self {
            error,
            failures,
            borne,
            retry_at: saturating_add(now, delay.max(floor)),
            floor_at: saturating_add(now, floor),
            revision,
            reset_after: match (same, previous) {
                (Some(same), _) => same.reset_after,
                (None, Some(_)) => saturating_add(now, RESET_INTERVAL),
                (None, None) => now,
            },
        }
    }

    /// When the next attempt is due for this revision: a change brings it forward.
    pub fn next_at(&self, revision: Revision) -> Timestamp {
        if self.revision == revision {
            self.retry_at
        } else {
            self.retry_at.min(self.reset_after).max(self.floor_at)
        }
    }

    /// Whether it was made for this generation of the spec.
    pub fn is_of(&self, generation: Option<i64>) -> bool {
        self.revision.generation == generation
    }

    /// Whether somebody must act before this can work.
    pub fn is_terminal(&self, now: Timestamp) -> bool {
        self.borne.is_over(self.error.class(), now)
    }
}

// === impl Borne ===

impl Borne {
    /// Another class in between, an outage for one, does not start the count anew: what was there before is
    /// there after it.
    fn with(mut self, class: Class, now: Timestamp) -> Self {
        match class {
            Class::Propagation => _ = self.propagation.get_or_insert(now),
            Class::Escalating => _ = self.escalating.get_or_insert(now),
            Class::Terminal | Class::Awaited | Class::Retryable => {}
        }
        self
    }

    fn is_over(self, class: Class, now: Timestamp) -> bool {
        let (since, patience) = match class {
            Class::Terminal | Class::Awaited => return true,
            Class::Retryable => return false,
            Class::Propagation => (self.propagation, PROPAGATION_LIMIT),
            Class::Escalating => (self.escalating, ESCALATION_LIMIT),
        };
        since.is_some_and(|since| now.duration_since(since) >= patience)
    }
}

fn delay(error: &MintError, failures: u32, borne: Borne, now: Timestamp) -> SignedDuration {
    let class = error.class();
    let first = match class {
        Class::Retryable | Class::Awaited => RETRY_FIRST,
        _ if borne.is_over(class, now) => return TERMINAL,
        Class::Escalating => RETRY_FIRST,
        Class::Propagation | Class::Terminal => PROPAGATION_FIRST,
    };
    let doublings = failures.saturating_sub(1).min(16);
    (first * (1 << doublings)).min(BACKOFF_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{Cause, Hop};

    fn delays(error: MintError, count: usize) -> Vec<i64> {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut attempt: Option<Attempt> = None;
        (0..count)
            .map(|_| {
                let next = Attempt::failed(attempt.as_ref(), error, spec(1), "uid", now);
                let delay = next.next_at(spec(1)).duration_since(now).as_secs();
                now = next.next_at(spec(1));
                attempt = Some(next);
                delay
            })
            .collect()
    }

    fn spec(generation: i64) -> Revision {
        Revision {
            generation: Some(generation),
            refresh: None,
        }
    }

    fn within(delay: i64, nominal: i64) -> bool {
        (nominal * 8 / 10 - 1..=nominal * 12 / 10).contains(&delay)
    }

    #[test]
    fn passing_trouble_is_retried_from_a_second_to_a_minute() {
        let delays = delays(MintError::new(Hop::Entra, Cause::Unavailable), 9);
        for (delay, nominal) in delays.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
            assert!(within(*delay, nominal), "{delays:?}");
        }
    }

    #[test]
    fn propagation_turns_terminal_after_a_quarter_of_an_hour() {
        let delays = delays(MintError::entra(401, &[700_213], None), 30);
        assert!(within(delays[0], 5) && within(delays[3], 40), "{delays:?}");
        let slow = delays.iter().position(|delay| within(*delay, 600)).unwrap();
        let quick: i64 = delays[..slow].iter().sum();
        assert!((15 * 60..17 * 60).contains(&quick), "{delays:?}");
        assert!(
            delays[slow..].iter().all(|delay| within(*delay, 600)),
            "{delays:?}"
        );
    }

    #[test]
    fn what_has_no_business_lasting_turns_terminal_after_an_hour() {
        let delays = delays(MintError::entra(401, &[700_027], None), 90);
        assert!(within(delays[0], 1) && within(delays[6], 60), "{delays:?}");
        let slow = delays.iter().position(|delay| within(*delay, 600)).unwrap();
        let quick: i64 = delays[..slow].iter().sum();
        assert!((60 * 60..63 * 60).contains(&quick), "{delays:?}");
        assert!(
            delays[slow..].iter().all(|delay| within(*delay, 600)),
            "{delays:?}"
        );
    }

    #[test]
    fn one_class_does_not_use_up_the_time_of_another() {
        let minute = SignedDuration::from_mins(1);
        let stale_keys = MintError::entra(401, &[700_027], None);
        let new_federation = MintError::entra(401, &[700_213], None);
        let outage = MintError::new(Hop::Entra, Cause::Unavailable);
        let mut now = Timestamp::UNIX_EPOCH;
        let mut attempt = Attempt::failed(None, stale_keys, spec(1), "uid", now);
        now += 50 * minute;
        for error in [new_federation, outage, new_federation] {
            attempt = Attempt::failed(Some(&attempt), error, spec(1), "uid", now);
            assert!(!attempt.is_terminal(now), "{error}");
            now += 7 * minute;
        }
        assert!(!attempt.is_terminal(now - 7 * minute));
        now += minute;
        attempt = Attempt::failed(Some(&attempt), new_federation, spec(1), "uid", now);
        assert!(
            attempt.is_terminal(now),
            "an outage in between changes nothing"
        );
    }

    #[test]
    fn terminal_failures_are_retried_slowly() {
        let delays = delays(MintError::entra(400, &[90_002], None), 3);
        assert!(delays.iter().all(|delay| within(*delay, 600)), "{delays:?}");
    }

    #[test]
    fn retry_after_is_a_floor() {
        let error = MintError::entra(429, &[], Some(SignedDuration::from_secs(60)));
        assert!(delays(error, 5).iter().all(|delay| *delay >= 60));
    }

    #[test]
    fn a_changed_spec_is_tried_at_once_but_not_all_the_time() {
        let error = MintError::entra(400, &[90_002], None);
        let start = Timestamp::UNIX_EPOCH;
        let first = Attempt::failed(None, error, spec(1), "uid", start);
        assert!(first.next_at(spec(1)) > start + SignedDuration::from_mins(5));
        assert_eq!(first.next_at(spec(2)), start);
        let second = Attempt::failed(Some(&first), error, spec(2), "uid", start);
        assert_eq!(second.failures, 1);
        assert_eq!(second.next_at(spec(3)), start + RESET_INTERVAL);
    }
}
