//! How long an upstream asked acrcred to wait, for every caller.

use std::collections::HashMap;
use std::hash::Hash;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::credential::{Cause, MintError, saturating_add};

/// How long to wait after a throttling answer that does not say.
const UNSTATED: SignedDuration = SignedDuration::from_secs(30);

/// The time before which a key is not called, and the failure that said so.
pub(super) struct Floors<K>(Mutex<HashMap<K, (Timestamp, MintError)>>);

// === impl Floors ===

impl<K: Hash + Eq + Clone> Floors<K> {
    pub fn new() -> Self {
        Self(Mutex::default())
    }

    /// Fails without a request while the floor of `key` stands.
    pub fn check(&self, key: &K, now: Timestamp) -> Result<(), MintError> {
        let mut floors = self.0.lock();
        match floors.get_mut(key).filter(|(until, _)| now < *until) {
            Some((until, error)) => {
                // Never longer than was asked for, also after the clock was set back.
                let longest = saturating_add(now, error.retry_after.unwrap_or(UNSTATED));
                *until = longest.min(*until);
                Err(MintError {
                    retry_after: Some(until.duration_since(now)),
                    ..*error
                })
            }
            None => Ok(()),
        }
    }

    /// Raises the floor where `error` asks for it, and completes the error with the wait.
    pub fn raise(&self, key: &K, error: MintError, now: Timestamp) -> MintError {
        let unstated = (error.cause == Cause::Throttled).then_some(UNSTATED);
        let Some(wait) = error.retry_after.or(unstated) else {
            return error;
        };
        let error = MintError {
            retry_after: Some(wait),
            ..error
        };
        // What was refused to one identity says nothing of another: others are only asked to wait.
        let for_others = match error.cause {
            Cause::Throttled | Cause::Unavailable => error,
            _ => MintError {
                retry_after: error.retry_after,
                ..MintError::new(error.hop, Cause::Throttled)
            },
        };
        let mut floors = self.0.lock();
        floors.retain(|_, (until, _)| now < *until);
        floors.insert(key.clone(), (saturating_add(now, wait), for_others));
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Hop;

    #[test]
    fn a_floor_holds_its_own_key_until_its_time() {
        let floors = Floors::new();
        let start = Timestamp::UNIX_EPOCH;
        let throttled = MintError::entra(429, &[], Some(SignedDuration::from_secs(60)));
        floors.raise(&"a", throttled, start);
        let early = start + SignedDuration::from_secs(59);
        assert_eq!(
            floors.check(&"a", early).unwrap_err().retry_after,
            Some(SignedDuration::from_secs(1))
        );
        assert!(floors.check(&"b", early).is_ok());
        assert!(
            floors
                .check(&"a", start + SignedDuration::from_secs(60))
                .is_ok()
        );
    }

    #[test]
    fn what_was_refused_to_one_tells_others_only_to_wait() {
        let floors = Floors::new();
        let start = Timestamp::UNIX_EPOCH;
        let wait = Some(SignedDuration::from_secs(60));
        let refused = MintError {
            retry_after: wait,
            ..MintError::new(Hop::Exchange, Cause::RegistryRefused)
        };
        assert_eq!(floors.raise(&"a", refused, start), refused);
        let told = floors.check(&"a", start).unwrap_err();
        assert_eq!((told.cause, told.retry_after), (Cause::Throttled, wait));
    }

    #[test]
    fn throttling_without_a_time_waits_half_a_minute() {
        let floors = Floors::new();
        let start = Timestamp::UNIX_EPOCH;
        let raised = floors.raise(&"a", MintError::entra(429, &[], None), start);
        assert_eq!(raised.retry_after, Some(UNSTATED));
        let unavailable = MintError::entra(503, &[], None);
        assert_eq!(floors.raise(&"b", unavailable, start), unavailable);
        assert!(floors.check(&"b", start).is_ok());
    }
}
