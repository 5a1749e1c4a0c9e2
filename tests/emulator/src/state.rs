//! What exists in the emulated cloud: clusters, tenants, identities, registries and who may do what.
//!
//! The JSON form has camel-case names and defaults for nearly everything, so that a small file suffices.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cloud::{Cloud, PUBLIC};
use crate::jwt::{Jwk, sha256};
use crate::random::guid_of;
use crate::roles::Role;

/// The audience that a federated credential usually names.
pub const DEFAULT_FEDERATION_AUDIENCE: &str = "api://AzureADTokenExchange";
/// Life of a refresh token, in seconds: about three hours.
pub const REFRESH_TOKEN_LIFETIME: i64 = 3 * 3600;
/// Life of an access token of a registry, in seconds: 75 minutes.
pub const ACCESS_TOKEN_LIFETIME: i64 = 4500;
/// Clock skew that Entra forgives an assertion, in seconds.
pub const ASSERTION_SKEW: i64 = 300;

/// Everything the emulator knows.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct State {
    /// What holds for all tenants and registries.
    pub settings: Settings,
    /// Clouds beside the national ones.
    pub clouds: Vec<Cloud>,
    /// Issuers of assertions and where their keys are.
    pub clusters: Vec<Cluster>,
    /// Entra tenants.
    pub tenants: Vec<Tenant>,
    /// App registrations and user-assigned managed identities.
    pub identities: Vec<Identity>,
    /// Registries.
    pub registries: Vec<Registry>,
    /// Which identity may do what at which registry.
    pub role_assignments: Vec<RoleAssignment>,
}

/// Switches for what is unknown or differs at Azure.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Life of Entra tokens in seconds, instead of 3599…5399 (apps) and 86399 (managed identities).
    pub entra_lifetime_s: Option<i64>,
    /// Refuse assertions with more than one audience.
    pub strict_single_aud: bool,
    /// Answer the 70021x family with the other of 400 and 401.
    pub swap_status: bool,
    /// Skew forgiven in an assertion's times, in seconds.
    pub assertion_skew_s: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entra_lifetime_s: None,
            strict_single_aud: false,
            swap_status: false,
            assertion_skew_s: ASSERTION_SKEW,
        }
    }
}

/// A Kubernetes cluster as Entra sees it: an issuer with keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// The `iss` of its assertions, exactly.
    pub issuer: String,
    /// Where its keys come from.
    pub jwks: JwksSource,
    /// For how long an unknown key id does not lead to another fetch, in seconds: Entra's stale cache.
    #[serde(default)]
    pub jwks_cache_seconds: i64,
}

/// Where a cluster's JWKS document is found.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum JwksSource {
    /// Fetched, usually from the API server's `/openid/v1/jwks`.
    Url {
        /// https, or http on loopback.
        url: String,
        /// PEM file of the CA that vouches for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_file: Option<String>,
        /// File with the bearer token to send.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bearer_token_file: Option<String>,
    },
    /// Read from a file.
    File {
        /// The JWKS document.
        file: String,
    },
    /// Written out here.
    Inline {
        /// The keys.
        keys: Vec<Jwk>,
    },
}

/// An Entra tenant.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Its GUID.
    pub tenant_id: String,
    /// Verified domains, each as good as the GUID in a URL.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Name of the cloud whose authority knows it.
    #[serde(default = "public_cloud")]
    pub cloud: String,
    /// Resources beside, or instead of, those of its cloud (registry and Resource Manager).
    #[serde(default)]
    pub resources: Vec<Resource>,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            tenant_id: String::new(),
            domains: Vec::new(),
            cloud: public_cloud(),
            resources: Vec::new(),
        }
    }
}

/// Something that tokens can be requested for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource {
    /// Resource id, without `/.default`.
    pub id: String,
    /// What a request for it meets.
    #[serde(default)]
    pub status: ResourceStatus,
}

/// What a request for a resource meets.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ResourceStatus {
    /// A token.
    #[default]
    Enabled,
    /// AADSTS50001, as in a disconnected cloud.
    Disabled,
    /// AADSTS500011: no service principal in this tenant.
    Missing,
}

/// What an identity is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityKind {
    /// App registration: tokens of 60 to 90 minutes.
    #[default]
    App,
    /// User-assigned managed identity: tokens of 24 hours, home tenant only.
    Uami,
}

/// An app registration or a user-assigned managed identity.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// App or managed identity.
    #[serde(default)]
    pub kind: IdentityKind,
    /// Application (client) id.
    pub client_id: String,
    /// Object id of the service principal; derived from the client id where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// Home tenant.
    pub tenant_id: String,
    /// Further tenants that consented (apps only).
    #[serde(default)]
    pub consented_tenants: Vec<String>,
    /// Whether it may sign in.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whose assertions it accepts; at most 20.
    #[serde(default)]
    pub federated_credentials: Vec<FederatedCredential>,
    /// Life of its Entra tokens in seconds, before the global setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_lifetime_s: Option<i64>,
}

impl Identity {
    /// An enabled app registration without federated credentials.
    pub fn app(tenant_id: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            kind: IdentityKind::App,
            client_id: client_id.into(),
            object_id: None,
            tenant_id: tenant_id.into(),
            consented_tenants: Vec::new(),
            enabled: true,
            federated_credentials: Vec::new(),
            token_lifetime_s: None,
        }
    }

    /// An enabled user-assigned managed identity without federated credentials.
    pub fn uami(tenant_id: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            kind: IdentityKind::Uami,
            ..Self::app(tenant_id, client_id)
        }
    }

    /// Trusts one subject of one issuer under the default audience.
    #[must_use]
    pub fn trusting(mut self, issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        self.federated_credentials
            .push(FederatedCredential::new(issuer, subject));
        self
    }

    /// The object id, given or derived.
    pub fn object_id(&self) -> String {
        self.object_id.clone().unwrap_or_else(|| {
            let digest = sha256(&self.client_id);
            guid_of(
                u128::from_str_radix(&digest[..32], 16)
                    .unwrap_or(1)
                    .to_be_bytes(),
            )
        })
    }

    /// Whether it can be used in that tenant.
    pub fn lives_in(&self, tenant: &str) -> bool {
        self.tenant_id.eq_ignore_ascii_case(tenant)
            || self.kind == IdentityKind::App
                && self
                    .consented_tenants
                    .iter()
                    .any(|t| t.eq_ignore_ascii_case(tenant))
    }
}

/// A federated identity credential: which assertions an identity accepts, compared exactly.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FederatedCredential {
    /// Its name; no part in matching.
    #[serde(default)]
    pub name: String,
    /// `iss`; blanks at its ends are kept, and then never match.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`: exactly one.
    #[serde(default = "federation_audience")]
    pub audience: String,
    /// Emulator time from which it counts; before, it is as if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_after: Option<Timestamp>,
    /// How many uses after that fail, every other one, as replicas that lag behind do.
    #[serde(default)]
    pub flap: u32,
}

impl FederatedCredential {
    /// In force at once, for the default audience.
    pub fn new(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            name: String::new(),
            issuer: issuer.into(),
            subject: subject.into(),
            audience: federation_audience(),
            effective_after: None,
            flap: 0,
        }
    }
}

/// A role of an identity at a registry.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleAssignment {
    /// Object id or client id.
    pub principal: String,
    /// Any login server of the registry.
    pub registry: String,
    /// The role.
    pub role: Role,
    /// Limits a repository role to names (attribute-based registries only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Emulator time from which it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_after: Option<Timestamp>,
}

impl RoleAssignment {
    /// An unconditional role, in force at once.
    pub fn new(principal: impl Into<String>, registry: impl Into<String>, role: Role) -> Self {
        Self {
            principal: principal.into(),
            registry: registry.into(),
            role,
            condition: None,
            effective_after: None,
        }
    }
}

/// Repository names that a role assignment covers; letter case does not count.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Condition {
    /// Whole names.
    pub equals: Vec<String>,
    /// Prefixes, with their trailing slash where one is meant.
    pub starts_with: Vec<String>,
}

fn yes() -> bool {
    true
}

fn public_cloud() -> String {
    PUBLIC.to_owned()
}

fn federation_audience() -> String {
    DEFAULT_FEDERATION_AUDIENCE.to_owned()
}

pub use crate::registry::{ArmAuth, BodyStyle, Mode, PasswordGrant, Registry};
