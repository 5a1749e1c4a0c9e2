//! Failures in the terms of the API. What each means and who must act is in the catalogue of
//! [`credential`](crate::credential::catalogue).

use jiff::Timestamp;

use super::backoff::Attempt;
use super::facts::Facts;
use super::identity::federation;
use super::problem::Problem;
use crate::api::Reason;
use crate::credential::{Audience, Cause, Class, Hop, Identity, MintError, Repositories};

/// What a failed attempt at a registry means for the object.
pub(super) fn of_attempt(
    facts: &Facts,
    identity: &Result<Identity, MintError>,
    server: &str,
    attempt: &Attempt,
    now: Timestamp,
) -> Problem {
    let error = effective(facts, server, attempt.error);
    Problem {
        reason: reason(error.cause),
        message: format!(
            "{server}: {error}{}{}",
            identity_hint(facts, identity, &error),
            missing_repositories(facts, server, attempt),
        ),
        needs_action: attempt.is_terminal(now),
    }
}

/// What an identity that cannot be used means for one of the object's registries.
pub(super) fn of_identity(
    facts: &Facts,
    identity: &Result<Identity, MintError>,
    server: &str,
    error: MintError,
) -> Problem {
    let hint = identity_hint(facts, identity, &error);
    Problem {
        reason: reason(error.cause),
        message: format!("{server}: {error}{hint}"),
        needs_action: matches!(error.class(), Class::Terminal | Class::Awaited),
    }
}

/// A registry does not say why it refuses a token. One for another audience than its own is the likely cause.
fn effective(facts: &Facts, server: &str, error: MintError) -> MintError {
    let is_other =
        || audience(facts, server).is_some_and(|audience| !audience.is_container_registry());
    match error.cause {
        Cause::RegistryRefused if is_other() => MintError {
            cause: Cause::ArmTokenRefused,
            ..error
        },
        _ => error,
    }
}

/// The audience of the Entra tokens that a registry is sent.
pub(super) fn audience(facts: &Facts, server: &str) -> Option<Audience> {
    let server = facts.settings.clouds.login_server(server).ok()?;
    Some(server.audience().clone())
}

/// Whose token did not help, where that is of use.
fn identity_hint(
    facts: &Facts,
    identity: &Result<Identity, MintError>,
    error: &MintError,
) -> String {
    let federation = federation(facts, identity);
    let service_account = facts.object.spec.identity.as_ref();
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
fn missing_repositories(facts: &Facts, server: &str, attempt: &Attempt) -> String {
    let object = &facts.object;
    let is_of_this = attempt.is_of(object.metadata.generation);
    let mut registries = object.spec.registries.iter();
    let asked = registries
        .find(|registry| registry.server == server && is_of_this)
        .and_then(|registry| Repositories::new(registry.repositories.as_deref()?).ok());
    let names: Vec<&str> = asked
        .iter()
        .flat_map(|asked| asked.named(attempt.error.missing))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (not granted: {})", names.join(", "))
    }
}

/// The reason under which a cause is reported.
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
