//! The metrics, in `OpenMetrics` text. Labels come from closed sets, save the names of objects, which
//! an operator can leave out.

mod objects;
mod queue;
mod usage;

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use strum::IntoEnumIterator as _;

use objects::Objects;
pub use queue::Backlog;
use queue::Queue;
use usage::Usage;

/// The metrics of one process. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

/// The values of the label `state` of an object.
const STATES: [&str; 4] = ["ready", "failing", "not_ready", "suspended"];

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
    /// Metrics whose names are everybody's.
    common: Registry,
    objects: Arc<Objects>,
    queue: Arc<Queue>,
    reconciles: Family<Label, Counter>,
    reconcile_durations: Histogram,
    refreshes: Family<Label, Counter>,
    mints: Family<Labels, Histogram>,
    token_uses: Family<Labels, Counter>,
    api_requests: Family<[(&'static str, &'static str); 3], Counter>,
    watch_failures: Family<Label, Counter>,
    leader: Gauge,
}

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// From a cached answer's milliseconds to the deadline of a call.
const BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

// === impl Metrics ===

impl Metrics {
    /// The content type of [`encode`](Self::encode).
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Metrics of the program in this `version`. `per_object` says whether there are series for each
    /// object (`--metrics-per-object`).
    pub fn new(version: &'static str, per_object: bool) -> Self {
        let mut common = Registry::default();
        common.register_collector(Box::new(Usage));
        let mut registry = Registry::with_prefix("acrcred");
        let info = Info::new([("version", version)]);
        registry.register("build", "The running version", info);
        let objects = Arc::new(Objects {
            per_object,
            seen: Mutex::default(),
        });
        let queue = Arc::new(Queue::default());
        registry.register_collector(Box::new(Arc::clone(&objects)));
        registry.register_collector(Box::new(Arc::clone(&queue)));

        let histogram = (|| Histogram::new(BUCKETS)) as fn() -> Histogram;
        let reconcile_durations = histogram();
        let mints = Family::new_with_constructor(histogram);
        registry.register_with_unit(
            "reconcile_duration",
            "How long a look at an object took",
            Unit::Seconds,
            reconcile_durations.clone(),
        );
        registry.register_with_unit(
            "mint_duration",
            "How long a hop from assertion to registry token took",
            Unit::Seconds,
            mints.clone(),
        );
        let leader = Gauge::default();
        registry.register(
            "leader",
            "1 while this replica does the work, 0 while it stands by",
            leader.clone(),
        );
        let r = &mut registry;
        let metrics = Self(Arc::new(Inner {
            reconciles: counter(r, "reconcile", "Reconciles of an object, by result"),
            refreshes: counter(r, "refresh", "Attempts to replace a credential, by outcome"),
            token_uses: counter(
                r,
                "token_uses",
                "Tokens that were needed, and whether a shared one served",
            ),
            api_requests: counter(
                r,
                "api_requests",
                "Requests to the API server, except for watches and the lease",
            ),
            watch_failures: counter(
                r,
                "watch_failures",
                "Watches of the API server that failed and were started again",
            ),
            registry,
            common,
            objects,
            queue,
            reconcile_durations,
            mints,
            leader,
        }));
        metrics.start_at_zero();
        metrics
    }

    /// A counter that appears only with its first failure shows that failure to nobody: `rate()`
    /// needs a value before it.
    fn start_at_zero(&self) {
        for result in ReconcileResult::iter() {
            self.0.reconciles.get_or_create_owned(&result.label());
        }
    }

    /// Takes note of an object; replaces what was known of it.
    pub fn set_object(&self, namespace: &str, name: &str, standing: Standing) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.objects.lock().insert(key, standing);
    }

    /// Drops an object that exists no more, and its series.
    pub fn object_is_gone(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.objects.lock().remove(&key);
    }

    /// Says whether this process does the work. One that does not knows nothing of the objects, and two that
    /// told of the same would disagree.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
        if !leads {
            self.0.objects.lock().clear();
        }
    }

    /// Counts and times a reconcile.
    pub fn reconciled(&self, result: ReconcileResult, took: Duration) {
        self.0.reconciles.get_or_create(&result.label()).inc();
        self.0.reconcile_durations.observe(took.as_secs_f64());
    }

    /// Counts an attempt to replace a credential. `outcome` comes from a closed set.
    pub fn refreshed(&self, outcome: &'static str) {
        self.0
            .refreshes
            .get_or_create(&[("outcome", outcome)])
            .inc();
    }

    /// Counts and times one hop (`assertion`, `entra`, `exchange`). `outcome` comes from a closed set.
    pub fn minted(&self, hop: &'static str, outcome: &'static str, took: Duration) {
        self.0
            .mints
            .get_or_create(&[("hop", hop), ("outcome", outcome)])
            .observe(took.as_secs_f64());
    }

    /// Counts a token that was needed: of which kind, and whether one from memory served. Both come from
    /// closed sets.
    pub fn token_used(&self, token: &'static str, is_shared: bool) {
        let source = if is_shared { "memory" } else { "upstream" };
        self.0
            .token_uses
            .get_or_create(&[("token", token), ("source", source)])
            .inc();
    }

    /// Counts a request to the API server. All three come from closed sets.
    pub fn api_requested(&self, verb: &'static str, resource: &'static str, code: &'static str) {
        self.0
            .api_requests
            .get_or_create(&[("verb", verb), ("resource", resource), ("code", code)])
            .inc();
    }

    /// Makes a watch known, with no failure yet.
    pub fn watches(&self, watch: &'static str) {
        self.0
            .watch_failures
            .get_or_create_owned(&[("watch", watch)]);
    }

    /// Counts a failure of a watch.
    pub fn watch_failed(&self, watch: &'static str) {
        self.0
            .watch_failures
            .get_or_create(&[("watch", watch)])
            .inc();
    }

    /// Says where to ask, at each scrape, for the due items that were not started. Only the first call counts.
    pub fn watch_queue(&self, backlog: impl Fn() -> Backlog + Send + Sync + 'static) {
        let _ = self.0.queue.backlog.set(Box::new(backlog));
    }

    /// All metrics, as `OpenMetrics` text.
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        let Inner {
            registry, common, ..
        } = &*self.0;
        let written = text::encode_registry(&mut encoded, common)
            .and_then(|()| text::encode(&mut encoded, registry));
        match written {
            Ok(()) => encoded,
            // Writing to a string cannot fail. A scraper takes a text without its end mark for a failure.
            Err(fmt::Error) => String::new(),
        }
    }
}

fn counter<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Counter>
where
    L: EncodeLabelSet + Clone + fmt::Debug + Hash + Eq + Send + Sync + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

// === impl ReconcileResult ===

impl ReconcileResult {
    fn label(self) -> Label {
        [("result", self.into())]
    }
}

#[cfg(test)]
mod tests;
