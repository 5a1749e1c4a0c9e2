//! One object as it stands now: each registry of its spec judged once, from the facts.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::backoff::Attempt;
use super::entitlement::{self, Entitlement};
use super::entry::{Entry, Issued};
use super::facts::{Facts, MAX_REGISTRIES, Place, RegistryFacts};
use super::identity;
use super::problem::Problem;
use super::schedule;
use super::settings::PolicyState;
use crate::credential::{
    Credential, Identity, IssuedFor, Lifetime, MintError, MintRequest, Principal, Scope,
    saturating_add,
};

/// An object, and what each of its registries needs.
pub(super) struct Case<'a> {
    pub facts: &'a Facts,
    pub now: Timestamp,
    /// Why nothing is minted for the object at all, if so.
    pub unsupported: Option<Problem>,
    /// Who asks, or why that is not known.
    pub identity: Result<Identity, MintError>,
    /// Whether nothing may be minted, whatever is due.
    pub mints_nothing: bool,
    /// In the order of the spec.
    pub registries: Vec<Registry<'a>>,
    /// Servers whose credentials are, or may be, in the Secret and must leave it.
    pub leaving: Vec<&'a str>,
}

/// One registry of the spec.
pub(super) struct Registry<'a> {
    pub server: &'a str,
    /// What the object may have, or why not.
    pub entitlement: Result<Entitlement, Problem>,
    /// What a credential must be issued for; `None` while the identity is not known.
    pub target: Option<IssuedFor>,
    pub facts: &'a RegistryFacts,
    /// What the Secret holds, if the object may keep it.
    pub stored: Option<&'a Entry>,
    /// What the Secret may hold, likewise.
    pub unconfirmed: Option<&'a Issued>,
    /// A credential that is not written yet, and since when, if it is for just this.
    pub in_hand: Option<&'a (Issued, Timestamp)>,
    /// The lifetime of what counts as its credential: in hand, else stored and issued for just this.
    current: Option<Lifetime>,
    /// When what counts as its credential was received, if this process received it.
    pub received_at: Option<Timestamp>,
    /// When its credential must be replaced; long ago if there is none.
    pub due_at: Timestamp,
    /// Before when no attempt is made, because the last ones failed.
    pub attempt_at: Option<Timestamp>,
    /// Since when a mint of what is wanted has been under way.
    pub in_flight_since: Option<Timestamp>,
    /// Whether the Secret holds a live credential for it.
    pub is_live: bool,
    /// Whether a write would lose a live credential: the Secret holds it, and its token is not known.
    pub is_blocker: bool,
}

/// What is known of a registry of which nothing is.
static NOTHING: RegistryFacts = RegistryFacts {
    stored: None,
    in_hand: None,
    unconfirmed: None,
    in_flight: Vec::new(),
    attempt: None,
};

/// How long a write waits for mints that are under way: a rotation of several registries is one write.
pub(super) const GATHER: SignedDuration = SignedDuration::from_secs(2);
/// Mints for one registry at a time; a spec that changes all the time must not start more.
const MAX_IN_FLIGHT: usize = 4;
/// A `ServiceAccount` is read again before a mint unless it was read this recently.
const ACCOUNT_IS_FRESH: SignedDuration = SignedDuration::from_secs(1);

// === impl Case ===

impl<'a> Case<'a> {
    pub fn of(facts: &'a Facts, now: Timestamp) -> Self {
        let identity = identity::identity(facts);
        let is_gone = identity::is_gone(facts, &identity);
        let registries: Vec<Registry<'a>> = facts
            .object
            .spec
            .registries
            .iter()
            .map(|spec| Registry::of(facts, spec, &identity, is_gone, now))
            .collect();
        let must_leave = |server: &str, known: &RegistryFacts| {
            let registry = registries.iter().find(|registry| registry.server == server);
            let keeps = |kept: fn(&Registry<'_>) -> bool| registry.is_some_and(kept);
            known.stored.is_some() && !keeps(|registry| registry.stored.is_some())
                || known.unconfirmed.is_some() && !keeps(|registry| registry.unconfirmed.is_some())
        };
        let known = facts.registries.iter();
        let leaving = known.filter(|(server, known)| must_leave(server, known));
        let unsupported = entitlement::unsupported(facts);
        // Where there is no Secret, nothing but another attempt shows whether one can be written.
        let is_held = facts.secret.failure.as_ref().is_some_and(|failure| {
            let retry_at = failure.backoff.next_at(&facts.revision(None));
            failure.holds_mints && (facts.secret.place != Place::Absent || retry_at > now)
        });
        Self {
            facts,
            now,
            identity,
            mints_nothing: unsupported.is_some()
                || facts.object.spec.suspend
                || is_held
                || facts.cluster.policy.state == PolicyState::Missing,
            unsupported,
            leaving: leaving.map(|(server, _)| server.as_str()).collect(),
            registries,
        }
    }

    /// Whether it is not known at present what a credential for this registry must be issued for.
    fn is_undecided(&self, registry: &Registry<'_>) -> bool {
        registry.entitlement.is_ok()
            && registry.target.is_none()
            && !identity::is_gone(self.facts, &self.identity)
    }

    /// The registry of the spec with this login server.
    pub fn registry(&self, server: &str) -> Option<&Registry<'a>> {
        let mut registries = self.registries.iter();
        registries.find(|registry| registry.server == server)
    }

    /// Whether something waits to be written: a credential in hand, or one that must leave the Secret.
    pub fn has_news(&self) -> bool {
        !self.leaving.is_empty() || self.registries.iter().any(|r| r.in_hand.is_some())
    }

    /// The registries whose credential is due: none, an old one, or one that a write needs.
    pub fn due(&self) -> impl Iterator<Item = &Registry<'a>> {
        let unseals = self.has_news();
        let registries = self.registries.iter();
        registries.filter(move |registry| self.is_due(registry, unseals))
    }

    /// A write, if one waits (`unseals`), needs the token of every entry that stays.
    fn is_due(&self, registry: &Registry<'_>, unseals: bool) -> bool {
        let is_old = registry.due_at <= self.now || (unseals && registry.is_blocker);
        !self.mints_nothing && registry.entitlement.is_ok() && is_old
    }

    /// The mints to start now.
    pub fn mints(&self) -> Vec<MintRequest> {
        let Ok(identity) = &self.identity else {
            return Vec::new();
        };
        if !self.account_is_fresh() {
            return Vec::new();
        }
        self.due()
            .filter_map(|registry| self.mint(registry, identity))
            .collect()
    }

    /// Until when a write waits for mints that started just now, or are about to.
    pub fn gathers_until(&self) -> Option<Timestamp> {
        let starts = !self.mints().is_empty();
        let since = self
            .registries
            .iter()
            .filter_map(|registry| registry.in_flight_since);
        let latest = since.chain(starts.then_some(self.now)).max()?;
        Some(saturating_add(latest, GATHER)).filter(|until| *until > self.now)
    }

    fn mint(&self, registry: &Registry<'a>, identity: &Identity) -> Option<MintRequest> {
        let Entitlement { server, scope } = registry.entitlement.as_ref().ok()?;
        let may_start =
            registry.may_start(self.now) && registry.facts.in_flight.len() < MAX_IN_FLIGHT;
        let asked_at = self.facts.asked_at(registry.received_at);
        let newer_than = registry.current.map(|lifetime| lifetime.start);
        may_start.then(|| MintRequest {
            identity: identity.clone(),
            server: server.clone(),
            scope: scope.clone(),
            // An older credential never replaces a newer one. `iat` has a resolution of one second; the time of
            // receipt distinguishes credentials of the same second.
            newer_than: newer_than.filter(|_| asked_at.is_none()),
            received_after: asked_at,
        })
    }

    /// Whether the `ServiceAccount`, if the object names one, was read just now: one that is gone must never be used.
    pub fn account_is_fresh(&self) -> bool {
        if self.facts.object.spec.identity.is_none() {
            return true;
        }
        let account = identity::named(self.facts);
        let read_at = account.and_then(|account| account.read_at);
        read_at.is_some_and(|at| self.now <= saturating_add(at, ACCOUNT_IS_FRESH))
    }

    /// When the next regular look at something is due: `checked_at` is the last one. The first one after a start
    /// comes a minute later, and all of them are spread over the interval.
    pub fn resync_at(&self, checked_at: Option<Timestamp>, purpose: &str) -> Timestamp {
        let cluster = &self.facts.cluster;
        let interval = cluster.resync_interval;
        let part = schedule::spread(self.facts.uid(), purpose);
        let scaled = |part: f64| SignedDuration::from_secs_f64(interval.as_secs_f64() * part);
        match checked_at {
            Some(at) => saturating_add(at, scaled(1.0 - 0.2 * part)),
            None => saturating_add(saturating_add(cluster.since, QUIET_START), scaled(part)),
        }
    }
}

/// After a start, nothing is verified for so long.
const QUIET_START: SignedDuration = SignedDuration::from_secs(60);

// === impl Registry ===

impl<'a> Registry<'a> {
    fn of(
        facts: &'a Facts,
        spec: &'a crate::api::Registry,
        identity: &Result<Identity, MintError>,
        is_gone: bool,
        now: Timestamp,
    ) -> Self {
        let known = facts.registries.get(&spec.server).unwrap_or(&NOTHING);
        let entitlement = entitlement::entitled(facts, spec);
        let entitled = entitlement.as_ref().ok();
        let of_both = entitled.zip(identity.as_ref().ok());
        let target = of_both.map(|(to, who)| IssuedFor::new(who, &to.server, &to.scope));
        // What may stay is that of an identity which is not known to be gone. Of the controller identity, it is only
        // where the object may still use it.
        let may_stay = |issued_for: &IssuedFor, is_of_scope: &dyn Fn(&Scope) -> bool| {
            entitled.filter(|_| !is_gone).is_some_and(|to| {
                let is_of_account = issued_for.principal() == Principal::ServiceAccount;
                (is_of_account || entitlement::may_use_controller_identity(facts, &to.server))
                    && is_of_scope(&to.scope)
            })
        };
        let covered = |issued: &Issued| {
            may_stay(&issued.issued_for, &|scope| {
                scope.covers(&issued.credential.token)
            })
        };
        let stored = known.stored.as_ref().filter(|entry| match entry {
            Entry::Known(issued) => covered(issued),
            Entry::Sealed { issued_for, .. } => {
                may_stay(issued_for, &|scope| issued_for.is_of_scope(scope))
            }
        });
        let in_hand = known.in_hand.as_ref().filter(|(issued, _)| {
            let is_live = issued.credential.lifetime.is_live(now);
            !is_gone && target.as_ref() == Some(&issued.issued_for) && is_live
        });
        let is_live = stored.is_some_and(|entry| entry.lifetime().is_live(now));
        let is_known = matches!(stored, Some(Entry::Known(_)));
        let is_doubtful = stored.is_some_and(Entry::is_doubtful);
        let names_account = facts.object.spec.identity.is_some();
        let is_of_target = |entry: &&Entry| match (&target, entry.issued_for()) {
            (Some(target), issued_for) => issued_for == target,
            (None, issued_for) => {
                (issued_for.principal() == Principal::ServiceAccount) == names_account
            }
        };
        let current = match in_hand {
            Some((issued, _)) => Some(issued.credential.lifetime),
            None => stored
                .filter(is_of_target)
                .filter(|_| !is_doubtful)
                .map(Entry::lifetime),
        };
        let received_at = match (in_hand, stored) {
            (Some((issued, _)), _) | (None, Some(Entry::Known(issued))) => {
                Some(issued.credential.received_at)
            }
            _ => None,
        };
        let asked_at = facts.asked_at(received_at).unwrap_or(Timestamp::MAX);
        let fraction = facts.settings.refresh_fraction;
        let due_at = current.map(|life| schedule::refresh_at(&life, fraction, facts.uid()));
        let revision = facts.revision(target.clone());
        let mut in_flight = known.in_flight.iter();
        let in_flight = in_flight.find(|(other, _)| Some(other) == target.as_ref());
        Self {
            server: &spec.server,
            facts: known,
            stored,
            unconfirmed: known.unconfirmed.as_ref().filter(|issued| covered(issued)),
            in_hand,
            current,
            received_at,
            due_at: due_at.map_or(Timestamp::MIN, |at| at.min(asked_at)),
            attempt_at: known
                .attempt
                .as_ref()
                .map(|attempt| attempt.next_at(&revision)),
            in_flight_since: in_flight.map(|(_, since)| *since),
            is_live,
            is_blocker: in_hand.is_none() && is_live && !is_known && !is_doubtful,
            entitlement,
            target,
        }
    }

    /// What the Secret should hold for it, if its token is known: what is in hand, else the newer of what is stored and
    /// what may be.
    pub fn entry(&self) -> Option<&'a Issued> {
        let stored = match self.stored {
            Some(Entry::Known(issued)) => Some(issued),
            _ => None,
        };
        let in_hand = self.in_hand.map(|(issued, _)| issued);
        in_hand.or_else(|| {
            let known = stored.into_iter().chain(self.unconfirmed);
            known.max_by_key(|issued| issued.credential.received_at)
        })
    }

    /// Whether an attempt may be made now: none is under way, and no backoff forbids it.
    pub fn may_start(&self, now: Timestamp) -> bool {
        self.in_flight_since.is_none() && self.attempt_at.is_none_or(|at| at <= now)
    }

    /// When the first answer about it came after `since`: a failure that is more than a request to wait.
    pub fn answered_at(&self, since: Timestamp) -> Option<Timestamp> {
        let (first, last) = self.facts.attempt.as_ref()?.answers?;
        (since <= last).then(|| first.max(since))
    }
}

// === impl Facts ===

impl Facts {
    /// Removes what no longer holds at `now`: credentials that the object may not have, and what a clock dated that
    /// has been set back since.
    pub fn tidy(&mut self, now: Timestamp) {
        self.rebase(now);
        self.judge_watched();
        let case = Case::of(self, now);
        // By server of the spec: whether what is in hand may be kept.
        let fits: BTreeMap<String, bool> = case
            .registries
            .iter()
            .map(|registry| {
                let may_keep = registry.in_hand.is_some() || case.is_undecided(registry);
                (registry.server.to_owned(), may_keep)
            })
            .collect();
        let count = self.registries.len();
        self.registries.retain(|server, known| {
            let fits = fits.get(server);
            known.in_hand.take_if(|_| fits != Some(&true));
            let attempt = known.attempt.as_ref().filter(|_| count <= MAX_REGISTRIES);
            fits.is_some()
                || known.stored.is_some()
                || known.unconfirmed.is_some()
                || !known.in_flight.is_empty()
                || attempt.is_some_and(|attempt| !attempt.backoff.is_forgotten(now))
        });
    }

    /// A mint ended; `None` if it was cancelled. What it was for may not be wanted any more.
    pub fn minted(
        &mut self,
        request: &MintRequest,
        result: Option<Result<Credential, MintError>>,
        now: Timestamp,
    ) {
        let issued_for = request.issued_for();
        let case = Case::of(self, now);
        let registry = case.registry(request.server.as_str());
        let target = registry.and_then(|registry| registry.target.clone());
        // What is not wanted any more is dropped; what is not known to be is kept, unless there is something better.
        let is_wanted = match (registry, &target) {
            (Some(_), Some(target)) => *target == issued_for,
            (Some(registry), None) => {
                registry.entitlement.is_ok() && registry.facts.in_hand.is_none()
            }
            (None, _) => false,
        };
        let revision = self.revision(Some(issued_for.clone()));
        let seed = format!("{}/{}", self.uid(), request.server);
        let known = self
            .registries
            .entry(request.server.as_str().to_owned())
            .or_default();
        let mut in_flight = known.in_flight.iter();
        if let Some(place) = in_flight.position(|(other, _)| *other == issued_for) {
            known.in_flight.remove(place);
        }
        match result {
            _ if !is_wanted => {}
            Some(Ok(credential)) => {
                let mut issued = Issued {
                    credential,
                    issued_for,
                };
                issued.rebase(now);
                known.in_hand = Some((issued, now));
                known.attempt = None;
            }
            Some(Err(error)) => {
                let previous = known.attempt.as_ref();
                known.attempt = Some(Attempt::failed(previous, error, revision, &seed, now));
            }
            None => {}
        }
    }
}
