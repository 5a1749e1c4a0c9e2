//! Refreshes that a user asks for with the annotation `acrcred.dev/refresh`.

use jiff::{SignedDuration, Timestamp};

use crate::api::AcrCredential;
use crate::credential::{CLOCK_STEP, saturating_add};

/// A user wants credentials that are received after this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshRequest {
    /// The annotation's value.
    pub value: String,
    /// A credential that was received before does not count.
    pub since: Timestamp,
    /// Whether the status says that it is done.
    is_handled: bool,
}

/// An annotation that changes all the time has an effect this often at most.
const INTERVAL: SignedDuration = SignedDuration::from_mins(1);

// === impl RefreshRequest ===

impl RefreshRequest {
    /// What `object` asks for, after `previous`, the last that it asked for. `first_seen` tells when a value was seen first.
    pub fn of(
        object: &AcrCredential,
        previous: Option<&Self>,
        first_seen: impl FnOnce(&str) -> Timestamp,
    ) -> Option<Self> {
        let value = object.refresh_request()?;
        let status = object.status.as_ref();
        let handled = status.and_then(|status| status.last_handled_refresh.as_deref());
        let is_handled = handled == Some(value);
        match previous {
            Some(previous) if previous.value == value => Some(Self {
                is_handled,
                ..previous.clone()
            }),
            _ if is_handled => None,
            _ => {
                let since = first_seen(value);
                // One that has not begun is replaced; one that has, is followed after a while.
                let not_before = previous.map(|previous| {
                    if previous.since > since {
                        previous.since
                    } else {
                        saturating_add(previous.since, INTERVAL)
                    }
                });
                Some(Self {
                    value: value.to_owned(),
                    since: not_before.map_or(since, |bound| bound.max(since)),
                    is_handled,
                })
            }
        }
    }

    /// Judges its time again after the clock was set back to `now`: a request waits a minute at most.
    pub(super) fn rebase(&mut self, now: Timestamp) {
        if self.since > saturating_add(now, INTERVAL + CLOCK_STEP) {
            self.since = now;
        }
    }

    /// When it was asked for, unless a credential that was received at `received_at` is new enough.
    pub fn asked_at(&self, received_at: Option<Timestamp>) -> Option<Timestamp> {
        let is_done = self.is_handled || received_at.is_some_and(|at| self.since <= at);
        (!is_done).then_some(self.since)
    }
}

/// The value to report as done: the request's, if every registry has a credential that was received since, at the times
/// of `received`.
pub(super) fn last_handled(
    request: Option<&RefreshRequest>,
    mut received: impl Iterator<Item = Option<Timestamp>>,
) -> Option<String> {
    let request = request?;
    // At least one, or nothing was refreshed.
    let first = received.next()?;
    let is_done =
        request.asked_at(first).is_none() && received.all(|at| request.asked_at(at).is_none());
    is_done.then(|| request.value.clone())
}
