//! Effects: watches, the due queue, and what a [`Settled`](crate::plan::Settled) asks for. The only
//! code that talks to the API server.

mod api_call;
mod client;
mod execute;
mod lease;
mod observe;
mod queue;
mod reconcile;
mod secrets;
mod service_accounts;
mod term;
mod tracked;
mod watch;
mod watch_secrets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::FIELD_MANAGER;
use crate::azure::{AssertionSource, Minter};
use crate::plan::Settings;
use crate::process::{Backlog, Clock, Metrics, Readiness};

pub use api_call::ApiLimit;
pub use client::{ConnectError, connect, is_fenced, is_impersonation_unfenced};
use lease::Lease;
pub use lease::LeaseOptions;
use queue::DueQueue;
use term::Term;
use tracked::TrackedObjects;
use watch::Scope;

/// Everything that a controller works with.
pub struct ControllerOptions {
    /// Talks to the API server as acrcred's `ServiceAccount`.
    pub client: Client,
    /// The operator's decisions.
    pub settings: Settings,
    /// The controller's own assertion, where it has an identity.
    pub assertion: Option<Box<dyn AssertionSource>>,
    /// Mints credentials.
    pub minter: Minter,
    /// Tells the time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Metrics,
    /// Told once every watch has delivered its first list.
    pub readiness: Readiness,
    /// Namespaces to watch; empty: all.
    pub watch_namespaces: Vec<String>,
    /// A label selector that objects must match; empty: all.
    pub selector: String,
    /// How often each Secret is looked at without a reason.
    pub sweep_interval: SignedDuration,
    /// Whether to watch our Secrets, which needs the right to.
    pub watch_secrets: bool,
    /// How long the API server may keep a watch open, in whole seconds.
    pub watch_timeout: Duration,
    /// The lease that this replica must hold to work; `None`: it works alone.
    pub lease: Option<LeaseOptions>,
}

/// Keeps Secrets filled until it is told to stop.
pub struct Controller {
    client: Client,
    settings: Settings,
    assertion: Option<Box<dyn AssertionSource>>,
    minter: Minter,
    clock: Clock,
    metrics: Metrics,
    /// What to watch, until [`Controller::run`] does.
    scopes: Mutex<Vec<Scope>>,
    selector: String,
    sweep_interval: SignedDuration,
    watch_secrets: bool,
    watch_timeout: Duration,
    /// `None`: this replica is the only one.
    lease: Option<Lease>,
    term: Mutex<Term>,
    recorder: Recorder,
    limit: ApiLimit,
    queue: DueQueue,
    objects: TrackedObjects,
    /// The issuer of this cluster's assertions, once one was seen.
    issuer: Mutex<Option<String>>,
    /// When each value of the refresh annotation was first seen lately.
    refreshes: Mutex<HashMap<String, Timestamp>>,
}

/// How long reconciles that have begun may take to end once we are told to stop.
const GRACE: Duration = Duration::from_secs(15);
/// Without anything due, the loop still turns.
const IDLE: SignedDuration = SignedDuration::from_secs(30);
/// Objects that are given the same value of the refresh annotation within this time share what is minted.
const REFRESH_TOGETHER: SignedDuration = SignedDuration::from_secs(30);

// === impl Controller ===

impl Controller {
    /// A controller that has not started.
    pub fn new(options: ControllerOptions) -> Arc<Self> {
        let ControllerOptions {
            client,
            settings,
            assertion,
            minter,
            clock,
            metrics,
            readiness,
            watch_namespaces,
            selector,
            sweep_interval,
            watch_secrets,
            watch_timeout,
            lease,
        } = options;
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: None,
        };
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            limit: ApiLimit::new(metrics.clone()),
            queue: DueQueue::default(),
            objects: TrackedObjects::default(),
            issuer: Mutex::default(),
            refreshes: Mutex::default(),
            term: Mutex::default(),
            lease: lease.map(|options| Lease::new(&client, options, clock.clone())),
            client,
            settings,
            assertion,
            minter,
            clock,
            metrics,
            scopes: Mutex::new(Scope::of(&watch_namespaces, &readiness)),
            selector,
            sweep_interval,
            watch_secrets,
            watch_timeout,
        })
    }

    /// The due objects that nobody has started on. A replica that stands by has none.
    pub fn backlog(&self) -> Backlog {
        if !self.is_leading() {
            return Backlog {
                items: 0,
                oldest: Duration::ZERO,
            };
        }
        let now = self.clock.now();
        Backlog {
            items: self.queue.count_due(now),
            oldest: Duration::try_from(self.queue.oldest_due(now)).unwrap_or_default(),
        }
    }

    fn learn_issuer(&self, issuer: String) {
        *self.issuer.lock().unwrap_or_else(PoisonError::into_inner) = Some(issuer);
    }

    fn issuer(&self) -> Option<String> {
        let issuer = self.issuer.lock().unwrap_or_else(PoisonError::into_inner);
        issuer.clone()
    }

    /// When the refresh that `value` asks for began: somebody may annotate a thousand objects at once.
    fn refresh_began(&self, value: &str) -> Timestamp {
        let now = self.clock.now();
        let mut refreshes = self
            .refreshes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refreshes.retain(|_, began| now.duration_since(*began) < REFRESH_TOGETHER);
        *refreshes.entry(value.to_owned()).or_insert(now)
    }

    /// Works until `stop` is cancelled, then lets what has begun end. Returns early only if a watch
    /// or the keeping of the lease ends, which they never should.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (reconciles, keeper) = (TaskTracker::new(), TaskTracker::new());
        let released = CancellationToken::new();
        keeper.spawn(self.clone().keep_lease(released.clone()));
        keeper.close();
        let watches = self.clone().watch_all();
        tokio::select! {
            () = stop.cancelled() => {}
            () = watches => tracing::error!("a watch ended; stopping"),
            () = keeper.wait() => tracing::error!("the keeping of the lease ended; stopping"),
            () = self.clone().work(&reconciles) => {}
        }
        self.wind_up(&reconciles).await;
        released.cancel();
        keeper.wait().await;
    }

    /// Starts what is due, renewals first; every reconcile is a task of its own, so none waits for
    /// another's misfortune.
    async fn dispatch(self: Arc<Self>, reconciles: &TaskTracker) {
        let over = self.term_over();
        loop {
            // Subscribed before looking, so that nothing scheduled in between is missed.
            let changed = self.queue.changed();
            let mut due = self.queue.take_due(self.clock.now());
            due.sort_by_cached_key(|key| !self.objects.is_renewal(key));
            for key in due {
                // Where it is not, everything is looked at anew once it is again.
                if self.is_leading()
                    && let Some(work) = self.objects.begin(&key)
                {
                    let reconcile = self.clone().reconcile_caught(key, work, over.clone());
                    reconciles.spawn(reconcile);
                }
            }
            let next = self.queue.next().unwrap_or_else(|| self.clock.now() + IDLE);
            tokio::select! {
                () = changed => {}
                () = self.clock.sleep_until(next) => {}
            }
        }
    }
}
