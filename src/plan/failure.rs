//! A failed attempt in the words of the API. What it means and who must act stands in the catalogue of
//! [`credential`](crate::credential::catalogue).

use jiff::Timestamp;

use super::{Attempt, Observed, Refusal, identity, not_granted, status};
use crate::api::Reason;
use crate::credential::{Cause, Hop, MintError};

/// What is wrong, and whether somebody must act.
pub(super) fn problem(
    observed: &Observed<'_>,
    host: &str,
    attempt: &Attempt,
    now: Timestamp,
) -> (Refusal, bool) {
    let error = told(observed, host, attempt.error);
    let refusal = Refusal {
        reason: reason(error.cause),
        message: format!(
            "{host}: {error}{}{}",
            presented(observed, &error),
            not_granted::said(observed, host, attempt),
        ),
    };
    (refusal, attempt.is_terminal(now))
}

/// A registry does not say why it refuses a token; whoever asked for another audience than its own has likely
/// brought it about.
fn told(observed: &Observed<'_>, host: &str, error: MintError) -> MintError {
    let is_other = || {
        status::audience(observed, host).is_some_and(|audience| !audience.is_container_registry())
    };
    match error.cause {
        Cause::RegistryRefused if is_other() => MintError {
            cause: Cause::ArmTokenRefused,
            ..error
        },
        _ => error,
    }
}

/// Whose word did not count, where that helps.
fn presented(observed: &Observed<'_>, error: &MintError) -> String {
    let federation = identity::federation(observed);
    let service_account = observed.object.spec.identity.as_ref();
    match (error.cause, federation, service_account) {
        (Cause::Federation(_), Some(federation), _) => format!(
            " (presented: issuer {}, subject {}, audience {})",
            federation.issuer.as_deref().unwrap_or("unknown"),
            federation.subject,
            federation.audience
        ),
        (_, _, Some(named)) if error.hop == Hop::Assertion => {
            format!(" (ServiceAccount {})", named.service_account_name)
        }
        _ => String::new(),
    }
}

/// The reason under which a cause is told.
pub fn reason(cause: Cause) -> Reason {
    match cause {
        Cause::NoServiceAccount => Reason::ServiceAccountNotFound,
        Cause::ImpersonationForbidden => Reason::Forbidden,
        Cause::NoClientId => Reason::ClientIdMissing,
        Cause::InvalidClientId
        | Cause::NoTenantId
        | Cause::InvalidTenantId
        | Cause::AudienceNotAllowed
        | Cause::NoAssertion
        | Cause::UnknownIdentity => Reason::InvalidIdentity,
        Cause::ServiceAccountChanged => Reason::Progressing,
        Cause::Federation(_) => Reason::FederationMismatch,
        Cause::AssertionRefused
        | Cause::SignatureRefused
        | Cause::UnknownAudience
        | Cause::EntraRefused => Reason::EntraRefused,
        Cause::ArmTokenRefused => Reason::ArmAuthenticationDisabled,
        Cause::RegistryRefused | Cause::RegistryForbidden | Cause::RequestRefused => {
            Reason::RegistryRefused
        }
        Cause::InsufficientScope => Reason::InsufficientScope,
        Cause::Throttled => Reason::Throttled,
        Cause::ApiServer | Cause::Unavailable => Reason::UpstreamUnavailable,
        Cause::Malformed | Cause::ExcessiveScope | Cause::ExpiredOnArrival => {
            Reason::MalformedAnswer
        }
    }
}
