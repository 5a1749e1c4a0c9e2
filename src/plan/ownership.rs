//! What a Secret of the right name is to our object.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Snapshot;
use crate::api::{AcrCredential, GROUP, KIND};
use crate::credential::saturating_add;

/// Whether we may write a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It carries the object's owner reference or its UID.
    Ours,
    /// Its user handed it over to this object.
    Adoptable,
    /// It belongs to a deleted object of the same name, as a `GitOps` replace leaves it for a moment.
    AwaitingDeletion,
    /// It is somebody else's.
    Foreign,
}

/// How long the Secret of a predecessor is waited for.
const COLLECTION_LIMIT: SignedDuration = SignedDuration::from_mins(2);

// === impl Snapshot ===

impl Snapshot {
    /// What this Secret is to `object`. Neither label nor name ever makes it ours.
    pub fn ownership(&self, object: &AcrCredential, now: Timestamp) -> Ownership {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let annotated = self.owner_uid.as_deref() == Some(uid);
        if !uid.is_empty() && (annotated || self.is_referred_to(object)) {
            return Ownership::Ours;
        }
        if self.adopt.as_deref() == Some(name) && !name.is_empty() {
            return Ownership::Adoptable;
        }
        let created = object
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0);
        let is_young = created.is_some_and(|at| now < saturating_add(at, COLLECTION_LIMIT));
        if is_young && self.owners.iter().any(|owner| is_of_name(owner, name)) {
            Ownership::AwaitingDeletion
        } else {
            Ownership::Foreign
        }
    }

    /// Whether an owner reference names `object` in full.
    pub fn is_referred_to(&self, object: &AcrCredential) -> bool {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let uid = object.metadata.uid.as_ref();
        let mut owners = self.owners.iter();
        owners.any(|owner| Some(&owner.uid) == uid && is_of_name(owner, name))
    }
}

fn is_of_name(owner: &OwnerReference, name: &str) -> bool {
    owner.kind == KIND
        && owner.name == name
        && owner
            .api_version
            .split_once('/')
            .is_some_and(|(group, _)| group == GROUP)
}
