//! One call for all who need the same token at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::credential::{CLOCK_STEP, Credential, Lifetime, MintError, Token, saturating_add};

/// A key's credential is thrown away once in this time: what is refused for good is not worth a call more each time.
const EVICTION_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// Credentials by key. A key's lock is held across that key's call only, so that one hanging upstream
/// delays no other key.
pub(super) struct Cache<K> {
    /// What its credentials are, as a metric label.
    pub kind: &'static str,
    slots: Mutex<HashMap<K, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// Calls that have ended; shows a waiter whether one ended while it waited.
    ended: AtomicU64,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Result<Held, MintError>>,
    evicted_at: Option<Timestamp>,
}

struct Held {
    credential: Credential,
    /// Until then it may be handed to others; it is kept no longer.
    until: Timestamp,
}

/// A credential, and whether this very call fetched it.
pub(super) struct Obtained {
    pub credential: Credential,
    pub fresh: bool,
}

// === impl Cache ===

impl<K: Hash + Eq + Clone> Cache<K> {
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            slots: Mutex::default(),
        }
    }

    /// The cached credential if it may still be shared and is `usable`, else that of `fetch`, which may be
    /// shared for `share` from its start. Callers that waited for a failing call of another share its failure
    /// instead of repeating it one after the other.
    pub async fn get_or_fetch(
        &self,
        key: &K,
        now: Timestamp,
        usable: impl Fn(&Credential) -> bool,
        share: impl Fn(&Lifetime) -> SignedDuration,
        fetch: impl Future<Output = Result<Credential, MintError>>,
    ) -> Result<Obtained, MintError> {
        let slot = self.slot(key);
        let ended_before = slot.ended.load(Ordering::Acquire);
        let mut state = slot.state.lock().await;
        match &state.last {
            Some(Ok(held)) if held.is_shared(now) && usable(&held.credential) => {
                return Ok(Obtained {
                    credential: held.credential.clone(),
                    fresh: false,
                });
            }
            Some(Err(error)) if slot.ended.load(Ordering::Acquire) > ended_before => {
                return Err(*error);
            }
            _ => {}
        }
        let result = fetch.await;
        state.last = Some(result.clone().map(|credential| {
            let until = saturating_add(credential.lifetime.start, share(&credential.lifetime));
            Held { credential, until }
        }));
        slot.ended.fetch_add(1, Ordering::AcqRel);
        result.map(|credential| Obtained {
            credential,
            fresh: true,
        })
    }

    /// Drops `key`'s credential if its token still is the `refused` one, so that the next caller gets another.
    /// False where that was done not long ago, and the refusal has to stand.
    pub async fn evict(&self, key: &K, refused: &Token, now: Timestamp) -> bool {
        let slot = self.slot(key);
        let mut state = slot.state.lock().await;
        if state.was_evicted(now) {
            return false;
        }
        state.evicted_at = Some(now);
        if matches!(&state.last, Some(Ok(held)) if held.credential.token == *refused) {
            state.last = None;
        }
        true
    }

    /// Drops what may no longer be handed out.
    pub fn drop_unshared(&self, now: Timestamp) {
        self.slots
            .lock()
            .retain(|_, slot| slot.is_worth_keeping(now));
    }

    fn slot(&self, key: &K) -> Arc<Slot> {
        self.slots.lock().entry(key.clone()).or_default().clone()
    }
}

impl Slot {
    /// Drops a credential that may no longer be handed out, and returns whether anything is left to remember.
    fn is_worth_keeping(self: &Arc<Self>, now: Timestamp) -> bool {
        let Ok(mut state) = self.state.try_lock() else {
            return true;
        };
        let is_over = |held: &Held| !held.is_shared(now);
        state
            .last
            .take_if(|last| matches!(last, Ok(held) if is_over(held)));
        let is_held = matches!(state.last, Some(Ok(_)));
        is_held || state.was_evicted(now) || Arc::strong_count(self) > 1
    }
}

impl State {
    /// One that lies further in the future is of a clock that was set back.
    fn was_evicted(&self, now: Timestamp) -> bool {
        let age = self.evicted_at.map(|at| now.duration_since(at).abs());
        age.is_some_and(|age| age < EVICTION_INTERVAL)
    }
}

impl Held {
    /// One that began in the future was judged by a clock that has been set back.
    fn is_shared(&self, now: Timestamp) -> bool {
        now < self.until && self.credential.lifetime.start <= saturating_add(now, CLOCK_STEP)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;
    use crate::credential::{Cause, Hop};

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
            .get_or_fetch(
                &key,
                Timestamp::UNIX_EPOCH,
                |_| true,
                Lifetime::length,
                fetch,
            )
            .await
            .map(|obtained| obtained.fresh)
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_call() {
        let (cache, calls) = (Cache::new("t"), AtomicUsize::new(0));
        let callers = (0..50).map(|_| get(&cache, "k", &calls, Ok(credential())));
        let fresh = futures::future::join_all(callers).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(fresh.iter().filter(|fresh| **fresh == Ok(true)).count(), 1);
    }

    #[tokio::test]
    async fn waiters_share_a_failure_and_the_next_caller_tries_again() {
        let (cache, calls) = (Cache::new("t"), AtomicUsize::new(0));
        let error = MintError::new(Hop::Entra, Cause::Unavailable);
        let callers = (0..50).map(|_| get(&cache, "k", &calls, Err(error)));
        let results = futures::future::join_all(callers).await;
        assert!(results.iter().all(|result| *result == Err(error)));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(true));
    }

    #[tokio::test]
    async fn a_hanging_key_does_not_delay_another() {
        let (cache, calls) = (Cache::new("t"), AtomicUsize::new(0));
        let never = Notify::new();
        let hanging = cache.get_or_fetch(
            &"a",
            Timestamp::UNIX_EPOCH,
            |_| true,
            Lifetime::length,
            async {
                never.notified().await;
                Ok(credential())
            },
        );
        tokio::select! {
            biased;
            _ = hanging => unreachable!("nobody notifies it"),
            other = get(&cache, "b", &calls, Ok(credential())) => assert_eq!(other, Ok(true)),
        }
    }

    #[tokio::test]
    async fn only_the_named_credential_is_evicted() {
        let (cache, calls) = (Cache::new("t"), AtomicUsize::new(0));
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(true));
        let start = Timestamp::UNIX_EPOCH;
        let another = Token::new("another".into());
        assert!(cache.evict(&"k", &another, start).await);
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(false));
        let later = start + EVICTION_INTERVAL;
        assert!(cache.evict(&"k", &credential().token, later).await);
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(true));
    }

    #[tokio::test]
    async fn each_key_has_one_eviction_in_five_minutes() {
        let (cache, token) = (Cache::new("t"), credential().token);
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        assert!(cache.evict(&"a", &token, at(0)).await);
        cache.drop_unshared(at(299));
        assert!(!cache.evict(&"a", &token, at(299)).await);
        assert!(cache.evict(&"b", &token, at(0)).await);
        assert!(cache.evict(&"a", &token, at(300)).await);
        let set_back = at(-3600);
        assert!(cache.evict(&"a", &token, set_back).await);
    }

    #[tokio::test]
    async fn a_credential_is_dropped_when_it_may_no_longer_be_shared() {
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let cache = Cache::new("t");
        for key in 0..10 {
            let share = |_: &Lifetime| SignedDuration::from_mins(10);
            let fetch = async { Ok(credential()) };
            let obtained = cache.get_or_fetch(&key, at(0), |_| true, share, fetch);
            assert!(obtained.await.is_ok());
        }
        for (now, kept) in [(at(9), 10), (at(10), 0)] {
            cache.drop_unshared(now);
            assert_eq!(cache.slots.lock().len(), kept);
        }
    }

    #[tokio::test]
    async fn a_credential_is_dropped_also_where_an_eviction_is_remembered() {
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let (cache, another) = (Cache::new("t"), Token::new("another".into()));
        let share = |_: &Lifetime| SignedDuration::from_mins(1);
        let fetch = async { Ok(credential()) };
        let obtained = cache.get_or_fetch(&"k", at(0), |_| true, share, fetch);
        assert!(obtained.await.is_ok());
        assert!(cache.evict(&"k", &another, at(0)).await);
        for (now, is_held) in [(at(0), true), (at(1), false)] {
            cache.drop_unshared(now);
            assert_eq!(cache.slot(&"k").state.lock().await.last.is_some(), is_held);
        }
        assert!(!cache.evict(&"k", &another, at(4)).await);
        cache.drop_unshared(at(5));
        assert!(cache.slots.lock().is_empty());
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_shares_nothing_of_the_future() {
        let (cache, calls) = (Cache::new("t"), AtomicUsize::new(0));
        assert_eq!(get(&cache, "k", &calls, Ok(credential())).await, Ok(true));
        let before = Timestamp::UNIX_EPOCH - SignedDuration::from_hours(24);
        let fetch = async { Ok(credential()) };
        let obtained = cache.get_or_fetch(&"k", before, |_| true, Lifetime::length, fetch);
        assert!(obtained.await.is_ok_and(|obtained| obtained.fresh));
    }
}
