//! Effects: watches, the due queue, and what a [`Step`](crate::plan::Step) asks for. The only code that talks to the
//! API server.

mod answer;
mod client;
mod cluster;
mod lease;
mod mint;
mod policy_check;
mod queue;
mod reconcile;
mod term;
mod tracked;
mod watch;
mod watch_secrets;
mod watched;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::azure::{AssertionSource, Minter};
use crate::credential::{CLOCK_STEP, Cause, Hop, MintError};
use crate::plan::{ClusterFacts, PolicyCheck, Settings};
use crate::process::{Backlog, Clock, LeaseOptions, Metrics, Readiness};

pub use client::{ConnectError, connect};
use cluster::Cluster;
use lease::Lease;
use queue::DueQueue;
use tracked::TrackedObjects;
use watch::Scope;

/// Everything that a controller works with.
pub struct ControllerOptions {
    /// Talks to the API server as acrcred's `ServiceAccount`.
    pub client: Client,
    /// The platform administrator's decisions.
    pub settings: Arc<Settings>,
    /// The controller's own `ServiceAccount` token, where it has an identity.
    pub assertion: Option<Box<dyn AssertionSource>>,
    /// Mints credentials.
    pub minter: Minter,
    /// The clock.
    pub clock: Clock,
    /// Counts.
    pub metrics: Metrics,
    /// Set once every watch has delivered its first list.
    pub readiness: Readiness,
    /// Namespaces to watch; empty: all.
    pub watch_namespaces: Vec<String>,
    /// A label selector that objects must match; empty: all.
    pub selector: String,
    /// How often each Secret is written or verified without another reason.
    pub resync_interval: SignedDuration,
    /// The names of Secrets to watch, which needs the right to.
    pub watch_secrets: Vec<String>,
    /// How long the API server may keep a watch open, in whole seconds.
    pub watch_timeout: Duration,
    /// The lease that this replica must hold to work; `None`: it works alone.
    pub lease: Option<LeaseOptions>,
}

/// Keeps Secrets filled until it is told to stop.
pub struct Controller {
    options: ControllerOptions,
    cluster: Cluster,
    clock: Clock,
    metrics: Metrics,
    /// What to watch, until [`Controller::run`] does.
    scopes: Mutex<Vec<Scope>>,
    /// `None`: this replica is the only one.
    lease: Option<Lease>,
    /// Cancelled when what has begun in this term must be dropped.
    term_over: Mutex<CancellationToken>,
    queue: DueQueue,
    objects: TrackedObjects,
    /// Reconciles and mints under way.
    tasks: TaskTracker,
    /// An object cannot go on without a check of the admission policy.
    policy_wanted: Notify,
    facts: Mutex<Arc<ClusterFacts>>,
    /// When the own token was last read.
    own_read_at: tokio::sync::Mutex<Option<Instant>>,
    /// When each value of the refresh annotation was first seen lately.
    refreshes: Mutex<HashMap<String, Timestamp>>,
}

/// How long reconciles that have begun may take to end once we are told to stop.
const GRACE: Duration = Duration::from_secs(15);
/// Objects that are given the same value of the refresh annotation within this time share what is minted.
const REFRESH_TOGETHER: SignedDuration = SignedDuration::from_secs(30);
/// How long what the own token file said is believed.
const OWN_TOKEN_IS_FRESH: Duration = Duration::from_secs(1);
/// How soon the API server is asked again for acrcred's own name.
const OWN_NAME_RETRY: Duration = Duration::from_secs(2);

// === impl Controller ===

impl Controller {
    /// A controller that has not started.
    pub fn new(options: ControllerOptions) -> Arc<Self> {
        let facts = ClusterFacts {
            own: Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
            own_user: None,
            issuer: None,
            policy: PolicyCheck::default(),
            since: options.clock.now(),
            resync_interval: options.resync_interval,
        };
        let lease = options.lease.clone();
        Arc::new(Self {
            cluster: Cluster::new(options.client.clone(), options.metrics.clone()),
            clock: options.clock.clone(),
            metrics: options.metrics.clone(),
            scopes: Mutex::new(Scope::of(&options.watch_namespaces, &options.readiness)),
            lease: lease.map(|lease| Lease::new(&options.client, lease, options.clock.clone())),
            term_over: Mutex::default(),
            queue: DueQueue::default(),
            objects: TrackedObjects::new(options.settings.clone()),
            tasks: TaskTracker::new(),
            policy_wanted: Notify::default(),
            facts: Mutex::new(Arc::new(facts)),
            own_read_at: tokio::sync::Mutex::default(),
            refreshes: Mutex::default(),
            options,
        })
    }

    /// The due objects that nobody has started on. A replica that stands by has none.
    pub fn backlog(&self) -> Backlog {
        if !self.is_leading() {
            return Backlog::default();
        }
        self.queue.backlog(self.clock.now())
    }

    /// What is known of the cluster, with the own token as it is now.
    async fn cluster_facts(&self) -> Arc<ClusterFacts> {
        if let Some(assertion) = &self.options.assertion {
            // Held while the file is read: no reconcile goes on without its content.
            let mut read_at = self.own_read_at.lock().await;
            if read_at.is_none_or(|at| at.elapsed() > OWN_TOKEN_IS_FRESH) {
                let own = assertion.claims().await;
                self.learn(|facts| facts.own = own);
                *read_at = Some(Instant::now());
            }
        }
        self.known_cluster()
    }

    fn known_cluster(&self) -> Arc<ClusterFacts> {
        self.facts.lock().clone()
    }

    fn learn(&self, change: impl FnOnce(&mut ClusterFacts)) {
        let mut facts = self.facts.lock();
        change(Arc::make_mut(&mut facts));
    }

    /// What RBAC cannot limit, an admission policy does; a missing one would go unnoticed.
    async fn warn_where_unlimited(self: Arc<Self>) {
        if self.cluster.is_impersonation_unlimited().await {
            tracing::warn!(
                "no admission policy limits the ServiceAccount tokens that acrcred may request; install it with the chart value policies.install=true"
            );
        }
    }

    /// Asks for acrcred's own name until the API server says it, then never ends.
    async fn learn_own_user(self: Arc<Self>) {
        loop {
            match self.cluster.own_user().await {
                Ok(user) => {
                    self.learn(|facts| facts.own_user = Some(user));
                    self.schedule_all();
                    return std::future::pending().await;
                }
                Err(failure) => tracing::warn!(%failure, "cannot get acrcred's own user name"),
            }
            tokio::time::sleep(OWN_NAME_RETRY).await;
        }
    }

    fn schedule_all(&self) {
        let now = self.clock.now();
        for key in self.objects.keys() {
            self.queue.schedule(&key, now);
        }
    }

    /// When the refresh that `value` asks for began: a user may annotate a thousand objects at once.
    fn refresh_began(&self, value: &str) -> Timestamp {
        let now = self.clock.now();
        let mut refreshes = self.refreshes.lock();
        refreshes.retain(|_, began| now.duration_since(*began) < REFRESH_TOGETHER);
        *refreshes.entry(value.to_owned()).or_insert(now)
    }

    /// Works until `stop` is cancelled, then lets what has begun end. Returns early only if a watch
    /// or the keeping of the lease ends, which they never should.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::spawn(self.clone().warn_where_unlimited());
        let keeper = TaskTracker::new();
        let released = CancellationToken::new();
        keeper.spawn(self.clone().keep_lease(released.clone()));
        keeper.close();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.clone().watch_all() => tracing::error!("a watch ended; stopping"),
            () = keeper.wait() => tracing::error!("leader election ended; stopping"),
            () = self.clone().learn_own_user() => {}
            () = self.clone().keep_policy_checked() => {}
            () = self.clone().work() => {}
        }
        self.wind_up().await;
        released.cancel();
        keeper.wait().await;
    }

    /// Starts what is due, renewals first; every reconcile is a task of its own, so a slow or failing object never
    /// delays another.
    async fn dispatch(self: Arc<Self>) {
        let over = self.term_over();
        let mut seen = (Instant::now(), self.clock.now());
        loop {
            // Subscribed before the queue is read, so that nothing scheduled in between is missed.
            let changed = self.queue.changed();
            self.notice_clock_step(&mut seen);
            self.options.minter.drop_unshared();
            let mut due = self.queue.take_due(self.clock.now());
            due.sort_by_cached_key(|key| !self.objects.is_renewal(key));
            for key in due {
                // Without the lease nothing begins; with the next one, every object is scheduled.
                if self.is_leading() {
                    self.tasks.spawn(self.clone().reconcile(key, over.clone()));
                }
            }
            let next = self.queue.next().unwrap_or(Timestamp::MAX);
            tokio::select! {
                () = changed => {}
                () = self.clock.nap_until(next) => {}
            }
        }
    }

    /// Decides everything again where the wall clock moved against the monotonic one: what it dated may be wrong.
    fn notice_clock_step(&self, seen: &mut (Instant, Timestamp)) {
        let (now, wall) = (Instant::now(), self.clock.now());
        let elapsed = SignedDuration::try_from(now - seen.0).unwrap_or(SignedDuration::MAX);
        let moved = wall.duration_since(seen.1) - elapsed;
        *seen = (now, wall);
        if moved.abs() > CLOCK_STEP {
            tracing::warn!(
                seconds = moved.as_secs(),
                "the wall clock was changed; reconciling every object"
            );
            self.learn(|facts| facts.rebase(wall));
            self.schedule_all();
        }
    }
}
