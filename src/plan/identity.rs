//! Whose identity mints for an object.

use kube::api::ObjectMeta;

use super::{Entitlement, Entry, Observed};
use crate::api::{
    AUDIENCE_ANNOTATION, CLIENT_ID_ANNOTATION, FederationStatus, ServiceAccountIdentity,
    TENANT_ID_ANNOTATION,
};
use crate::credential::{
    Cause, ClientId, Hop, Identity, LoginServer, MintError, Subject, TenantId,
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
    let Applicant {
        client_id,
        tenant_id,
        subject,
    } = applicant(observed)?;
    Ok(Identity {
        authority: server.authority().clone(),
        tenant_id,
        client_id,
        audience: server.audience().clone(),
        subject,
    })
}

/// Whether an entry of the Secret is, as far as we know, the controller's, while the object names another identity
/// and is not, or no more, allowed the controller's.
pub(super) fn is_withdrawn(
    observed: &Observed<'_>,
    entitlement: &Entitlement,
    entry: Option<&Entry>,
) -> bool {
    let object = observed.object;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    object.spec.identity.is_some()
        && !observed
            .settings
            .policy
            .allows(namespace, &entitlement.server)
        && !entry.is_some_and(|entry| entry.impersonated)
}

/// Whether the object's identity is known to be gone or unusable: what was minted with it goes too.
pub(super) fn is_forfeited(observed: &Observed<'_>) -> bool {
    observed.object.spec.identity.is_some()
        && matches!(applicant(observed), Err(error) if error.cause.ends_entitlement())
}

/// What Entra must be told to trust, as far as it is known.
pub(super) fn federation(observed: &Observed<'_>) -> Option<FederationStatus> {
    let before = observed
        .object
        .status
        .as_ref()
        .and_then(|status| status.identity.as_ref());
    let Applicant {
        client_id,
        tenant_id,
        subject,
    } = match applicant(observed) {
        Ok(applicant) => applicant,
        // Not told for the moment: what was known is as good as it was.
        Err(error)
            if observed.object.spec.identity.is_some() && !error.cause.ends_entitlement() =>
        {
            return before.cloned();
        }
        Err(_) => return None,
    };
    let own = observed.federation.as_ref().ok().map(|own| &own.issuer);
    let learnt = observed.issuer.as_ref();
    // After a change of the issuer, a file and the API server may speak of two.
    let issuer = if observed.object.spec.identity.is_some() {
        learnt.or(own)
    } else {
        own.or(learnt)
    };
    // Before the first assertion of this process, its predecessor's word is good enough to be shown.
    let issuer = issuer.or(before.and_then(|before| before.issuer.as_ref()));
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
        ServiceAccountState::Unread => return Err(assertion_error(Cause::ApiServer)),
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
    let name = format!(
        "system:serviceaccount:{}:{}",
        namespace.unwrap_or_default(),
        named.service_account_name
    );
    // The controller's own identity is for those whom the policy names, also where its token is in the cache.
    let own = observed.federation.as_ref();
    if own.is_ok_and(|own| own.subject.name == name) {
        return Err(assertion_error(Cause::ImpersonationForbidden));
    }
    Ok(Applicant {
        client_id: client_id
            .parse()
            .map_err(|_| assertion_error(Cause::InvalidClientId))?,
        tenant_id,
        subject: Subject {
            name,
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
