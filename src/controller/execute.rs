//! Carries out what was settled.

use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::Controller;
use super::api_call::{ApiError, ApiFailure};
use super::observe::lifetimes;
use super::queue::ObjectKey;
use super::secrets::WrittenSecret;
use crate::api::{AcrCredential, AcrCredentialStatus, FIELD_MANAGER};
use crate::plan::{
    Attempts, Note, Observed, Outcomes, Plan, SecretState, Settled, Snapshot, settle,
};

/// How often the Secret may turn out to be another than we thought before we step back.
const ROUNDS: usize = 5;
/// Limit of the events API for a note, in bytes.
const NOTE_LIMIT: usize = 1024;

// === impl Controller ===

impl Controller {
    /// Writes until the Secret is as it should be, then the status. What the API server answers is the
    /// next observation, so that the status says what there is and not what was meant. `None` where the
    /// namespace is going.
    pub(super) async fn execute(
        &self,
        observed: &mut Observed<'_>,
        key: &ObjectKey,
        plan: &Plan,
        outcomes: &Outcomes,
        remembered: &mut Attempts,
    ) -> Result<Option<Settled>, ApiError> {
        for _ in 0..ROUNDS {
            let settled = settle(observed, plan, outcomes, self.clock.now());
            // Also if the API server fails us below: what failed upstream did fail.
            remembered.clone_from(&settled.attempts);
            let Some(write) = &settled.write else {
                self.report(observed.object, key, &settled).await?;
                return Ok(Some(settled));
            };
            let written = match self.write_secret(observed.object, key, write).await {
                Ok(written) => written,
                Err(error) => {
                    // What there is, is the truth, also while it cannot be changed: an expiry is told. Where
                    // there is nothing yet, there is nothing to tell.
                    if observed.secret != SecretState::Absent {
                        let _ = self.report(observed.object, key, &settled).await;
                        self.count(key, &settled, outcomes);
                    }
                    return Err(error);
                }
            };
            match written {
                WrittenSecret::Written(secret) => {
                    let mut known = lifetimes(&observed.secret);
                    known.extend(outcomes.values().flatten().map(|credential| {
                        (
                            credential.token.digest().as_str().to_owned(),
                            credential.lifetime,
                        )
                    }));
                    let snapshot = Snapshot::of(&secret, &known, self.clock.now());
                    observed.secret = SecretState::Present(Box::new(snapshot));
                }
                WrittenSecret::Conflict => self.look_again(observed, key).await?,
                // The plugin OwnerReferencesPermissionEnforcement wants the right to delete for it.
                WrittenSecret::Refused(_) if restores_owner_reference(observed) => {
                    observed.owner_reference_refused = true;
                }
                WrittenSecret::Refused(refusal) => observed.refused = Some(refusal),
                WrittenSecret::RefusedForThis(refusal) => {
                    let before = observed.secret.clone();
                    self.look_again(observed, key).await?;
                    if observed.secret == before {
                        observed.refused = Some(refusal);
                    }
                }
                WrittenSecret::NamespaceGone => return Ok(None),
            }
        }
        // Whoever else writes it, the status must not go on telling of a credential that is no more.
        let settled = settle(observed, plan, outcomes, self.clock.now());
        self.report(observed.object, key, &settled).await?;
        Err(ApiError::Contended)
    }

    async fn report(
        &self,
        object: &AcrCredential,
        key: &ObjectKey,
        settled: &Settled,
    ) -> Result<(), ApiError> {
        if let Some(status) = &settled.status {
            self.write_status(object, key, status).await?;
        }
        if let Some(note) = &settled.note {
            self.publish(object, note).await;
        }
        Ok(())
    }

    /// Replaces the whole status, so that nothing that somebody else put there survives. The test keeps
    /// the status of a re-created object from speaking of its predecessor.
    async fn write_status(
        &self,
        object: &AcrCredential,
        key: &ObjectKey,
        status: &AcrCredentialStatus,
    ) -> Result<(), ApiError> {
        let objects: Api<AcrCredential> = Api::namespaced(self.client.clone(), &key.namespace);
        let operations = json!([
            {"op": "test", "path": "/metadata/uid", "value": object.metadata.uid},
            {"op": "add", "path": "/status", "value": status},
        ]);
        let patch = serde_json::from_value(operations).map_err(|error| ApiError::Failed {
            step: "writing the status",
            cause: ApiFailure::from(&kube::Error::SerdeError(error)),
        })?;
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let name = object.name_any();
        let patch = Patch::Json::<()>(patch);
        let call = objects.patch_status(&name, &params, &patch);
        match self.limit.call("writing the status", call).await? {
            Ok(mut written) => {
                written.managed_fields_mut().clear();
                self.objects.answered(key, object, written);
            }
            // Deleted or re-created meanwhile; the watch tells.
            Err(status) if status.is_not_found() || status.is_invalid() => {}
            Err(status) => {
                return Err(ApiError::Failed {
                    step: "writing the status",
                    cause: ApiFailure::from(&*status),
                });
            }
        }
        Ok(())
    }

    /// An event that cannot be written is only logged: the condition says the same.
    async fn publish(&self, object: &AcrCredential, note: &Note) {
        let mut text = note.message.clone();
        text.truncate(text.floor_char_boundary(NOTE_LIMIT));
        let event = Event {
            type_: EventType::Warning,
            reason: note.reason.clone(),
            note: Some(text),
            action: "Refresh".into(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        let call = self.recorder.publish(&event, &reference);
        match self.limit.call("publishing an event", call).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => tracing::warn!(code = status.code, "cannot publish an event"),
            Err(error) => tracing::warn!(%error, "cannot publish an event"),
        }
    }
}

/// Whether a write to the Secret would, beside all else, give it back our owner reference.
fn restores_owner_reference(observed: &Observed<'_>) -> bool {
    match &observed.secret {
        SecretState::Present(snapshot) => {
            !observed.owner_reference_refused && !snapshot.is_referred_to(observed.object)
        }
        SecretState::Absent | SecretState::Hidden => false,
    }
}
