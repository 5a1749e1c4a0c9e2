//! The Secret as it should be.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::entry::Issued;
use super::facts::Facts;
use super::secret_call::{SecretVersion, SecretWrite};
use crate::api::{
    FIELD_MANAGER, GROUP, KIND, MANAGED_BY_LABEL, OWNER_ANNOTATION, RETRY_ANNOTATION,
    SecretTemplate, VELERO_LABEL,
};
use crate::credential::names::is_subdomain;
use crate::credential::{Digest, DockerConfig};

const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";
const PAYLOAD_KEY: &str = ".dockerconfigjson";
/// The longest name part of a qualified name, and the longest label value.
const MAX_NAME: usize = 63;

/// What a user wants on the Secret, without what the platform administrator does not allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllowedMetadata {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The keys that are left out, by the reason.
    pub left_out: BTreeMap<&'static str, BTreeSet<String>>,
}

// === impl AllowedMetadata ===

impl AllowedMetadata {
    pub fn of(template: Option<&SecretTemplate>, prefixes: &[String]) -> Self {
        let mut allowed = Self::default();
        let Some(template) = template else {
            return allowed;
        };
        let mut keep = |key: &str, is_valid: bool| {
            let is_allowed = !is_own(key) && prefixes.iter().any(|prefix| key.starts_with(prefix));
            let why = match (is_allowed, is_valid) {
                (true, true) => return true,
                (false, _) => "--secret-metadata-prefixes does not allow them",
                // The API server would refuse them, and the whole Secret with them.
                (true, false) => "they are not valid",
            };
            allowed
                .left_out
                .entry(why)
                .or_default()
                .insert(key.to_owned());
            false
        };
        let mut labels = template.labels.clone();
        labels.retain(|key, value| keep(key, is_key(key) && is_label_value(value)));
        let mut annotations = template.annotations.clone();
        // Their keys are compared in lower case by the API server.
        annotations.retain(|key, _| keep(key, is_key(&key.to_ascii_lowercase())));
        Self {
            labels,
            annotations,
            ..allowed
        }
    }
}

/// Whether a label or annotation is ours, whatever a spec says.
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
    is_name(name) && domain.is_none_or(is_subdomain)
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// Letters and digits, and `-`, `_` and `.` between them.
fn is_name(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// The metadata that the Secret should have.
pub(super) fn metadata(facts: &Facts) -> ObjectMeta {
    let object = &facts.object;
    let prefixes = &facts.settings.secret_metadata_prefixes;
    let allowed = AllowedMetadata::of(object.spec.secret.as_ref(), prefixes);
    let mut labels = allowed.labels;
    labels.insert(MANAGED_BY_LABEL.into(), FIELD_MANAGER.into());
    // A token in a backup outlives what the backup is for.
    labels.entry(VELERO_LABEL.into()).or_insert("true".into());
    let mut annotations = allowed.annotations;
    let name = object.metadata.name.clone().unwrap_or_default();
    annotations.insert(OWNER_ANNOTATION.into(), name.clone());
    // `blockOwnerDeletion` stays unset: it would need rights that acrcred does not have, and delete nothing earlier.
    let owner = OwnerReference {
        api_version: format!("{GROUP}/v1alpha1"),
        kind: KIND.to_owned(),
        name,
        uid: facts.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ObjectMeta {
        name: Some(object.secret_name().to_owned()),
        namespace: object.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: (!facts.secret.is_owner_refused).then(|| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Distinguishes two sets of labels, annotations and owner references.
pub(super) fn digest(metadata: &ObjectMeta) -> Digest {
    let pairs = [&metadata.labels, &metadata.annotations];
    let owners = metadata.owner_references.iter().flatten();
    Digest::of_parts(
        pairs
            .into_iter()
            .flatten()
            .flat_map(|map| {
                map.iter()
                    .flat_map(|(key, value)| [key.as_str(), value])
                    .chain([""])
            })
            .chain(owners.map(|owner| owner.uid.as_str())),
    )
}

/// A Secret with this metadata and these credentials; in this version, if it is stored.
pub(super) fn secret<'a>(
    metadata: ObjectMeta,
    version: Option<&SecretVersion>,
    entries: impl Iterator<Item = (&'a String, &'a Issued)>,
) -> Secret {
    let tokens = entries.map(|(server, issued)| (server.clone(), issued.credential.token.clone()));
    let config = DockerConfig {
        tokens: tokens.collect(),
    };
    Secret {
        metadata: ObjectMeta {
            uid: version.map(|version| version.uid.clone()),
            resource_version: version.map(|version| version.number().to_string()),
            ..metadata
        },
        type_: Some(SECRET_TYPE.into()),
        data: Some([(PAYLOAD_KEY.to_owned(), ByteString(config.encode()))].into()),
        ..Secret::default()
    }
}

/// The write that makes the Secret hold just `entries`.
pub(super) fn write(
    facts: &Facts,
    mut metadata: ObjectMeta,
    version: Option<&SecretVersion>,
    entries: BTreeMap<String, Issued>,
) -> SecretWrite {
    let digest = digest(&metadata);
    // A write that changes nothing keeps the version, and an earlier one whose outcome is not known could still win.
    if let Some(at) = facts.secret.unconfirmed_at {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(RETRY_ANNOTATION.into(), at.as_millisecond().to_string());
    }
    SecretWrite {
        metadata: digest,
        secret: Box::new(secret(metadata, version, entries.iter())),
        entries,
    }
}

// === impl Facts ===

impl Facts {
    /// A Secret without credentials, under the name of the one that is stored, if one is and can be written.
    pub fn stored_secret(&self) -> Option<Secret> {
        let is_stored = matches!(self.secret.place, super::facts::Place::At(_))
            && !self.secret.is_dirty
            && self.secret.failure.is_none();
        is_stored.then(|| secret(metadata(self), None, std::iter::empty()))
    }
}
