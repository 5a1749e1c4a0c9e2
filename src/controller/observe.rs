//! What a decision rests on.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};

use crate::credential::{Cause, Federation, Hop, MintError};
use crate::plan::{Observed, RefreshRequest, SecretState, ServiceAccountState, Snapshot, plan};

use super::Controller;
use super::api_call::ApiError;
use super::queue::ObjectKey;
use super::secrets::ReadSecret;
use super::tracked::{KnownServiceAccount, Memory};
use crate::api::AcrCredential;

// === impl Controller ===

impl Controller {
    /// Gathers what is known of `object` for a decision at `now`, and reads its Secret and `ServiceAccount`
    /// where that is not known or long ago.
    pub(super) async fn observe<'a>(
        &'a self,
        object: &'a AcrCredential,
        key: &ObjectKey,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Result<Observed<'a>, ApiError> {
        let named = object.spec.identity.as_ref();
        let known = memory.service_account.take();
        memory.service_account =
            known.filter(|known| named.is_some_and(|n| n.service_account_name == known.name));
        let mut observed = Observed {
            object,
            settings: &self.settings,
            federation: self.federation().await,
            service_account: memory
                .service_account
                .as_ref()
                .map_or_else(ServiceAccountState::default, |known| known.state.clone()),
            issuer: self.issuer(),
            refresh: RefreshRequest::of(object, memory.refresh.as_ref(), |value| {
                self.refresh_began(value)
            }),
            secret: memory.secret.clone().unwrap_or(SecretState::Absent),
            refused: None,
            owner_reference_refused: false,
            attempts: memory.attempts.clone(),
        };
        let sweep = self.sweep_interval(object);
        let is_stale = match memory.seen_at {
            // Of a new object, the POST tells whether there is a Secret: a read would tell no more. But
            // acrcred may have been killed between its first Secret and its first status.
            None => !(memory.is_created && is_new(object)),
            // Not ours when last seen: that may have changed.
            Some(_) if !observed.is_ours_to_write(now) => true,
            Some(seen_at) => now.duration_since(seen_at) >= sweep,
        };
        if is_stale {
            self.look_again(&mut observed, key).await?;
        }
        if let Some(named) = named {
            let is_known = memory
                .service_account
                .as_ref()
                .is_some_and(|known| now.duration_since(known.read_at) < sweep);
            // Before a mint always: an identity that is no more must not be used.
            if !is_known || plan(&observed, now).is_attempt() {
                let name = named.service_account_name.clone();
                observed.service_account = self.read_service_account(&name, key).await?;
                memory.service_account = Some(KnownServiceAccount {
                    name,
                    state: observed.service_account.clone(),
                    read_at: now,
                });
            }
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
