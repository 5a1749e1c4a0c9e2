//! Who of several replicas works: what to do about a shared lease, and when. Pure: whoever asks says what
//! was seen and at which instant.
//!
//! Only instants of this process are compared. A lease has expired once this process has seen no change of
//! it for its duration; what its holder's clock says counts for nothing, so clocks may differ at will.
//!
//! For a lease of 15 s, counted from the beginning of the last renewal that was taken:
//!
//! | after | the holder | the others |
//! |---|---|---|
//! | 5 s | renews | look every second |
//! | 10 s | begins nothing more | |
//! | 12.5 s | drops what has not ended | |
//! | 14 s or later | | take over |

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

/// The longest duration of a lease that is believed.
pub const MAX_LEASE_DURATION: Duration = Duration::from_mins(10);

/// Which lease to hold, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Its namespace; `None`: the client's.
    pub namespace: Option<String>,
    /// Its name. Replicas that share the work have the same, other installations and shards another.
    pub name: String,
    /// How this process calls itself. No two may be alike, not even one after the other in a pod.
    pub identity: String,
    /// How long the lease stands without a renewal, in whole seconds.
    pub duration: Duration,
}

/// A lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Changes with each write.
    pub version: String,
    /// Who holds it; `None` once it was released.
    pub holder: Option<String>,
    /// How long it stands without a renewal; `None` where the holder does not say.
    pub duration: Option<Duration>,
}

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the lease.
    Look,
    /// Create it, held by this candidate.
    Create,
    /// Write this candidate into it, over the version that was seen last.
    Take,
    /// Write it again, over the version that was written last.
    Renew,
    /// Nothing, for so long.
    Rest(Duration),
}

/// One candidate's view of the lease.
#[derive(Debug)]
pub struct Election {
    me: String,
    duration: Duration,
    view: View,
    looked_at: Option<Instant>,
    /// When the last write of ours that was taken began, while nobody else was seen to hold the lease.
    renewed_at: Option<Instant>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
enum View {
    /// Look before all else.
    Unknown,
    /// There is none.
    Absent,
    Seen(Seen),
}

#[derive(Debug)]
struct Seen {
    record: LeaseRecord,
    /// When this version was first seen.
    since: Instant,
}

// === impl LeaseOptions ===

impl LeaseOptions {
    /// A name for this process that no other one has: the containers of a pod follow each other under one name.
    pub fn unique_identity(pod: &str) -> String {
        let unique = RandomState::new().build_hasher().finish();
        format!("{pod}_{unique:016x}")
    }
}

// === impl Election ===

impl Election {
    /// A candidate that has seen nothing. `me` must differ from what any other process calls itself.
    pub fn new(me: String, duration: Duration) -> Self {
        Self {
            me,
            duration,
            view: View::Unknown,
            looked_at: None,
            renewed_at: None,
            not_before: None,
        }
    }

    /// How long a call may take: two fit between the time to renew and the end.
    pub fn call_limit(&self) -> Duration {
        self.duration / 6
    }

    /// Until when this candidate may begin something; `None` while it does not hold the lease.
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed_at.map(|at| at + self.duration * 2 / 3)
    }

    /// How long after [`leads_until`](Self::leads_until) what was begun must be dropped.
    pub fn grace(&self) -> Duration {
        self.duration / 6
    }

    /// What to do at `now`.
    pub fn next(&self, now: Instant) -> Step {
        if let Some(rest) = self.not_before.and_then(|at| until(at, now)) {
            return Step::Rest(rest);
        }
        match (&self.view, self.renewed_at) {
            (View::Unknown, _) => Step::Look,
            (View::Absent, _) => Step::Create,
            (View::Seen(_), Some(renewed_at)) => {
                until(renewed_at + self.duration / 3, now).map_or(Step::Renew, Step::Rest)
            }
            (View::Seen(seen), None) => self.stand_by(seen, now),
        }
    }

    fn stand_by(&self, seen: &Seen, now: Instant) -> Step {
        let Some(holder) = &seen.record.holder else {
            return Step::Take;
        };
        let duration = seen.record.duration.unwrap_or(self.duration);
        // What was seen may be older by the time between two looks. The holder ends well before.
        let duration = duration.min(MAX_LEASE_DURATION);
        let expires_in = duration.saturating_sub(self.look_every());
        let Some(rest) = until(seen.since + expires_in, now).filter(|_| *holder != self.me) else {
            return Step::Take;
        };
        let looked_at = self.looked_at.unwrap_or(seen.since);
        until(looked_at + self.look_every(), now)
            .map_or(Step::Look, |look| Step::Rest(look.min(rest)))
    }

    /// What a look has found, which was answered at `now`.
    pub fn looked(&mut self, found: Option<LeaseRecord>, now: Instant) {
        self.not_before = None;
        self.looked_at = Some(now);
        let is_mine = found
            .as_ref()
            .is_some_and(|record| record.holder.as_ref() == Some(&self.me));
        if !is_mine {
            self.renewed_at = None;
        }
        let since = |record: &LeaseRecord| match &self.view {
            View::Seen(seen) if seen.record == *record => seen.since,
            _ => now,
        };
        self.view = match found {
            None => View::Absent,
            Some(record) => View::Seen(Seen {
                since: since(&record),
                record,
            }),
        };
    }

    /// A write that was asked for at `asked_at` was taken, and answered at `now`.
    pub fn wrote(&mut self, record: LeaseRecord, asked_at: Instant, now: Instant) {
        self.not_before = None;
        self.renewed_at = Some(asked_at);
        self.view = View::Seen(Seen { record, since: now });
    }

    /// The lease is not what was seen last.
    pub fn conflicted(&mut self) {
        self.view = View::Unknown;
    }

    /// A call failed at `now`: it is tried again a little later.
    pub fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + self.look_every());
    }

    fn look_every(&self) -> Duration {
        (self.duration / 15).min(Duration::from_secs(1))
    }
}

/// How long it is until `at`; nothing once it has come.
fn until(at: Instant, now: Instant) -> Option<Duration> {
    at.checked_duration_since(now)
        .filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);
    const SECOND: Duration = Duration::from_secs(1);

    fn candidate(me: &str) -> Election {
        Election::new(me.to_owned(), DURATION)
    }

    fn record(version: &str, holder: &str) -> LeaseRecord {
        LeaseRecord {
            version: version.to_owned(),
            holder: (!holder.is_empty()).then(|| holder.to_owned()),
            duration: Some(DURATION),
        }
    }

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    #[test]
    fn the_first_look_finds_whether_there_is_a_lease_and_a_free_one_is_taken_at_once() {
        let now = Instant::now();
        for (found, step) in [
            (None, Step::Create),
            (Some(record("1", "")), Step::Take),
            (Some(record("1", "me")), Step::Take),
            (Some(record("1", "other")), Step::Rest(SECOND)),
        ] {
            let mut me = candidate("me");
            assert_eq!(me.next(now), Step::Look);
            me.looked(found.clone(), now);
            assert_eq!(me.next(now), step, "{found:?}");
            assert_eq!(me.leads_until(), None, "seen is not written");
        }
    }

    #[test]
    fn a_holder_renews_every_third_and_stops_at_two_thirds() {
        let start = Instant::now();
        let mut me = candidate("me");
        me.looked(None, start);
        me.wrote(record("1", "me"), start, start + SECOND);
        assert_eq!(me.next(start + SECOND), Step::Rest(seconds(4.0)));
        assert_eq!(me.next(start + seconds(5.0)), Step::Renew);
        assert_eq!(me.leads_until(), Some(start + seconds(10.0)));
        // Counted from the request, whose answer may have been long on its way.
        me.wrote(
            record("2", "me"),
            start + seconds(5.0),
            start + seconds(7.0),
        );
        assert_eq!(me.leads_until(), Some(start + seconds(15.0)));
    }

    #[test]
    fn another_replica_waits_until_it_has_seen_no_change_for_the_duration() {
        let start = Instant::now();
        let mut me = candidate("me");
        me.looked(Some(record("1", "other")), start);
        me.looked(Some(record("1", "other")), start + seconds(13.0));
        assert_eq!(me.next(start + seconds(13.9)), Step::Rest(seconds(0.1)));
        assert_eq!(me.next(start + seconds(14.0)), Step::Take);
        me.looked(Some(record("2", "other")), start + seconds(14.0));
        assert_eq!(me.next(start + seconds(15.0)), Step::Look);
        assert_eq!(me.next(start + seconds(28.0)), Step::Take);
    }

    #[test]
    fn the_holder_has_dropped_everything_before_another_can_begin() {
        let start = Instant::now();
        for seconds in [1_u64, 2, 3, 15, 60, 600] {
            let duration = Duration::from_secs(seconds);
            let mut holder = Election::new("a".into(), duration);
            let mut other = Election::new("b".into(), duration);
            let taken = LeaseRecord {
                duration: Some(duration),
                ..record("1", "a")
            };
            holder.wrote(taken.clone(), start, start);
            // The soonest that anybody can have seen the write.
            other.looked(Some(taken), start);
            let ended = holder.leads_until().unwrap() + holder.grace();
            assert_ne!(other.next(ended), Step::Take, "{seconds} s");
            // Killed right after: a candidate that looked a moment too early takes over in time.
            other.looked(None, start);
            let late = start + other.look_every();
            let seen = LeaseRecord {
                duration: Some(duration),
                ..record("1", "a")
            };
            other.looked(Some(seen), late);
            assert_eq!(other.next(start + duration), Step::Take, "{seconds} s");
        }
    }

    #[test]
    fn the_duration_is_the_holders_within_reason() {
        let start = Instant::now();
        for (duration, taken_after) in [
            (Some(Duration::from_mins(1)), 59.0),
            (Some(Duration::MAX), 599.0),
            (None, 14.0),
            (Some(Duration::ZERO), 0.0),
        ] {
            let mut me = candidate("me");
            let held = LeaseRecord {
                duration,
                ..record("1", "other")
            };
            me.looked(Some(held), start);
            let taken_at = start + seconds(taken_after);
            assert_eq!(me.next(taken_at), Step::Take, "{duration:?}");
            let before = taken_at.checked_sub(seconds(0.1)).unwrap();
            assert!(
                taken_after < 1.0 || me.next(before) != Step::Take,
                "{duration:?}"
            );
        }
    }

    #[test]
    fn whoever_sees_another_holder_leads_no_more() {
        let start = Instant::now();
        for found in [
            None,
            Some(record("2", "")),
            Some(record("2", "other")),
            Some(record("2", "me")),
        ] {
            let mut me = candidate("me");
            me.wrote(record("1", "me"), start, start);
            me.conflicted();
            assert_eq!(me.next(start), Step::Look);
            me.looked(found.clone(), start);
            // Another client may label our lease.
            let is_mine = found == Some(record("2", "me"));
            assert_eq!(me.leads_until().is_some(), is_mine, "{found:?}");
        }
    }

    #[test]
    fn a_failed_renewal_is_tried_again_and_again() {
        let start = Instant::now();
        let mut me = candidate("me");
        me.wrote(record("1", "me"), start, start);
        for second in [5.0, 6.0, 7.0, 20.0] {
            let now = start + seconds(second);
            assert_eq!(me.next(now), Step::Renew);
            me.failed(now);
            assert_eq!(me.next(now), Step::Rest(SECOND));
        }
        assert_eq!(me.leads_until(), Some(start + seconds(10.0)));
    }
}
