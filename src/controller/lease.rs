//! The leader lease: reads and writes what the [`Election`] decides. Of several replicas, only the holder
//! reconciles.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::answer::{ApiFailure, ApiResult, within};
use crate::process::{Clock, Election, LeaseOptions, LeaseRecord, Step};

/// The lease, and whether this process holds it.
pub(super) struct Lease {
    api: Api<Object>,
    pub options: LeaseOptions,
    clock: Clock,
    /// Until when something may begin.
    held_until: watch::Sender<Option<Instant>>,
}

// === impl Lease ===

impl Lease {
    pub fn new(client: &Client, options: LeaseOptions, clock: Clock) -> Self {
        let api = match &options.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::default_namespaced(client.clone()),
        };
        Self {
            api,
            options,
            clock,
            held_until: watch::Sender::new(None),
        }
    }

    /// Whether something may begin now.
    pub fn is_held(&self) -> bool {
        self.held_until
            .borrow()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Resolves once this process holds the lease.
    pub async fn held(&self) {
        let mut changes = self.held_until.subscribe();
        while !self.is_held() {
            // Cannot fail: the sender is ours.
            let _ = changes.changed().await;
        }
    }

    /// Resolves once nothing may begin any more, also while a renewal is under way.
    pub async fn lost(&self) {
        let mut changes = self.held_until.subscribe();
        loop {
            let until = *changes.borrow_and_update();
            let Some(until) = until else { return };
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(until) => return,
            }
        }
    }

    /// How long after the loss what was begun may take to end.
    pub fn grace(&self) -> Duration {
        self.election().grace()
    }

    /// Takes the lease whenever it can, and keeps it until `stop` is cancelled; then releases it, so that
    /// another replica need not wait for its end.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut election = self.election();
        let mut current = Object::default();
        let mut told = None;
        while !stop.is_cancelled() {
            let asked_at = Instant::now();
            let next = election.next(asked_at);
            if let Step::Rest(rest) = next {
                stop.run_until_cancelled(sleep(rest)).await;
                continue;
            }
            let result = self.carry_out(&next, &current, &election).await;
            let now = Instant::now();
            match &result {
                Ok(found) => {
                    let record = found.as_ref().map(record);
                    match (next, record) {
                        (Step::Look, record) => election.looked(record, now),
                        (_, Some(record)) => election.wrote(record, asked_at, now),
                        (_, None) => election.conflicted(),
                    }
                    current = found.clone().unwrap_or_default();
                }
                Err(failure) if is_conflict(failure) => election.conflicted(),
                Err(_) => election.failed(now),
            }
            self.tell(&mut told, result.err());
            self.held_until.send_replace(election.leads_until());
        }
        self.held_until.send_replace(None);
        if election.leads_until().is_some() {
            self.release(&current, &election).await;
        }
    }

    fn election(&self) -> Election {
        Election::new(self.options.identity.clone(), self.options.duration)
    }

    /// Reads or writes; what there is then. These calls queue behind no others.
    async fn carry_out(
        &self,
        step: &Step,
        current: &Object,
        election: &Election,
    ) -> ApiResult<Option<Object>> {
        let name = &self.options.name;
        let limit = election.call_limit();
        let params = PostParams::default();
        match step {
            Step::Rest(_) => Ok(None),
            Step::Look => within(limit, self.api.get_opt(name)).await,
            Step::Create => {
                let object = self.held_by_us(&Object::default(), true);
                let write = self.api.create(&params, &object);
                within(limit, write).await.map(Some)
            }
            Step::Take | Step::Renew => {
                let object = self.held_by_us(current, *step == Step::Take);
                let write = self.api.replace(name, &params, &object);
                within(limit, write).await.map(Some)
            }
        }
    }

    /// The lease as we want it; its version is the precondition.
    fn held_by_us(&self, current: &Object, is_new: bool) -> Object {
        let now = Some(MicroTime(self.clock.now()));
        let before = current.spec.clone().unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or_default();
        let seconds = i32::try_from(self.options.duration.as_secs()).unwrap_or(i32::MAX);
        let mut object = current.clone();
        object.metadata.name = Some(self.options.name.clone());
        object.spec = Some(LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: Some(seconds),
            renew_time: now.clone(),
            acquire_time: if is_new { now } else { before.acquire_time },
            lease_transitions: Some(transitions.saturating_add(i32::from(is_new))),
            ..before
        });
        object
    }

    /// Tries once: if it fails, the others wait until the lease expires.
    async fn release(&self, current: &Object, election: &Election) {
        let mut object = current.clone();
        if let Some(spec) = &mut object.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(self.clock.now()));
        }
        let params = PostParams::default();
        let write = self.api.replace(&self.options.name, &params, &object);
        match within(election.call_limit(), write).await {
            Ok(_) => tracing::info!("released the lease"),
            Err(error) => tracing::warn!(%error, "cannot release the lease; it will expire"),
        }
    }

    /// Logs a failure when it is another than the last.
    fn tell(&self, told: &mut Option<String>, failure: Option<ApiFailure>) {
        let failure = failure.filter(|failure| !is_conflict(failure));
        let advice = match failure.as_ref().and_then(ApiFailure::code) {
            Some(403) => {
                "; apply the Role for leases of config/rbac in the lease's namespace; nothing is reconciled until then"
            }
            _ => "",
        };
        let text = failure.map(|failure| format!("{failure}{advice}"));
        if let Some(error) = text.as_ref().filter(|_| *told != text) {
            tracing::warn!(lease = self.options.name, error, "cannot hold the lease");
        }
        *told = text;
    }
}

/// Whether the lease was changed, created or deleted since it was seen.
fn is_conflict(failure: &ApiFailure) -> bool {
    matches!(failure.code(), Some(404 | 409))
}

fn record(object: &Object) -> LeaseRecord {
    let spec = object.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.map(u64::try_from);
    LeaseRecord {
        version: object.resource_version().unwrap_or_default(),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: seconds.and_then(Result::ok).map(Duration::from_secs),
    }
}
