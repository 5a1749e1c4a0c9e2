//! The one decision: what to do now for one object.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::api::ObjectMeta;

use super::case::{Case, GATHER, Registry};
use super::entry::Issued;
use super::facts::{Facts, LATE_WRITE, Place};
use super::secret_call::{SecretCall, SecretVersion};
use super::settings::PolicyState;
use super::status::{self, StatusWrite};
use super::{identity, secret};
use crate::credential::{MintRequest, saturating_add};

/// What to do now. Nothing else is ever executed.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Mints to start. Each ends in a fact of its own.
    pub mints: Vec<MintRequest>,
    /// The one call to the API server to make now. Its answer is a fact, and then the next step is decided.
    pub call: Option<Call>,
    /// Whether the admission policy must be checked before a write.
    pub checks_policy: bool,
    /// When to decide again at the latest; `None`: at the next event.
    pub wake_at: Option<Timestamp>,
    /// Since when a write waits for sealed entries; to remember.
    pub waiting_since: Option<Timestamp>,
    /// For the metrics.
    pub standing: Option<status::Standing>,
}

/// One call to the API server.
#[derive(Clone, Debug)]
pub enum Call {
    /// Read the `ServiceAccount` of this name.
    ReadServiceAccount(String),
    /// A call about the Secret.
    Secret(Box<SecretCall>),
    /// Write the status.
    WriteStatus(Box<StatusWrite>),
}

/// How long the status of another replica may be on its way after its write was met.
const CONFLICT: SignedDuration = SignedDuration::from_secs(1);
/// How long a write waits for a sealed entry after the first answer about it, where something absent, expired or
/// forbidden waits with it.
const AFTER_ANSWER: SignedDuration = SignedDuration::from_secs(60);
/// The same without any answer.
const WITHOUT_ANSWER: SignedDuration = SignedDuration::from_mins(10);
/// A live credential that waits for a sealed entry is written when this part of the old one's life is left …
const RESERVE: f64 = 0.1;
/// … or this much of it.
const MIN_RESERVE: SignedDuration = SignedDuration::from_mins(5);
/// Without a token file there is no event when it appears.
const OWN_TOKEN_RETRY: SignedDuration = SignedDuration::from_secs(15);

/// Decides what to do at `now`. Total: every failure is a fact.
pub fn step(facts: &Facts, now: Timestamp) -> Step {
    if facts.object.metadata.deletion_timestamp.is_some() {
        return Step::default();
    }
    let case = Case::of(facts, now);
    let mints = case.mints();
    let about_secret = secret_step(&case);
    let desired = status::status(&case, about_secret.checks_policy);
    let standing = Some(status::standing(&case, &desired));
    let is_calling = about_secret.call.is_some();
    let (status, status_at) = status_step(&case, desired, &mints, is_calling);
    let (account, account_at) = match account_to_read(&case) {
        Ok(name) => (Some(Call::ReadServiceAccount(name)), None),
        Err(at) => (None, at),
    };
    let status = status.map(|write| Call::WriteStatus(Box::new(write)));
    let resync_at = Some(case.resync_at(Some(now), "wake"));
    let wakes = [about_secret.wake_at, status_at, account_at, resync_at];
    let registries = case.registries.iter();
    let wakes_of = registries.flat_map(|registry| wakes_of(&case, registry));
    let wakes = wakes.into_iter().flatten().chain(wakes_of);
    Step {
        mints,
        call: account.or(about_secret.call).or(status),
        wake_at: wakes.filter(|at| *at > now).min(),
        standing,
        ..about_secret
    }
}

/// When one registry needs a decision again.
fn wakes_of(case: &Case<'_>, registry: &Registry<'_>) -> impl Iterator<Item = Timestamp> {
    let facts = case.facts;
    let expiry = registry.stored.map(|entry| entry.lifetime().end);
    let is_mintable = registry.entitlement.is_ok() && !case.mints_nothing;
    let due = is_mintable.then_some(registry.due_at);
    let retry = registry.attempt_at.filter(|_| is_mintable);
    let own_token = (is_mintable && case.identity.is_err() && facts.object.spec.identity.is_none())
        .then(|| saturating_add(case.now, OWN_TOKEN_RETRY));
    [expiry, due, retry, own_token].into_iter().flatten()
}

/// The `ServiceAccount` to read now, or when to read it next.
fn account_to_read(case: &Case<'_>) -> Result<String, Option<Timestamp>> {
    let facts = case.facts;
    let Some(named) = &facts.object.spec.identity else {
        return Err(None);
    };
    let known = identity::named(facts);
    let regular = case.resync_at(known.and_then(|known| known.read_at), "account");
    let is_wanted = || case.due().any(|registry| registry.may_start(case.now));
    let failure = known.and_then(|known| known.failure.as_ref());
    let is_old = failure.is_some() || !case.account_is_fresh();
    let is_another = facts.account.is_some() && known.is_none();
    let is_due = regular <= case.now || is_another || (is_old && is_wanted());
    let retry_at = failure.map(|failure| failure.next_at(&facts.revision(None)));
    match retry_at {
        Some(at) if at > case.now => Err(Some(at)),
        _ if is_due => Ok(named.service_account_name.clone()),
        _ => Err(Some(regular)),
    }
}

/// The credentials that the Secret should hold and whose tokens are known.
fn entries(case: &Case<'_>) -> BTreeMap<String, Issued> {
    let registries = case.registries.iter();
    registries
        .filter_map(|registry| Some((registry.server.to_owned(), registry.entry()?.clone())))
        .collect()
}

fn secret_step(case: &Case<'_>) -> Step {
    let (facts, now) = (case.facts, case.now);
    let known = &facts.secret;
    if let Some(failure) = &known.failure {
        let retry_at = failure.backoff.next_at(&facts.revision(None));
        if retry_at > now {
            return Step::wait(retry_at);
        }
    }
    let metadata = secret::metadata(facts);
    let find = |uid: Option<String>| {
        let mut secret = secret::secret(metadata.clone(), None, std::iter::empty());
        secret.metadata.uid = uid;
        SecretCall::Find(Box::new(secret))
    };
    let entries = entries(case);
    // Only another call shows that what failed is over.
    let has_failed = known.failure.is_some();
    let is_held = known.failure.as_ref().is_some_and(|it| it.holds_mints);
    let written = known.metadata.as_ref();
    let is_changed = written.is_some_and(|old| *old != secret::digest(&metadata));
    let is_wanted = case.has_news() || is_changed || (known.is_dirty && !entries.is_empty());
    let conflict_ends = known
        .conflict_at
        .map_or(now, |at| saturating_add(at, CONFLICT));
    match &known.place {
        Place::Absent if entries.is_empty() => late_write(case, find(None)),
        Place::Absent => when_written(case, || {
            SecretCall::Create(secret::write(facts, metadata.clone(), None, entries))
        }),
        Place::Unknown { .. } if conflict_ends > now => Step::wait(conflict_ends),
        // Another client that writes all the time must not cost a request each time.
        Place::Unknown { .. } if !has_failed && repair_at(case).is_some_and(|at| at > now) => {
            Step {
                wake_at: repair_at(case),
                ..Step::default()
            }
        }
        Place::Unknown { uid } if is_wanted || has_failed => {
            after_policy_check(case, true, || find(uid.clone()))
        }
        Place::Unknown { .. } => Step::default(),
        Place::At(version) if is_held => {
            after_policy_check(case, true, || find(Some(version.uid.clone())))
        }
        Place::At(version) if is_wanted => {
            let write = when_written(case, || {
                SecretCall::Replace(secret::write(
                    facts,
                    metadata.clone(),
                    Some(version),
                    entries,
                ))
            });
            // A write that waits must not leave a failure standing that is over.
            if write.wake_at.is_some() && has_failed && known.metadata.is_none() {
                return Step {
                    call: Step::call(verify(metadata, version)).call,
                    ..write
                };
            }
            write
        }
        Place::At(version) => {
            let resync_at = case.resync_at(known.checked_at, "resync");
            // A credential that is about to come is written anyway.
            let (resync_at, is_minting) = match case.gathers_until() {
                Some(until) => (resync_at.max(until), true),
                None => (resync_at, false),
            };
            if (now < resync_at && !has_failed) || is_minting || known.is_dirty {
                return Step::wait(resync_at);
            }
            if known.metadata.is_none() {
                return Step::call(verify(metadata, version));
            }
            after_policy_check(case, false, || {
                SecretCall::Replace(secret::write(facts, metadata, Some(version), entries))
            })
        }
    }
}

fn verify(metadata: ObjectMeta, version: &SecretVersion) -> SecretCall {
    let secret = secret::secret(metadata, Some(version), std::iter::empty());
    SecretCall::Verify(Box::new(secret))
}

/// A write of unknown outcome may have left a Secret behind, or may do so until the API server has given it up.
fn late_write(case: &Case<'_>, find: SecretCall) -> Step {
    let Some(since) = case.facts.secret.unconfirmed_at else {
        return Step::default();
    };
    let at = saturating_add(since, LATE_WRITE);
    if case.now < at {
        return Step::wait(at);
    }
    after_policy_check(case, true, || find)
}

/// A write, once it has waited for what it should wait for.
fn when_written(case: &Case<'_>, call: impl FnOnce() -> SecretCall) -> Step {
    if case.facts.cluster.policy.state != PolicyState::InForce {
        return after_policy_check(case, false, call);
    }
    let (until, waiting_since) = hold(case);
    if case.now < until {
        return Step {
            waiting_since,
            ..Step::wait(until)
        };
    }
    let is_takeover = case.facts.secret.is_dirty;
    Step {
        waiting_since,
        ..after_policy_check(case, is_takeover, call)
    }
}

/// A call that is safe only while the policy is in force; with `recent`, as of the last minute: only the policy distinguishes
/// a foreign Secret from ours.
fn after_policy_check(case: &Case<'_>, recent: bool, call: impl FnOnce() -> SecretCall) -> Step {
    let policy = &case.facts.cluster.policy;
    let is_checked =
        policy.state == PolicyState::InForce && (!recent || policy.is_recent(case.now));
    if is_checked {
        return Step::call(call());
    }
    Step {
        checks_policy: true,
        ..Step::default()
    }
}

/// Until when a write waits; and since when it waits for sealed entries although something absent, expired or
/// forbidden waits with it.
fn hold(case: &Case<'_>) -> (Timestamp, Option<Timestamp>) {
    let (facts, now) = (case.facts, case.now);
    let registries = || case.registries.iter();
    let in_hand = || registries().filter_map(|registry| Some((registry, registry.in_hand?.1)));
    let blockers: Vec<_> = registries()
        .filter(|registry| registry.is_blocker)
        .collect();
    let is_final = facts.object.spec.suspend || case.unsupported.is_some();
    if is_final && case.leaving.is_empty() {
        // Nothing can be minted in their place, and nothing is lost by waiting.
        let ends = blockers
            .iter()
            .filter_map(|blocker| Some(blocker.stored?.lifetime().end));
        return (ends.max().unwrap_or(now), None);
    }
    if blockers.is_empty() || is_final {
        let is_minting = registries().any(|registry| registry.in_flight_since.is_some());
        return match in_hand().map(|(_, since)| since).min() {
            Some(since) if is_minting && case.leaving.is_empty() => {
                (saturating_add(since, GATHER), None)
            }
            _ => (repair_at(case).unwrap_or(now), None),
        };
    }
    let live = |registry: &Registry<'_>| {
        let lifetime = registry.stored?.lifetime();
        lifetime.is_live(now).then_some(lifetime)
    };
    let with_reserve = in_hand().filter_map(|(registry, _)| {
        let lifetime = live(registry)?;
        let reserve = lifetime.part(RESERVE).max(MIN_RESERVE);
        Some(saturating_add(lifetime.end, -reserve))
    });
    let is_urgent =
        !case.leaving.is_empty() || in_hand().any(|(registry, _)| live(registry).is_none());
    let waiting_since = is_urgent.then(|| facts.secret.waiting_since.unwrap_or(now));
    let urgent = waiting_since.map(|since| {
        let answers = blockers.iter().map(|blocker| blocker.answered_at(since));
        let answered = answers
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max());
        let without = saturating_add(since, WITHOUT_ANSWER);
        answered.map_or(without, |at| saturating_add(at, AFTER_ANSWER).min(without))
    });
    (
        with_reserve.chain(urgent).min().unwrap_or(now),
        waiting_since,
    )
}

/// When the next repair is made, if another client changes the Secret again and again: at the next resync.
fn repair_at(case: &Case<'_>) -> Option<Timestamp> {
    let secret = &case.facts.secret;
    let is_contested = secret.is_contested(case.facts.cluster.resync_interval, case.now);
    (secret.is_dirty && is_contested && !case.has_news())
        .then(|| case.resync_at(secret.checked_at, "resync"))
}

/// The status to write now, if any, and when to decide about it again.
fn status_step(
    case: &Case<'_>,
    desired: crate::api::AcrCredentialStatus,
    mints: &[MintRequest],
    is_writing: bool,
) -> (Option<StatusWrite>, Option<Timestamp>) {
    let (facts, now) = (case.facts, case.now);
    // In a namespace that is being deleted there is no status to write.
    let failure = facts.secret.failure.as_ref();
    let is_going = failure.is_some_and(|failure| failure.holds_mints && failure.problem.is_none());
    if is_going || !status::is_news(facts, &desired) {
        return (None, None);
    }
    if let Some(failure) = &facts.status_failure {
        let at = failure.next_at(&facts.revision(None));
        if at > now {
            return (None, Some(at));
        }
    }
    // What is under way most likely changes it in a moment. A new version of the Secret is recorded at once: a new process
    // must know of it.
    let present = facts.object.status.as_ref();
    let is_recorded =
        desired.secret.as_ref() == present.and_then(|present| present.secret.as_ref());
    let started = (!mints.is_empty()).then_some(now);
    let registries = case.registries.iter();
    let begun = registries.flat_map(|registry| {
        let in_hand = registry.in_hand.map(|(_, since)| *since);
        registry.in_flight_since.into_iter().chain(in_hand)
    });
    let soon = begun
        .chain(started)
        .map(|since| saturating_add(since, GATHER));
    let soon = soon.filter(|at| *at > now && is_recorded).max();
    match soon {
        Some(at) => (None, Some(at)),
        None if is_writing => (None, None),
        None => {
            let event = status::transition(present, &desired);
            let write = StatusWrite {
                status: desired,
                event,
            };
            (Some(write), None)
        }
    }
}

// === impl Step ===

impl Step {
    fn wait(until: Timestamp) -> Self {
        Self {
            wake_at: Some(until),
            ..Self::default()
        }
    }

    fn call(call: SecretCall) -> Self {
        Self {
            call: Some(Call::Secret(Box::new(call))),
            ..Self::default()
        }
    }
}

// === impl Facts ===

impl Facts {
    /// A step was decided: its mints are under way.
    pub fn stepped(&mut self, step: &Step, now: Timestamp) {
        self.secret.waiting_since = step.waiting_since;
        for mint in &step.mints {
            let known = self.registries.entry(mint.server.as_str().to_owned());
            let in_flight = &mut known.or_default().in_flight;
            in_flight.push((mint.issued_for(), now));
        }
    }
}
