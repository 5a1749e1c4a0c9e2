//! A registry's part of the state.

use serde::{Deserialize, Serialize};

/// A container registry.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    /// Its host names: global, with a domain label, regional. Their tokens are interchangeable; storage is shared.
    pub login_servers: Vec<String>,
    /// Home tenant: Entra tokens of others are refused.
    pub tenant_id: String,
    /// Whether Entra tokens for the Resource Manager audience are accepted.
    #[serde(default)]
    pub arm_auth: ArmAuth,
    /// Which roles count.
    #[serde(default)]
    pub mode: Mode,
    /// Whether pull tokens are given without credentials.
    #[serde(default)]
    pub anonymous_pull: bool,
    /// A user with all rights, if switched on; tests push images with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_user: Option<AdminUser>,
    /// `false`: every request is refused with 403 `DENIED`, as by the firewall.
    #[serde(default = "yes")]
    pub public_network_access: bool,
    /// Raised: all tokens issued before are refused.
    #[serde(default)]
    pub credential_epoch: u64,
    /// How `grant_type=password` is answered.
    #[serde(default)]
    pub password_grant: PasswordGrant,
    /// Which fields token answers have, and how a wholly refused scope is answered.
    #[serde(default)]
    pub body: BodyStyle,
    /// Life of refresh tokens in seconds; negative makes expired ones. Default three hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_lifetime_s: Option<i64>,
    /// Life of access tokens in seconds. Default 75 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token_lifetime_s: Option<i64>,
    /// Whether a refresh token ends with the Entra token it came from.
    #[serde(default)]
    pub bound_to_entra: bool,
    /// Status with which the exchange refuses an identity without a role: 401 or 403. 200: it does not, and the token endpoint
    /// grants nothing then.
    #[serde(default = "unauthorized")]
    pub no_role_status: u16,
    /// OAuth requests a minute before 429; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth_per_minute: Option<u32>,
}

impl Registry {
    /// A classic registry with one login server and every default.
    pub fn new(tenant_id: impl Into<String>, login_server: impl Into<String>) -> Self {
        Self {
            login_servers: vec![login_server.into()],
            tenant_id: tenant_id.into(),
            arm_auth: ArmAuth::default(),
            mode: Mode::default(),
            anonymous_pull: false,
            admin_user: None,
            public_network_access: true,
            credential_epoch: 0,
            password_grant: PasswordGrant::default(),
            body: BodyStyle::default(),
            refresh_token_lifetime_s: None,
            access_token_lifetime_s: None,
            bound_to_entra: false,
            no_role_status: unauthorized(),
            oauth_per_minute: None,
        }
    }

    /// With an admin user, so that images can be pushed.
    #[must_use]
    pub fn with_admin(mut self, username: &str, password: &str) -> Self {
        self.admin_user = Some(AdminUser {
            username: username.into(),
            password: password.into(),
        });
        self
    }

    /// Whether that host is one of its login servers.
    pub fn serves(&self, host: &str) -> bool {
        self.login_servers.iter().any(|name| name == host)
    }
}

/// The registry's `azureADAuthenticationAsArmPolicy`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ArmAuth {
    /// Both audiences are accepted.
    #[default]
    Enabled,
    /// Only the registry audience is accepted.
    Disabled,
}

/// The registry's `roleAssignmentMode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `AcrPull` and its like, for all repositories.
    #[default]
    Rbac,
    /// Repository roles with conditions; `AcrPull` and its like count for nothing.
    Abac,
}

/// How `grant_type=password` is answered.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordGrant {
    /// With a token.
    #[default]
    Supported,
    /// With an empty 400, after which clients fall back to GET.
    #[serde(rename = "legacy_400")]
    Legacy400,
}

/// Shape of token answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyStyle {
    /// `access_token` alone; a wholly refused scope is a 401.
    #[default]
    Acr,
    /// Also `token`, `expires_in`, `issued_at`; a wholly refused scope is a token with an empty list.
    Compat,
}

/// The registry's admin user.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminUser {
    /// User name.
    pub username: String,
    /// Password, of the emulator only.
    pub password: String,
}

impl std::fmt::Debug for AdminUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminUser")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

fn yes() -> bool {
    true
}

fn unauthorized() -> u16 {
    401
}
