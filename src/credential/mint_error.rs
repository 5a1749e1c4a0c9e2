//! Why a credential could not be minted, in our own words.

use jiff::SignedDuration;

/// No `Retry-After` holds us back longer.
pub const RETRY_AFTER_CAP: SignedDuration = SignedDuration::from_mins(15);

/// The step that failed. Its name is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Hop {
    /// Getting the assertion.
    Assertion,
    /// Assertion to Entra token.
    Entra,
    /// Entra token to ACR refresh token.
    Exchange,
    /// ACR refresh token to one that is limited to repositories.
    Token,
}

/// What went wrong, as far as a person could act on it. Its name is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// The assertion file cannot be read or holds no `ServiceAccount` token.
    NoAssertion,
    /// The `ServiceAccount` that the object names does not exist.
    NoServiceAccount,
    /// The API server does not let us read that `ServiceAccount`, or request its token.
    ImpersonationForbidden,
    /// The object names acrcred's own `ServiceAccount`.
    OwnServiceAccount,
    /// The API server gave no token of the `ServiceAccount`, and did not refuse it either.
    ApiServer,
    /// The `ServiceAccount` was re-created, or the API server speaks of another one.
    ServiceAccountChanged,
    /// Neither the object nor the `ServiceAccount` names a client id.
    NoClientId,
    /// The client id that one of them names is no GUID.
    InvalidClientId,
    /// No tenant is named, and there is no default.
    NoTenantId,
    /// The tenant that is named is neither GUID nor domain.
    InvalidTenantId,
    /// The `ServiceAccount` wants an audience that the operator does not allow.
    AudienceNotAllowed,
    /// Entra found no federated credential that matches; the code says which part does not.
    #[strum(serialize = "federation_mismatch")]
    Federation,
    /// Client or tenant is unknown, disabled, or in another cloud.
    UnknownIdentity,
    /// The assertion's dates were refused, or its form: a fresh one may help.
    AssertionRefused,
    /// The assertion's signature fits none of the issuer's keys that Entra has.
    SignatureRefused,
    /// Entra does not know the audience in this tenant.
    UnknownAudience,
    /// Entra refused for another reason.
    #[strum(serialize = "refused")]
    EntraRefused,
    /// The registry refused the identity.
    RegistryRefused,
    /// Likewise, and the token was for another audience than the registry's own.
    ArmTokenRefused,
    /// The registry's firewall, or a missing permission, forbids the request.
    RegistryForbidden,
    /// The request itself was refused as malformed.
    RequestRefused,
    /// The registry does not let the identity pull every repository that was asked for.
    InsufficientScope,
    /// The registry granted more than was asked for.
    ExcessiveScope,
    /// Too many requests.
    Throttled,
    /// No connection, a timeout, or a server error.
    Unavailable,
    /// An answer that is not what the protocol says, redirects included.
    Malformed,
    /// An answer whose token is already expired: one of the clocks is wrong.
    ExpiredOnArrival,
}

/// How a failure is retried, in the order of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// Passing trouble: exponential.
    Retryable,
    /// A transient failure that should not last: as retryable for an hour, then as terminal.
    Escalating,
    /// Possibly a change that has not spread yet: retried quickly for 15 minutes, then as terminal.
    Propagation,
    /// A person must change something in the cluster, where another attempt is cheap: exponential.
    Awaited,
    /// A person must change something: retried slowly, since no event reports it.
    Terminal,
}

/// Some of at most 64 [`Repositories`](super::Repositories), by their place among them: it can name nothing that was not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing(pub(super) u64);

/// A failed mint. Holds numbers only: whatever an upstream wrote could echo a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MintError {
    /// Where it failed.
    pub hop: Hop,
    /// What went wrong.
    pub cause: Cause,
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// AADSTS code, where Entra gave one.
    pub code: Option<u32>,
    /// How long the upstream asked us to wait, at most [`RETRY_AFTER_CAP`].
    pub retry_after: Option<SignedDuration>,
    /// The repositories that were asked for and not granted.
    pub missing: Missing,
}

impl std::error::Error for MintError {}

// === impl Cause ===

impl Cause {
    /// Whether it says that the object's identity is gone or unusable, so that it is entitled to nothing.
    pub fn ends_entitlement(self) -> bool {
        matches!(
            self,
            Self::NoServiceAccount
                | Self::NoClientId
                | Self::InvalidClientId
                | Self::NoTenantId
                | Self::InvalidTenantId
                | Self::AudienceNotAllowed
        )
    }
}

// === impl MintError ===

impl MintError {
    /// A failure without an answer.
    pub fn new(hop: Hop, cause: Cause) -> Self {
        Self {
            hop,
            cause,
            status: None,
            code: None,
            retry_after: None,
            missing: Missing::default(),
        }
    }

    /// Whether a fresh assertion may help at once.
    pub fn wants_fresh_assertion(&self) -> bool {
        self.cause == Cause::AssertionRefused
    }
}
