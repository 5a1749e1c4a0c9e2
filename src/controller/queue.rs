//! What is due when, on the wall clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::process::Backlog;

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

/// Each object at most once, at the earliest time that anybody asked for.
#[derive(Default)]
pub(super) struct DueQueue {
    items: Mutex<Items>,
    changed: Notify,
}

#[derive(Default)]
struct Items {
    by_key: HashMap<ObjectKey, Timestamp>,
    by_time: BTreeSet<(Timestamp, ObjectKey)>,
}

// === impl DueQueue ===

impl DueQueue {
    /// Looks at `key` at `at`, or earlier if that is already planned.
    pub fn schedule(&self, key: &ObjectKey, at: Timestamp) {
        let mut items = self.items.lock();
        match items.by_key.get(key).copied() {
            Some(planned) if planned <= at => return,
            Some(planned) => {
                items.by_time.remove(&(planned, key.clone()));
            }
            None => {}
        }
        items.by_key.insert(key.clone(), at);
        items.by_time.insert((at, key.clone()));
        drop(items);
        self.changed.notify_waiters();
    }

    /// Forgets `key`.
    pub fn remove(&self, key: &ObjectKey) {
        let mut items = self.items.lock();
        if let Some(at) = items.by_key.remove(key) {
            items.by_time.remove(&(at, key.clone()));
        }
    }

    /// Takes everything that is due at `now`, the longest due first.
    pub fn take_due(&self, now: Timestamp) -> Vec<ObjectKey> {
        let mut items = self.items.lock();
        let mut due = Vec::new();
        while items.by_time.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = items.by_time.pop_first() {
                items.by_key.remove(&key);
                due.push(key);
            }
        }
        due
    }

    /// When the next item is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.items.lock().by_time.first().map(|(at, _)| *at)
    }

    /// What is due and was not taken.
    pub fn backlog(&self, now: Timestamp) -> Backlog {
        let items = self.items.lock();
        let mut due = items
            .by_time
            .iter()
            .take_while(|(at, _)| *at <= now)
            .peekable();
        let oldest = due.peek().map(|(at, _)| now.duration_since(*at));
        Backlog {
            oldest: Duration::try_from(oldest.unwrap_or_default()).unwrap_or_default(),
            items: due.count(),
        }
    }

    /// Resolves at the next change after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        let mut notified = Box::pin(self.changed.notified());
        notified.as_mut().enable();
        notified
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "ns".into(),
            name: name.into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_earliest_time_wins_and_each_object_is_taken_once() {
        let queue = DueQueue::default();
        queue.schedule(&key("a"), at(20));
        queue.schedule(&key("a"), at(10));
        queue.schedule(&key("a"), at(30));
        queue.schedule(&key("b"), at(5));
        assert_eq!(queue.next(), Some(at(5)));
        assert_eq!(queue.take_due(at(4)), []);
        assert_eq!(queue.take_due(at(10)), [key("b"), key("a")]);
        assert_eq!(queue.take_due(at(100)), []);
    }

    #[test]
    fn what_is_removed_is_never_taken() {
        let queue = DueQueue::default();
        queue.schedule(&key("a"), at(1));
        queue.remove(&key("a"));
        assert_eq!((queue.take_due(at(9)), queue.next()), (vec![], None));
    }

    #[test]
    fn lateness_counts_only_what_is_due_and_not_taken() {
        let queue = DueQueue::default();
        let backlog = |second| {
            let backlog = queue.backlog(at(second));
            (backlog.items, backlog.oldest.as_secs())
        };
        assert_eq!(backlog(9), (0, 0));
        queue.schedule(&key("a"), at(10));
        assert_eq!(backlog(9), (0, 0));
        assert_eq!(backlog(10), (1, 0));
        assert_eq!(backlog(130), (1, 120));
        queue.take_due(at(130));
        assert_eq!(backlog(130), (0, 0));
    }

    #[tokio::test]
    async fn a_change_wakes_whoever_subscribed_before_it() {
        let queue = DueQueue::default();
        let changed = queue.changed();
        queue.schedule(&key("a"), at(1));
        changed.await;
    }
}
