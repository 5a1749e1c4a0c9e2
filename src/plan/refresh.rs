//! Refreshes that somebody asked for, by the annotation `acrcred.dev/refresh`.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::settle::Outcomes;
use super::{Observed, SecretState, Snapshot};
use crate::api::AcrCredential;
use crate::credential::saturating_add;

/// Somebody wants credentials that were received after this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshRequest {
    /// The annotation's value.
    pub value: String,
    /// What was received until then does not serve it.
    pub since: Timestamp,
    /// Whether the status says that it was served.
    is_handled: bool,
    /// Digests of the tokens that were received for it.
    served_by: BTreeSet<String>,
}

/// An annotation that changes all the time is served this often at most.
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
                    served_by: BTreeSet::new(),
                })
            }
        }
    }

    /// Takes note of what was minted since it was made; what `secret` does not hold any more is forgotten.
    pub fn serve(&mut self, outcomes: &Outcomes, secret: &SecretState) {
        self.served_by.retain(|digest| secret.holds(digest));
        let minted = outcomes.values().flatten();
        self.served_by
            .extend(minted.map(|minted| minted.token.digest().as_str().to_owned()));
    }
}

/// When a new credential for `host` was asked for, unless the Secret holds it already.
pub(super) fn asked_at(
    observed: &Observed<'_>,
    snapshot: Option<&Snapshot>,
    host: &str,
) -> Option<Timestamp> {
    let request = observed.refresh.as_ref()?;
    let held = snapshot.and_then(|snapshot| snapshot.tokens.get(host));
    let is_served =
        held.is_some_and(|(token, _)| request.served_by.contains(token.digest().as_str()));
    (!request.is_handled && !is_served).then_some(request.since)
}

/// The value to report as served: this request's if every one of `hosts` is, else what was reported before.
pub(super) fn last_handled<'a>(
    observed: &Observed<'_>,
    snapshot: Option<&Snapshot>,
    hosts: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let mut hosts = hosts.peekable();
    let served = observed.refresh.as_ref().filter(|_| {
        hosts.peek().is_some() && hosts.all(|host| asked_at(observed, snapshot, host).is_none())
    });
    let before = observed.object.status.as_ref();
    served
        .map(|request| request.value.clone())
        .or_else(|| before?.last_handled_refresh.clone())
}
