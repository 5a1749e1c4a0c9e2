//! What the status says. Only stable text: equal failures give an equal status.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;

use super::secret::AllowedMetadata;
use super::{Observed, Plan, Refusal, identity, refresh, schedule};
use crate::api::{
    AcrCredential, AcrCredentialStatus, ConditionType, REFRESH_ANNOTATION, Reason, RegistryStatus,
};
use crate::credential::{Audience, Lifetime};

/// A process that finds a token knows when it was issued, not when it arrived: of the same credentials,
/// times that differ by less than this are left as the status has them, or every restart would write all.
const RESTART_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// One registry, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RegistryState {
    pub server: String,
    pub is_entitled: bool,
    /// Of the credential that the Secret holds, expired or not.
    pub lifetime: Option<Lifetime>,
    /// What is wrong, and whether somebody must act.
    pub problem: Option<(Refusal, bool)>,
}

/// A transition that is worth an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The reason of the condition.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// The state that an object counts under in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every registry has a live credential.
    Ready,
    /// Likewise, but a refresh fails.
    Failing,
    /// Some registry has none.
    NotReady,
    /// Nothing is minted, by the user's wish.
    Suspended,
}

// === impl State ===

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Failing, Self::NotReady, Self::Suspended];

    /// Its name as a metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Failing => "failing",
            Self::NotReady => "not_ready",
            Self::Suspended => "suspended",
        }
    }
}

/// The audience that a registry is sent a token of.
pub(super) fn audience(observed: &Observed<'_>, host: &str) -> Option<Audience> {
    let server = observed.settings.clouds.login_server(host).ok()?;
    Some(server.audience().clone())
}

/// The status that is true at `now`.
pub(super) fn status(
    observed: &Observed<'_>,
    plan: &Plan,
    registries: &[RegistryState],
    metadata: &AllowedMetadata,
    now: Timestamp,
) -> AcrCredentialStatus {
    let before = observed.object.status.clone().unwrap_or_default();
    let lifetimes = || registries.iter().filter_map(|registry| registry.lifetime);
    let is_refreshed =
        plan.blocked.is_none() && observed.refused.is_none() && !observed.object.spec.suspend;
    let registry_statuses: Vec<RegistryStatus> = registries
        .iter()
        .map(|registry| RegistryStatus {
            server: registry.server.clone(),
            audience: audience(observed, &registry.server)
                .filter(|_| registry.is_entitled)
                .map(|audience| audience.as_str().to_owned()),
            expires_at: registry.lifetime.map(|lifetime| seconds(lifetime.end)),
            reason: registry_reason(observed, plan, registry, now).to_string(),
        })
        .collect();
    let ends = |registries: &[RegistryStatus]| -> Vec<_> {
        registries
            .iter()
            .map(|r| (r.server.clone(), r.expires_at.clone()))
            .collect()
    };
    let same = ends(&before.registries) == ends(&registry_statuses);
    let steady = |at: Timestamp, before: &Option<Time>| match before {
        Some(before) if same && at.duration_since(before.0).abs() < RESTART_TOLERANCE => {
            before.clone()
        }
        _ => seconds(at),
    };
    let refresh_at = lifetimes()
        .map(|lifetime| schedule::refresh_at(&lifetime, observed))
        .min();
    AcrCredentialStatus {
        observed_generation: observed.object.metadata.generation,
        conditions: conditions(observed, plan, registries, metadata, now),
        secret_name: observed
            .secret
            .ours(observed.object, now)
            .map(|_| observed.object.secret_name().to_owned()),
        expires_at: lifetimes().map(|lifetime| lifetime.end).min().map(seconds),
        refresh_at: refresh_at
            .filter(|_| is_refreshed)
            .map(|at| steady(at, &before.refresh_at)),
        last_refresh_at: lifetimes()
            .map(|lifetime| lifetime.start)
            .max()
            .map(|at| steady(at, &before.last_refresh_at)),
        identity: registries
            .iter()
            .any(|registry| registry.is_entitled)
            .then(|| identity::federation(observed))
            .flatten(),
        registries: registry_statuses,
        attached: Vec::new(),
        last_handled_refresh: refresh::last_handled(
            observed,
            observed.secret.ours(observed.object, now),
            registries
                .iter()
                .filter(|registry| registry.is_entitled)
                .map(|registry| registry.server.as_str()),
        ),
    }
}

fn registry_reason(
    observed: &Observed<'_>,
    plan: &Plan,
    registry: &RegistryState,
    now: Timestamp,
) -> Reason {
    let is_live = registry
        .lifetime
        .is_some_and(|lifetime| lifetime.is_live(now));
    let whole = observed.refused.as_ref().or(plan.blocked.as_ref());
    match (&registry.problem, whole) {
        (Some((refusal, _)), _) => refusal.reason,
        (None, Some(blocked)) => blocked.reason,
        (None, None) if observed.object.spec.suspend => Reason::Suspended,
        (None, None) if is_live => Reason::Issued,
        (None, None) => Reason::Progressing,
    }
}

fn conditions(
    observed: &Observed<'_>,
    plan: &Plan,
    registries: &[RegistryState],
    metadata: &AllowedMetadata,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = Vec::with_capacity(2);
    let mut add = |kind: ConditionType, status: bool, refusal: &Refusal| {
        conditions.push(condition(observed.object, kind, status, refusal, now));
    };
    let problem = foremost_problem(observed, plan, registries, now);
    if is_ready(plan, registries, now) {
        add(ConditionType::Ready, true, &issued(observed, metadata));
        if let Some((refusal, _)) = problem {
            add(ConditionType::RefreshFailing, true, &refusal);
        }
        return conditions;
    }
    let suspended = observed.object.spec.suspend;
    let (refusal, is_stalled) = problem.unwrap_or_else(|| (pending(suspended), false));
    add(ConditionType::Ready, false, &refusal);
    if is_stalled {
        add(ConditionType::Stalled, true, &refusal);
    } else if !suspended {
        add(ConditionType::Reconciling, true, &refusal);
    }
    conditions
}

/// A field that is not served is never "ready", whatever the Secret still holds.
fn is_ready(plan: &Plan, registries: &[RegistryState], now: Timestamp) -> bool {
    let unsupported =
        matches!(&plan.blocked, Some(blocked) if blocked.reason == Reason::FieldNotSupported);
    let mut lifetimes = registries.iter().map(|registry| registry.lifetime);
    !unsupported && lifetimes.all(|lifetime| lifetime.is_some_and(|l| l.is_live(now)))
}

/// What the object as a whole suffers from: first what blocks it, then a registry without a live
/// credential, then one whose refresh fails; among those, what somebody must mend.
fn foremost_problem(
    observed: &Observed<'_>,
    plan: &Plan,
    registries: &[RegistryState],
    now: Timestamp,
) -> Option<(Refusal, bool)> {
    let whole = observed.refused.as_ref().or(plan.blocked.as_ref());
    if let Some(refusal) = whole {
        return Some((
            refusal.clone(),
            refusal.reason != Reason::AwaitingSecretDeletion,
        ));
    }
    let is_live = |registry: &&RegistryState| registry.lifetime.is_some_and(|l| l.is_live(now));
    let rank = |registry: &&RegistryState| {
        let terminal = matches!(registry.problem, Some((_, true)));
        (is_live(registry), !terminal)
    };
    registries
        .iter()
        .filter(|registry| registry.problem.is_some())
        .min_by_key(rank)
        .and_then(|registry| registry.problem.clone())
}

fn issued(observed: &Observed<'_>, metadata: &AllowedMetadata) -> Refusal {
    let object = observed.object;
    let (reason, mut message) = if object.spec.suspend {
        let message = "nothing is minted while spec.suspend is set; the credentials work until status.expiresAt";
        (Reason::Suspended, message.to_owned())
    } else {
        let message = format!(
            "Secret {} holds a live credential for every registry",
            object.secret_name()
        );
        (Reason::Issued, message)
    };
    for (keys, why) in [
        (
            &metadata.not_allowed,
            "--secret-metadata-prefixes does not allow it",
        ),
        (&metadata.invalid, "it is no valid label or annotation"),
    ] {
        if !keys.is_empty() {
            let keys: Vec<String> = keys.iter().map(|key| shortened(key)).collect();
            message.push_str("; left out, since ");
            message.push_str(why);
            message.push_str(": ");
            message.push_str(&keys.join(", "));
        }
    }
    if object.annotations().contains_key(REFRESH_ANNOTATION) && object.refresh_request().is_none() {
        message.push_str(
            "; the annotation acrcred.dev/refresh is not served: its value must be 1 to 64 letters, digits and . _ : + -",
        );
    }
    if observed.owner_reference_refused {
        message.push_str(
            "; its owner reference is gone, and the API server does not let acrcred restore it: delete the Secret yourself when this object goes",
        );
    }
    Refusal { reason, message }
}

/// Enough of a user's key to recognise it.
fn shortened(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn pending(suspended: bool) -> Refusal {
    if suspended {
        Refusal {
            reason: Reason::Suspended,
            message: "nothing is minted while spec.suspend is set, and no live credential is there"
                .to_owned(),
        }
    } else {
        Refusal {
            reason: Reason::Progressing,
            message: "a credential is being minted".to_owned(),
        }
    }
}

fn condition(
    object: &AcrCredential,
    kind: ConditionType,
    status: bool,
    refusal: &Refusal,
    now: Timestamp,
) -> Condition {
    let status = if status { "True" } else { "False" };
    let before = object
        .status
        .iter()
        .flat_map(|before| &before.conditions)
        .find(|before| before.type_ == kind.as_str() && before.status == status);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: refusal.reason.to_string(),
        message: refusal.message.clone(),
        observed_generation: object.metadata.generation,
        last_transition_time: before.map_or_else(
            || seconds(now),
            |before| before.last_transition_time.clone(),
        ),
    }
}

/// Times in a status have whole seconds, so that what is compared is what was stored.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// An event for a trouble that the status did not name before. Success and rotation are silent.
pub(super) fn note(
    before: Option<&AcrCredentialStatus>,
    after: &AcrCredentialStatus,
) -> Option<Note> {
    let trouble = |status: &AcrCredentialStatus| {
        let of_type = |kind: ConditionType, value: &str| {
            let mut conditions = status.conditions.iter();
            conditions
                .find(|c| c.type_ == kind.as_str() && c.status == value)
                .cloned()
        };
        of_type(ConditionType::RefreshFailing, "True")
            .or_else(|| of_type(ConditionType::Ready, "False"))
    };
    let silent = [Reason::Progressing.as_str(), Reason::Suspended.as_str()];
    let now = trouble(after).filter(|condition| !silent.contains(&condition.reason.as_str()))?;
    let known = before
        .and_then(trouble)
        .is_some_and(|before| before.reason == now.reason && before.type_ == now.type_);
    (!known).then_some(Note {
        reason: now.reason,
        message: now.message,
    })
}

pub(super) fn state(object: &AcrCredential, status: &AcrCredentialStatus) -> State {
    let has = |kind: ConditionType, value: &str| {
        status
            .conditions
            .iter()
            .any(|c| c.type_ == kind.as_str() && c.status == value)
    };
    if object.spec.suspend {
        State::Suspended
    } else if has(ConditionType::RefreshFailing, "True") {
        State::Failing
    } else if has(ConditionType::Ready, "True") {
        State::Ready
    } else {
        State::NotReady
    }
}
