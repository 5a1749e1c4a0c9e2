//! Whose identity mints for an object.

use kube::api::ObjectMeta;

use super::{Entitlement, Observed};
use crate::api::{
    AUDIENCE_ANNOTATION, CLIENT_ID_ANNOTATION, FederationStatus, ServiceAccountIdentity,
    TENANT_ID_ANNOTATION,
};
use crate::credential::{
    Cause, ClientId, Digest, Hop, Identity, LoginServer, MintError, Scope, Subject, TenantId,
};

/// The `ServiceAccount` that an object names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServiceAccountState {
    /// Not read yet, or none is named.
    #[default]
    Unread,
    /// There is none of that name.
    Missing,
    /// The API server does not let us read it.
    Forbidden,
    /// It reads like this.
    Found(Box<ServiceAccountFacts>),
}

/// What decisions need of a `ServiceAccount`. Its annotations are text that anybody may have written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// `azure.workload.identity/client-id`.
    pub client_id: Option<String>,
    /// `azure.workload.identity/tenant-id`.
    pub tenant_id: Option<String>,
    /// `acrcred.dev/audience`.
    pub audience: Option<String>,
}

/// Longer than any value that can be used; the rest of a longer one is not kept.
const LONGEST: usize = 300;

/// Who asks Entra, wherever that is.
struct Applicant {
    client_id: ClientId,
    tenant_id: TenantId,
    subject: Subject,
}

// === impl Applicant ===

impl Applicant {
    fn at(self, server: &LoginServer) -> Identity {
        Identity {
            authority: server.authority().clone(),
            tenant_id: self.tenant_id,
            client_id: self.client_id,
            audience: server.audience().clone(),
            subject: self.subject,
        }
    }
}

// === impl ServiceAccountFacts ===

impl ServiceAccountFacts {
    /// Reads the metadata of a `ServiceAccount`.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let annotation = |key| {
            let text = metadata.annotations.as_ref()?.get(key)?.trim();
            (!text.is_empty()).then(|| text.chars().take(LONGEST).collect())
        };
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            client_id: annotation(CLIENT_ID_ANNOTATION),
            tenant_id: annotation(TENANT_ID_ANNOTATION),
            audience: annotation(AUDIENCE_ANNOTATION),
        }
    }
}

/// The identity that mints for `server`.
pub(super) fn identity(
    observed: &Observed<'_>,
    server: &LoginServer,
) -> Result<Identity, MintError> {
    Ok(applicant(observed)?.at(server))
}

/// Whether an entry of the Secret was minted with the controller's identity, for an object that has since named
/// another one and is not, or no more, allowed the controller's.
pub(super) fn is_withdrawn(
    observed: &Observed<'_>,
    entitlement: &Entitlement,
    minted_for: &Digest,
) -> bool {
    let object = observed.object;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let server = &entitlement.server;
    let is_allowed =
        object.spec.identity.is_none() || observed.settings.policy.allows(namespace, server);
    let is_of = |own: Applicant| {
        let own = own.at(server);
        [&Scope::Registry, &entitlement.scope]
            .iter()
            .any(|scope| own.digest(server, scope) == *minted_for)
    };
    !is_allowed && own(observed).is_ok_and(is_of)
}

/// Whether the object's identity is known to be gone or unusable: what was minted with it goes too.
pub(super) fn is_forfeited(observed: &Observed<'_>) -> bool {
    observed.object.spec.identity.is_some()
        && matches!(applicant(observed), Err(error) if error.cause.ends_entitlement())
}

/// What Entra must be told to trust, as far as it is known.
pub(super) fn federation(observed: &Observed<'_>) -> Option<FederationStatus> {
    let Applicant {
        client_id,
        tenant_id,
        subject,
    } = applicant(observed).ok()?;
    let before = observed.object.status.as_ref();
    let own = observed.federation.as_ref().ok();
    let issuer = observed
        .issuer
        .as_ref()
        .or(own.map(|own| &own.issuer))
        // Before the first assertion of this process, its predecessor's word is good enough to be shown.
        .or_else(|| before?.identity.as_ref()?.issuer.as_ref());
    Some(FederationStatus {
        issuer: issuer.cloned(),
        subject: subject.name,
        audience: subject.audience,
        tenant_id: tenant_id.to_string(),
        client_id: client_id.to_string(),
    })
}

fn applicant(observed: &Observed<'_>) -> Result<Applicant, MintError> {
    match &observed.object.spec.identity {
        Some(named) => impersonated(observed, named),
        None => own(observed),
    }
}

fn own(observed: &Observed<'_>) -> Result<Applicant, MintError> {
    let (client_id, tenant_id) = observed
        .settings
        .controller
        .clone()
        .ok_or_else(|| assertion_error(Cause::NoAssertion))?;
    Ok(Applicant {
        client_id,
        tenant_id,
        subject: observed.federation.clone()?.subject,
    })
}

/// The object's own word, then the `ServiceAccount`'s. A client id is never assumed: the controller's would
/// hand its rights to whoever names a `ServiceAccount`.
fn impersonated(
    observed: &Observed<'_>,
    named: &ServiceAccountIdentity,
) -> Result<Applicant, MintError> {
    let account = match &observed.service_account {
        ServiceAccountState::Found(account) => account,
        ServiceAccountState::Missing => return Err(assertion_error(Cause::NoServiceAccount)),
        ServiceAccountState::Forbidden => {
            return Err(assertion_error(Cause::ImpersonationForbidden));
        }
        ServiceAccountState::Unread => return Err(assertion_error(Cause::Unavailable)),
    };
    let settings = observed.settings;
    let client_id = named.client_id.as_ref().or(account.client_id.as_ref());
    let client_id = client_id.ok_or_else(|| assertion_error(Cause::NoClientId))?;
    let tenant_id = match named.tenant_id.as_ref().or(account.tenant_id.as_ref()) {
        Some(text) => text
            .parse()
            .map_err(|_| assertion_error(Cause::InvalidTenantId))?,
        None => settings
            .default_tenant_id
            .clone()
            .ok_or_else(|| assertion_error(Cause::NoTenantId))?,
    };
    let allowed = &settings.impersonation_audiences;
    let audience = match &account.audience {
        Some(wanted) => allowed.iter().find(|allowed| *allowed == wanted),
        None => allowed.first(),
    };
    let namespace = observed.object.metadata.namespace.as_deref();
    Ok(Applicant {
        client_id: client_id
            .parse()
            .map_err(|_| assertion_error(Cause::InvalidClientId))?,
        tenant_id,
        subject: Subject {
            name: format!(
                "system:serviceaccount:{}:{}",
                namespace.unwrap_or_default(),
                named.service_account_name
            ),
            service_account_uid: account.uid.clone(),
            audience: audience
                .ok_or_else(|| assertion_error(Cause::AudienceNotAllowed))?
                .clone(),
        },
    })
}

fn assertion_error(cause: Cause) -> MintError {
    MintError::new(Hop::Assertion, cause)
}
