//! What a decision rests on.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::SignedDuration;

use crate::credential::{Cause, Federation, Hop, MintError};
use crate::plan::{Observed, RefreshRequest, SecretState, ServiceAccountState, Snapshot, plan};

use super::Controller;
use super::api_call::ApiError;
use super::queue::ObjectKey;
use super::secrets::ReadSecret;
use super::tracked::Memory;
use crate::api::AcrCredential;

// === impl Controller ===

impl Controller {
    /// Gathers what is known of `object`, and reads its Secret and `ServiceAccount` where that is not known
    /// or long ago.
    pub(super) async fn observe<'a>(
        &'a self,
        object: &'a AcrCredential,
        key: &ObjectKey,
        memory: &Memory,
    ) -> Result<Observed<'a>, ApiError> {
        let mut observed = Observed {
            object,
            settings: &self.settings,
            federation: self.federation().await,
            service_account: known_service_account(object, memory),
            issuer: self.issuer(),
            refresh: RefreshRequest::of(object, memory.refresh.as_ref(), |value| {
                self.refresh_began(value)
            }),
            secret: memory.secret.clone().unwrap_or(SecretState::Absent),
            refused: None,
            owner_reference_refused: false,
            attempts: memory.attempts.clone(),
        };
        let now = self.clock.now();
        let is_stale = match memory.seen_at {
            // Of a new object, the POST tells whether there is a Secret: a read would tell no more. But
            // acrcred may have been killed between its first Secret and its first status.
            None => !(memory.is_created && is_new(object)),
            // Not ours when last seen: that may have changed.
            Some(_) if !observed.is_ours_to_write(now) => true,
            Some(seen_at) => now.duration_since(seen_at) >= self.sweep_interval(object),
        };
        if is_stale {
            self.look_again(&mut observed, key).await?;
        }
        // Before a mint always: an identity that is no more must not be used.
        let is_wanted = is_stale
            || observed.service_account == ServiceAccountState::Unread
            || plan(&observed, self.clock.now()).is_attempt();
        if is_wanted {
            self.read_service_account(&mut observed, key).await?;
        }
        Ok(observed)
    }

    /// Replaces what was known of the Secret by what there is.
    pub(super) async fn look_again(
        &self,
        observed: &mut Observed<'_>,
        key: &ObjectKey,
    ) -> Result<(), ApiError> {
        match self.read_secret(observed.object, key).await? {
            ReadSecret::Absent => observed.secret = SecretState::Absent,
            ReadSecret::Hidden => observed.secret = SecretState::Hidden,
            ReadSecret::Refused(refusal) => observed.refused = Some(refusal),
            ReadSecret::Found(secret) => {
                let known = lifetimes(&observed.secret);
                let snapshot = Snapshot::of(&secret, &known, self.clock.now());
                observed.secret = SecretState::Present(Box::new(snapshot));
            }
        }
        Ok(())
    }

    /// How long a look at the object's Secret serves: up to a fifth shorter than was configured, so that
    /// the looks of many objects spread out.
    pub(super) fn sweep_interval(&self, object: &AcrCredential) -> SignedDuration {
        let mut hasher = DefaultHasher::new();
        object.metadata.uid.hash(&mut hasher);
        let thousandths = i32::try_from(hasher.finish() % 200).unwrap_or_default();
        self.sweep_interval - self.sweep_interval / 1000 * thousandths
    }

    async fn federation(&self) -> Result<Federation, MintError> {
        match &self.assertion {
            Some(assertion) => assertion.federation().await,
            None => Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
        }
    }
}

/// What we remember of the `ServiceAccount` that the object names now.
fn known_service_account(object: &AcrCredential, memory: &Memory) -> ServiceAccountState {
    let named = object.spec.identity.as_ref();
    match (named, &memory.service_account) {
        (Some(named), Some((name, known))) if *name == named.service_account_name => known.clone(),
        _ => ServiceAccountState::Unread,
    }
}

/// Lifetimes of the tokens that we know.
pub(super) fn lifetimes(
    secret: &SecretState,
) -> std::collections::BTreeMap<String, crate::credential::Lifetime> {
    match secret {
        SecretState::Present(snapshot) => snapshot.lifetimes(),
        SecretState::Absent | SecretState::Hidden => std::collections::BTreeMap::default(),
    }
}

/// Nobody has written its status yet. A forged status costs its namespace a read, or a sweep's delay.
fn is_new(object: &AcrCredential) -> bool {
    object
        .status
        .as_ref()
        .is_none_or(|status| status.conditions.is_empty())
}
