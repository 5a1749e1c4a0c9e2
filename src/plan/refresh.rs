//! Refreshes that a user asks for with the annotation `acrcred.dev/refresh`.

use jiff::{SignedDuration, Timestamp};

use crate::api::AcrCredential;
use crate::credential::saturating_add;

/// A user wants credentials that are received after this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshRequest {
    /// The annotation's value.
    pub value: String,
    /// A credential that was received before does not count.
    pub since: Timestamp,
}

/// An annotation that changes all the time has an effect this often at most.
const INTERVAL: SignedDuration = SignedDuration::from_mins(1);

// === impl RefreshRequest ===

impl RefreshRequest {
    /// What `object` asks for, after `previous`, the last that it asked for. `first_seen` returns when a value was seen first.
    pub fn of(
        object: &AcrCredential,
        previous: Option<&Self>,
        first_seen: impl FnOnce(&str) -> Timestamp,
    ) -> Option<Self> {
        let value = object
            .refresh_request()
            .filter(|value| !is_handled(object, value))?;
        if let Some(previous) = previous.filter(|previous| previous.value == value) {
            return Some(previous.clone());
        }
        let since = first_seen(value);
        // One that has not begun is replaced; one that has, is followed after a while.
        let not_before = previous.map_or(since, |previous| {
            let is_begun = previous.since <= since;
            let interval = if is_begun {
                INTERVAL
            } else {
                SignedDuration::ZERO
            };
            saturating_add(previous.since, interval)
        });
        Some(Self {
            value: value.to_owned(),
            since: not_before.max(since),
        })
    }

    /// Whether `object` still asks for it, and its status does not say that it is done.
    pub fn is_open(&self, object: &AcrCredential) -> bool {
        object.refresh_request() == Some(&self.value) && !is_handled(object, &self.value)
    }
}

fn is_handled(object: &AcrCredential, value: &str) -> bool {
    let status = object.status.as_ref();
    status.and_then(|status| status.last_handled_refresh.as_deref()) == Some(value)
}
