//! When work is begun: always, or, where replicas share it, in the terms in which this one holds the lease.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Controller, GRACE};

/// A time in which this replica works.
#[derive(Clone, Debug)]
pub(super) struct Term {
    began: Instant,
    /// Cancelled when what has begun must be dropped.
    over: CancellationToken,
}

/// What has been dropped has no await left before its end.
const DROPPED: Duration = Duration::from_secs(1);

impl Default for Term {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            over: CancellationToken::new(),
        }
    }
}

// === impl Controller ===

impl Controller {
    /// Whether reconciles may begin.
    pub(super) fn is_leading(&self) -> bool {
        self.lease.as_ref().is_none_or(super::Lease::is_held)
    }

    /// Whether an object whose creation a watch tells can have been served by nobody else. What the leader
    /// before us did is told within moments; until then, its Secret is looked for before one is minted.
    pub(super) fn knows_creations(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| {
            lease.is_held() && self.term().began.elapsed() > lease.options().duration
        })
    }

    /// Cancelled when what begins now must be dropped.
    pub(super) fn term_over(&self) -> CancellationToken {
        self.term().over.clone()
    }

    /// Keeps the lease, if there is one to keep, until `stop` is cancelled.
    pub(super) async fn keep_lease(self: Arc<Self>, stop: CancellationToken) {
        match &self.lease {
            Some(lease) => lease.keep(stop).await,
            None => stop.cancelled().await,
        }
    }

    /// Starts what is due whenever this replica may. Never ends.
    pub(super) async fn work(self: Arc<Self>, reconciles: &TaskTracker) {
        let Some(lease) = &self.lease else {
            self.metrics.leads(true);
            return self.clone().dispatch(reconciles).await;
        };
        loop {
            lease.held().await;
            self.take_over();
            tracing::info!(
                holder = lease.options().identity,
                "took the lease; reconciles begin"
            );
            tokio::select! {
                biased;
                () = lease.lost() => {}
                () = self.clone().dispatch(reconciles) => {}
            }
            tracing::warn!("lost the lease; no reconcile begins until it is back");
            self.end_term(reconciles, sleep(lease.grace())).await;
        }
    }

    /// Stops for good: what has begun may end, as long as no other replica begins.
    pub(super) async fn wind_up(&self, reconciles: &TaskTracker) {
        let patience = async {
            let Some(lease) = &self.lease else {
                return sleep(GRACE).await;
            };
            tokio::select! {
                () = sleep(GRACE) => {}
                () = lease.lost() => sleep(lease.grace()).await,
            }
        };
        self.end_term(reconciles, patience).await;
    }

    /// Other replicas have worked since we last looked at anything, so everything is looked at anew.
    fn take_over(&self) {
        *self.term() = Term::default();
        // Emptied first: what a watch tells from here on stays.
        self.queue.take_due(Timestamp::MAX);
        let now = self.clock.now();
        for key in self.objects.distrust_all() {
            self.queue.schedule(&key, now);
        }
        self.metrics.leads(true);
    }

    /// Lets what has begun end, and drops what has not when `patience` does.
    async fn end_term(&self, reconciles: &TaskTracker, patience: impl Future<Output = ()>) {
        reconciles.close();
        tokio::select! {
            biased;
            () = reconciles.wait() => {}
            () = patience => {
                tracing::warn!("dropping reconciles under way");
                self.term().over.cancel();
                let _ = tokio::time::timeout(DROPPED, reconciles.wait()).await;
            }
        }
        reconciles.reopen();
        self.metrics.leads(false);
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
