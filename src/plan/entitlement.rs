//! What an object may get: checked before any cache or network.

use jiff::Timestamp;

use super::{Observed, Ownership, Refusal, SecretState};
use crate::api::{Reason, Registry};
use crate::credential::{LoginServer, LoginServerError, Repositories, Scope};

/// A registry that the object may get a credential for, and how wide a one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// Where to.
    pub server: LoginServer,
    /// What for.
    pub scope: Scope,
}

/// Why nothing is minted for the object at all, if so.
pub(super) fn blocked(observed: &Observed<'_>, now: Timestamp) -> Option<Refusal> {
    unsupported_field(observed).or_else(|| unusable_secret(observed, now))
}

/// A field that narrows or redirects what is minted must not be ignored: the object would get more than
/// it asked for.
fn unsupported_field(observed: &Observed<'_>) -> Option<Refusal> {
    let spec = &observed.object.spec;
    spec.attach.as_ref().map(|_| Refusal {
        reason: Reason::FieldNotSupported,
        message: "spec.attach is not served by this version of acrcred, and nothing is minted for an object that sets it; remove it or upgrade".to_owned(),
    })
}

fn unusable_secret(observed: &Observed<'_>, now: Timestamp) -> Option<Refusal> {
    let name = observed.object.secret_name();
    let owner = observed.object.metadata.name.as_deref().unwrap_or_default();
    let namespace = observed
        .object
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default();
    let not_owned = || Refusal {
        reason: Reason::SecretNotOwned,
        message: format!(
            "Secret {name} exists and does not belong to this AcrCredential; delete it, or hand it over, which replaces all that it holds, with: kubectl annotate secret {name} --namespace {namespace} acrcred.dev/adopt={owner}; acrcred looks again at the next sweep, or when this object changes"
        ),
    };
    let snapshot = match &observed.secret {
        SecretState::Absent => return None,
        SecretState::Hidden => return Some(not_owned()),
        SecretState::Present(snapshot) => snapshot,
    };
    let (reason, message) = match snapshot.ownership(observed.object, now) {
        Ownership::Foreign => return Some(not_owned()),
        Ownership::AwaitingDeletion => (
            Reason::AwaitingSecretDeletion,
            format!(
                "Secret {name} belongs to a deleted AcrCredential of this name and awaits garbage collection"
            ),
        ),
        Ownership::Ours | Ownership::Adoptable if !snapshot.is_docker_config => (
            Reason::SecretTypeMismatch,
            format!(
                "Secret {name} is not of type kubernetes.io/dockerconfigjson, and a type cannot be changed; delete it"
            ),
        ),
        Ownership::Ours | Ownership::Adoptable if snapshot.is_immutable => (
            Reason::SecretImmutable,
            format!("Secret {name} is marked immutable, so it cannot be refreshed; delete it"),
        ),
        Ownership::Ours | Ownership::Adoptable => return None,
    };
    Some(Refusal { reason, message })
}

/// What the object may get a credential for, or why not.
pub(super) fn entitled(
    observed: &Observed<'_>,
    registry: &Registry,
) -> Result<Entitlement, Refusal> {
    let refuse = |reason, message| Err(Refusal { reason, message });
    let text = &registry.server;
    let server = match observed.settings.clouds.login_server(text) {
        Ok(server) => server,
        Err(error @ LoginServerError::CloudNotEnabled(_)) => {
            return refuse(Reason::RegistryNotAllowed, format!("{text} {error}"));
        }
        // A hostile name is not repeated: the spec shows it.
        Err(error) => {
            return refuse(
                Reason::RegistryNotAllowed,
                format!("a server of spec.registries {error}"),
            );
        }
    };
    let scope = match registry.repositories.as_deref().map(Repositories::new) {
        None => Scope::Registry,
        Some(Ok(repositories)) => Scope::Repositories(repositories),
        // The schema of another version may let through what this one does not: never the wider credential.
        Some(Err(error)) => {
            return refuse(
                Reason::FieldNotSupported,
                format!("{server}: the field repositories {error}"),
            );
        }
    };
    let namespace = observed
        .object
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default();
    if observed.object.spec.identity.is_none()
        && !observed.settings.policy.allows(namespace, &server)
    {
        return refuse(
            Reason::ControllerIdentityNotAllowed,
            format!(
                "the operator does not allow namespace {namespace} to use the controller's identity for {server}; ask for --allow-controller-identity {namespace}/{server}"
            ),
        );
    }
    Ok(Entitlement { server, scope })
}
