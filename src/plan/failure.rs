//! Failures in the terms of the API. What each means and who must act is in the catalogue of
//! [`credential`](crate::credential::catalogue).

use super::backoff::Attempt;
use super::case::{Case, Registry};
use super::identity::federation;
use super::problem::Problem;
use crate::api::Reason;
use crate::credential::{Cause, Class, Hop, MintError, Scope};

/// What a failed attempt at a registry means for the object.
pub(super) fn of_attempt(case: &Case<'_>, registry: &Registry<'_>, attempt: &Attempt) -> Problem {
    let problem = problem(case, registry, effective(registry, attempt.error));
    Problem {
        message: problem.message + &missing_repositories(case, registry, attempt),
        needs_action: attempt.is_terminal(case.now),
        ..problem
    }
}

/// What a failure means for one of the object's registries.
pub(super) fn problem(case: &Case<'_>, registry: &Registry<'_>, error: MintError) -> Problem {
    let hint = identity_hint(case, &error);
    Problem {
        reason: reason(error.cause),
        message: format!("{}: {error}{hint}", registry.server),
        needs_action: matches!(error.class(), Class::Terminal | Class::Awaited),
    }
}

/// A registry does not say why it refuses a token. One for another audience than its own is the likely cause.
fn effective(registry: &Registry<'_>, error: MintError) -> MintError {
    let entitlement = registry.entitlement.as_ref();
    let is_other = entitlement.is_ok_and(|to| !to.server.audience().is_container_registry());
    match error.cause {
        Cause::RegistryRefused if is_other => MintError {
            cause: Cause::ArmTokenRefused,
            ..error
        },
        _ => error,
    }
}

/// Whose token did not help, where that is of use.
fn identity_hint(case: &Case<'_>, error: &MintError) -> String {
    let federation = federation(case.facts, &case.identity);
    let service_account = case.facts.object.spec.identity.as_ref();
    match (error.cause, federation, service_account) {
        (Cause::Federation, Some(federation), _) => format!(
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

/// The repositories that the registry did not grant, as the spec names them: no upstream text is repeated. An
/// attempt for another spec counts places in another list, and then none is named.
fn missing_repositories(case: &Case<'_>, registry: &Registry<'_>, attempt: &Attempt) -> String {
    let Ok(Scope::Repositories(asked)) = registry.entitlement.as_ref().map(|to| &to.scope) else {
        return String::new();
    };
    let names: Vec<&str> = asked.named(attempt.error.missing).collect();
    if names.is_empty() || !attempt.is_of(case.facts.object.metadata.generation) {
        return String::new();
    }
    format!(" (not granted: {})", names.join(", "))
}

/// The reason under which a cause is reported.
pub fn reason(cause: Cause) -> Reason {
    match cause {
        Cause::NoServiceAccount => Reason::ServiceAccountNotFound,
        Cause::ImpersonationForbidden | Cause::OwnServiceAccount => Reason::Forbidden,
        Cause::NoClientId => Reason::ClientIdMissing,
        Cause::InvalidClientId
        | Cause::NoTenantId
        | Cause::InvalidTenantId
        | Cause::AudienceNotAllowed
        | Cause::NoAssertion
        | Cause::UnknownIdentity => Reason::InvalidIdentity,
        Cause::ServiceAccountChanged => Reason::Progressing,
        Cause::Federation => Reason::FederationMismatch,
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
