//! The objects that exist, and what is known of each. Lost at a restart, and correct without.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use parking_lot::Mutex;

use super::queue::ObjectKey;
use crate::api::{AcrCredential, OWNER_ANNOTATION};
use crate::plan::{ClusterFacts, Facts, Settings, Step, step};

/// Every object of the watches. Facts change at any time; calls are made for an object by one task at a time.
pub(super) struct TrackedObjects {
    settings: Arc<Settings>,
    by_key: Mutex<HashMap<ObjectKey, Tracked>>,
}

struct Tracked {
    facts: Facts,
    /// A task works on it.
    is_busy: bool,
    /// Something happened meanwhile.
    is_pending: bool,
}

/// So many namespaces, and Secrets, are asked about in one check of the admission policy until one gives an answer.
const SAMPLES: usize = 3;

// === impl TrackedObjects ===

impl TrackedObjects {
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            by_key: Mutex::default(),
        }
    }

    /// Takes note of a version of an object, from a list or not; false unless it is news. A watch also delivers what the answer to
    /// our own write said already, and whole lists of what did not change.
    pub fn update(
        &self,
        key: &ObjectKey,
        object: AcrCredential,
        is_listed: bool,
        cluster: Arc<ClusterFacts>,
        now: Timestamp,
    ) -> bool {
        let mut objects = self.by_key.lock();
        let known = objects
            .get_mut(key)
            .filter(|tracked| tracked.facts.object.metadata.uid == object.metadata.uid);
        if let Some(tracked) = known {
            return tracked.facts.seen(Arc::new(object), is_listed, now);
        }
        // Whoever works for a predecessor of the same name finds its UID gone.
        let facts = Facts::new(self.settings.clone(), cluster, Arc::new(object), now);
        let tracked = Tracked {
            facts,
            is_busy: false,
            is_pending: false,
        };
        objects.insert(key.clone(), tracked);
        true
    }

    /// Forgets an object that no longer exists.
    pub fn remove(&self, key: &ObjectKey) {
        self.by_key.lock().remove(key);
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.by_key.lock().keys().cloned().collect()
    }

    /// The objects of a namespace, or all, that are not in `present`.
    pub fn missing_from(
        &self,
        namespace: Option<&str>,
        present: &HashSet<ObjectKey>,
    ) -> Vec<ObjectKey> {
        let mut keys = self.keys();
        keys.retain(|key| namespace.is_none_or(|namespace| key.namespace == namespace));
        keys.retain(|key| !present.contains(key));
        keys
    }

    /// Whether the object holds a credential that pods may be using.
    pub fn is_renewal(&self, key: &ObjectKey) -> bool {
        let objects = self.by_key.lock();
        objects
            .get(key)
            .is_some_and(|tracked| tracked.facts.is_renewal())
    }

    /// Claims an object to work on, and says its UID; `None` if it is gone, or another task has it, which then goes on.
    pub fn begin(&self, key: &ObjectKey) -> Option<String> {
        let mut objects = self.by_key.lock();
        let tracked = objects.get_mut(key)?;
        if tracked.is_busy {
            tracked.is_pending = true;
            return None;
        }
        tracked.is_busy = true;
        tracked.is_pending = false;
        Some(tracked.facts.uid().to_owned())
    }

    /// Ends what [`TrackedObjects::begin`] claimed; true if something happened meanwhile.
    pub fn end(&self, key: &ObjectKey, uid: &str) -> bool {
        let ended = self.at(key, uid, |tracked| {
            tracked.is_busy = false;
            std::mem::take(&mut tracked.is_pending)
        });
        ended.unwrap_or(false)
    }

    /// Decides what to do for an object now; its mints count as started. `None` if there is no such object any more.
    pub fn decide(
        &self,
        key: &ObjectKey,
        uid: &str,
        cluster: Arc<ClusterFacts>,
        first_seen: impl FnOnce(&str) -> Timestamp,
        now: Timestamp,
    ) -> Option<(Step, Arc<AcrCredential>)> {
        self.at(key, uid, |tracked| {
            tracked.is_pending = false;
            let facts = &mut tracked.facts;
            facts.cluster = cluster;
            facts.refresh_asked(first_seen);
            facts.tidy(now);
            let step = step(facts, now);
            facts.stepped(&step, now);
            (step, facts.object.clone())
        })
    }

    /// Changes the facts of an object, if it still is the one with this UID.
    pub fn with<T>(
        &self,
        key: &ObjectKey,
        uid: &str,
        change: impl FnOnce(&mut Facts) -> T,
    ) -> Option<T> {
        self.at(key, uid, |tracked| change(&mut tracked.facts))
    }

    fn at<T>(&self, key: &ObjectKey, uid: &str, go: impl FnOnce(&mut Tracked) -> T) -> Option<T> {
        let mut objects = self.by_key.lock();
        let tracked = objects
            .get_mut(key)
            .filter(|tracked| tracked.facts.uid() == uid)?;
        Some(go(tracked))
    }

    /// Takes note that a watch reports this version of the Secret of this name (`None`: it is gone); true if that is news.
    pub fn secret_changed(
        &self,
        key: &ObjectKey,
        name: &str,
        version: Option<&str>,
        by: Option<String>,
    ) -> bool {
        let mut objects = self.by_key.lock();
        let tracked = objects.get_mut(key).map(|tracked| &mut tracked.facts);
        let facts = tracked.filter(|facts| facts.object.secret_name() == name);
        facts.is_some_and(|facts| facts.secret_changed(version, by))
    }

    /// Forgets everything about an object but the object itself.
    pub fn reset(&self, key: &ObjectKey, uid: &str, now: Timestamp) {
        self.with(key, uid, |facts| {
            let (settings, cluster) = (facts.settings.clone(), facts.cluster.clone());
            *facts = Facts::new(settings, cluster, facts.object.clone(), now);
        });
    }

    /// The object of a namespace that the Secret of this name belongs to: the one in its annotation, else the one of the
    /// Secret's own name.
    pub fn owner_of(
        &self,
        namespace: &str,
        secret: &str,
        owner: Option<&str>,
    ) -> Option<ObjectKey> {
        let objects = self.by_key.lock();
        let keys = owner.into_iter().chain([secret]).map(|name| ObjectKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
        let wants = |tracked: &Tracked| tracked.facts.object.secret_name() == secret;
        keys.into_iter()
            .find(|key| objects.get(key).is_some_and(wants))
    }

    /// Namespaces to check the admission policy in, and Secrets of ours; others each turn.
    pub fn policy_samples(&self, turn: usize) -> (Vec<String>, Vec<Secret>) {
        let objects = self.by_key.lock();
        let is_going =
            |tracked: &Tracked| tracked.facts.object.metadata.deletion_timestamp.is_some();
        let live = objects.iter().filter(|(_, tracked)| !is_going(tracked));
        let namespaces: BTreeSet<&str> = live.map(|(key, _)| key.namespace.as_str()).collect();
        let first = (turn * SAMPLES).checked_rem(namespaces.len()).unwrap_or(0);
        let namespaces = namespaces
            .iter()
            .cycle()
            .skip(first)
            .take(SAMPLES.min(namespaces.len()));
        let first = (turn * SAMPLES).checked_rem(objects.len()).unwrap_or(0);
        let stored = objects.values().cycle().skip(first).take(objects.len());
        let secrets = stored.filter_map(|tracked| tracked.facts.stored_secret());
        (
            namespaces
                .map(|namespace| (*namespace).to_owned())
                .collect(),
            secrets.take(SAMPLES).collect(),
        )
    }
}

/// The owner that a Secret's annotation names.
pub(super) fn owner_annotation(secret: &impl kube::Resource) -> Option<&str> {
    secret
        .annotations()
        .get(OWNER_ANNOTATION)
        .map(String::as_str)
}
