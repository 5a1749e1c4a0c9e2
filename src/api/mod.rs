//! The custom resources: what users write and what they read back. Imports nothing else of ours.

mod crd;
mod reason;
mod v1alpha1;

pub use crd::custom_resource_definitions;
pub use reason::{ConditionType, Reason};
pub use v1alpha1::{
    AcrCredential, AcrCredentialSpec, AcrCredentialStatus, Attach, FederationStatus, Registry,
    RegistryStatus, SecretStatus, SecretTemplate, ServiceAccountIdentity,
};

/// The API group.
pub const GROUP: &str = "acrcred.dev";
/// The kind of the namespaced resource.
pub const KIND: &str = "AcrCredential";
/// Field manager of everything that we write.
pub const FIELD_MANAGER: &str = "acrcred";
/// On our Secret: the name of the `AcrCredential` of the same namespace that it belongs to. A user sets it on
/// another Secret to hand that one over.
pub const OWNER_ANNOTATION: &str = "acrcred.dev/owner";
/// On our Secret after a write without an answer: makes the next write another version. Gone with the next change.
pub const RETRY_ANNOTATION: &str = "acrcred.dev/retry";
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
/// On our Secret: Velero leaves it out of backups (velero.io, "Resource filtering").
pub const VELERO_LABEL: &str = "velero.io/exclude-from-backup";
