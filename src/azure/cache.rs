//! One call for everybody who needs the same token at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::credential::{Credential, Digest, Lifetime, MintError};

/// Credentials by key. A key's lock is held across that key's call only, so that one hanging upstream
/// delays nobody else.
pub(super) struct Cache<K> {
    slots: Mutex<Slots<K>>,
    /// How old a credential may get and still be of use to somebody. No longer than that it is kept.
    useful: fn(&Lifetime) -> SignedDuration,
}

struct Slots<K> {
    by_key: HashMap<K, Arc<Slot>>,
    /// Size at which useless slots are next looked for; doubles, so that the search costs nothing on average.
    sweep_at: usize,
}

#[derive(Default)]
struct Slot {
    /// Calls that have ended; tells a waiter whether one ended while it waited.
    ended: AtomicU64,
    last: tokio::sync::Mutex<Option<Result<Credential, MintError>>>,
}

/// A credential, and whether this very call fetched it.
pub(super) struct Obtained {
    pub credential: Credential,
    pub fresh: bool,
}

const FIRST_SWEEP: usize = 64;

// === impl Cache ===

impl<K: Hash + Eq + Clone> Cache<K> {
    pub fn new(useful: fn(&Lifetime) -> SignedDuration) -> Self {
        Self {
            slots: Mutex::new(Slots {
                by_key: HashMap::new(),
                sweep_at: FIRST_SWEEP,
            }),
            useful,
        }
    }

    /// The cached credential if `usable`, else that of `fetch`. Callers that waited for somebody's
    /// failing call share its failure instead of repeating it one after the other.
    pub async fn get_or_fetch(
        &self,
        key: &K,
        now: Timestamp,
        usable: impl Fn(&Credential) -> bool,
        fetch: impl Future<Output = Result<Credential, MintError>>,
    ) -> Result<Obtained, MintError> {
        let slot = self.slot(key, now);
        let ended_before = slot.ended.load(Ordering::Acquire);
        let mut last = slot.last.lock().await;
        match &*last {
            Some(Ok(credential)) if usable(credential) => {
                return Ok(Obtained {
                    credential: credential.clone(),
                    fresh: false,
                });
            }
            Some(Err(error)) if slot.ended.load(Ordering::Acquire) > ended_before => {
                return Err(*error);
            }
            _ => {}
        }
        let result = fetch.await;
        *last = Some(result.clone());
        slot.ended.fetch_add(1, Ordering::AcqRel);
        result.map(|credential| Obtained {
            credential,
            fresh: true,
        })
    }

    /// Forgets `key`'s credential if it is still the one with this digest.
    pub async fn evict(&self, key: &K, digest: &Digest) {
        let slot = self.lock().by_key.get(key).cloned();
        if let Some(slot) = slot {
            let mut last = slot.last.lock().await;
            if matches!(&*last, Some(Ok(held)) if held.token.digest() == *digest) {
                *last = None;
            }
        }
    }

    fn slot(&self, key: &K, now: Timestamp) -> Arc<Slot> {
        let mut slots = self.lock();
        if slots.by_key.len() >= slots.sweep_at {
            let useful =
                |lifetime: &Lifetime| now.duration_since(lifetime.start) < (self.useful)(lifetime);
            slots.by_key.retain(|_, slot| slot.is_worth_keeping(useful));
            slots.sweep_at = FIRST_SWEEP.max(slots.by_key.len() * 2);
        }
        slots.by_key.entry(key.clone()).or_default().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slots<K>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn is_worth_keeping(self: &Arc<Self>, useful: impl Fn(&Lifetime) -> bool) -> bool {
        let in_use = Arc::strong_count(self) > 1;
        in_use
            || self
                .last
                .try_lock()
                .is_ok_and(|last| matches!(&*last, Some(Ok(held)) if useful(&held.lifetime)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;
    use crate::credential::{Cause, Hop, Token};

    fn credential() -> Credential {
        let start = Timestamp::UNIX_EPOCH;
        Credential {
            token: Token::new("t".into()),
            lifetime: Lifetime {
                start,
                end: start + SignedDuration::from_hours(1),
            },
            received_at: start,
        }
    }

    async fn get(
        cache: &Cache<&'static str>,
        key: &'static str,
        calls: &AtomicUsize,
        result: Result<Credential, MintError>,
    ) -> Result<bool, MintError> {
        let fetch = async {
            calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            result
        };
        cache
            .get_or_fetch(&key, Timestamp::UNIX_EPOCH, |_| true, fetch)
            .await
            .map(|obtained| obtained.fresh)
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_call() {
        let (cache, calls) = (Cache::new(Lifetime::length), AtomicUsize::new(0));
        let callers = (0..50).map(|_| get(&cache, "k", &calls, Ok(credential())));
        let fresh = futures::future::join_all(callers).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(fresh.iter().filter(|fresh| **fresh == Ok(true)).count(), 1);
    }

    #[tokio::test]
    async fn waiters_share_a_failure_and_the_next_caller_tries_again() {
        let (cache, calls) = (Cache::new(Lifetime::length), AtomicUsize::new(0));
        let error = MintError::new(Hop::Entra, Cause::Unavailable);
        let callers = (0..50).map(|_| get(&cache, "k", &calls, Err(error)));
        let results = futures::future::join_all(callers).await;
        assert!(results.iter().all(|result| *result == Err(error)));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(true));
    }

    #[tokio::test]
    async fn a_hanging_key_does_not_delay_another() {
        let (cache, calls) = (Cache::new(Lifetime::length), AtomicUsize::new(0));
        let never = Notify::new();
        let hanging = cache.get_or_fetch(&"a", Timestamp::UNIX_EPOCH, |_| true, async {
            never.notified().await;
            Ok(credential())
        });
        tokio::select! {
            biased;
            _ = hanging => unreachable!("nobody notifies it"),
            other = get(&cache, "b", &calls, Ok(credential())) => assert_eq!(other, Ok(true)),
        }
    }

    #[tokio::test]
    async fn only_the_named_credential_is_evicted() {
        let (cache, calls) = (Cache::new(Lifetime::length), AtomicUsize::new(0));
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(true));
        cache.evict(&"k", &Digest::stated("another")).await;
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(false));
        cache.evict(&"k", &credential().token.digest()).await;
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(true));
    }

    #[tokio::test]
    async fn what_is_of_use_to_nobody_is_dropped_though_it_lives() {
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        for (minutes, is_kept) in [(9, true), (11, false)] {
            let cache = Cache::new(|_| SignedDuration::from_mins(10));
            for key in 0..1_000 {
                let fetch = async { Ok(credential()) };
                let obtained = cache.get_or_fetch(&key, at(minutes), |_| true, fetch);
                assert!(obtained.await.is_ok());
            }
            let kept = cache.lock().by_key.len();
            assert_eq!(kept > FIRST_SWEEP, is_kept, "{kept}");
        }
    }
}
