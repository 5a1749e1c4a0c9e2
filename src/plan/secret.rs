//! The Secret as it should be, and the write that gets it there.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::minted::{Minted, MintedEntry};
use super::snapshot::{PAYLOAD_KEY, SECRET_TYPE, Snapshot};
use crate::api::{
    AcrCredential, FIELD_MANAGER, GROUP, KIND, MANAGED_BY_LABEL, MINTED_ANNOTATION,
    OWNER_UID_ANNOTATION, SecretTemplate,
};
use crate::credential::{DockerConfig, Token};

/// Longest name of a label or annotation, and value of a label.
const MAX_NAME: usize = 63;
/// Longest domain before a name.
const MAX_DOMAIN: usize = 253;

/// One write to the Secret. Every one but the creation names the UID and resource version that it is
/// meant for, so that a Secret which was replaced meanwhile is left alone.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretWrite {
    /// POST; a conflict means that there is one after all.
    Create(Box<Secret>),
    /// Server-side apply.
    Apply(Box<Secret>),
    /// Merge patch.
    Remove(Removal),
}

/// Labels and annotations that the spec no longer asks for. Apply cannot remove what the POST set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// UID of the Secret that is meant.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// Keys of labels.
    pub labels: Vec<String>,
    /// Keys of annotations.
    pub annotations: Vec<String>,
}

/// An entry as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DesiredEntry {
    pub token: Token,
    /// `None` for a token that we did not mint and leave until we have a better one.
    pub minted_for: Option<String>,
    /// Whether it was minted with the identity of a `ServiceAccount` of the object's namespace.
    pub impersonated: bool,
}

/// What a user wants on the Secret, without what the operator does not allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllowedMetadata {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The keys that the operator does not allow.
    pub not_allowed: BTreeSet<String>,
    /// The keys of what the API server would refuse, and the whole Secret with it.
    pub invalid: BTreeSet<String>,
}

// === impl AllowedMetadata ===

impl AllowedMetadata {
    pub fn of(template: Option<&SecretTemplate>, prefixes: &[String]) -> Self {
        let mut allowed = Self::default();
        let Some(template) = template else {
            return allowed;
        };
        let is_allowed =
            |key: &str| !is_own(key) && prefixes.iter().any(|prefix| key.starts_with(prefix));
        let mut sort = |key: &String, is_valid: bool| {
            let left_out = match (is_allowed(key), is_valid) {
                (true, true) => return true,
                (false, _) => &mut allowed.not_allowed,
                (true, false) => &mut allowed.invalid,
            };
            left_out.insert(key.clone());
            false
        };
        let mut labels = template.labels.clone();
        labels.retain(|key, value| sort(key, is_key(key) && is_label_value(value)));
        let mut annotations = template.annotations.clone();
        // Their keys are compared in lower case by the API server.
        annotations.retain(|key, _| sort(key, is_key(&key.to_ascii_lowercase())));
        Self {
            labels,
            annotations,
            ..allowed
        }
    }
}

/// Whether a label or annotation is ours, whatever a spec or a forged annotation says.
fn is_own(key: &str) -> bool {
    key == MANAGED_BY_LABEL
        || key
            .split_once('/')
            .is_some_and(|(domain, _)| domain == GROUP)
}

/// A qualified name (kubernetes.io, "Labels and Selectors", syntax): `NAME` or `DOMAIN/NAME`.
fn is_key(key: &str) -> bool {
    let (domain, name) = key
        .split_once('/')
        .map_or((None, key), |(domain, name)| (Some(domain), name));
    let is_label = |label: &str| {
        is_name(label)
            && label
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    is_name(name)
        && name.len() <= MAX_NAME
        && domain.is_none_or(|domain| domain.len() <= MAX_DOMAIN && domain.split('.').all(is_label))
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || (value.len() <= MAX_NAME && is_name(value))
}

/// Letters and digits, and `-`, `_` and `.` between them.
fn is_name(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    is_end(bytes.first())
        && is_end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// The write that makes the Secret hold just `entries`, if one is needed.
pub(super) fn write(
    object: &AcrCredential,
    present: Option<&Snapshot>,
    entries: &BTreeMap<String, DesiredEntry>,
    metadata: &AllowedMetadata,
    may_own: bool,
) -> Option<SecretWrite> {
    let Some(present) = present else {
        let secret = desired(object, None, entries, metadata);
        return (!entries.is_empty()).then(|| SecretWrite::Create(Box::new(secret)));
    };
    let removal = removal(present, metadata);
    if !removal.labels.is_empty() || !removal.annotations.is_empty() {
        return Some(SecretWrite::Remove(removal));
    }
    let mut secret = desired(object, Some(present), entries, metadata);
    let is_owned = present.is_referred_to(object);
    if !may_own && !is_owned {
        // What works without it goes on working.
        secret.metadata.owner_references = None;
    }
    (!satisfies(present, &secret) || (may_own && !is_owned))
        .then(|| SecretWrite::Apply(Box::new(secret)))
}

fn desired(
    object: &AcrCredential,
    present: Option<&Snapshot>,
    entries: &BTreeMap<String, DesiredEntry>,
    metadata: &AllowedMetadata,
) -> Secret {
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let mut minted = Minted::new(
        metadata.labels.keys().cloned().collect(),
        metadata.annotations.keys().cloned().collect(),
    );
    let mut config = DockerConfig::default();
    for (host, entry) in entries {
        config.tokens.insert(host.clone(), entry.token.clone());
        if let Some(minted_for) = &entry.minted_for {
            let token = entry.token.digest().as_str().to_owned();
            let minted_entry = MintedEntry {
                minted_for: minted_for.clone(),
                token,
                impersonated: entry.impersonated,
            };
            minted.registries.insert(host.clone(), minted_entry);
        }
    }
    let mut labels = metadata.labels.clone();
    labels.insert(MANAGED_BY_LABEL.into(), FIELD_MANAGER.into());
    let mut annotations = metadata.annotations.clone();
    annotations.insert(OWNER_UID_ANNOTATION.into(), uid.clone());
    annotations.insert(MINTED_ANNOTATION.into(), minted.encode());
    Secret {
        metadata: ObjectMeta {
            name: Some(object.secret_name().to_owned()),
            namespace: object.metadata.namespace.clone(),
            uid: present.map(|present| present.uid.clone()),
            resource_version: present.map(|present| present.resource_version.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(object, uid, present)]),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.into()),
        data: Some([(PAYLOAD_KEY.to_owned(), ByteString(config.encode()))].into()),
        ..Secret::default()
    }
}

/// `blockOwnerDeletion` stays unset: it would need rights that acrcred does not have, and delete nothing
/// earlier. Only one owner can be the controller.
fn owner_reference(
    object: &AcrCredential,
    uid: String,
    present: Option<&Snapshot>,
) -> OwnerReference {
    let another_controls = present.is_some_and(|present| {
        let mut owners = present.owners.iter();
        owners.any(|owner| owner.controller == Some(true) && owner.uid != uid)
    });
    OwnerReference {
        api_version: format!("{GROUP}/v1alpha1"),
        kind: KIND.to_owned(),
        name: object.metadata.name.clone().unwrap_or_default(),
        uid,
        controller: (!another_controls).then_some(true),
        block_owner_deletion: None,
    }
}

fn removal(present: &Snapshot, metadata: &AllowedMetadata) -> Removal {
    let gone = |once: &[String],
                wanted: &BTreeMap<String, String>,
                there: &BTreeMap<String, String>| {
        once.iter()
            .filter(|key| !is_own(key) && !wanted.contains_key(*key) && there.contains_key(*key))
            .cloned()
            .collect()
    };
    Removal {
        uid: present.uid.clone(),
        resource_version: present.resource_version.clone(),
        labels: gone(&present.minted.labels, &metadata.labels, &present.labels),
        annotations: gone(
            &present.minted.annotations,
            &metadata.annotations,
            &present.annotations,
        ),
    }
}

fn satisfies(present: &Snapshot, desired: &Secret) -> bool {
    let has_all = |there: &BTreeMap<String, String>, wanted: &Option<BTreeMap<String, String>>| {
        let mut wanted = wanted.iter().flatten();
        wanted.all(|(key, value)| there.get(key) == Some(value))
    };
    let payload = desired.data.as_ref().and_then(|data| data.get(PAYLOAD_KEY));
    let held = DockerConfig {
        tokens: present
            .tokens
            .iter()
            .map(|(host, (token, _))| (host.clone(), token.clone()))
            .collect(),
    };
    present.is_exact
        && payload.is_some_and(|payload| payload.0 == held.encode())
        && has_all(&present.labels, &desired.metadata.labels)
        && has_all(&present.annotations, &desired.metadata.annotations)
}
