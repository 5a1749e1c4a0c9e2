//! The `ServiceAccount` that an object names.

use jiff::Timestamp;
use kube::api::ObjectMeta;

use super::backoff::Backoff;
use crate::api::{AUDIENCE_ANNOTATION, CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION};
use crate::credential::Cause;

/// What decisions need of a `ServiceAccount`. Its annotations are text that any user may have written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// `azure.workload.identity/client-id`.
    pub client_id: Option<String>,
    /// `azure.workload.identity/tenant-id`.
    pub tenant_id: Option<String>,
    /// `acrcred.dev/audience`.
    pub audience: Option<String>,
}

/// Longer than any value that can be used; the rest of a longer one is not kept.
const LONGEST: usize = 300;

/// The `ServiceAccount` that an object names, as it was last read.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedAccount {
    /// Its name.
    pub name: String,
    /// What was read, or why it cannot be used: [`Cause::ApiServer`] if it was not read.
    pub state: Result<ServiceAccountFacts, Cause>,
    /// When it was read.
    pub read_at: Option<Timestamp>,
    /// Set if the last read gave no answer, or nothing that can be used.
    pub failure: Option<Backoff>,
}

// === impl ServiceAccountFacts ===

impl ServiceAccountFacts {
    /// Reads the metadata of a `ServiceAccount`.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let annotation = |key| {
            let text = metadata.annotations.as_ref()?.get(key)?.trim();
            (!text.is_empty()).then(|| text.chars().take(LONGEST).collect())
        };
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            client_id: annotation(CLIENT_ID_ANNOTATION),
            tenant_id: annotation(TENANT_ID_ANNOTATION),
            audience: annotation(AUDIENCE_ANNOTATION),
        }
    }
}
