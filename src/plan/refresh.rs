//! Refreshes that somebody asked for, by the annotation `acrcred.dev/refresh`.

use jiff::{SignedDuration, Timestamp};

use super::Observed;
use crate::api::AcrCredential;
use crate::credential::{Lifetime, saturating_add};

/// Somebody wants credentials that are younger than this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshRequest {
    /// The annotation's value.
    pub value: String,
    /// What was received until then does not serve it.
    pub since: Timestamp,
}

/// An annotation that changes all the time is served this often at most.
const INTERVAL: SignedDuration = SignedDuration::from_mins(1);

// === impl RefreshRequest ===

impl RefreshRequest {
    /// What `object` asks for, after `previous`. `first_seen` tells when a value was seen first.
    pub fn of(
        object: &AcrCredential,
        previous: Option<&Self>,
        first_seen: impl FnOnce(&str) -> Timestamp,
    ) -> Option<Self> {
        let value = object.refresh_request()?;
        let status = object.status.as_ref();
        let handled = status.and_then(|status| status.last_handled_refresh.as_deref());
        match previous {
            Some(previous) if previous.value == value => Some(previous.clone()),
            _ if handled == Some(value) => previous.cloned(),
            _ => {
                let not_before = previous.map(|previous| saturating_add(previous.since, INTERVAL));
                let since = first_seen(value);
                Some(Self {
                    value: value.to_owned(),
                    since: not_before.map_or(since, |bound| bound.max(since)),
                })
            }
        }
    }

    /// Whether a credential of this lifetime came after the request.
    pub(super) fn is_served_by(&self, lifetime: &Lifetime) -> bool {
        self.since < lifetime.start
    }
}

/// The value to report as served: this request's if every one of `lifetimes` serves it, else what was
/// reported before.
pub(super) fn last_handled(
    observed: &Observed<'_>,
    lifetimes: impl Iterator<Item = Option<Lifetime>>,
) -> Option<String> {
    let mut lifetimes = lifetimes.peekable();
    let served = observed.refresh.as_ref().filter(|request| {
        let serves =
            |lifetime: Option<Lifetime>| lifetime.is_some_and(|life| request.is_served_by(&life));
        lifetimes.peek().is_some() && lifetimes.all(serves)
    });
    let before = observed.object.status.as_ref();
    served
        .map(|request| request.value.clone())
        .or_else(|| before?.last_handled_refresh.clone())
}
