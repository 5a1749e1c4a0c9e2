//! From what minting came to, to what is written and when to look again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::fraction::fraction_of;
use super::secret::{self, AllowedMetadata, DesiredEntry};
use super::status::{self, RegistryState};
use super::{
    Attempt, Attempts, Decision, Entitlement, Mint, Note, Observed, Ownership, Plan, SecretState,
    SecretWrite, Snapshot, State, entitlement, failure, identity, refresh, schedule,
};
use crate::api::{AcrCredentialStatus, Reason};
use crate::credential::{Cause, Credential, Hop, LoginServer, MintError, saturating_add};

/// What came of each planned mint.
pub type Outcomes = BTreeMap<LoginServer, Result<Credential, MintError>>;

/// What to do now. Nothing else is ever executed.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The write to the Secret, if it is not as it should be. The status then waits for its result.
    pub write: Option<SecretWrite>,
    /// The status, if it does not read so already.
    pub status: Option<AcrCredentialStatus>,
    /// A transition to report as an event.
    pub note: Option<Note>,
    /// What failed, to remember.
    pub attempts: Attempts,
    /// When to look again at the latest, if ever without a change.
    pub wake_at: Option<Timestamp>,
    /// For the metrics.
    pub state: State,
    /// When the first credential stops working.
    pub expires_at: Option<Timestamp>,
    /// When the next refresh is planned, however often it was tried since.
    pub refresh_at: Option<Timestamp>,
}

/// How soon the Secret of a deleted predecessor is looked for again.
const AWAIT_DELETION: SignedDuration = SignedDuration::from_secs(5);
/// How soon a write that the API server refused is tried again.
const REFUSED: SignedDuration = SignedDuration::from_mins(10);

/// Decides, from the same observation and plan, what `outcomes` change at `now`.
pub fn settle(
    observed: &Observed<'_>,
    plan: &Plan,
    outcomes: &Outcomes,
    now: Timestamp,
) -> Settled {
    // The Secret may have turned out to be another than was planned for.
    let plan = &Plan {
        blocked: entitlement::blocked(observed, now),
        registries: plan.registries.clone(),
    };
    let attempts = attempts(observed, plan, outcomes, now);
    let template = observed.object.spec.secret.as_ref();
    let prefixes = &observed.settings.secret_metadata_prefixes;
    let metadata = AllowedMetadata::of(template, prefixes);
    let present = observed.secret.ours(observed.object, now);
    let entries = entries(observed, plan, outcomes, present);
    let registries = registry_states(observed, plan, &attempts, now);
    let desired = status::status(observed, plan, &registries, &metadata, now);
    Settled {
        write: if may_write(observed, plan, present, &entries, now) {
            let may_own = !observed.owner_reference_refused;
            secret::write(observed.object, present, &entries, &metadata, may_own)
        } else {
            None
        },
        note: status::note(observed.object.status.as_ref(), &desired),
        state: status::state(observed.object, &desired),
        expires_at: desired.expires_at.as_ref().map(|time| time.0),
        refresh_at: desired.refresh_at.as_ref().map(|time| time.0),
        status: (observed.object.status.as_ref() != Some(&desired)).then_some(desired),
        wake_at: wake_at(observed, plan, &registries, &attempts, now),
        attempts,
    }
}

/// A Secret that is not ours, or cannot be changed, is left as it is. One of ours is shrunk also where
/// nothing is minted. One that was handed over is taken with the first credential: what it holds works
/// for its user until then.
fn may_write(
    observed: &Observed<'_>,
    plan: &Plan,
    present: Option<&Snapshot>,
    entries: &BTreeMap<String, DesiredEntry>,
    now: Timestamp,
) -> bool {
    let unusable = present.is_some_and(|present| !present.is_docker_config || present.is_immutable);
    let foreign = present.is_none() && observed.secret != SecretState::Absent;
    let minted = !matches!(&plan.blocked, Some(refusal) if refusal.reason == Reason::FieldNotSupported)
        || present.is_some();
    let adoptable = present
        .is_some_and(|present| present.ownership(observed.object, now) == Ownership::Adoptable);
    let worthless = !entries.values().any(|entry| entry.minted_for.is_some());
    observed.refused.is_none() && !unusable && !foreign && minted && !(adoptable && worthless)
}

fn attempts(observed: &Observed<'_>, plan: &Plan, outcomes: &Outcomes, now: Timestamp) -> Attempts {
    let revision = observed.revision();
    let uid = observed.object.metadata.uid.as_deref().unwrap_or_default();
    let mut attempts = Attempts::new();
    for (host, decision) in &plan.registries {
        let previous = observed.attempts.get(host);
        let error = match decision {
            Decision::Keep(_) => continue,
            Decision::Fail(_, error) => Some(*error),
            Decision::Mint(mint) => match outcomes.get(&mint.entitlement.server) {
                Some(Ok(_)) => continue,
                Some(Err(error)) => Some(*error),
                // Whoever was to mint it did not: tried again like any other failure.
                None => Some(MintError::new(Hop::Assertion, Cause::Unavailable)),
            },
            // A refusal forgets nothing, or a spec that flips would be rid of its backoff.
            Decision::Wait(_) | Decision::Hold(_) | Decision::Refuse(_) => None,
        };
        let seed = format!("{uid}/{host}");
        let attempt = match error {
            Some(error) => Some(Attempt::failed(previous, error, revision, &seed, now)),
            None => previous.cloned(),
        };
        if let Some(attempt) = attempt {
            attempts.insert(host.clone(), attempt);
        }
    }
    attempts
}

/// What the Secret should hold: what was minted now, else what is there, for every registry that the
/// object is entitled to and no other, and no wider than that.
fn entries(
    observed: &Observed<'_>,
    plan: &Plan,
    outcomes: &Outcomes,
    present: Option<&Snapshot>,
) -> BTreeMap<String, DesiredEntry> {
    if identity::is_forfeited(observed) {
        return BTreeMap::new();
    }
    let minted = |mint: &Mint| {
        let outcome = outcomes.get(&mint.entitlement.server)?;
        Some(DesiredEntry {
            token: outcome.as_ref().ok()?.token.clone(),
            minted_for: Some(mint.digest().as_str().to_owned()),
            impersonated: observed.object.spec.identity.is_some(),
        })
    };
    let held = |entitlement: &Entitlement| {
        let token = present?.token(entitlement)?;
        let entry = present?.minted_entry(entitlement);
        (!identity::is_withdrawn(observed, entitlement, entry.as_ref())).then(|| DesiredEntry {
            token: token.clone(),
            impersonated: entry.as_ref().is_some_and(|entry| entry.impersonated),
            minted_for: entry.map(|entry| entry.minted_for.as_str().to_owned()),
        })
    };
    let entry = |decision: &Decision| match decision {
        Decision::Mint(mint) => minted(mint).or_else(|| held(&mint.entitlement)),
        other => held(other.entitlement()?),
    };
    plan.registries
        .iter()
        .filter_map(|(host, decision)| Some((host.clone(), entry(decision)?)))
        .collect()
}

fn registry_states(
    observed: &Observed<'_>,
    plan: &Plan,
    attempts: &Attempts,
    now: Timestamp,
) -> Vec<RegistryState> {
    let present = observed.secret.ours(observed.object, now);
    let state = |(host, decision): &(String, Decision)| {
        let entitlement = decision.entitlement();
        let held = || {
            let entry = present?.minted_entry(entitlement?)?;
            (!identity::is_withdrawn(observed, entitlement?, Some(&entry))).then_some(entry)
        };
        let problem = match decision {
            Decision::Refuse(refusal) => Some((refusal.clone(), true)),
            // Nothing is tried: what failed before is remembered, and says nothing of now.
            Decision::Hold(_) => None,
            _ => attempts
                .get(host)
                .map(|attempt| failure::problem(observed, host, attempt, now)),
        };
        let is_forfeited = identity::is_forfeited(observed);
        RegistryState {
            server: host.clone(),
            is_entitled: entitlement.is_some(),
            lifetime: held().map(|entry| entry.lifetime).filter(|_| !is_forfeited),
            problem,
        }
    };
    plan.registries.iter().map(state).collect()
}

/// `min(refreshAt, next attempt, expiresAt)`.
fn wake_at(
    observed: &Observed<'_>,
    plan: &Plan,
    registries: &[RegistryState],
    attempts: &Attempts,
    now: Timestamp,
) -> Option<Timestamp> {
    let uid = observed.object.metadata.uid.as_deref().unwrap_or_default();
    // A refused write is not tried again before its time, however due it is.
    let is_held =
        plan.blocked.is_some() || observed.refused.is_some() || observed.object.spec.suspend;
    let revision = observed.revision();
    let ours = observed.secret.ours(observed.object, now);
    let of_registry = |registry: &RegistryState| {
        let expiry = registry
            .lifetime
            .map(|lifetime| lifetime.end)
            .filter(|end| now < *end);
        let refresh = match attempts.get(&registry.server) {
            _ if is_held || !registry.is_entitled => None,
            Some(attempt) => Some(attempt.next_at(revision)),
            // Without a lifetime, the Secret vanished since it was planned to be kept: mint at once.
            None => {
                let regular = registry
                    .lifetime
                    .map_or(now, |lifetime| schedule::refresh_at(&lifetime, observed));
                let asked_at = refresh::asked_at(observed, ours, &registry.server);
                Some(asked_at.map_or(regular, |asked_at| asked_at.min(regular)))
            }
        };
        [expiry, refresh]
    };
    let retry = match (&plan.blocked, &observed.refused) {
        (_, Some(_)) => Some(REFUSED * 4 / 5 + spread(uid)),
        (Some(blocked), _) if blocked.reason == Reason::AwaitingSecretDeletion => {
            Some(AWAIT_DELETION)
        }
        _ => None,
    };
    registries
        .iter()
        .flat_map(of_registry)
        .flatten()
        .chain(retry.map(|wait| saturating_add(now, wait)))
        .min()
}

/// Up to 4 minutes, so that objects refused together do not come back together.
fn spread(uid: &str) -> SignedDuration {
    SignedDuration::from_secs_f64(240.0 * fraction_of(&["refused", uid]))
}
