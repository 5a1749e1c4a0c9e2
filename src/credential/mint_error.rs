//! Why a credential could not be minted, in our own words.

use std::fmt;

use jiff::SignedDuration;

/// No `Retry-After` holds us back longer.
pub const RETRY_AFTER_CAP: SignedDuration = SignedDuration::from_mins(15);

/// The step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// Getting the assertion.
    Assertion,
    /// Assertion to Entra token.
    Entra,
    /// Entra token to ACR refresh token.
    Exchange,
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
    /// The assertion's signature or dates were refused.
    AssertionRefused,
    /// Entra does not know the audience in this tenant.
    UnknownAudience,
    /// Entra refused for another reason.
    EntraRefused,
    /// The registry refused the identity: no role, or authentication-as-arm disabled.
    RegistryRefused,
    /// The registry's firewall, or a missing permission, forbids the request.
    RegistryForbidden,
    /// The request itself was refused as malformed.
    RequestRefused,
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
            Self::ServiceAccountChanged => "service_account_changed",
            Self::NoClientId => "no_client_id",
            Self::InvalidClientId => "invalid_client_id",
            Self::NoTenantId => "no_tenant_id",
            Self::InvalidTenantId => "invalid_tenant_id",
            Self::AudienceNotAllowed => "audience_not_allowed",
            Self::Federation(_) => "federation_mismatch",
            Self::UnknownIdentity => "unknown_identity",
            Self::AssertionRefused => "assertion_refused",
            Self::UnknownAudience => "unknown_audience",
            Self::EntraRefused => "refused",
            Self::RegistryRefused => "registry_refused",
            Self::RegistryForbidden => "registry_forbidden",
            Self::RequestRefused => "request_refused",
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

    // One row after the other: nothing to hold in mind.
    #[allow(clippy::too_many_lines)]
    fn sentence(self) -> &'static str {
        match self {
            Self::NoAssertion => {
                "the federated token file cannot be read or holds no ServiceAccount token; check AZURE_FEDERATED_TOKEN_FILE and the pod's projected volume"
            }
            Self::NoServiceAccount => {
                "the ServiceAccount that spec.identity names does not exist in this namespace; create it, or correct spec.identity.serviceAccountName"
            }
            Self::ImpersonationForbidden => {
                "the API server does not let acrcred use this ServiceAccount; ask the operator to bind the role acrcred-impersonation in this namespace, and to keep its policy's audiences equal to --impersonation-audiences"
            }
            Self::ServiceAccountChanged => {
                "the ServiceAccount changed while its token was requested; acrcred looks again"
            }
            Self::NoClientId => {
                "no client id: annotate the ServiceAccount with azure.workload.identity/client-id, or set spec.identity.clientId"
            }
            Self::InvalidClientId => {
                "the client id is not a GUID; correct spec.identity.clientId, or the ServiceAccount's annotation azure.workload.identity/client-id"
            }
            Self::NoTenantId => {
                "no tenant: annotate the ServiceAccount with azure.workload.identity/tenant-id, set spec.identity.tenantId, or ask the operator to set AZURE_TENANT_ID"
            }
            Self::InvalidTenantId => {
                "the tenant is neither a GUID nor a domain; correct spec.identity.tenantId, or the ServiceAccount's annotation azure.workload.identity/tenant-id"
            }
            Self::AudienceNotAllowed => {
                "the ServiceAccount's annotation acrcred.dev/audience names none that the operator allows; remove it, or ask for it to be added to --impersonation-audiences and to the policy of acrcred-impersonation"
            }
            Self::Federation(Mismatch::Issuer) => {
                "no federated credential of this identity has this issuer; compare it character by character, a trailing slash counts"
            }
            Self::Federation(Mismatch::Audience) => {
                "no federated credential of this identity has this audience; set the credential's audience to the one presented"
            }
            Self::Federation(Mismatch::Subject) => {
                "no federated credential of this identity has this subject; create one with the subject presented"
            }
            Self::Federation(Mismatch::Case) => {
                "a federated credential of this identity differs only in upper and lower case, which counts; create it anew exactly as presented"
            }
            Self::Federation(Mismatch::Unspecified) => {
                "no federated credential of this identity matches the assertion; compare issuer, subject and audience with what is presented, or create one"
            }
            Self::UnknownIdentity => {
                "the client or tenant is unknown or disabled in this cloud; check the client id and the tenant id"
            }
            Self::AssertionRefused => {
                "the assertion's signature or dates were refused; check that the issuer's published keys are current and that clocks agree"
            }
            Self::UnknownAudience => {
                "the tenant does not know the audience that was asked for; set --registry-audience to one that this cloud knows"
            }
            Self::EntraRefused => {
                "the request was refused; look the AADSTS code up in docs/errors.md or at https://login.microsoftonline.com/error; if none is shown, look for a proxy that answers in Entra's place"
            }
            Self::RegistryRefused => {
                "the registry refused the identity; assign it AcrPull (or Container Registry Repository Reader) on this registry, in the registry's own tenant"
            }
            Self::RegistryForbidden => {
                "the registry forbids the request; check its firewall and public network access, then the identity's role"
            }
            Self::RequestRefused => {
                "the registry refused the request as malformed; look for a proxy that changes requests"
            }
            Self::Throttled => "too many requests; waiting as long as was asked",
            Self::Unavailable => {
                "no usable answer; check network, proxy, DNS and the service's health"
            }
            Self::Malformed => {
                "the answer is not what the protocol says; something between us and Azure may be rewriting it"
            }
            Self::ExpiredOnArrival => {
                "the token was already expired when it arrived; check this node's clock"
            }
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
        }
    }

    /// Of an answer of Entra that is not 2xx. The status decides first, the code refines
    /// (learn.microsoft.com, "Microsoft Entra authentication and authorization error codes").
    pub fn entra(status: u16, codes: &[u32], retry_after: Option<SignedDuration>) -> Self {
        let cause = match status {
            300..400 => Cause::Malformed,
            429 => Cause::Throttled,
            408 | 500.. => Cause::Unavailable,
            _ => codes
                .iter()
                .find_map(|code| known_code(*code))
                .unwrap_or(Cause::EntraRefused),
        };
        Self {
            status: Some(status),
            code: codes.first().copied(),
            retry_after: retry_after.map(cap),
            ..Self::new(Hop::Entra, cause)
        }
    }

    /// Of an answer of the registry that is not 2xx.
    pub fn registry(hop: Hop, status: u16, retry_after: Option<SignedDuration>) -> Self {
        let cause = match status {
            401 => Cause::RegistryRefused,
            403 => Cause::RegistryForbidden,
            429 => Cause::Throttled,
            408 | 500.. => Cause::Unavailable,
            400 => Cause::RequestRefused,
            _ => Cause::Malformed,
        };
        Self {
            status: Some(status),
            retry_after: retry_after.map(cap),
            ..Self::new(hop, cause)
        }
    }

    /// How it is retried.
    pub fn class(&self) -> Class {
        match self.cause {
            Cause::Federation(Mismatch::Case)
            | Cause::UnknownAudience
            | Cause::EntraRefused
            | Cause::RequestRefused => Class::Terminal,
            // An application shows up late in a tenant's replicas; a tenant does not.
            Cause::UnknownIdentity if self.code != Some(700_016) => Class::Terminal,
            Cause::UnknownIdentity
            | Cause::Federation(_)
            | Cause::RegistryRefused
            | Cause::RegistryForbidden => Class::Propagation,
            Cause::ImpersonationForbidden
            | Cause::NoClientId
            | Cause::InvalidClientId
            | Cause::NoTenantId
            | Cause::InvalidTenantId
            | Cause::AudienceNotAllowed => Class::Awaited,
            // Manifests are applied in any order: a ServiceAccount may be on its way.
            Cause::NoServiceAccount
            | Cause::ServiceAccountChanged
            | Cause::NoAssertion
            | Cause::AssertionRefused
            | Cause::Throttled
            | Cause::Unavailable
            | Cause::Malformed
            | Cause::ExpiredOnArrival => Class::Retryable,
        }
    }

    /// Whether a fresh assertion may help at once: the one presented was outside of its dates.
    pub fn wants_fresh_assertion(&self) -> bool {
        matches!(self.code, Some(700_024 | 50_013 | 500_133))
    }
}

fn cap(retry_after: SignedDuration) -> SignedDuration {
    retry_after.clamp(SignedDuration::ZERO, RETRY_AFTER_CAP)
}

/// Codes whose meaning is narrower than their HTTP status; the table is in docs/errors.md.
fn known_code(code: u32) -> Option<Cause> {
    Some(match code {
        700_211 => Cause::Federation(Mismatch::Issuer),
        700_212 => Cause::Federation(Mismatch::Audience),
        700_213 => Cause::Federation(Mismatch::Subject),
        7_002_138 => Cause::Federation(Mismatch::Case),
        70_021 | 7_002_121 | 7_002_137 | 7_002_104 => Cause::Federation(Mismatch::Unspecified),
        700_016 | 7_000_112 | 70_001 | 90_002 | 900_023 | 90_038 | 900_382 | 900_432 | 900_439 => {
            Cause::UnknownIdentity
        }
        700_024 | 700_027 | 50_012 | 50_013 | 500_133 => Cause::AssertionRefused,
        500_011 | 50_001 | 650_057 | 650_052 | 650_054 => Cause::UnknownAudience,
        90_055 | 50_196 => Cause::Throttled,
        90_061 | 50_033 | 90_006 | 90_012 | 90_024 | 90_033 | 90_090 | 50_087 | 50_000 => {
            Cause::Unavailable
        }
        _ => return None,
    })
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.hop {
            Hop::Assertion => "Assertion",
            Hop::Entra => "Microsoft Entra",
            Hop::Exchange => "Token exchange",
        };
        f.write_str(who)?;
        match (self.status, self.code) {
            (Some(status), Some(code)) => write!(f, " (HTTP {status}, AADSTS{code})")?,
            (Some(status), None) => write!(f, " (HTTP {status})")?,
            (None, _) => {}
        }
        write!(f, ": {}", self.cause.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entra_codes_have_their_class() {
        for (status, code, class) in [
            (400, 70_021, Class::Propagation),
            (401, 700_211, Class::Propagation),
            (400, 700_212, Class::Propagation),
            (401, 700_213, Class::Propagation),
            (400, 7_002_138, Class::Terminal),
            (401, 700_024, Class::Retryable),
            (401, 700_027, Class::Retryable),
            (400, 90_061, Class::Retryable),
            (400, 700_016, Class::Propagation),
            (400, 90_002, Class::Terminal),
            (400, 500_011, Class::Terminal),
            (400, 1, Class::Terminal),
            (503, 700_213, Class::Retryable),
            (429, 0, Class::Retryable),
            (307, 0, Class::Retryable),
        ] {
            assert_eq!(
                MintError::entra(status, &[code], None).class(),
                class,
                "{status} {code}"
            );
        }
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
