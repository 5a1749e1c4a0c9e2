//! Objects as a watch reads them. A user can store what no library can hold, such as a time beyond the calendar in
//! `managedFields`. It must never make a whole list unreadable, so only what is used is read, and all of it leniently.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::api::{AcrCredential, FIELD_MANAGER, GROUP};

/// An `AcrCredential`, not parsed yet.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "AcrCredential")]
pub(super) struct WatchedCredential {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// A Secret, of which only metadata is read.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "Secret")]
pub(super) struct WatchedSecret {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UsedMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<String>,
    annotations: BTreeMap<String, String>,
    managed_fields: Vec<Manager>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Manager {
    manager: Option<String>,
    /// Times of one format are in order as texts, too.
    time: Option<String>,
}

// === impl WatchedCredential ===

impl WatchedCredential {
    /// The object itself. A status that cannot be read counts as none: it is written again.
    pub fn object(self) -> serde_json::Result<AcrCredential> {
        Ok(AcrCredential {
            metadata: self.metadata,
            spec: serde_json::from_value(self.spec)?,
            status: serde_json::from_value(self.status).ok(),
        })
    }
}

/// The metadata that is used; the rest is skipped unread. Of the field managers, the one other than acrcred that wrote
/// last.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let used = UsedMetadata::deserialize(deserializer)?;
    let managers = used.managed_fields.into_iter();
    let others = managers.filter(|it| it.manager.as_deref() != Some(FIELD_MANAGER));
    let last = others.max_by(|a, b| a.time.cmp(&b.time));
    let is_ours = |key: &str| key.split_once('/').is_some_and(|(group, _)| group == GROUP);
    let annotations = used.annotations.into_iter().filter(|(key, _)| is_ours(key));
    Ok(ObjectMeta {
        name: used.name,
        namespace: used.namespace,
        uid: used.uid,
        resource_version: used.resource_version,
        generation: used.generation,
        // Only whether it is set counts.
        deletion_timestamp: used.deletion_timestamp.map(|_| Time(Timestamp::UNIX_EPOCH)),
        annotations: Some(annotations.collect()),
        managed_fields: last.map(|last| {
            vec![ManagedFieldsEntry {
                manager: last.manager,
                ..ManagedFieldsEntry::default()
            }]
        }),
        ..ObjectMeta::default()
    })
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
        let list: ObjectList<WatchedCredential> = serde_json::from_str(&text).unwrap();
        let [hostile, other] = &list.items[..] else {
            panic!("{list:?}");
        };
        let managers = hostile.metadata.managed_fields.as_ref().unwrap();
        assert_eq!(managers[0].manager.as_deref(), Some("x"));
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
