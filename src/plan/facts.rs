//! What is known of one object, and how events change it. Nothing is decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::backoff::{Attempt, Backoff, Revision};
use super::entry::{Entry, Issued};
use super::problem::Problem;
use super::refresh::RefreshRequest;
use super::secret_call::SecretVersion;
use super::service_account::NamedAccount;
use super::settings::{ClusterFacts, Settings};
use crate::api::{AcrCredential, AcrCredentialStatus};
use crate::credential::{CLOCK_STEP, Digest, IssuedFor, Lifetime, saturating_add};

/// Everything that a decision about one object rests on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the platform administrator decided.
    pub settings: Arc<Settings>,
    /// What holds for every object.
    pub cluster: Arc<ClusterFacts>,
    /// The object as last seen.
    pub object: Arc<AcrCredential>,
    /// The `ServiceAccount` that the object names, as last read.
    pub account: Option<NamedAccount>,
    /// The refresh that the object's annotation asks for.
    pub refresh: Option<RefreshRequest>,
    /// By login server; also of registries that left the spec, as long as something is known of them.
    pub registries: BTreeMap<String, RegistryFacts>,
    /// The Secret.
    pub secret: SecretFacts,
    /// The last status that was written, and what the API server made of it.
    pub(super) reported: Option<(AcrCredentialStatus, Option<AcrCredentialStatus>)>,
    /// The last status that could not be written.
    pub(super) status_failure: Option<Backoff>,
    /// When the last decision was made.
    pub(super) decided_at: Timestamp,
}

/// What is known of one registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegistryFacts {
    /// What the Secret holds for it.
    pub stored: Option<Entry>,
    /// A credential that is not written yet, and since when.
    pub in_hand: Option<(Issued, Timestamp)>,
    /// What a write whose outcome is not known would have stored.
    pub unconfirmed: Option<Issued>,
    /// What mints under way will be issued for, and since when.
    pub in_flight: Vec<(IssuedFor, Timestamp)>,
    /// What failed since the last success.
    pub attempt: Option<Attempt>,
}

/// What is known of the Secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretFacts {
    /// Where it is.
    pub(super) place: Place,
    /// The version that acrcred wrote last.
    pub(super) written: Option<SecretVersion>,
    /// The latest version that this process has heard of.
    pub(super) latest: u64,
    /// When another client was found to have written it. A status that says that it was another replica may be on its
    /// way.
    pub(super) conflict_at: Option<Timestamp>,
    /// Of the labels, annotations and owner references that were written; `None`: not known.
    pub(super) metadata: Option<Digest>,
    /// It may differ from what acrcred wrote.
    pub(super) is_dirty: bool,
    /// When the outcome of a write was last not known.
    pub(super) unconfirmed_at: Option<Timestamp>,
    /// When it was last written or verified.
    pub(super) checked_at: Option<Timestamp>,
    /// The last call, if it failed.
    pub(super) failure: Option<SecretFailure>,
    /// A failure that is over as far as is known; one more write that fails continues its backoff.
    pub(super) last_failure: Option<SecretFailure>,
    /// The last repairs of what another client changed, at most [`REPAIRS`].
    pub(super) repairs: Vec<Timestamp>,
    /// When the last repair was made in a conflict with another client.
    pub(super) contested_at: Option<Timestamp>,
    /// The latest version that a watch has reported since the last decision: `u64::MAX` for a deletion, or for a
    /// version that is no number. It may be acrcred's own write, whose answer is on its way.
    pub(super) watched: u64,
    /// The client that changed it last, where that is known.
    pub(super) changed_by: Option<String>,
    /// Since when a write waits for sealed entries while something absent, expired or forbidden waits.
    pub(super) waiting_since: Option<Timestamp>,
    /// The API server refuses our owner reference.
    pub(super) is_owner_refused: bool,
}

/// Where the Secret is believed to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Place {
    /// There is none.
    #[default]
    Absent,
    /// There may be one; it had this UID.
    Unknown { uid: Option<String> },
    /// It is stored in this version.
    At(SecretVersion),
}

/// A call about the Secret that failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SecretFailure {
    pub backoff: Backoff,
    /// What to report; `None`: nothing that a user could act on.
    pub problem: Option<Problem>,
    /// Nothing is minted until it is over: nothing could be written.
    pub holds_mints: bool,
}

/// So many repairs in a minute are a conflict with another client.
pub(super) const REPAIRS: usize = 3;
/// A request that timed out cannot take effect later than this: the API server ends it.
pub(super) const LATE_WRITE: SignedDuration = SignedDuration::from_secs(65);
/// Nothing is believed of a refresh token in a status beyond this from now: 3 h, and some reserve.
const MAX_SEALED: SignedDuration = SignedDuration::from_mins(195);
/// The same of a token that is limited to repositories (about 75 min).
const MAX_SEALED_LIMITED: SignedDuration = SignedDuration::from_mins(80);
/// A spec that changes all the time must not fill the memory.
pub(super) const MAX_REGISTRIES: usize = 64;

// === impl SecretFacts ===

impl SecretFacts {
    /// Whether another client changes the Secret again and again: it did, and has not stopped for two resyncs.
    pub(super) fn is_contested(&self, resync_interval: SignedDuration, now: Timestamp) -> bool {
        self.contested_at
            .is_some_and(|at| now.duration_since(at) < resync_interval + resync_interval)
    }

    /// Takes note of a repair.
    pub(super) fn repaired(&mut self, resync_interval: SignedDuration, now: Timestamp) {
        self.repairs.push(now);
        let excess = self.repairs.len().saturating_sub(REPAIRS);
        self.repairs.drain(..excess);
        let is_quick = self.repairs.len() == REPAIRS
            && now.duration_since(self.repairs[0]) < SignedDuration::from_mins(1);
        if is_quick || self.is_contested(resync_interval, now) {
            self.contested_at = Some(now);
        }
    }
}

// === impl Facts ===

impl Facts {
    /// Of an object that was just seen first. What its status says of the Secret is believed; see
    /// [`Lifetime::recorded`] for how far.
    pub fn new(
        settings: Arc<Settings>,
        cluster: Arc<ClusterFacts>,
        object: Arc<AcrCredential>,
        now: Timestamp,
    ) -> Self {
        let mut facts = Self {
            settings,
            cluster,
            object,
            account: None,
            refresh: None,
            registries: BTreeMap::new(),
            secret: SecretFacts::default(),
            reported: None,
            status_failure: None,
            decided_at: now,
        };
        facts.seal(now);
        facts
    }

    /// A newer version of the object, or, if it `is_listed`, another one: after a restore of etcd, versions are lower.
    /// Where its status names a later version of the Secret than the one that this process knows, another replica
    /// wrote it. False if it is no news.
    pub fn seen(&mut self, object: Arc<AcrCredential>, is_listed: bool, now: Timestamp) -> bool {
        let version = |object: &AcrCredential| object.metadata.resource_version.clone();
        let (theirs, ours) = (version(&object), version(&self.object));
        let is_news = is_later(theirs.as_deref(), ours.as_deref());
        if !(is_news || is_listed && theirs != ours) {
            return false;
        }
        self.object = object;
        let theirs = self.stated_version();
        if theirs.is_some_and(|theirs| theirs.number() > self.secret.latest) {
            self.seal(now);
        }
        true
    }

    /// Takes note of the refresh annotation. `first_seen` gives the time at which a value was first seen.
    pub fn refresh_asked(&mut self, first_seen: impl FnOnce(&str) -> Timestamp) {
        let request = RefreshRequest::of(&self.object, self.refresh.as_ref(), first_seen);
        // Removing and adding the annotation again must not bypass the limit.
        if request.is_some() {
            self.refresh = request;
        }
    }

    /// Corrects or forgets every time that comes from a clock which has been set back since.
    pub(super) fn rebase(&mut self, now: Timestamp) {
        let before = std::mem::replace(&mut self.decided_at, now);
        if before <= saturating_add(now, CLOCK_STEP) {
            return;
        }
        for known in self.registries.values_mut() {
            known.attempt = None;
            known
                .in_flight
                .iter_mut()
                .for_each(|(_, since)| *since = now);
            known.stored.iter_mut().for_each(|entry| entry.rebase(now));
            known
                .unconfirmed
                .iter_mut()
                .for_each(|issued| issued.rebase(now));
            if let Some((issued, since)) = &mut known.in_hand {
                issued.rebase(now);
                *since = now;
            }
        }
        let secret = std::mem::take(&mut self.secret);
        self.secret = SecretFacts {
            unconfirmed_at: secret.unconfirmed_at.map(|_| now),
            checked_at: secret.checked_at.map(|_| now),
            failure: None,
            last_failure: None,
            repairs: Vec::new(),
            contested_at: None,
            conflict_at: None,
            waiting_since: None,
            ..secret
        };
        self.status_failure = None;
        if let Some(account) = &mut self.account {
            account.failure = None;
            account.read_at = None;
        }
        if let Some(request) = &mut self.refresh {
            request.since = request.since.min(now);
        }
    }

    /// The status was written; `got` is the object as the API server answered.
    pub fn status_written(
        &mut self,
        sent: AcrCredentialStatus,
        got: Arc<AcrCredential>,
        now: Timestamp,
    ) {
        self.status_failure = None;
        self.reported = Some((sent, got.status.clone()));
        self.seen(got, false, now);
    }

    /// The status could not be written.
    pub fn status_failed(&mut self, floor: SignedDuration, now: Timestamp) {
        let before = self.status_failure.take();
        self.status_failure =
            Some(self.backoff(before.as_ref(), Backoff::retryable, floor, "status", now));
    }

    /// The backoff of a call to the API server that failed, after `before`.
    pub(super) fn backoff(
        &self,
        before: Option<&Backoff>,
        delay: impl FnOnce(u32) -> SignedDuration,
        floor: SignedDuration,
        purpose: &str,
        now: Timestamp,
    ) -> Backoff {
        let seed = format!("{}/{purpose}", self.uid());
        let revision = self.revision(None);
        Backoff::after(before, revision, delay, floor, &seed, now)
    }

    /// Replaces what was known of the Secret by what the status says of it.
    fn seal(&mut self, now: Timestamp) {
        for known in self.registries.values_mut() {
            known.stored = None;
        }
        let before = std::mem::take(&mut self.secret);
        self.secret = SecretFacts {
            unconfirmed_at: before.unconfirmed_at,
            latest: before.latest,
            repairs: before.repairs,
            contested_at: before.contested_at,
            is_owner_refused: before.is_owner_refused,
            ..SecretFacts::default()
        };
        let status = self.object.status.as_ref();
        let Some(stated) = status.and_then(|status| status.secret.as_ref()) else {
            return;
        };
        let version = self.stated_version();
        self.secret.latest = version
            .as_ref()
            .map_or(0, SecretVersion::number)
            .max(self.secret.latest);
        let is_doubtful = version.is_none();
        self.secret.is_dirty = is_doubtful;
        let uid = Some(stated.uid.clone()).filter(|uid| !uid.is_empty());
        self.secret.place = version.clone().map_or(Place::Unknown { uid }, Place::At);
        self.secret.written = version;
        let object = self.object.clone();
        let is_limited = |server: &str| {
            let mut registries = object.spec.registries.iter();
            registries.any(|spec| spec.server == server && spec.repositories.is_some())
        };
        let rows = object.status.iter().flat_map(|status| &status.registries);
        for row in rows.take(MAX_REGISTRIES) {
            let (Some(issued_at), Some(expires_at)) = (&row.issued_at, &row.expires_at) else {
                continue;
            };
            let Some(issued_for) = row.issued_for.as_deref().and_then(IssuedFor::parse) else {
                continue;
            };
            let limit = if is_limited(&row.server) {
                MAX_SEALED_LIMITED
            } else {
                MAX_SEALED
            };
            let lifetime = Lifetime::recorded(issued_at.0, expires_at.0, limit, now);
            let known = self.registries.entry(row.server.clone()).or_default();
            // Another replica was faster.
            known.in_hand.take_if(|(held, _)| {
                held.issued_for == issued_for || held.credential.lifetime.start <= lifetime.start
            });
            known.stored = Some(Entry::Sealed {
                lifetime,
                issued_for,
                is_doubtful,
            });
        }
    }

    /// The version of the Secret that the status names, if it is one.
    fn stated_version(&self) -> Option<SecretVersion> {
        let stated = self.object.status.as_ref()?.secret.as_ref()?;
        SecretVersion::new(&stated.uid, &stated.resource_version)
    }

    /// What asks for an attempt now.
    pub(super) fn revision(&self, issued_for: Option<IssuedFor>) -> Revision {
        Revision {
            generation: self.object.metadata.generation,
            refresh: self.refresh.as_ref().map(|request| request.since),
            issued_for,
        }
    }

    /// When a new credential was asked for, unless the present one, received at `received_at`, is new enough.
    pub(super) fn asked_at(&self, received_at: Option<Timestamp>) -> Option<Timestamp> {
        let request = self
            .refresh
            .as_ref()
            .filter(|request| request.is_open(&self.object))?;
        let is_done = received_at.is_some_and(|at| request.since <= at);
        (!is_done).then_some(request.since)
    }

    /// The value to report as done: that of the request, if every registry has a credential that was received since, at
    /// the times of `received`, and there is one at least.
    pub(super) fn handled_refresh(
        &self,
        received: impl Iterator<Item = Option<Timestamp>>,
    ) -> Option<String> {
        let request = self
            .refresh
            .as_ref()
            .filter(|request| request.is_open(&self.object))?;
        let mut received = received.peekable();
        received.peek()?;
        let is_done = received.all(|at| self.asked_at(at).is_none());
        is_done.then(|| request.value.clone())
    }

    /// The object's UID.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The object's namespace.
    pub(super) fn namespace(&self) -> &str {
        self.object
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// Whether the Secret holds a credential that pods may be using.
    pub fn is_renewal(&self) -> bool {
        self.registries.values().any(|known| known.stored.is_some())
    }
}

/// Resource versions of one kind are ordered numbers (KEP-5504); where one is no number, it is later.
fn is_later(version: Option<&str>, than: Option<&str>) -> bool {
    let number = |version: Option<&str>| version?.parse::<u128>().ok();
    match (number(version), number(than)) {
        (Some(new), Some(old)) => new > old,
        _ => true,
    }
}
