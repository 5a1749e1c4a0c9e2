//! What the status says. Only stable text: equal failures give an equal status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;

use super::case::{Case, Registry};
use super::entry::Entry;
use super::facts::{Facts, Place, RegistryFacts};
use super::problem::Problem;
use super::secret::AllowedMetadata;
use super::settings::PolicyState;
use super::{failure, identity, schedule};
use crate::api::{
    AcrCredential, AcrCredentialStatus, ConditionType, REFRESH_ANNOTATION, Reason, RegistryStatus,
    SecretStatus,
};
use crate::credential::names::shortened;
use crate::credential::{Cause, Hop, MintError};

/// A status to write, and the condition to report as an event, if any.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// The whole status.
    pub status: AcrCredentialStatus,
    /// A condition to report as an event.
    pub event: Option<Condition>,
}

/// How an object is doing, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// When the first credential stops working.
    pub expires_at: Option<Timestamp>,
    /// When the next refresh is planned, however often it was tried since.
    pub refresh_at: Option<Timestamp>,
}

/// The state that an object counts under in the metrics, where its name is a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Every registry has a live credential.
    Ready,
    /// Likewise, but a refresh fails.
    Failing,
    /// Some registry has none.
    NotReady,
    /// `spec.suspend` is set.
    Suspended,
}

// === impl State ===

impl State {
    /// Whether what the object asks for works; `None` while it is suspended.
    pub fn is_ready(self) -> Option<bool> {
        match self {
            Self::Ready | Self::Failing => Some(true),
            Self::NotReady => Some(false),
            Self::Suspended => None,
        }
    }
}

/// Whether the status must be written: it is another one, and the API server has not just changed it back.
pub(super) fn is_news(facts: &Facts, desired: &AcrCredentialStatus) -> bool {
    let present = facts.object.status.as_ref();
    let is_refused = facts
        .reported
        .as_ref()
        .is_some_and(|(sent, got)| sent == desired && got.as_ref() == present);
    // A new object is in progress without a word.
    let is_first = present.is_none_or(|present| present.conditions.is_empty());
    let is_progressing = |condition: &Condition| condition.reason == Reason::Progressing.as_str();
    let says_nothing = is_first && desired.conditions.iter().all(is_progressing);
    present != Some(desired) && !is_refused && !(says_nothing && desired.secret.is_none())
}

/// What to report about an object.
struct Report<'a> {
    case: &'a Case<'a>,
    /// What keeps the object as a whole from being refreshed.
    whole: Option<Problem>,
    /// What is wrong with each registry of the spec, in its order.
    problems: Vec<Option<Problem>>,
}

/// The status that is true now. `waits_for_check`: nothing goes on without a check of the admission policy.
pub(super) fn status(case: &Case<'_>, waits_for_check: bool) -> AcrCredentialStatus {
    let facts = case.facts;
    let report = Report::of(case, waits_for_check);
    let stored = || {
        case.registries
            .iter()
            .filter_map(|registry| registry.stored)
    };
    let lifetimes = || stored().map(Entry::lifetime);
    let is_refreshed = case.unsupported.is_none() && !facts.object.spec.suspend;
    let fraction = facts.settings.refresh_fraction;
    let refresh_at = lifetimes().map(|life| schedule::refresh_at(&life, fraction, facts.uid()));
    let entitled = || {
        case.registries
            .iter()
            .filter(|registry| registry.entitlement.is_ok())
    };
    let written_at =
        |registry: &Registry<'_>| registry.received_at.filter(|_| registry.in_hand.is_none());
    let handled = facts.handled_refresh(entitled().map(written_at));
    let before = facts.object.status.as_ref();
    AcrCredentialStatus {
        observed_generation: facts.object.metadata.generation,
        conditions: report.conditions(),
        secret: secret(facts),
        expires_at: lifetimes().map(|life| life.end).min().map(seconds),
        refresh_at: refresh_at.min().filter(|_| is_refreshed).map(seconds),
        last_refresh_at: lifetimes().map(|life| life.start).max().map(seconds),
        identity: entitled()
            .next()
            .and_then(|_| identity::federation(facts, &case.identity)),
        registries: report.rows(),
        attached: Vec::new(),
        last_handled_refresh: handled.or_else(|| before?.last_handled_refresh.clone()),
    }
}

/// The Secret as acrcred wrote it last: what a new process believes in.
fn secret(facts: &Facts) -> Option<SecretStatus> {
    let written = facts.secret.written.as_ref()?;
    Some(SecretStatus {
        name: facts.object.secret_name().to_owned(),
        uid: written.uid.clone(),
        resource_version: written.number().to_string(),
    })
}

/// What is wrong with one registry.
fn registry_problem(case: &Case<'_>, registry: &Registry<'_>) -> Option<Problem> {
    let facts = case.facts;
    if let Err(problem) = &registry.entitlement {
        return Some(problem.clone());
    }
    let of_identity = |error| Some(failure::problem(case, registry, error));
    match &case.identity {
        Err(error) if identity::is_gone(facts, &case.identity) => return of_identity(*error),
        // Nothing is attempted, so an earlier failure says nothing about the current state.
        _ if case.mints_nothing => return None,
        Err(error) if is_answered(facts) && registry.due_at <= case.now => {
            return of_identity(*error);
        }
        _ => {}
    }
    // A failure from when something else was due says nothing about the current state.
    let is_due = case.due().any(|due| due.server == registry.server);
    // The API server gives no answer about whether the identity still exists.
    if is_due && identity::named(facts).is_some_and(|account| account.failure.is_some()) {
        return of_identity(MintError::new(Hop::Assertion, Cause::ApiServer));
    }
    let attempt = registry.facts.attempt.as_ref().filter(|_| is_due)?;
    Some(failure::of_attempt(case, registry, attempt))
}

/// Whether the identity was looked for, so that its absence can be reported.
fn is_answered(facts: &Facts) -> bool {
    facts.object.spec.identity.is_none()
        || identity::named(facts).is_some_and(|account| account.failure.is_some())
        || facts.cluster.own_user.is_some() && identity::named(facts).is_some()
}

/// What keeps the object as a whole from being refreshed. `waits_for_check`: nothing goes on without a check of the
/// admission policy.
fn whole_problem(case: &Case<'_>, waits_for_check: bool) -> Option<Problem> {
    let facts = case.facts;
    let policy = &facts.cluster.policy;
    if policy.state == PolicyState::Missing {
        let user = facts.cluster.own_user.as_deref();
        return Some(Problem::needing_action(
            Reason::PolicyNotInForce,
            format!(
                "acrcred writes no Secret, because the admission policy that protects Secrets is missing, or is for another user than {}, or its binding does not deny. Install it with the chart value policies.install=true. Without Helm, set that user in config/policy, and run: kubectl apply -k config/policy",
                user.unwrap_or("acrcred's ServiceAccount")
            ),
        ));
    }
    let is_needed = policy.state == PolicyState::Unknown || waits_for_check;
    let unclear = policy.obstacle.clone().filter(|_| is_needed);
    let failure = facts.secret.failure.as_ref();
    unclear
        .or_else(|| failure?.problem.clone())
        .or_else(|| case.unsupported.clone())
}

// === impl Report ===

impl<'a> Report<'a> {
    fn of(case: &'a Case<'a>, waits_for_check: bool) -> Self {
        let registries = case.registries.iter();
        Self {
            case,
            whole: whole_problem(case, waits_for_check),
            problems: registries
                .map(|registry| registry_problem(case, registry))
                .collect(),
        }
    }

    fn registries(&self) -> impl Iterator<Item = (&Registry<'a>, Option<&Problem>)> {
        let problems = self.problems.iter().map(Option::as_ref);
        self.case.registries.iter().zip(problems)
    }

    fn conditions(&self) -> Vec<Condition> {
        let case = self.case;
        let object = &case.facts.object;
        let mut conditions = Vec::with_capacity(2);
        let mut add = |kind: ConditionType, status: bool, problem: &Problem| {
            conditions.push(condition(object, kind, status, problem, case.now));
        };
        // A field that is not supported is never "ready", whatever the Secret still holds.
        let is_ready = case.unsupported.is_none() && case.registries.iter().all(|r| r.is_live);
        if is_ready {
            add(ConditionType::Ready, true, &issued(case.facts, case.now));
            if let Some(problem) = self.foremost() {
                add(ConditionType::RefreshFailing, true, problem);
            }
            return conditions;
        }
        let suspended = object.spec.suspend;
        let pending = self.pending();
        let problem = self.foremost().unwrap_or(&pending);
        add(ConditionType::Ready, false, problem);
        if problem.needs_action {
            add(ConditionType::Stalled, true, problem);
        } else if !suspended {
            add(ConditionType::Reconciling, true, problem);
        }
        conditions
    }

    /// What to say while nothing is wrong and the Secret is not complete yet.
    fn pending(&self) -> Problem {
        let facts = self.case.facts;
        let name = facts.object.secret_name();
        if facts.object.spec.suspend {
            let message = format!(
                "Suspended (spec.suspend), and Secret {name} lacks a live credential for at least one registry. Remove spec.suspend to let acrcred request it."
            );
            return Problem::passing(Reason::Suspended, message);
        }
        let message = if facts.cluster.policy.state == PolicyState::Unknown {
            format!("acrcred checks its admission policy before it writes Secret {name}.")
        } else if self.case.due().next().is_none() && self.case.has_news() {
            format!("acrcred has a credential and waits to write Secret {name}.")
        } else {
            "acrcred is requesting a credential.".to_owned()
        };
        Problem::passing(Reason::Progressing, message)
    }

    /// The problem to report: first that of the whole object, then that of a registry without a live credential, then
    /// that of a refresh; among those, first one that needs a person.
    fn foremost(&self) -> Option<&Problem> {
        let problems = self
            .registries()
            .filter_map(|(registry, problem)| Some((registry, problem?)));
        let of_registry =
            problems.min_by_key(|(registry, problem)| (registry.is_live, !problem.needs_action));
        self.whole
            .as_ref()
            .or(of_registry.map(|(_, problem)| problem))
    }

    /// One row for each registry of the spec, and for each that left it as long as the Secret holds its credential: a
    /// new process must know of it.
    fn rows(&self) -> Vec<RegistryStatus> {
        let case = self.case;
        let of_spec = self.registries().map(|(registry, problem)| {
            let reason = match problem.or(self.whole.as_ref()) {
                Some(problem) => problem.reason,
                None if case.facts.object.spec.suspend => Reason::Suspended,
                None if registry.is_live => Reason::Issued,
                None => Reason::Progressing,
            };
            let entitlement = registry.entitlement.as_ref().ok();
            RegistryStatus {
                audience: entitlement.map(|to| to.server.audience().as_str().to_owned()),
                ..row(registry.server, Some(registry.facts), reason)
            }
        });
        let left = case
            .leaving
            .iter()
            .filter(|server| case.registry(server).is_none());
        let left = left.filter_map(|server| {
            let known = case.facts.registries.get(*server);
            known?.stored.as_ref()?;
            Some(row(server, known, Reason::Progressing))
        });
        of_spec.chain(left).collect()
    }
}

fn row(server: &str, known: Option<&RegistryFacts>, reason: Reason) -> RegistryStatus {
    let stored = known.and_then(|known| known.stored.as_ref());
    let lifetime = stored.map(Entry::lifetime);
    RegistryStatus {
        server: server.to_owned(),
        audience: None,
        issued_at: lifetime.map(|lifetime| seconds(lifetime.start)),
        expires_at: lifetime.map(|lifetime| seconds(lifetime.end)),
        issued_for: stored.map(|stored| stored.issued_for().to_string()),
        reason: reason.to_string(),
    }
}

/// How the sentence about a conflict with another client begins.
const CONTESTED: &str = "Another client keeps changing this Secret";

fn issued(facts: &Facts, now: Timestamp) -> Problem {
    let object = &facts.object;
    let name = object.secret_name();
    let (reason, first) = if object.spec.suspend {
        let first = "Suspended (spec.suspend): credentials are not refreshed. They work until status.expiresAt.";
        (Reason::Suspended, first.to_owned())
    } else {
        let first = format!("Secret {name} holds a live credential for every registry.");
        (Reason::Issued, first)
    };
    let mut sentences = vec![first];
    let prefixes = &facts.settings.secret_metadata_prefixes;
    let metadata = AllowedMetadata::of(object.spec.secret.as_ref(), prefixes);
    for (why, keys) in metadata.left_out {
        let keys: Vec<String> = keys.iter().map(|key| shortened(key)).collect();
        let keys = keys.join(", ");
        sentences.push(format!(
            "Labels or annotations left out, because {why}: {keys}."
        ));
    }
    if object.annotations().contains_key(REFRESH_ANNOTATION) && object.refresh_request().is_none() {
        sentences.push("The annotation acrcred.dev/refresh has no effect: its value must be 1 to 64 letters, digits and . _ : + -".to_owned());
    }
    if facts.secret.is_owner_refused && matches!(facts.secret.place, Place::At(_)) {
        sentences.push("The API server does not accept an owner reference from acrcred, so deleting this object does not delete the Secret: delete it yourself.".to_owned());
    }
    // After a restart, what the Secret's metadata is like is known from what was said of it.
    if facts.secret.metadata.is_none()
        && let Some(before) = find(object.status.as_ref(), ConditionType::Ready, true)
        && before.reason == reason.as_str()
    {
        let without_conflict = before.message.split(CONTESTED).next();
        sentences = vec![without_conflict.unwrap_or_default().trim_end().to_owned()];
    }
    if facts
        .secret
        .is_contested(facts.cluster.resync_interval, now)
    {
        let by = facts.secret.changed_by.as_deref().map(shortened);
        let by = by.map(|by| format!(" (last: {by})")).unwrap_or_default();
        sentences.push(format!(
            "{CONTESTED}{by}, so acrcred repairs it only at each resync, and pulls may fail in between. Stop that client, or let it use another Secret."
        ));
    }
    let message = sentences.join(" ");
    Problem::passing(reason, message)
}

fn condition(
    object: &AcrCredential,
    kind: ConditionType,
    status: bool,
    problem: &Problem,
    now: Timestamp,
) -> Condition {
    let before = find(object.status.as_ref(), kind, status);
    Condition {
        type_: kind.as_str().to_owned(),
        status: text(status).to_owned(),
        reason: problem.reason.to_string(),
        message: problem.message.clone(),
        observed_generation: object.metadata.generation,
        last_transition_time: before.map_or_else(
            || seconds(now),
            |before| before.last_transition_time.clone(),
        ),
    }
}

/// The condition of this type and status.
fn find(
    status: Option<&AcrCredentialStatus>,
    kind: ConditionType,
    is_true: bool,
) -> Option<&Condition> {
    let mut conditions = status?.conditions.iter();
    conditions.find(|c| c.type_ == kind.as_str() && c.status == text(is_true))
}

fn text(is_true: bool) -> &'static str {
    if is_true { "True" } else { "False" }
}

/// Times in a status have whole seconds, so that what is compared is what was stored.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// An event for a problem that the status did not name before. Success and rotation publish none.
pub(super) fn transition(
    before: Option<&AcrCredentialStatus>,
    after: &AcrCredentialStatus,
) -> Option<Condition> {
    let problem = |status| {
        find(status, ConditionType::RefreshFailing, true)
            .or_else(|| find(status, ConditionType::Ready, false))
    };
    let silent = [Reason::Progressing.as_str(), Reason::Suspended.as_str()];
    let now = problem(Some(after)).filter(|now| !silent.contains(&now.reason.as_str()))?;
    let is_known = problem(before)
        .is_some_and(|before| before.reason == now.reason && before.type_ == now.type_);
    (!is_known).then(|| now.clone())
}

pub(super) fn standing(case: &Case<'_>, status: &AcrCredentialStatus) -> Standing {
    let has = |kind| find(Some(status), kind, true).is_some();
    let state = if case.facts.object.spec.suspend {
        State::Suspended
    } else if has(ConditionType::RefreshFailing) {
        State::Failing
    } else if has(ConditionType::Ready) {
        State::Ready
    } else {
        State::NotReady
    };
    Standing {
        state,
        expires_at: status.expires_at.as_ref().map(|time| time.0),
        refresh_at: status.refresh_at.as_ref().map(|time| time.0),
    }
}
