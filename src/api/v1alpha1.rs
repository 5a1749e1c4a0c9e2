//! `acrcred.dev/v1alpha1`.

// The texts are what `kubectl explain` prints, where a backtick is just a character.
#![allow(clippy::doc_markdown)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An AcrCredential keeps a `kubernetes.io/dockerconfigjson` Secret in its namespace filled with live
/// credentials for Azure container registries. Pods use the Secret through imagePullSecrets.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "acrcred.dev",
    version = "v1alpha1",
    kind = "AcrCredential",
    plural = "acrcredentials",
    shortname = "acrcred",
    namespaced,
    status = "AcrCredentialStatus",
    derive = "PartialEq",
    doc = "AcrCredential keeps a kubernetes.io/dockerconfigjson Secret in its namespace filled with live credentials for Azure container registries. Pods use the Secret through imagePullSecrets.",
    printcolumn(name = "Registry", type_ = "string", json_path = ".spec.registries[0].server"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secret.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Refresh", type_ = "string", json_path = r#".status.conditions[?(@.type=="RefreshFailing")].reason"#),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "Client-ID", type_ = "string", json_path = ".status.identity.clientId", priority = 1),
    printcolumn(name = "Next-Refresh", type_ = "string", json_path = ".status.refreshAt", priority = 1),
    validation = Rule::new("(has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name) == (has(oldSelf.spec.secret) && has(oldSelf.spec.secret.name) ? oldSelf.spec.secret.name : oldSelf.metadata.name)").message("spec.secret.name is immutable (unset, it is the object's name): a rename would leave a live credential behind; create a new AcrCredential instead")
)]
#[serde(rename_all = "camelCase")]
pub struct AcrCredentialSpec {
    /// The registries to hold credentials for, 1 to 16. Each refreshes on its own: one that fails never
    /// holds back or expires the others.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["server".into()]))]
    pub registries: Vec<Registry>,

    /// Whose identity is used. Absent: the controller's own, which works only where the operator allows
    /// it (--allow-controller-identity).
    pub identity: Option<ServiceAccountIdentity>,

    /// The Secret that is written.
    pub secret: Option<SecretTemplate>,

    /// ServiceAccounts that get the Secret in their imagePullSecrets. Not supported yet: an object that sets
    /// it gets no credential.
    pub attach: Option<Attach>,

    /// Stops issuing and refreshing. The status still reports the expiry. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

/// A registry to hold a credential for.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    /// The login server, as `az acr show --query loginServer` prints it, such as contoso.azurecr.io,
    /// contoso-a1b2.azurecr.io or contoso.eastus.geo.azurecr.io. A regional endpoint is an entry of its own.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(
        validation = Rule::new("!self.contains('://')").message("server is a host: type it without https://, such as contoso.azurecr.io"),
        validation = Rule::new("self.contains('://') || !self.contains('/')").message("server is a host: type it without a path; repositories go into the field repositories"),
        validation = Rule::new("self.contains('://') || !self.contains(':')").message("server is a host: type it without a port"),
        validation = Rule::new("!self.contains('@')").message("server is a host: type it without a user"),
        validation = Rule::new("!self.matches('[A-Z]')").message("server must be lower case, such as contoso.azurecr.io"),
        validation = Rule::new("!self.endsWith('.')").message("server must not end with a dot"),
        validation = Rule::new("self.matches('[A-Z:/@]') || self.endsWith('.') || self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+$')").message("server must be a login server, such as contoso.azurecr.io")
    )]
    pub server: String,

    /// Limits the credential to pulling these repositories, 1 to 64, each named in full. Absent: everything
    /// that the identity may do at the registry. Naming fewer takes the wider credential away at once;
    /// naming more takes effect when the registry has granted all of them.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(r, !r.contains('*'))").message("repositories must be named in full: a wildcard is not possible"),
        validation = Rule::new("self.all(r, !r.contains(':') && !r.contains('@'))").message("repositories are named without tag or digest"),
        validation = Rule::new("self.all(r, r.contains('*') || r.contains(':') || r.contains('@') || r.matches('^[a-z0-9]+([._/-]+[a-z0-9]+)*$'))").message("repositories must look like team/app: lower-case letters, digits, and . _ - / between them")
    )]
    pub repositories: Option<Vec<String>>,
}

/// A ServiceAccount of the object's own namespace whose federated identity is used.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountIdentity {
    /// Name of a ServiceAccount in the same namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub service_account_name: String,

    /// Application (client) id, a GUID. Default: the ServiceAccount's annotation
    /// azure.workload.identity/client-id.
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')").message("clientId must be a GUID with dashes"))]
    pub client_id: Option<String>,

    /// Tenant: a GUID or a verified domain. Default: the ServiceAccount's annotation
    /// azure.workload.identity/tenant-id, then the controller's AZURE_TENANT_ID.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$') || self.matches('^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)+$')").message("tenantId must be a GUID with dashes or a domain such as contoso.onmicrosoft.com"))]
    pub tenant_id: Option<String>,
}

/// The Secret that is written. Its type is always kubernetes.io/dockerconfigjson.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Name of the Secret. Default: the object's own name. Immutable.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("secret.name must be a DNS name: lower-case letters, digits, - and ."))]
    pub name: Option<String>,

    /// Labels to put on the Secret, only under prefixes that the operator allows
    /// (--secret-metadata-prefixes).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub labels: BTreeMap<String, String>,

    /// Annotations to put on the Secret, only under prefixes that the operator allows
    /// (--secret-metadata-prefixes).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    pub annotations: BTreeMap<String, String>,
}

/// Which ServiceAccounts get the Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Attach {
    /// Names of ServiceAccounts in the same namespace, 1 to 64. One that does not exist yet is awaited.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub service_accounts: Vec<String>,
}

/// What acrcred last found and did. Times are UTC.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AcrCredentialStatus {
    /// The generation of the spec that this status speaks of; -1 before the first look.
    pub observed_generation: Option<i64>,

    /// Ready always; Reconciling, Stalled and RefreshFailing only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The Secret as acrcred last wrote it.
    pub secret: Option<SecretStatus>,

    /// When the first credential in the Secret stops working.
    pub expires_at: Option<Time>,

    /// When the next refresh is planned.
    pub refresh_at: Option<Time>,

    /// When the newest credential in the Secret was obtained.
    pub last_refresh_at: Option<Time>,

    /// What Microsoft Entra must be told to trust: the federated credential to create on the application
    /// or managed identity.
    pub identity: Option<FederationStatus>,

    /// One entry for each registry of the spec, and for each that left it until its credential is out of the
    /// Secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 48))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["server".into()]))]
    pub registries: Vec<RegistryStatus>,

    /// ServiceAccounts that hold the Secret now. Not used yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub attached: Vec<String>,

    /// The last value of the annotation acrcred.dev/refresh that acrcred acted on: since it was first seen, every
    /// registry got a new credential.
    #[schemars(length(max = 64))]
    pub last_handled_refresh: Option<String>,
}

/// The Secret as acrcred last wrote it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretStatus {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its resource version, a positive number.
    #[schemars(length(max = 32), regex(pattern = "^[1-9][0-9]*$"))]
    pub resource_version: String,
}

/// The facts of a federated identity credential, exactly as the ServiceAccount token states them.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FederationStatus {
    /// Issuer; a trailing slash counts. Absent until acrcred has held a ServiceAccount token of this cluster.
    #[schemars(length(max = 2048))]
    pub issuer: Option<String>,
    /// Subject: system:serviceaccount:NAMESPACE:NAME.
    #[schemars(length(max = 512))]
    pub subject: String,
    /// Audience of the ServiceAccount token.
    #[schemars(length(max = 1024))]
    pub audience: String,
    /// Tenant.
    #[schemars(length(max = 253))]
    pub tenant_id: String,
    /// Application (client) id.
    #[schemars(length(max = 64))]
    pub client_id: String,
}

/// One registry's state.
#[serde_with::skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// The login server.
    #[schemars(length(max = 253))]
    pub server: String,
    /// The audience of the Entra token that its credential is issued with.
    #[schemars(length(max = 1024))]
    pub audience: Option<String>,
    /// When the credential in the Secret was issued.
    pub issued_at: Option<Time>,
    /// When the credential in the Secret stops working.
    pub expires_at: Option<Time>,
    /// A hash of the identity, server and repositories that it was issued for.
    #[schemars(length(max = 128))]
    pub issued_for: Option<String>,
    /// Issued, or why there is no credential, or why its refresh fails.
    #[schemars(length(max = 64))]
    pub reason: String,
}

/// Longest value of the annotation `acrcred.dev/refresh` that is served.
const MAX_REFRESH: usize = 64;

// === impl AcrCredential ===

impl AcrCredential {
    /// The value of the annotation `acrcred.dev/refresh`, if it is one that is served: at most 64 letters,
    /// digits and `. _ : + -`, so that it can be repeated in a status.
    pub fn refresh_request(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        let value = annotations.get(super::REFRESH_ANNOTATION)?;
        let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"._:+-".contains(&b);
        ((1..=MAX_REFRESH).contains(&value.len()) && value.bytes().all(is_safe)).then_some(value)
    }

    /// Name of the Secret that this object keeps.
    pub fn secret_name(&self) -> &str {
        let named = self
            .spec
            .secret
            .as_ref()
            .and_then(|secret| secret.name.as_deref());
        named.or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
