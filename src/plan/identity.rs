//! Whose identity the credentials of an object are issued to.

use jiff::{SignedDuration, Timestamp};

use super::backoff::Backoff;
use super::facts::Facts;
use super::service_account::{NamedAccount, ServiceAccountFacts};
use crate::api::{FederationStatus, ServiceAccountIdentity};
use crate::credential::{Cause, Hop, Identity, MintError, Principal, Subject};

/// What is known of the `ServiceAccount` that the object names now.
pub(super) fn named(facts: &Facts) -> Option<&NamedAccount> {
    let named = facts.object.spec.identity.as_ref()?;
    let account = facts.account.as_ref()?;
    (account.name == named.service_account_name).then_some(account)
}

/// The identity that credentials of the object are issued to.
pub(super) fn identity(facts: &Facts) -> Result<Identity, MintError> {
    match &facts.object.spec.identity {
        Some(named) => impersonated(facts, named),
        None => own(facts),
    }
}

/// Whether the identity is known to be gone or unusable: credentials that were issued to it go too.
pub(super) fn is_gone(facts: &Facts, identity: &Result<Identity, MintError>) -> bool {
    facts.object.spec.identity.is_some()
        && matches!(identity, Err(error) if error.cause.ends_entitlement())
}

/// The federated credential that Entra needs, as far as it is known.
pub(super) fn federation(
    facts: &Facts,
    identity: &Result<Identity, MintError>,
) -> Option<FederationStatus> {
    let before = facts
        .object
        .status
        .as_ref()
        .and_then(|status| status.identity.as_ref());
    let Identity {
        client_id,
        tenant_id,
        subject,
        ..
    } = match identity {
        Ok(identity) => identity,
        // Not known for the moment: what was known is as good as before.
        Err(error) if !error.cause.ends_entitlement() => return before.cloned(),
        Err(_) => return None,
    };
    let own = facts.cluster.own.as_ref().ok().map(|own| &own.issuer);
    let learnt = facts.cluster.issuer.as_ref();
    // After a change of the issuer, the token file and the API server may name two.
    let issuer = if facts.object.spec.identity.is_some() {
        learnt.or(own)
    } else {
        own.or(learnt)
    };
    // Until this process has held a token, what its predecessor saw is shown.
    let issuer = issuer.or(before.and_then(|before| before.issuer.as_ref()));
    Some(FederationStatus {
        issuer: issuer.cloned(),
        subject: subject.name.clone(),
        audience: subject.audience.clone(),
        tenant_id: tenant_id.to_string(),
        client_id: client_id.to_string(),
    })
}

fn own(facts: &Facts) -> Result<Identity, MintError> {
    let controller = facts.settings.controller.clone();
    let (client_id, tenant_id) = controller.ok_or_else(|| assertion_error(Cause::NoAssertion))?;
    Ok(Identity {
        client_id,
        tenant_id,
        subject: facts.cluster.own.clone()?.subject,
        principal: Principal::Controller,
    })
}

/// The object's own ids, then those of the `ServiceAccount`. A client id is never assumed: the controller's would
/// hand its rights to anyone who names a `ServiceAccount`.
fn impersonated(facts: &Facts, named: &ServiceAccountIdentity) -> Result<Identity, MintError> {
    let name = format!(
        "system:serviceaccount:{}:{}",
        facts.namespace(),
        named.service_account_name
    );
    // The controller identity is for those whom the policy names, also where its token is in the cache.
    match facts.cluster.is_own_user(&name) {
        Some(false) => {}
        Some(true) => return Err(assertion_error(Cause::OwnServiceAccount)),
        // Until acrcred knows its own name, it impersonates no ServiceAccount.
        None => return Err(assertion_error(Cause::ApiServer)),
    }
    let account = self::named(facts).map(|account| account.state.as_ref());
    let account = account.unwrap_or(Err(&Cause::ApiServer));
    let account = account.map_err(|cause| assertion_error(*cause))?;
    let settings = &facts.settings;
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
    Ok(Identity {
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
        principal: Principal::ServiceAccount,
    })
}

fn assertion_error(cause: Cause) -> MintError {
    MintError::new(Hop::Assertion, cause)
}

// === impl Facts ===

impl Facts {
    /// The `ServiceAccount` that the object names was read. [`Cause::ApiServer`]: the API server gave no answer.
    pub fn account_read(
        &mut self,
        name: &str,
        answer: Result<ServiceAccountFacts, Cause>,
        now: Timestamp,
    ) {
        let known = self.account.take().filter(|account| account.name == name);
        let (before, known) = known.map_or((None, None), |mut known| {
            (known.failure.take(), Some(known))
        });
        // No answer: what was known is as good as before.
        let has_answer = answer != Err(Cause::ApiServer);
        self.account = Some(match known {
            Some(known) if !has_answer => known,
            _ => NamedAccount {
                name: name.to_owned(),
                read_at: has_answer.then_some(now),
                state: answer,
                failure: None,
            },
        });
        if !has_answer || identity(self).is_err() {
            let none = SignedDuration::ZERO;
            let failure = self.backoff(before.as_ref(), Backoff::retryable, none, name, now);
            self.account
                .iter_mut()
                .for_each(|account| account.failure = Some(failure.clone()));
        }
    }
}
