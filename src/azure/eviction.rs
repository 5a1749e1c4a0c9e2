//! How often a refusal may throw a shared token away.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::credential::saturating_add;

/// At most once for a key in this time: what is refused for good is not worth a call more each time.
const INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// When each key's shared token was last thrown away.
pub(super) struct Evictions<K> {
    at: Mutex<HashMap<K, Timestamp>>,
}

// === impl Evictions ===

impl<K: Hash + Eq + Clone> Evictions<K> {
    pub fn new() -> Self {
        Self {
            at: Mutex::default(),
        }
    }

    /// Whether `key`'s token may be thrown away at `now`, which then counts as done.
    pub fn may(&self, key: &K, now: Timestamp) -> bool {
        let mut evictions = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        // One that lies in the future is of a clock that was set back.
        evictions.retain(|_, at| {
            now < saturating_add(*at, INTERVAL) && *at <= saturating_add(now, INTERVAL)
        });
        if evictions.contains_key(key) {
            return false;
        }
        evictions.insert(key.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_one_eviction_in_five_minutes() {
        let (evictions, start) = (Evictions::new(), Timestamp::UNIX_EPOCH);
        assert!(evictions.may(&"a", start));
        assert!(!evictions.may(&"a", start + SignedDuration::from_secs(299)));
        assert!(evictions.may(&"b", start));
        assert!(evictions.may(&"a", start + SignedDuration::from_mins(5)));
    }
}
