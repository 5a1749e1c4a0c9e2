//! Carries out steps for one object: decide, start mints, make the one call, take note of its answer, decide again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Controller;
use super::queue::ObjectKey;
use crate::api::AcrCredential;
use crate::credential::{Cause, saturating_add};
use crate::plan::{Call, SecretAnswer, SecretCall, StatusWrite};
use crate::process::{self, ReconcileResult};

/// Calls for one object in a row; then others have their turn.
const CALLS: usize = 12;
/// When it is this one's turn again.
const NEXT_TURN: SignedDuration = SignedDuration::from_secs(1);
/// After a panic, whose cause is most likely still there.
const PANIC_BACKOFF: SignedDuration = SignedDuration::from_mins(5);

/// How the calls for one object went, and when it is looked at again.
type Outcome = (ReconcileResult, Option<Timestamp>);

// === impl Controller ===

impl Controller {
    /// Reconciles an object, unless another task does; whatever happens: a panic is counted and ends this reconcile
    /// only.
    pub(super) async fn reconcile(self: Arc<Self>, key: ObjectKey, over: CancellationToken) {
        while let Some(uid) = self.objects.begin(&key) {
            let started = Instant::now();
            let span = tracing::info_span!("reconcile", namespace = key.namespace, name = key.name);
            let work = self.carry_out(&key, &uid, &over).instrument(span.clone());
            let caught = Box::pin(AssertUnwindSafe(work).catch_unwind()).await;
            let (result, wake_at) = caught.unwrap_or_else(|_| {
                let _entered = span.enter();
                tracing::error!("a reconcile panicked; the object is retried in 5 minutes");
                let now = self.clock.now();
                self.objects.reset(&key, &uid, now);
                let again = saturating_add(now, PANIC_BACKOFF);
                (ReconcileResult::Panic, Some(again))
            });
            self.metrics.reconciled(result, started.elapsed());
            let is_pending = self.objects.end(&key, &uid);
            if let Some(at) = wake_at {
                self.queue.schedule(&key, at);
            }
            // What happened meanwhile is dealt with at once: a stop of the process waits for it.
            if !is_pending || result == ReconcileResult::Panic {
                break;
            }
            // It belongs to the next term.
            if over.is_cancelled() {
                self.queue.schedule(&key, self.clock.now());
                break;
            }
        }
    }

    async fn carry_out(
        self: &Arc<Self>,
        key: &ObjectKey,
        uid: &str,
        over: &CancellationToken,
    ) -> Outcome {
        let mut result = ReconcileResult::Success;
        let mut slot = None;
        for _ in 0..CALLS {
            let cluster = self.cluster_facts().await;
            let now = self.clock.now();
            let first_seen = |value: &str| self.refresh_began(value);
            let decided = self.objects.decide(key, uid, cluster, first_seen, now);
            let Some((step, object)) = decided else {
                return (result, None);
            };
            for mint in step.mints {
                self.start_mint(key, &object, mint, over);
            }
            if step.checks_policy {
                self.policy_wanted.notify_one();
            }
            if let Some(standing) = step.standing {
                let standing = process::Standing {
                    state: standing.state.into(),
                    is_ready: standing.state.is_ready(),
                    expires_at: standing.expires_at,
                    refresh_at: standing.refresh_at,
                };
                // Only while it is there: the series of one that was deleted meanwhile would stay for ever.
                self.objects.with(key, uid, |_| {
                    self.metrics.set_object(&key.namespace, &key.name, standing);
                });
            }
            let Some(call) = step.call else {
                return (result, step.wake_at);
            };
            if slot.is_none() {
                slot = self.cluster.slot().await;
                if slot.is_none() {
                    tracing::warn!(
                        "no call to the API server could begin within 10 s: too many are under way"
                    );
                    result = ReconcileResult::Failure;
                    break;
                }
                // The decision may be another by now.
                continue;
            }
            let is_answered = match call {
                Call::ReadServiceAccount(name) => self.read_account(key, uid, &name).await,
                Call::Secret(call) => self.call_secret(key, &object, *call, over).await,
                Call::WriteStatus(write) => self.write_status(key, &object, *write).await,
            };
            if !is_answered {
                result = ReconcileResult::Failure;
            }
            if over.is_cancelled() {
                return (result, None);
            }
        }
        (result, Some(saturating_add(self.clock.now(), NEXT_TURN)))
    }

    async fn read_account(&self, key: &ObjectKey, uid: &str, name: &str) -> bool {
        let read = self.cluster.read_service_account(&key.namespace, name);
        let answer = read.await;
        let (is_answered, now) = (answer != Err(Cause::ApiServer), self.clock.now());
        self.objects
            .with(key, uid, |facts| facts.account_read(name, answer, now));
        is_answered
    }

    async fn call_secret(
        &self,
        key: &ObjectKey,
        object: &AcrCredential,
        call: SecretCall,
        over: &CancellationToken,
    ) -> bool {
        let answer = over
            .run_until_cancelled(self.cluster.secret(object, &call))
            .await;
        // Dropped: it may have had effect, or may have it yet.
        let answer = answer.unwrap_or(SecretAnswer::Failed {
            problem: None,
            retry_after: SignedDuration::ZERO,
        });
        let is_answered = !matches!(answer, SecretAnswer::Failed { .. });
        let now = self.clock.now();
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        self.objects
            .with(key, uid, |facts| facts.secret_answered(call, answer, now));
        is_answered
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        object: &AcrCredential,
        write: StatusWrite,
    ) -> bool {
        let answer = self.cluster.write_status(object, &write.status).await;
        let now = self.clock.now();
        let mut floor = SignedDuration::ZERO;
        if let Err(failure) = &answer {
            tracing::warn!(%failure, "cannot write the status");
            floor = failure.retry_after();
        }
        let written = answer.ok().flatten();
        let is_written = written.is_some();
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        self.objects.with(key, uid, |facts| match written {
            Some(written) => facts.status_written(write.status, Arc::new(written), now),
            None => facts.status_failed(floor, now),
        });
        if !is_written {
            return false;
        }
        if let Some(event) = write.event {
            tracing::warn!(
                reason = event.reason,
                detail = event.message,
                "AcrCredential has a problem"
            );
            self.cluster.publish(object, &event, now).await;
        } else {
            tracing::info!("status written");
        }
        true
    }
}
