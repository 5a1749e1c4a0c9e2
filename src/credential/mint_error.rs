//! Why a credential could not be minted, in our own words.

use std::fmt;

use jiff::SignedDuration;

use super::Missing;
use super::catalogue::{Failure, LOOP_DETECTED};

/// No `Retry-After` holds us back longer.
pub const RETRY_AFTER_CAP: SignedDuration = SignedDuration::from_mins(15);
/// Entra wants no request for minutes once it saw a loop, and does not say how many.
const LOOP_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// The step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Which part of an assertion found no federated credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// `iss` (AADSTS700211).
    Issuer,
    /// `aud` (AADSTS700212).
    Audience,
    /// `sub` (AADSTS700213).
    Subject,
    /// Equal but for upper and lower case (AADSTS7002138).
    Case,
    /// Entra did not say (AADSTS70021 and newer variants).
    Unspecified,
}

/// What went wrong, as far as somebody could act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The assertion file cannot be read or holds no `ServiceAccount` token.
    NoAssertion,
    /// The `ServiceAccount` that the object names does not exist.
    NoServiceAccount,
    /// The API server does not let us read that `ServiceAccount`, or request its token.
    ImpersonationForbidden,
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
    /// Entra found no federated credential that matches.
    Federation(Mismatch),
    /// Client or tenant is unknown, disabled, or in another cloud.
    UnknownIdentity,
    /// The assertion's dates were refused, or its form: a fresh one may help.
    AssertionRefused,
    /// The assertion's signature fits none of the issuer's keys that Entra has.
    SignatureRefused,
    /// Entra does not know the audience in this tenant.
    UnknownAudience,
    /// Entra refused for another reason.
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

/// How a failure is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody must change something: retried slowly, since no event tells when.
    Terminal,
    /// Possibly a change that has not spread yet: retried quickly for 15 minutes, then as terminal.
    Propagation,
    /// Passing trouble: exponential.
    Retryable,
    /// Passing trouble that has no business lasting: as retryable for an hour, then as terminal.
    Escalating,
    /// Somebody must change something in the cluster, where looking again is cheap: exponential.
    Awaited,
}

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

// === impl Hop ===

impl Hop {
    /// Its name as a metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Assertion => "assertion",
            Self::Entra => "entra",
            Self::Exchange => "exchange",
            Self::Token => "token",
        }
    }
}

// === impl Cause ===

impl Cause {
    /// Its name as a metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAssertion => "no_assertion",
            Self::NoServiceAccount => "no_service_account",
            Self::ImpersonationForbidden => "impersonation_forbidden",
            Self::ApiServer => "api_server",
            Self::ServiceAccountChanged => "service_account_changed",
            Self::NoClientId => "no_client_id",
            Self::InvalidClientId => "invalid_client_id",
            Self::NoTenantId => "no_tenant_id",
            Self::InvalidTenantId => "invalid_tenant_id",
            Self::AudienceNotAllowed => "audience_not_allowed",
            Self::Federation(_) => "federation_mismatch",
            Self::UnknownIdentity => "unknown_identity",
            Self::AssertionRefused => "assertion_refused",
            Self::SignatureRefused => "signature_refused",
            Self::UnknownAudience => "unknown_audience",
            Self::EntraRefused => "refused",
            Self::RegistryRefused => "registry_refused",
            Self::ArmTokenRefused => "arm_token_refused",
            Self::RegistryForbidden => "registry_forbidden",
            Self::RequestRefused => "request_refused",
            Self::InsufficientScope => "insufficient_scope",
            Self::ExcessiveScope => "excessive_scope",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
            Self::ExpiredOnArrival => "expired_on_arrival",
        }
    }

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

// === impl Class ===

impl Class {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::Retryable,
        Self::Escalating,
        Self::Propagation,
        Self::Awaited,
        Self::Terminal,
    ];

    /// Its name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Propagation => "propagation",
            Self::Retryable => "retryable",
            Self::Escalating => "escalating",
            Self::Awaited => "awaited",
        }
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

    /// Of an answer of Entra that is not 2xx. The status decides first, the code refines
    /// (learn.microsoft.com, "Microsoft Entra authentication and authorization error codes").
    pub fn entra(status: u16, codes: &[u32], retry_after: Option<SignedDuration>) -> Self {
        let known = codes
            .iter()
            .find_map(|&code| Some((code, Failure::by_code(code)?.cause)));
        let (code, cause) = match (cause_of_status(Hop::Entra, status), known) {
            (Cause::EntraRefused, Some((code, cause))) => (Some(code), cause),
            (cause, _) => (codes.first().copied(), cause),
        };
        let pause = (code == Some(LOOP_DETECTED)).then_some(LOOP_PAUSE);
        Self {
            status: Some(status),
            code,
            retry_after: retry_after.or(pause).map(cap),
            ..Self::new(Hop::Entra, cause)
        }
    }

    /// Of an answer of the registry that is not 2xx.
    pub fn registry(hop: Hop, status: u16, retry_after: Option<SignedDuration>) -> Self {
        Self {
            status: Some(status),
            retry_after: retry_after.map(cap),
            ..Self::new(hop, cause_of_status(hop, status))
        }
    }

    /// How it is retried.
    pub fn class(&self) -> Class {
        Failure::of(self).map_or(Class::Retryable, |failure| failure.class)
    }

    /// Whether a fresh assertion may help at once.
    pub fn wants_fresh_assertion(&self) -> bool {
        self.cause == Cause::AssertionRefused
    }
}

fn cap(retry_after: SignedDuration) -> SignedDuration {
    retry_after.clamp(SignedDuration::ZERO, RETRY_AFTER_CAP)
}

fn cause_of_status(hop: Hop, status: u16) -> Cause {
    Failure::by_status(hop, status).map_or(Cause::Malformed, |failure| failure.cause)
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.hop {
            Hop::Assertion => "Assertion",
            Hop::Entra => "Microsoft Entra",
            Hop::Exchange => "Token exchange",
            Hop::Token => "Repository token",
        };
        f.write_str(who)?;
        match (self.status, self.code) {
            (Some(status), Some(code)) => write!(f, " (HTTP {status}, AADSTS{code})")?,
            (Some(status), None) => write!(f, " (HTTP {status})")?,
            (None, _) => {}
        }
        match Failure::of(self) {
            Some(failure) => write!(f, ": {failure}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_decides_before_the_code() {
        for (status, codes, cause, code) in [
            (429, &[700_213][..], Cause::Throttled, Some(700_213)),
            (503, &[700_213], Cause::Unavailable, Some(700_213)),
            (408, &[90_002], Cause::Unavailable, Some(90_002)),
            (307, &[90_002], Cause::Malformed, Some(90_002)),
            (204, &[90_002], Cause::Malformed, Some(90_002)),
            (401, &[90_002], Cause::UnknownIdentity, Some(90_002)),
            // The first code that is known says most.
            (400, &[1, 90_002], Cause::UnknownIdentity, Some(90_002)),
            (400, &[1, 2], Cause::EntraRefused, Some(1)),
            (400, &[], Cause::EntraRefused, None),
        ] {
            let error = MintError::entra(status, codes, None);
            assert_eq!(
                (error.cause, error.code),
                (cause, code),
                "{status} {codes:?}"
            );
        }
    }

    #[test]
    fn a_registry_is_told_by_its_status() {
        for (status, cause, class) in [
            (400, Cause::RequestRefused, Class::Terminal),
            (401, Cause::RegistryRefused, Class::Propagation),
            (403, Cause::RegistryForbidden, Class::Propagation),
            (404, Cause::Malformed, Class::Retryable),
            (408, Cause::Unavailable, Class::Retryable),
            (429, Cause::Throttled, Class::Retryable),
            (302, Cause::Malformed, Class::Retryable),
            (500, Cause::Unavailable, Class::Retryable),
            (999, Cause::Unavailable, Class::Retryable),
        ] {
            let error = MintError::registry(Hop::Exchange, status, None);
            assert_eq!((error.cause, error.class()), (cause, class), "{status}");
        }
    }

    #[test]
    fn a_loop_is_answered_with_minutes_of_silence() {
        let seen = MintError::entra(400, &[LOOP_DETECTED], None);
        assert_eq!(seen.retry_after, Some(LOOP_PAUSE));
        let other = MintError::entra(400, &[90_055], None);
        assert_eq!(other.retry_after, None);
    }

    #[test]
    fn only_an_assertion_that_was_refused_as_such_is_minted_anew() {
        for (code, anew) in [
            (700_024, true),
            (500_133, true),
            (50_012, true),
            (50_013, true),
            (700_027, false),
            (700_213, false),
        ] {
            let error = MintError::entra(401, &[code], None);
            assert_eq!(error.wants_fresh_assertion(), anew, "{code}");
        }
        // A server that fails is not asked twice, whatever code it gives.
        assert!(!MintError::entra(503, &[700_024], None).wants_fresh_assertion());
    }

    #[test]
    fn a_retry_after_of_a_year_is_capped() {
        let year = Some(SignedDuration::from_hours(24 * 365));
        assert_eq!(
            MintError::entra(429, &[], year).retry_after,
            Some(RETRY_AFTER_CAP)
        );
        let past = Some(SignedDuration::from_secs(-1));
        assert_eq!(
            MintError::registry(Hop::Exchange, 429, past).retry_after,
            Some(SignedDuration::ZERO)
        );
    }

    #[test]
    fn the_text_names_hop_status_and_code() {
        let text = MintError::entra(401, &[700_213], None).to_string();
        assert!(
            text.starts_with("Microsoft Entra (HTTP 401, AADSTS700213): no federated"),
            "{text}"
        );
    }
}
