//! The custom resources: what users write and what they read back. Imports nothing else of ours.

mod crd;
mod reason;
mod v1alpha1;

pub use crd::custom_resource_definitions;
pub use reason::{ConditionType, Reason};
pub use v1alpha1::{
    AcrCredential, AcrCredentialSpec, AcrCredentialStatus, Attach, FederationStatus, Registry,
    RegistryStatus, SecretTemplate, ServiceAccountIdentity,
};

/// The API group.
pub const GROUP: &str = "acrcred.dev";
/// The kind of the namespaced resource.
pub const KIND: &str = "AcrCredential";
/// Field manager of everything that we write.
pub const FIELD_MANAGER: &str = "acrcred";
/// Field manager of reads by empty merge patch, so that an audit log tells them from writes.
pub const READ_FIELD_MANAGER: &str = "acrcred-read";
/// On our Secret: the UID of the object it belongs to.
pub const OWNER_UID_ANNOTATION: &str = "acrcred.dev/owner-uid";
/// On our Secret: versioned JSON that says what each entry was minted for.
pub const MINTED_ANNOTATION: &str = "acrcred.dev/minted";
/// On a user's Secret: the name of the `AcrCredential` that may take it over.
pub const ADOPT_ANNOTATION: &str = "acrcred.dev/adopt";
/// On our object: a new value asks for new credentials now.
pub const REFRESH_ANNOTATION: &str = "acrcred.dev/refresh";
/// On a `ServiceAccount`: the audience of its assertions, one of those that the operator allows.
pub const AUDIENCE_ANNOTATION: &str = "acrcred.dev/audience";
/// On a `ServiceAccount`: the client id of its identity (azure-workload-identity, "Service account labels and
/// annotations").
pub const CLIENT_ID_ANNOTATION: &str = "azure.workload.identity/client-id";
/// On a `ServiceAccount`: the tenant of its identity (likewise).
pub const TENANT_ID_ANNOTATION: &str = "azure.workload.identity/tenant-id";
/// On our Secret: who maintains it (the usual label).
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
