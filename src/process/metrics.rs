//! The metrics, in `OpenMetrics` text. Labels come from closed sets, save the names of objects, which
//! an operator can leave out.

mod scraped;
mod usage;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use strum::IntoEnumIterator as _;

use scraped::Scraped;
use usage::Usage;

/// The metrics of one process. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

/// How an object is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `ready`, `failing`, `not_ready` or `suspended`.
    pub state: &'static str,
    /// Whether what it asks for works; `None` while it is suspended.
    pub is_ready: Option<bool>,
    /// When the first of its credentials expires, where it has any.
    pub expires_at: Option<Timestamp>,
    /// When its next refresh is planned, where there is one to come.
    pub refresh_at: Option<Timestamp>,
}

/// Due work that nobody has started on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many items.
    pub items: usize,
    /// How late the oldest is.
    pub oldest: Duration,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum ReconcileResult {
    /// It did what was to be done.
    Success,
    /// It failed and will be tried again.
    Failure,
    /// It panicked, and was caught.
    Panic,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    scraped: Arc<Scraped>,
    reconciles: Family<Labels<1>, Counter>,
    reconcile_durations: Histogram,
    refreshes: Family<Labels<1>, Counter>,
    mints: Family<Labels<2>, Histogram>,
    token_uses: Family<Labels<2>, Counter>,
    api_requests: Family<Labels<3>, Counter>,
    watch_failures: Family<Labels<1>, Counter>,
    leader: Gauge,
    policy: Gauge,
}

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// From a cached answer's milliseconds to the deadline of a call.
const BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

// === impl Metrics ===

impl Metrics {
    /// The content type of [`encode`](Self::encode).
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Metrics of the program in this `version`. `per_object` says whether there are series for each
    /// object (`--metrics-per-object`).
    pub fn new(version: &'static str, per_object: bool) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Usage));
        let own = registry.sub_registry_with_prefix("acrcred");
        let info = Info::new([("version", version)]);
        own.register("build", "The running version", info);
        let scraped = Arc::new(Scraped::new(per_object));
        own.register_collector(Box::new(Arc::clone(&scraped)));

        let histogram = (|| Histogram::new(BUCKETS)) as fn() -> Histogram;
        let reconcile_durations = histogram();
        let mints = Family::new_with_constructor(histogram);
        let help = "How long a reconcile of an object took";
        let metric = reconcile_durations.clone();
        own.register_with_unit("reconcile_duration", help, Unit::Seconds, metric);
        let help = "How long a hop from assertion to registry token took";
        own.register_with_unit("mint_duration", help, Unit::Seconds, mints.clone());

        let help = "1 while this replica is the leader, 0 while it is a standby";
        let leader = registered(own, "leader", help);
        let help =
            "1 while the admission policy that protects Secrets is known to be in force, else 0";
        let policy = registered(own, "policy_in_force", help);
        let reconciles = registered(own, "reconcile", "Reconciles of an object, by result");
        let help = "Attempts to replace a credential, by outcome";
        let refreshes = registered(own, "refresh", help);
        let help = "Tokens that were needed, and whether a shared one served";
        let token_uses = registered(own, "token_uses", help);
        let help = "Requests to the API server, except for watches and the lease";
        let api_requests = registered(own, "api_requests", help);
        let help = "Watches of the API server that failed and were started again";
        let watch_failures = registered(own, "watch_failures", help);

        let metrics = Self(Arc::new(Inner {
            registry,
            scraped,
            reconciles,
            reconcile_durations,
            refreshes,
            mints,
            token_uses,
            api_requests,
            watch_failures,
            leader,
            policy,
        }));
        // A counter that appears only with its first failure shows that failure to nobody: `rate()`
        // needs a value before it.
        for result in ReconcileResult::iter() {
            metrics.0.reconciles.get_or_create_owned(&result.label());
        }
        metrics
    }

    /// Takes note of an object; replaces what was known of it.
    pub fn set_object(&self, namespace: &str, name: &str, standing: Standing) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.scraped.objects().insert(key, standing);
    }

    /// Drops an object that exists no more, and its series.
    pub fn object_is_gone(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.scraped.objects().remove(&key);
    }

    /// Says whether this process does the work. One that does not knows nothing of the objects, and two that
    /// told of the same would disagree.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
        if !leads {
            self.0.scraped.objects().clear();
        }
    }

    /// Says whether the admission policy that protects Secrets is in force, as far as this process knows.
    pub fn policy_is_in_force(&self, is_in_force: bool) {
        self.0.policy.set(i64::from(is_in_force));
    }

    /// Counts and times a reconcile.
    pub fn reconciled(&self, result: ReconcileResult, took: Duration) {
        count(&self.0.reconciles, result.label());
        self.0.reconcile_durations.observe(took.as_secs_f64());
    }

    /// Counts an attempt to replace a credential. `outcome` comes from a closed set.
    pub fn refreshed(&self, outcome: &'static str) {
        count(&self.0.refreshes, [("outcome", outcome)]);
    }

    /// Counts and times one hop (`assertion`, `entra`, `exchange`). `outcome` comes from a closed set.
    pub fn minted(&self, hop: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("hop", hop), ("outcome", outcome)];
        let durations = self.0.mints.get_or_create(&labels);
        durations.observe(took.as_secs_f64());
    }

    /// Counts a token that was needed: of which kind, and whether one from memory served. Both come from
    /// closed sets.
    pub fn token_used(&self, token: &'static str, is_shared: bool) {
        let source = if is_shared { "memory" } else { "upstream" };
        count(&self.0.token_uses, [("token", token), ("source", source)]);
    }

    /// Counts a request to the API server. All three come from closed sets.
    pub fn api_requested(&self, verb: &'static str, resource: &'static str, code: &'static str) {
        let labels = [("verb", verb), ("resource", resource), ("code", code)];
        count(&self.0.api_requests, labels);
    }

    /// Makes a watch known, with no failure yet.
    pub fn watches(&self, watch: &'static str) {
        let failures = &self.0.watch_failures;
        failures.get_or_create_owned(&[("watch", watch)]);
    }

    /// Counts a failure of a watch.
    pub fn watch_failed(&self, watch: &'static str) {
        count(&self.0.watch_failures, [("watch", watch)]);
    }

    /// Says where to ask, at each scrape, for the due items that were not started. Only the first call counts.
    pub fn watch_queue(&self, backlog: impl Fn() -> Backlog + Send + Sync + 'static) {
        let _ = self.0.scraped.backlog.set(Box::new(backlog));
    }

    /// The due items that were not started; none where nobody knows of a queue.
    pub fn backlog(&self) -> Backlog {
        self.0.scraped.backlog().unwrap_or_default()
    }

    /// All metrics, as `OpenMetrics` text.
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        match text::encode(&mut encoded, &self.0.registry) {
            Ok(()) => encoded,
            // Writing to a string cannot fail. A scraper takes a text without its end mark for a failure.
            Err(fmt::Error) => String::new(),
        }
    }
}

fn registered<M: Metric + Clone + Default>(own: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    own.register(name, help, metric.clone());
    metric
}

fn count<const N: usize>(family: &Family<Labels<N>, Counter>, labels: Labels<N>) {
    family.get_or_create(&labels).inc();
}

// === impl ReconcileResult ===

impl ReconcileResult {
    fn label(self) -> Labels<1> {
        [("result", self.into())]
    }
}

#[cfg(test)]
mod tests;
