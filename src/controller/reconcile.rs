//! One look at one object: observe, plan, mint, settle, execute.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Controller;
use super::api_call::ApiError;
use super::queue::ObjectKey;
use super::service_accounts::TokenRequests;
use super::tracked::{Memory, Work};
use crate::api::AcrCredential;
use crate::azure::MintRequest;
use crate::credential::{Cause, Hop, MintError, saturating_add};
use crate::plan::{Outcomes, Plan, Settled, State, plan};
use crate::process::{ReconcileResult, Standing, State as MetricState};

const API_BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(1);
const API_BACKOFF_CAP: SignedDuration = SignedDuration::from_secs(60);
/// After a panic, whose cause will most likely be there again.
const PANIC_BACKOFF: SignedDuration = SignedDuration::from_mins(5);

// === impl Controller ===

impl Controller {
    /// Reconciles, whatever happens: a panic is counted and ends this reconcile only. Dropped when `over` is
    /// cancelled.
    pub(super) async fn reconcile_caught(
        self: Arc<Self>,
        key: ObjectKey,
        work: Work,
        over: CancellationToken,
    ) {
        let Work { object, mut memory } = work;
        let started = Instant::now();
        let span = tracing::info_span!("reconcile", namespace = key.namespace, name = key.name);
        let look = self
            .reconcile(&object, &key, &mut memory)
            .instrument(span.clone());
        let look = over.run_until_cancelled(AssertUnwindSafe(look).catch_unwind());
        let Some(result) = Box::pin(look).await else {
            // Whoever may work next looks at everything anew.
            self.objects.end(&key, &object, memory);
            return;
        };
        let now = self.clock.now();
        let took = started.elapsed();
        let has_failed = !matches!(result, Ok(Ok(_)));
        let wake_at = span.in_scope(|| match result {
            Ok(Ok(wake_at)) => {
                self.metrics.reconciled(ReconcileResult::Success, took);
                memory.api_failures = 0;
                wake_at
            }
            Ok(Err(error)) => {
                self.metrics.reconciled(ReconcileResult::Failure, took);
                tracing::warn!(%error, "will be tried again");
                let floor = error.retry_after().min(API_BACKOFF_CAP);
                Some(saturating_add(now, api_backoff(&mut memory).max(floor)))
            }
            Err(_) => {
                self.metrics.reconciled(ReconcileResult::Panic, took);
                tracing::error!("a reconcile panicked; will be tried again");
                memory = Memory::default();
                Some(saturating_add(now, PANIC_BACKOFF))
            }
        });
        if self.objects.end(&key, &object, memory) {
            // Whoever changes things all the time must not talk us out of a backoff.
            let again_at = wake_at.filter(|_| has_failed).unwrap_or(now);
            self.queue.schedule(&key, again_at);
        } else if let Some(wake_at) = wake_at
            && self.objects.contains(&key, object.metadata.uid.as_ref())
        {
            self.queue.schedule(&key, wake_at);
        }
    }

    async fn reconcile(
        &self,
        object: &AcrCredential,
        key: &ObjectKey,
        memory: &mut Memory,
    ) -> Result<Option<Timestamp>, ApiError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let now = self.clock.now();
        let mut observed = self.observe(object, key, memory, now).await?;
        let plan = plan(&observed, now);
        let outcomes = self.mint(object, key, &plan).await;
        if let Some(request) = &mut observed.refresh {
            request.serve(&outcomes, &observed.secret);
        }
        // Who removes the annotation in between is not served more often.
        if observed.refresh.is_some() {
            memory.refresh.clone_from(&observed.refresh);
        }
        observed.issuer = self.issuer();
        let known_before = memory.secret.as_ref() == Some(&observed.secret);
        let attempts = &mut memory.attempts;
        let settled = self
            .execute(&mut observed, key, &plan, &outcomes, attempts)
            .await;
        let changed = !known_before || memory.secret.as_ref() != Some(&observed.secret);
        memory.secret = Some(observed.secret);
        let now = self.clock.now();
        let sweep = self.sweep_interval(object);
        if changed
            || memory
                .seen_at
                .is_none_or(|at| now.duration_since(at) >= sweep)
        {
            memory.seen_at = Some(now);
        }
        let Some(settled) = settled? else {
            return Ok(None);
        };
        self.count(key, &settled, &outcomes);
        let account = memory.service_account.as_ref();
        let looked_at = memory
            .seen_at
            .into_iter()
            .chain(account.map(|known| known.read_at));
        let sweep_at = looked_at.map(|at| saturating_add(at, sweep));
        Ok(settled.wake_at.into_iter().chain(sweep_at).min())
    }

    /// Mints all that is planned at once: a slow registry holds back no other.
    async fn mint(&self, object: &AcrCredential, key: &ObjectKey, plan: &Plan) -> Outcomes {
        let mints = plan.mints().map(|mint| async {
            let request = MintRequest {
                identity: mint.identity.clone(),
                server: mint.entitlement.server.clone(),
                scope: mint.entitlement.scope.clone(),
                newer_than: mint.newer_than,
                received_after: mint.received_after,
            };
            let result = match (&object.spec.identity, &self.assertion) {
                (Some(named), _) => {
                    let assertions = TokenRequests {
                        controller: self,
                        namespace: &key.namespace,
                        service_account: &named.service_account_name,
                        subject: &mint.identity.subject,
                    };
                    self.minter.mint(&request, &assertions).await
                }
                (None, Some(own)) => self.minter.mint(&request, own.as_ref()).await,
                (None, None) => Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
            };
            (request.server, result)
        });
        join_all(mints).await.into_iter().collect()
    }

    pub(super) fn count(&self, key: &ObjectKey, settled: &Settled, outcomes: &Outcomes) {
        for outcome in outcomes.values() {
            self.metrics.refreshed(match outcome {
                Ok(_) => "success",
                Err(error) => error.cause.name(),
            });
        }
        let state = match settled.state {
            State::Ready => MetricState::Ready,
            State::Failing => MetricState::Failing,
            State::NotReady => MetricState::NotReady,
            State::Suspended => MetricState::Suspended,
        };
        let standing = Standing {
            state,
            expires_at: settled.expires_at,
            refresh_at: settled.refresh_at,
        };
        self.metrics.object_is(&key.namespace, &key.name, standing);
        // Deleted meanwhile: its series would stay for ever.
        if !self.objects.knows(key) {
            self.metrics.object_is_gone(&key.namespace, &key.name);
        }
        if let Some(note) = &settled.note {
            tracing::warn!(reason = note.reason, message = note.message, "trouble");
        } else if settled.status.is_some() {
            tracing::info!(state = settled.state.name(), "status written");
        }
    }
}

/// 1 s to 60 s.
fn api_backoff(memory: &mut Memory) -> SignedDuration {
    let doublings = memory.api_failures.min(6);
    memory.api_failures = memory.api_failures.saturating_add(1);
    (API_BACKOFF_FIRST * (1 << doublings)).min(API_BACKOFF_CAP)
}
