//! The objects that exist, and what we remember of each. Lost at a restart, and correct without.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::queue::ObjectKey;
use crate::api::AcrCredential;
use crate::plan::{Attempts, RefreshRequest, SecretState, ServiceAccountState};

/// What we remember of an object between reconciles.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The watch has told its creation: nobody can have served it before us.
    pub is_created: bool,
    /// The Secret as we last saw it; `None` before the first look.
    pub secret: Option<SecretState>,
    /// When it was last read or written.
    pub seen_at: Option<Timestamp>,
    /// The `ServiceAccount` that the object named when we last looked.
    pub service_account: Option<KnownServiceAccount>,
    /// The last refresh that was asked for.
    pub refresh: Option<RefreshRequest>,
    /// What failed.
    pub attempts: Attempts,
    /// API calls that failed in a row.
    pub api_failures: u32,
}

/// A `ServiceAccount` as it was read.
#[derive(Clone, Debug)]
pub(super) struct KnownServiceAccount {
    pub name: String,
    pub state: ServiceAccountState,
    pub read_at: Timestamp,
}

/// A reconcile's input: nobody else works on the object until it is handed back.
pub(super) struct Work {
    pub object: Arc<AcrCredential>,
    pub memory: Memory,
}

/// Every object of the watches.
#[derive(Default)]
pub(super) struct TrackedObjects {
    by_key: Mutex<HashMap<ObjectKey, Tracked>>,
}

struct Tracked {
    object: Arc<AcrCredential>,
    /// Away while a reconcile runs.
    memory: Option<Memory>,
    /// Something happened while the reconcile ran.
    again: bool,
    /// Somebody else has changed the Secret: it must be read before it is judged.
    is_stale: bool,
    /// The Secret's version that the watch told while the reconcile ran.
    told: Option<String>,
}

// === impl TrackedObjects ===

impl TrackedObjects {
    /// Takes note of a version of an object; false unless it is a newer one. A watch also delivers what
    /// the answer to our own write has told already, and whole lists of what nobody has changed.
    pub fn update(&self, key: &ObjectKey, object: AcrCredential) -> bool {
        self.update_or(key, object, Memory::default())
    }

    /// The same for an object that a watch delivers after the list: unknown, it was just created.
    pub fn update_or_create(&self, key: &ObjectKey, object: AcrCredential) -> bool {
        let memory = Memory {
            is_created: true,
            ..Memory::default()
        };
        self.update_or(key, object, memory)
    }

    fn update_or(&self, key: &ObjectKey, object: AcrCredential, memory: Memory) -> bool {
        let mut objects = self.lock();
        let known = objects
            .get_mut(key)
            .filter(|tracked| tracked.object.metadata.uid == object.metadata.uid);
        match known {
            Some(tracked) if !is_newer(&object, &tracked.object) => false,
            Some(tracked) => {
                tracked.object = Arc::new(object);
                true
            }
            None => {
                let tracked = Tracked {
                    object: Arc::new(object),
                    memory: Some(memory),
                    again: false,
                    is_stale: false,
                    told: None,
                };
                objects.insert(key.clone(), tracked);
                true
            }
        }
    }

    /// Takes note of the answer to our own status write. It never brings an object back that is gone, and
    /// where it tells of a spec that the reconcile did not work on, the object is looked at once more: the
    /// watch will have nothing newer to tell.
    pub fn answered(&self, key: &ObjectKey, worked_on: &AcrCredential, object: AcrCredential) {
        let mut objects = self.lock();
        let known = objects
            .get_mut(key)
            .filter(|tracked| tracked.object.metadata.uid == object.metadata.uid);
        let Some(tracked) = known else {
            return;
        };
        if !is_newer(&object, &tracked.object) {
            return;
        }
        let (seen, now) = (&worked_on.metadata, &object.metadata);
        tracked.again |=
            seen.generation != now.generation || seen.deletion_timestamp != now.deletion_timestamp;
        tracked.object = Arc::new(object);
    }

    /// Forgets an object that exists no more.
    pub fn remove(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// The objects of a namespace, or all, that are not in `present`.
    pub fn missing_from(
        &self,
        namespace: Option<&str>,
        present: &HashSet<ObjectKey>,
    ) -> Vec<ObjectKey> {
        self.lock()
            .keys()
            .filter(|key| namespace.is_none_or(|namespace| key.namespace == namespace))
            .filter(|key| !present.contains(key))
            .cloned()
            .collect()
    }

    /// Whether the object holds a credential that pods may be using.
    pub fn is_renewal(&self, key: &ObjectKey) -> bool {
        let objects = self.lock();
        let memory = objects.get(key).and_then(|tracked| tracked.memory.as_ref());
        matches!(
            memory,
            Some(Memory {
                secret: Some(SecretState::Present(_)),
                ..
            })
        )
    }

    /// Somebody else may have worked on any object: each Secret must be read before it is judged.
    pub fn distrust_all(&self) -> Vec<ObjectKey> {
        let mut objects = self.lock();
        for tracked in objects.values_mut() {
            tracked.is_stale = true;
        }
        objects.keys().cloned().collect()
    }

    /// Hands out an object to work on; nothing if it is gone, or being worked on, which then happens
    /// once more.
    pub fn begin(&self, key: &ObjectKey) -> Option<Work> {
        let mut objects = self.lock();
        let tracked = objects.get_mut(key)?;
        let Some(mut memory) = tracked.memory.take() else {
            tracked.again = true;
            return None;
        };
        tracked.again = false;
        if std::mem::take(&mut tracked.is_stale) {
            memory.seen_at = None;
            memory.is_created = false;
        }
        Some(Work {
            object: tracked.object.clone(),
            memory,
        })
    }

    /// Takes back what [`TrackedObjects::begin`] handed out; true if it must be looked at once more.
    pub fn end(&self, key: &ObjectKey, worked_on: &AcrCredential, memory: Memory) -> bool {
        let mut objects = self.lock();
        let Some(tracked) = objects.get_mut(key) else {
            return false;
        };
        // An object that was re-created meanwhile has a memory of its own.
        if tracked.object.metadata.uid == worked_on.metadata.uid {
            if tracked
                .told
                .take()
                .is_some_and(|told| is_news(&memory, &told))
            {
                tracked.is_stale = true;
                tracked.again = true;
            }
            tracked.memory = Some(memory);
        }
        std::mem::take(&mut tracked.again)
    }

    /// Takes note of the version of an object's Secret that a watch told; true if it is none of our own
    /// writes, so that the object must be looked at.
    pub fn secret_is_at(&self, key: &ObjectKey, version: &str) -> bool {
        let mut objects = self.lock();
        let Some(tracked) = objects.get_mut(key) else {
            return false;
        };
        match &tracked.memory {
            Some(memory) => tracked.is_stale |= is_news(memory, version),
            // Most likely its own write, whose answer is on the way.
            None => tracked.told = Some(version.to_owned()),
        }
        tracked.is_stale
    }

    /// Takes note that no watch tells of the object's Secret; true if it was believed to be there.
    pub fn secret_is_gone(&self, key: &ObjectKey) -> bool {
        let mut objects = self.lock();
        let Some(tracked) = objects.get_mut(key) else {
            return false;
        };
        match &tracked.memory {
            Some(memory) => {
                tracked.is_stale |= matches!(&memory.secret, Some(SecretState::Present(_)));
            }
            // No version at all: whatever the reconcile ends with is then looked at anew.
            None => tracked.told = Some(String::new()),
        }
        tracked.is_stale
    }

    /// The object of a namespace that keeps the Secret of this name.
    pub fn keeper_of(&self, namespace: &str, secret: &str) -> Option<ObjectKey> {
        let objects = self.lock();
        let mut tracked = objects.iter();
        let keeper = tracked.find(|(key, tracked)| {
            key.namespace == namespace && tracked.object.secret_name() == secret
        });
        keeper.map(|(key, _)| key.clone())
    }

    /// Whether the object keeps the Secret of this name.
    pub fn keeps(&self, key: &ObjectKey, secret: &str) -> bool {
        self.lock()
            .get(key)
            .is_some_and(|tracked| tracked.object.secret_name() == secret)
    }

    /// Whether there is an object of this name.
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Whether the object still exists.
    pub fn contains(&self, key: &ObjectKey, uid: Option<&String>) -> bool {
        self.lock()
            .get(key)
            .is_some_and(|tracked| tracked.object.metadata.uid.as_ref() == uid)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Tracked>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_newer(object: &AcrCredential, than: &AcrCredential) -> bool {
    let version =
        |object: &AcrCredential| object.metadata.resource_version.clone().unwrap_or_default();
    is_later(&version(object), &version(than))
}

/// Resource versions of one kind are ordered numbers (KEP-5504); where one is no number, it is later.
fn is_later(version: &str, than: &str) -> bool {
    match (version.parse::<u128>(), than.parse::<u128>()) {
        (Ok(new), Ok(old)) => new > old,
        _ => true,
    }
}

/// Whether a Secret of this version is another than we know of.
fn is_news(memory: &Memory, version: &str) -> bool {
    match &memory.secret {
        Some(SecretState::Present(snapshot)) => is_later(version, &snapshot.resource_version),
        Some(SecretState::Absent | SecretState::Hidden) => true,
        // Not looked at yet, which is about to happen.
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AcrCredentialSpec;

    fn object(uid: &str, version: &str) -> AcrCredential {
        let spec = AcrCredentialSpec {
            registries: vec![],
            identity: None,
            secret: None,
            attach: None,
            suspend: false,
        };
        let mut object = AcrCredential::new("a", spec);
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "ns".into(),
            name: "a".into(),
        }
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let objects = TrackedObjects::default();
        assert!(objects.update(&key(), object("u", "10")));
        assert!(!objects.update(&key(), object("u", "9")));
        assert!(!objects.update(&key(), object("u", "10")), "nothing new");
        assert!(objects.update(&key(), object("u", "11")));
        assert!(
            objects.update(&key(), object("other", "3")),
            "another object"
        );
    }

    #[test]
    fn an_answer_of_ours_brings_nothing_back_and_hides_no_change() {
        let objects = TrackedObjects::default();
        objects.update(&key(), object("u", "1"));
        let work = objects.begin(&key()).unwrap();
        // Somebody changed the spec before our status was written: the answer tells of it first.
        let mut answer = object("u", "3");
        answer.metadata.generation = Some(2);
        objects.answered(&key(), &work.object, answer);
        assert!(
            !objects.update(&key(), object("u", "2")),
            "the watch has nothing newer"
        );
        assert!(
            objects.end(&key(), &work.object, work.memory),
            "looked at once more"
        );

        let work = objects.begin(&key()).unwrap();
        objects.remove(&key());
        objects.answered(&key(), &work.object, object("u", "4"));
        assert!(!objects.knows(&key()), "a deleted object came back");
    }

    #[test]
    fn one_works_on_an_object_at_a_time() {
        let objects = TrackedObjects::default();
        objects.update(&key(), object("u", "1"));
        let work = objects.begin(&key()).unwrap();
        assert!(objects.begin(&key()).is_none());
        assert!(
            objects.end(&key(), &work.object, work.memory),
            "asked for meanwhile"
        );
        assert!(objects.begin(&key()).is_some());
    }

    #[test]
    fn a_re_created_object_does_not_inherit_a_memory() {
        let objects = TrackedObjects::default();
        objects.update(&key(), object("u", "1"));
        let mut work = objects.begin(&key()).unwrap();
        objects.update(&key(), object("v", "2"));
        work.memory.api_failures = 7;
        objects.end(&key(), &work.object, work.memory);
        assert_eq!(objects.begin(&key()).unwrap().memory.api_failures, 0);
    }
}
