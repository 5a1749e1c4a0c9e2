//! When work is begun: always, or, where replicas share it, in the terms in which this one holds the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Controller, GRACE};

/// How long to wait for what was dropped. A status write or a read of a `ServiceAccount` that is under way may end later;
/// its answer is a fact all the same.
const DROPPED: Duration = Duration::from_secs(1);

// === impl Controller ===

impl Controller {
    /// Whether reconciles may begin.
    pub(super) fn is_leading(&self) -> bool {
        self.lease.as_ref().is_none_or(super::Lease::is_held)
    }

    /// Cancelled when what begins now must be dropped.
    pub(super) fn term_over(&self) -> CancellationToken {
        self.term_over.lock().clone()
    }

    /// Keeps the lease, if there is one to keep, until `stop` is cancelled.
    pub(super) async fn keep_lease(self: Arc<Self>, stop: CancellationToken) {
        match &self.lease {
            Some(lease) => lease.keep(stop).await,
            None => stop.cancelled().await,
        }
    }

    /// Starts what is due whenever this replica may. Never ends.
    pub(super) async fn work(self: Arc<Self>) {
        let Some(lease) = &self.lease else {
            self.metrics.leads(true);
            return self.clone().dispatch().await;
        };
        loop {
            lease.held().await;
            self.take_over();
            tracing::info!(holder = lease.options.identity, "became leader");
            tokio::select! {
                biased;
                () = lease.lost() => {}
                () = self.clone().dispatch() => {}
            }
            tracing::warn!("lost the lease; no new reconcile starts");
            self.end_term(sleep(lease.grace())).await;
        }
    }

    /// Stops for good: what has begun may end, as long as no other replica begins.
    pub(super) async fn wind_up(&self) {
        let patience = async {
            let Some(lease) = &self.lease else {
                return sleep(GRACE).await;
            };
            tokio::select! {
                () = sleep(GRACE) => {}
                () = lease.lost() => sleep(lease.grace()).await,
            }
        };
        self.end_term(patience).await;
    }

    /// Decides about every object again. What is known of a Secret stays valid unless its object's status names a later
    /// version.
    fn take_over(&self) {
        *self.term_over.lock() = CancellationToken::new();
        let now = self.clock.now();
        self.learn(|facts| facts.since = now);
        self.schedule_all();
        self.metrics.leads(true);
    }

    /// Lets what has begun end, and drops what has not when `patience` does.
    async fn end_term(&self, patience: impl Future<Output = ()>) {
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => {}
            () = patience => {
                tracing::warn!("dropping reconciles under way");
                self.term_over.lock().cancel();
                let _ = tokio::time::timeout(DROPPED, self.tasks.wait()).await;
            }
        }
        self.tasks.reopen();
        self.metrics.leads(false);
    }
}
