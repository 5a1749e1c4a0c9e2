//! How the API server's answers about the Secret change what is known of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::backoff::Backoff;
use super::entry::{Entry, Issued};
use super::facts::{Facts, LATE_WRITE, Place, SecretFailure};
use super::problem::Problem;
use super::secret_call::{Refusal, SecretAnswer, SecretCall, SecretVersion};
use crate::credential::Digest;

/// A namespace that is being deleted is not restored; its objects are deleted with it.
const NAMESPACE_GONE: SignedDuration = SignedDuration::from_hours(1);

// === impl Facts ===

impl Facts {
    /// A watch reports this version of the Secret (`None`: it is gone), and the client that wrote last; false if it is
    /// the version that acrcred wrote, or an older one.
    pub fn secret_changed(&mut self, version: Option<&str>, by: Option<String>) -> bool {
        let Place::At(known) = &self.secret.place else {
            self.secret.changed_by = by.or(self.secret.changed_by.take());
            return false;
        };
        let reported = version
            .and_then(|version| version.parse::<u64>().ok())
            .unwrap_or(u64::MAX);
        let is_news = reported > known.number();
        if is_news {
            self.secret.watched = reported;
            self.secret.changed_by = by;
        }
        is_news
    }

    /// The API server answered a call about the Secret.
    pub fn secret_answered(&mut self, call: SecretCall, answer: SecretAnswer, now: Timestamp) {
        let is_write = call.write().is_some();
        if let SecretAnswer::Stored(_)
        | SecretAnswer::Going(_)
        | SecretAnswer::Conflict
        | SecretAnswer::Missing = &answer
        {
            // Only a write that succeeds ends the backoff of writes.
            let failure = self.secret.failure.take();
            let failure = failure.or(self.secret.last_failure.take());
            self.secret.last_failure = failure.filter(|_| !is_write);
        }
        let none = SignedDuration::ZERO;
        match answer {
            SecretAnswer::Stored(version) => {
                self.secret.latest = version.number().max(self.secret.latest);
                match call {
                    SecretCall::Create(write) | SecretCall::Replace(write) => {
                        self.secret_written(write.entries, write.metadata, version, now);
                    }
                    SecretCall::Find(_) => {
                        self.secret.place = Place::At(version);
                        self.secret.is_dirty = true;
                    }
                    SecretCall::Verify(_) => self.secret.checked_at = Some(now),
                }
            }
            // The write completed the deletion that another client's finalizer held up.
            SecretAnswer::Going(_) if is_write => self.secret_is_gone(now),
            // So will the write that this leads to.
            SecretAnswer::Going(version) => {
                self.lose_track();
                if let SecretCall::Find(_) = call {
                    self.secret.place = Place::At(version);
                }
            }
            SecretAnswer::Missing => self.secret_is_gone(now),
            SecretAnswer::Conflict => self.secret_conflicts(&call, now),
            SecretAnswer::Refused(Refusal::OwnerReference, _) if !self.secret.is_owner_refused => {
                self.secret.is_owner_refused = true;
            }
            SecretAnswer::Refused(refusal, problem) => {
                match refusal {
                    Refusal::NotOwned => {
                        self.secret.place = Place::Unknown { uid: None };
                        self.secret.written = None;
                        self.forget_stored(now);
                    }
                    Refusal::OwnerReference => self.secret.is_owner_refused = false,
                    Refusal::Immutable => {}
                }
                let holds_mints = refusal != Refusal::OwnerReference;
                self.fail_secret(Backoff::user_action, none, Some(problem), holds_mints, now);
            }
            SecretAnswer::NamespaceGone => {
                self.fail_secret(|_| NAMESPACE_GONE, none, None, true, now);
            }
            SecretAnswer::Failed {
                problem,
                retry_after,
            } => {
                self.outcome_is_unknown(&call, now);
                self.fail_secret(Backoff::retryable, retry_after, problem, false, now);
            }
        }
    }

    /// The Secret is there, and not in the version that was sent.
    fn secret_conflicts(&mut self, call: &SecretCall, now: Timestamp) {
        if let SecretCall::Find(_) = call
            && !call.sends_uid()
        {
            self.fail_secret(Backoff::retryable, SignedDuration::ZERO, None, false, now);
            return;
        }
        self.lose_track();
        if let SecretCall::Find(_) | SecretCall::Create(_) = call {
            self.secret.place = Place::Unknown { uid: None };
        }
        // The status of another replica may say more.
        if !matches!(call, SecretCall::Find(_)) {
            self.secret.conflict_at = Some(now);
        }
    }

    /// A write may have had effect, or may have it yet.
    fn outcome_is_unknown(&mut self, call: &SecretCall, now: Timestamp) {
        let Some(write) = call.write() else {
            return;
        };
        self.secret.unconfirmed_at = Some(now);
        for (server, issued) in &write.entries {
            let known = self.registries.entry(server.clone()).or_default();
            known.unconfirmed = Some(issued.clone());
        }
        if let SecretCall::Create(_) = call {
            self.secret.place = Place::Unknown { uid: None };
        }
    }

    fn fail_secret(
        &mut self,
        delay: impl FnOnce(u32) -> SignedDuration,
        floor: SignedDuration,
        problem: Option<Problem>,
        holds_mints: bool,
        now: Timestamp,
    ) {
        let before = self.secret.failure.take();
        let before = before.or(self.secret.last_failure.take());
        let before = before.as_ref().map(|failure| &failure.backoff);
        self.secret.failure = Some(SecretFailure {
            backoff: self.backoff(before, delay, floor, "secret", now),
            problem,
            holds_mints,
        });
    }

    fn secret_written(
        &mut self,
        entries: BTreeMap<String, Issued>,
        metadata: Digest,
        version: SecretVersion,
        now: Timestamp,
    ) {
        for (server, known) in &mut self.registries {
            if let Some(written) = entries.get(server) {
                let is_same = |(held, _): &mut (Issued, Timestamp)| {
                    held.credential.token == written.credential.token
                };
                known.in_hand.take_if(is_same);
            }
            known.stored = None;
            known.unconfirmed = None;
        }
        for (server, issued) in entries {
            self.registries.entry(server).or_default().stored = Some(Entry::Known(issued));
        }
        let secret = &mut self.secret;
        let is_another = secret.written.as_ref().is_some_and(|it| *it != version);
        if secret.is_dirty && secret.unconfirmed_at.is_none() && is_another {
            secret.repaired(self.cluster.resync_interval, now);
        }
        secret.place = Place::At(version.clone());
        secret.written = Some(version);
        secret.metadata = Some(metadata);
        secret.is_dirty = false;
        secret.unconfirmed_at = None;
        secret.checked_at = Some(now);
        secret.waiting_since = None;
    }

    /// Takes what the watch reported for what it is, now that no write is under way.
    pub(super) fn judge_watched(&mut self) {
        let watched = std::mem::take(&mut self.secret.watched);
        if matches!(&self.secret.place, Place::At(version) if watched > version.number()) {
            self.lose_track();
        }
    }

    /// The Secret is no longer what acrcred wrote.
    fn lose_track(&mut self) {
        let uid = match &self.secret.place {
            Place::At(version) => Some(version.uid.clone()),
            Place::Unknown { uid } => uid.clone(),
            Place::Absent => None,
        };
        self.secret.place = Place::Unknown { uid };
        self.secret.is_dirty = true;
        for known in self.registries.values_mut() {
            if let Some(Entry::Sealed { is_doubtful, .. }) = &mut known.stored {
                *is_doubtful = true;
            }
        }
    }

    fn secret_is_gone(&mut self, now: Timestamp) {
        self.forget_stored(now);
        let is_late = |since: &mut Timestamp| now.duration_since(*since) >= LATE_WRITE;
        if self.secret.unconfirmed_at.take_if(is_late).is_some() {
            for known in self.registries.values_mut() {
                known.unconfirmed = None;
            }
        }
        let secret = &mut self.secret;
        secret.place = Place::Absent;
        secret.written = None;
        secret.metadata = None;
        secret.is_dirty = false;
    }

    /// Nothing is stored. Known tokens still work: they are in hand again.
    fn forget_stored(&mut self, now: Timestamp) {
        for known in self.registries.values_mut() {
            if let Some(Entry::Known(issued)) = known.stored.take()
                && known.in_hand.is_none()
            {
                known.in_hand = Some((issued, now));
            }
        }
    }
}
