//! What an object may get: checked before any cache or network.

use super::facts::Facts;
use super::problem::Problem;
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

/// Why nothing is minted for the object at all, if so: a field that narrows or redirects what is minted must not be
/// ignored.
pub(super) fn unsupported(facts: &Facts) -> Option<Problem> {
    let message =
        "spec.attach is not supported by this version of acrcred. Remove it, or upgrade acrcred.";
    let attach = facts.object.spec.attach.as_ref();
    attach.map(|_| Problem::needing_action(Reason::FieldNotSupported, message))
}

/// Whether the platform administrator lets the object use the controller identity for `server`.
pub(super) fn may_use_controller_identity(facts: &Facts, server: &LoginServer) -> bool {
    facts.settings.policy.allows(facts.namespace(), server)
}

/// What the object may get a credential for, or why not.
pub(super) fn entitled(facts: &Facts, registry: &Registry) -> Result<Entitlement, Problem> {
    let refuse = |reason, message: String| Err(Problem::needing_action(reason, message));
    let text = &registry.server;
    let server = match facts.settings.clouds.login_server(text) {
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
    if facts.object.spec.identity.is_none() && !may_use_controller_identity(facts, &server) {
        let namespace = facts.namespace();
        return refuse(
            Reason::ControllerIdentityNotAllowed,
            format!(
                "namespace {namespace} may not use the controller identity for {server}; ask the platform administrator for --allow-controller-identity {namespace}/{server}"
            ),
        );
    }
    Ok(Entitlement { server, scope })
}
