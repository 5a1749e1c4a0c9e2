//! When something that failed is tried again. Kept in memory only: a restart tries again.

use jiff::{SignedDuration, Timestamp};

use super::schedule::spread;
use crate::credential::{Cause, Class, IssuedFor, MintError, saturating_add};

/// What asks for an attempt. A change of it brings the next attempt forward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// When a refresh was asked for.
    pub refresh: Option<Timestamp>,
    /// What is to be issued, where that is known.
    pub issued_for: Option<IssuedFor>,
}

/// Failures in a row, and when the next attempt is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// How many in a row since a change of the revision.
    pub failures: u32,
    retry_at: Timestamp,
    /// No attempt is made before this, whatever changes.
    floor_at: Timestamp,
    revision: Revision,
    /// Before this, a change of the revision neither brings the next attempt forward nor resets the count.
    reset_after: Timestamp,
}

/// The failed attempts of one registry since its last success.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The failure to report: the first of those in a row that have the same cause, so that a changing HTTP
    /// status does not change the report.
    pub error: MintError,
    /// When the first and the last of the failures happened that were more than a request to wait.
    pub answers: Option<(Timestamp, Timestamp)>,
    /// When it is tried again.
    pub backoff: Backoff,
    first_seen: FirstSeen,
}

/// When each class of failure that turns terminal after a while was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FirstSeen {
    propagation: Option<Timestamp>,
    escalating: Option<Timestamp>,
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const PROPAGATION_FIRST: SignedDuration = SignedDuration::from_secs(5);
const CAP: SignedDuration = SignedDuration::from_secs(60);
/// Roles and federated credentials need up to 10 minutes to take effect.
const PROPAGATION_LIMIT: SignedDuration = SignedDuration::from_mins(15);
/// Entra may keep an issuer's old keys for up to an hour.
const ESCALATION_LIMIT: SignedDuration = SignedDuration::from_hours(1);
const TERMINAL: SignedDuration = SignedDuration::from_mins(10);
/// A spec that changes all the time resets its backoff this often at most.
const RESET_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// Delays are up to this part shorter, so that objects which failed together do not come back together.
const SPREAD: f64 = 0.2;

// === impl Revision ===

impl Revision {
    fn is_same(&self, other: &Self) -> bool {
        let is_same_target = match (&self.issued_for, &other.issued_for) {
            (Some(one), Some(other)) => one == other,
            // Not known for the moment: no news.
            _ => true,
        };
        is_same_target && self.generation == other.generation && self.refresh == other.refresh
    }
}

// === impl Backoff ===

impl Backoff {
    /// After a failure at `now` that follows `previous`. `delay` gives the wait after so many failures; `floor`
    /// is the wait that an answer demands. `seed` spreads the delay.
    pub fn after(
        previous: Option<&Self>,
        revision: Revision,
        delay: impl FnOnce(u32) -> SignedDuration,
        floor: SignedDuration,
        seed: &str,
        now: Timestamp,
    ) -> Self {
        let same = previous
            .filter(|previous| previous.revision.is_same(&revision) || now < previous.reset_after);
        let failures = same.map_or(1, |same| same.failures.saturating_add(1));
        let part = spread(seed, &failures.to_string());
        let factor = 1.0 - SPREAD * part;
        let delay = SignedDuration::from_secs_f64(delay(failures).as_secs_f64() * factor);
        Self {
            failures,
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

    /// The delay of 1 s that doubles up to 60 s.
    pub fn retryable(failures: u32) -> SignedDuration {
        exponential(SECOND, CAP, failures)
    }

    /// The delay of 5 s that doubles up to 10 minutes: until a user changes something in the cluster.
    pub fn user_action(failures: u32) -> SignedDuration {
        exponential(PROPAGATION_FIRST, TERMINAL, failures)
    }

    /// When the next attempt is due for this revision.
    pub fn next_at(&self, revision: &Revision) -> Timestamp {
        if self.revision.is_same(revision) {
            self.retry_at
        } else {
            self.retry_at.min(self.reset_after).max(self.floor_at)
        }
    }

    /// Whether it is so long over that a new failure begins a new count.
    pub fn is_forgotten(&self, now: Timestamp) -> bool {
        let over = self.retry_at.max(self.reset_after).max(self.floor_at);
        now > saturating_add(over, TERMINAL)
    }
}

fn exponential(first: SignedDuration, cap: SignedDuration, failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(16);
    (first * (1 << doublings)).min(cap)
}

// === impl Attempt ===

impl Attempt {
    /// The attempt that failed with `error` at `now`, following `previous`.
    pub fn failed(
        previous: Option<&Self>,
        error: MintError,
        revision: Revision,
        seed: &str,
        now: Timestamp,
    ) -> Self {
        let backoff = previous.map(|previous| &previous.backoff);
        let is_same = backoff.is_some_and(|b| b.revision.is_same(&revision) || now < b.reset_after);
        let same = previous.filter(|_| is_same);
        let first_seen = same.map(|same| same.first_seen).unwrap_or_default();
        let first_seen = first_seen.with(error.class(), now);
        let delay = |failures| delay(&error, failures, first_seen, now);
        let floor = error.retry_after.unwrap_or(SignedDuration::ZERO);
        let answers = same.and_then(|same| same.answers);
        let is_alike = |same: &&Self| {
            let same = &same.error;
            (same.hop, same.cause, same.code, same.missing)
                == (error.hop, error.cause, error.code, error.missing)
        };
        Self {
            error: same.filter(is_alike).map_or(error, |same| same.error),
            answers: if error.cause == Cause::Throttled {
                answers
            } else {
                Some((answers.map_or(now, |(first, _)| first), now))
            },
            backoff: Backoff::after(backoff, revision, delay, floor, seed, now),
            first_seen,
        }
    }

    /// When the next attempt is due for this revision.
    pub fn next_at(&self, revision: &Revision) -> Timestamp {
        self.backoff.next_at(revision)
    }

    /// Whether it was made for this generation of the spec.
    pub fn is_of(&self, generation: Option<i64>) -> bool {
        self.backoff.revision.generation == generation
    }

    /// Whether a person must act before this can work.
    pub fn is_terminal(&self, now: Timestamp) -> bool {
        self.first_seen.is_over(self.error.class(), now)
    }
}

// === impl FirstSeen ===

impl FirstSeen {
    /// Another class in between, such as an outage, does not reset the time.
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

fn delay(error: &MintError, failures: u32, seen: FirstSeen, now: Timestamp) -> SignedDuration {
    match error.class() {
        Class::Retryable | Class::Awaited => Backoff::retryable(failures),
        class if seen.is_over(class, now) => TERMINAL,
        Class::Propagation => exponential(PROPAGATION_FIRST, CAP, failures),
        Class::Escalating | Class::Terminal => Backoff::retryable(failures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Hop;

    fn delays(error: MintError, count: usize) -> Vec<i64> {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut attempt: Option<Attempt> = None;
        (0..count)
            .map(|_| {
                let next = Attempt::failed(attempt.as_ref(), error, spec(1), "uid", now);
                let delay = next.next_at(&spec(1)).duration_since(now).as_secs();
                now = next.next_at(&spec(1));
                attempt = Some(next);
                delay
            })
            .collect()
    }

    fn spec(generation: i64) -> Revision {
        Revision {
            generation: Some(generation),
            ..Revision::default()
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
        assert!((15 * 60 - 30..17 * 60).contains(&quick), "{delays:?}");
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
        assert!((60 * 60 - 90..63 * 60).contains(&quick), "{delays:?}");
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
        assert!(first.next_at(&spec(1)) > start + SignedDuration::from_mins(5));
        assert_eq!(first.next_at(&spec(2)), start);
        let second = Attempt::failed(Some(&first), error, spec(2), "uid", start);
        assert_eq!(second.backoff.failures, 1);
        assert_eq!(second.next_at(&spec(3)), start + RESET_INTERVAL);
    }

    #[test]
    fn failures_that_differ_only_in_their_http_status_are_reported_alike() {
        let mut attempt = None;
        for status in [500, 503, 502, 504] {
            let error = MintError::entra(status, &[], None);
            let now = Timestamp::UNIX_EPOCH;
            attempt = Some(Attempt::failed(
                attempt.as_ref(),
                error,
                spec(1),
                "uid",
                now,
            ));
        }
        assert_eq!(attempt.map(|attempt| attempt.error.status), Some(Some(500)));
    }

    #[test]
    fn another_identity_is_tried_at_once() {
        let issued_for = |hash: char| {
            let hash: String = std::iter::repeat_n(hash, 32).collect();
            IssuedFor::parse(&format!("controller:{hash}:{hash}"))
        };
        let of = |hash| Revision {
            issued_for: issued_for(hash),
            ..spec(1)
        };
        let error = MintError::entra(400, &[90_002], None);
        let start = Timestamp::UNIX_EPOCH;
        let attempt = Attempt::failed(None, error, of('a'), "uid", start);
        assert_eq!(attempt.next_at(&of('b')), start);
        assert!(attempt.next_at(&of('a')) > start && attempt.next_at(&spec(1)) > start);
    }
}
