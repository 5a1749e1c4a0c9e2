//! Decisions. Pure: no async, no client, no clock, no randomness.
//!
//! [`plan`] says which registries need a credential minted; the caller mints; [`settle`] says, from what
//! came of it, how the Secret and the status should read and when to look again. Both are total:
//! failures are outcomes. After the Secret was written, `settle` is called again with what the API server
//! answered, and then finds nothing left to write.

mod attempt;
mod entitlement;
mod failure;
mod fraction;
mod identity;
mod minted;
mod not_granted;
mod ownership;
mod policy;
mod refresh;
mod schedule;
mod secret;
mod settle;
mod snapshot;
mod status;

#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::api::{AcrCredential, Reason};
use crate::credential::{
    ClientId, Clouds, Digest, Federation, Identity, Lifetime, MintError, TenantId,
};

pub use attempt::{Attempt, Attempts, Revision};
pub use entitlement::Entitlement;
pub use failure::reason;
pub use identity::{ServiceAccountFacts, ServiceAccountState};
pub use ownership::Ownership;
pub use policy::{Policy, PolicyRule};
pub use refresh::RefreshRequest;
pub use secret::{Removal, SecretWrite};
pub use settle::{Outcomes, Settled, settle};
pub use snapshot::{Entry, Snapshot};
pub use status::{Note, State};

/// What the operator decided; the same for every object.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may use the controller's identity, and for which registries.
    pub policy: Policy,
    /// The enabled clouds, with the authority and the audience of each.
    pub clouds: Clouds,
    /// The controller's own identity, where it has one.
    pub controller: Option<(ClientId, TenantId)>,
    /// The audiences that an assertion of another `ServiceAccount` may have; the first is the default.
    pub impersonation_audiences: Vec<String>,
    /// The tenant of identities that name none.
    pub default_tenant_id: Option<TenantId>,
    /// At which part of its life a credential is refreshed, 0 to 1.
    pub refresh_fraction: f64,
    /// Prefixes of the labels and annotations that users may put on their Secret.
    pub secret_metadata_prefixes: Vec<String>,
}

/// Everything that a decision about one object rests on.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The object as last seen.
    pub object: &'a AcrCredential,
    /// The operator's decisions.
    pub settings: &'a Settings,
    /// The claims of the controller's present assertion.
    pub federation: Result<Federation, MintError>,
    /// The `ServiceAccount` that the object names.
    pub service_account: ServiceAccountState,
    /// The issuer of this cluster's assertions, once one was seen.
    pub issuer: Option<String>,
    /// New credentials that somebody asked for.
    pub refresh: Option<RefreshRequest>,
    /// The Secret of the object's name.
    pub secret: SecretState,
    /// Why the API server refused to let us write it just now, if it did.
    pub refused: Option<Refusal>,
    /// Whether the API server has just refused a write that would have restored our owner reference.
    pub owner_reference_refused: bool,
    /// What earlier attempts came to.
    pub attempts: Attempts,
}

/// What is known of the Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretState {
    /// There is none, or none was seen yet.
    Absent,
    /// It reads like this.
    Present(Box<Snapshot>),
    /// There is one, and the API server does not let us see it: not ours.
    Hidden,
}

/// A "no" that names its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// What happened and what to do, in a sentence without volatile parts.
    pub message: String,
}

/// What to do about each registry of the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Set where nothing is minted for the object at all, and somebody must act.
    pub blocked: Option<Refusal>,
    /// In the order of the spec.
    pub registries: Vec<(String, Decision)>,
}

/// What to do about one registry.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Its credential is live and not due.
    Keep(Entitlement),
    /// Mint one now.
    Mint(Box<Mint>),
    /// It cannot be minted; counts as an attempt that failed.
    Fail(Entitlement, MintError),
    /// One is due, but an earlier attempt failed and its time has not come, or something must go first.
    Wait(Entitlement),
    /// Nothing is minted for the object now, and what there is stays.
    Hold(Entitlement),
    /// The object is not entitled to it: an entry goes at once.
    Refuse(Refusal),
}

/// A credential to mint.
#[derive(Clone, Debug, PartialEq)]
pub struct Mint {
    /// Who asks.
    pub identity: Identity,
    /// Where to, and what for.
    pub entitlement: Entitlement,
    /// Only a credential that began after this helps: the present one did then.
    pub newer_than: Option<Timestamp>,
    /// Only a credential received after this helps: somebody asked for a new one then.
    pub received_after: Option<Timestamp>,
}

// === impl Observed ===

impl Observed<'_> {
    /// What asks for an attempt now.
    pub(crate) fn revision(&self) -> Revision {
        Revision {
            generation: self.object.metadata.generation,
            refresh: self.refresh.as_ref().map(|request| request.since),
        }
    }

    /// Whether there is no Secret, or one of ours.
    pub fn is_ours_to_write(&self, now: Timestamp) -> bool {
        self.secret == SecretState::Absent || self.secret.ours(self.object, now).is_some()
    }
}

// === impl Plan ===

impl Plan {
    /// Whether something is minted, or fails before it can be.
    pub fn is_attempt(&self) -> bool {
        self.registries
            .iter()
            .any(|(_, decision)| matches!(decision, Decision::Mint(_) | Decision::Fail(..)))
    }

    /// The credentials to mint.
    pub fn mints(&self) -> impl Iterator<Item = &Mint> {
        self.registries
            .iter()
            .filter_map(|(_, decision)| match decision {
                Decision::Mint(mint) => Some(&**mint),
                _ => None,
            })
    }
}

// === impl Decision ===

impl Decision {
    /// What the object is entitled to, if it is.
    pub fn entitlement(&self) -> Option<&Entitlement> {
        match self {
            Self::Mint(mint) => Some(&mint.entitlement),
            Self::Keep(entitlement)
            | Self::Fail(entitlement, _)
            | Self::Wait(entitlement)
            | Self::Hold(entitlement) => Some(entitlement),
            Self::Refuse(_) => None,
        }
    }

    fn postponed(self) -> Self {
        match self {
            Self::Mint(mint) => Self::Wait(mint.entitlement),
            other => other,
        }
    }
}

// === impl Mint ===

impl Mint {
    /// Tells what it is minted for.
    pub(crate) fn digest(&self) -> Digest {
        let Entitlement { server, scope } = &self.entitlement;
        self.identity.digest(server, scope)
    }
}

// === impl SecretState ===

impl SecretState {
    /// Whether it holds the token with this digest.
    fn holds(&self, digest: &str) -> bool {
        match self {
            Self::Present(snapshot) => {
                let mut tokens = snapshot.tokens.values();
                tokens.any(|(token, _)| token.digest().as_str() == digest)
            }
            Self::Absent | Self::Hidden => false,
        }
    }

    /// The snapshot of a Secret that belongs to the object.
    pub(crate) fn ours(&self, object: &AcrCredential, now: Timestamp) -> Option<&Snapshot> {
        match self {
            Self::Present(snapshot)
                if matches!(
                    snapshot.ownership(object, now),
                    Ownership::Ours | Ownership::Adoptable
                ) =>
            {
                Some(snapshot)
            }
            _ => None,
        }
    }
}

/// Decides what to mint for `observed.object` at `now`.
pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let blocked = entitlement::blocked(observed, now);
    let spec = &observed.object.spec;
    let is_held = blocked.is_some() || observed.refused.is_some() || spec.suspend;
    let decide = |registry: &crate::api::Registry| match entitlement::entitled(observed, registry) {
        Err(refusal) => Decision::Refuse(refusal),
        Ok(entitlement) if is_held => Decision::Hold(entitlement),
        Ok(entitlement) => decide(observed, entitlement, now),
    };
    let registries = spec.registries.iter();
    let mut registries: Vec<_> = registries
        .map(|registry| (registry.server.clone(), decide(registry)))
        .collect();
    if must_shrink(observed, &registries, now) {
        let postponed = |(host, decision): (String, Decision)| (host, decision.postponed());
        registries = registries.into_iter().map(postponed).collect();
    }
    Plan {
        blocked,
        registries,
    }
}

/// Whether our Secret holds what the object is not entitled to, or no more. That goes before anything is
/// minted: an upstream that hangs must not keep it there.
fn must_shrink(observed: &Observed<'_>, registries: &[(String, Decision)], now: Timestamp) -> bool {
    let SecretState::Present(snapshot) = &observed.secret else {
        return false;
    };
    let entitlements = || registries.iter().filter_map(|(_, d)| d.entitlement());
    let may_stay = |host: &String| {
        entitlements().any(|to| {
            to.server.as_str() == host
                && snapshot.token(to).is_some()
                && !identity::is_withdrawn(observed, to, snapshot.minted_entry(to).as_ref())
        })
    };
    snapshot.ownership(observed.object, now) == Ownership::Ours
        && !snapshot.tokens.keys().all(may_stay)
}

fn decide(observed: &Observed<'_>, entitlement: Entitlement, now: Timestamp) -> Decision {
    let identity = identity::identity(observed, &entitlement.server);
    let held = held(observed, &entitlement, identity.as_ref().ok(), now);
    let ours = observed.secret.ours(observed.object, now);
    let asked_at = refresh::asked_at(observed, ours, entitlement.server.as_str());
    if let Some(lifetime) = held
        && now < schedule::refresh_at(&lifetime, observed)
        && asked_at.is_none_or(|asked_at| now < asked_at)
    {
        return Decision::Keep(entitlement);
    }
    if let Some(attempt) = observed.attempts.get(entitlement.server.as_str())
        && now < attempt.next_at(observed.revision())
    {
        return Decision::Wait(entitlement);
    }
    match identity {
        Ok(identity) => Decision::Mint(Box::new(Mint {
            identity,
            entitlement,
            // Whole seconds tell two credentials of one second not apart; the time of receipt does.
            newer_than: held
                .filter(|_| asked_at.is_none())
                .map(|lifetime| lifetime.start),
            received_after: asked_at,
        })),
        Err(error) => Decision::Fail(entitlement, error),
    }
}

/// The lifetime of a credential that the Secret holds and that was minted for just this; one that cannot
/// be compared, for want of an assertion, counts as such. That of an identity that is no more counts not.
fn held(
    observed: &Observed<'_>,
    entitlement: &Entitlement,
    identity: Option<&Identity>,
    now: Timestamp,
) -> Option<Lifetime> {
    if identity::is_forfeited(observed) {
        return None;
    }
    let snapshot = observed.secret.ours(observed.object, now)?;
    let entry = snapshot.minted_entry(entitlement)?;
    let Entitlement { server, scope } = entitlement;
    let same = identity.is_none_or(|identity| entry.minted_for == identity.digest(server, scope));
    same.then_some(entry.lifetime)
}
