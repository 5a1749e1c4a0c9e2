//! An object as a watch reads it. A user can store what no library can hold, such as a time beyond the calendar in
//! `managedFields`. It must never make a whole list unreadable, so only what is used is read, and all of it leniently.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::queue::ObjectKey;
use crate::api::{AcrCredential, FIELD_MANAGER, GROUP};

/// An object of kind `K`, of which only this was read.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "")]
pub(super) struct Watched<K> {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
    #[serde(skip)]
    kind: PhantomData<K>,
}

/// The metadata that is used; the rest of it is skipped unread.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "RawMetadata")]
struct Metadata {
    used: ObjectMeta,
    /// The field manager, other than acrcred, that wrote last.
    last_manager: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    managed_fields: Option<Vec<RawManager>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawManager {
    manager: Option<String>,
    /// Times of one format are in order as texts, too.
    time: Option<String>,
}

// === impl Watched ===

impl<K> Watched<K> {
    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        let metadata = &self.metadata.used;
        ObjectKey {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The field manager, other than acrcred, that wrote last.
    pub fn last_manager(&self) -> Option<String> {
        self.metadata.last_manager.clone()
    }
}

impl Watched<AcrCredential> {
    /// The object itself. A status that cannot be read counts as none: it is written again.
    pub fn object(self) -> serde_json::Result<AcrCredential> {
        Ok(AcrCredential {
            metadata: self.metadata.used,
            spec: serde_json::from_value(self.spec)?,
            status: serde_json::from_value(self.status).ok(),
        })
    }
}

impl<K: Resource> Resource for Watched<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata.used
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata.used
    }
}

// === impl Metadata ===

impl From<RawMetadata> for Metadata {
    fn from(raw: RawMetadata) -> Self {
        let managers = raw.managed_fields.unwrap_or_default().into_iter();
        let others = managers.filter(|it| it.manager.as_deref() != Some(FIELD_MANAGER));
        let is_ours = |key: &str| key.split_once('/').is_some_and(|(group, _)| group == GROUP);
        let annotations = raw.annotations.map(|mut all| {
            all.retain(|key, _| is_ours(key));
            all
        });
        Self {
            used: ObjectMeta {
                name: raw.name,
                namespace: raw.namespace,
                uid: raw.uid,
                resource_version: raw.resource_version,
                generation: raw.generation,
                // Only whether it is set counts.
                deletion_timestamp: raw.deletion_timestamp.map(|_| Time(Timestamp::UNIX_EPOCH)),
                annotations,
                ..ObjectMeta::default()
            },
            last_manager: others
                .max_by(|a, b| a.time.cmp(&b.time))
                .and_then(|last| last.manager),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectList;

    use super::*;

    #[test]
    fn what_is_not_used_never_makes_a_list_unreadable() {
        let deep = format!("{}{}", "{\"f:a\":".repeat(5_000), "1") + &"}".repeat(5_000);
        let managers = format!(
            r#"[{{"manager": "x", "time": "9999-12-31T23:59:59Z", "fieldsV1": {deep}}}, {{"manager": "y"}}]"#
        );
        let item = |name: &str, managers: &str, status: &str| {
            format!(
                r#"{{"metadata": {{"name": "{name}", "namespace": "a", "creationTimestamp": "0000", "managedFields": {managers},
                "annotations": {{"acrcred.dev/refresh": "1", "b": "2"}}, "deletionTimestamp": "9999-12-31T23:59:59Z"}},
                "spec": {{"registries": [{{"server": "contoso.azurecr.io"}}]}}, "status": {status}}}"#
            )
        };
        let items = [
            item(
                "hostile",
                &managers,
                r#"{"expiresAt": "9999-12-31T23:59:59Z"}"#,
            ),
            item("other", "[]", r#"{"observedGeneration": 1}"#),
        ];
        let text = format!(r#"{{"metadata": {{}}, "items": [{}]}}"#, items.join(","));
        let list: ObjectList<Watched<AcrCredential>> = serde_json::from_str(&text).unwrap();
        let [hostile, other] = &list.items[..] else {
            panic!("{list:?}");
        };
        assert_eq!(hostile.last_manager().as_deref(), Some("x"));
        let object = hostile.clone().object().unwrap();
        assert_eq!(object.status, None);
        assert!(object.metadata.deletion_timestamp.is_some());
        assert_eq!(object.metadata.annotations.map(|all| all.len()), Some(1));
        let status = other.clone().object().unwrap().status;
        assert_eq!(
            status.and_then(|status| status.observed_generation),
            Some(1)
        );
    }
}
