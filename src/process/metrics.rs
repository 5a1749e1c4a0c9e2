//! The metrics, in `OpenMetrics` text. Labels come from closed sets, save the names of objects, which
//! an operator can leave out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// The metrics of one process. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// What it asks for works, and refreshing it does too.
    Ready,
    /// What it asks for works, but refreshing it fails.
    Failing,
    /// What it asks for does not work, or not yet.
    NotReady,
    /// It is told to do nothing.
    Suspended,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    objects: Arc<Objects>,
    queue: Arc<Queue>,
    reconciles: Family<Label, Counter>,
    refreshes: Family<Label, Counter>,
    mints: Family<[(&'static str, &'static str); 2], Histogram>,
    leader: Gauge,
}

type Label = [(&'static str, &'static str); 1];

/// Objects by namespace and name. Their series are written from here at each scrape, so that one that
/// is forgotten leaves nothing behind.
#[derive(Debug)]
struct Objects {
    per_object: bool,
    seen: Mutex<BTreeMap<(String, String), Object>>,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    state: State,
    expires_at: Option<Timestamp>,
}

#[derive(Default)]
struct Queue {
    oldest_due: OnceLock<Box<dyn Fn() -> Duration + Send + Sync>>,
}

/// From a cached answer's milliseconds to the deadline of a call.
const MINT_BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

// === impl Metrics ===

impl Metrics {
    /// The content type of [`encode`](Self::encode).
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Metrics of the program in this `version`. `per_object` says whether there is a series for each
    /// object (`--metrics-per-object`).
    pub fn new(version: &'static str, per_object: bool) -> Self {
        let objects = Arc::new(Objects {
            per_object,
            seen: Mutex::default(),
        });
        let queue = Arc::new(Queue::default());
        let reconciles = Family::<Label, Counter>::default();
        let refreshes = Family::<Label, Counter>::default();
        let mints =
            Family::new_with_constructor((|| Histogram::new(MINT_BUCKETS)) as fn() -> Histogram);

        let mut registry = Registry::with_prefix("acrcred");
        registry.register(
            "build",
            "The running version",
            Info::new([("version", version)]),
        );
        registry.register(
            "reconcile",
            "Reconciles of an object, by result",
            reconciles.clone(),
        );
        registry.register(
            "refresh",
            "Attempts to replace a credential, by outcome",
            refreshes.clone(),
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
        registry.register_collector(Box::new(Arc::clone(&objects)));
        registry.register_collector(Box::new(Arc::clone(&queue)));

        let metrics = Self(Arc::new(Inner {
            registry,
            objects,
            queue,
            reconciles,
            refreshes,
            mints,
            leader,
        }));
        metrics.start_at_zero();
        metrics
    }

    /// A counter that appears only with its first failure shows that failure to nobody: `rate()`
    /// needs a value before it.
    fn start_at_zero(&self) {
        for result in ReconcileResult::ALL {
            self.0.reconciles.get_or_create_owned(&result.label());
        }
    }

    /// Takes note of an object; replaces what was known of it. `expires_at` is the earliest expiry of
    /// its credentials, where it has any.
    pub fn object_is(
        &self,
        namespace: &str,
        name: &str,
        state: State,
        expires_at: Option<Timestamp>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0
            .objects
            .lock()
            .insert(key, Object { state, expires_at });
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

    /// Counts a reconcile.
    pub fn reconciled(&self, result: ReconcileResult) {
        self.0.reconciles.get_or_create(&result.label()).inc();
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

    /// Says where to ask, at each scrape, how late the oldest due item is that was not started. Only
    /// the first call counts.
    pub fn watch_queue(&self, oldest_due: impl Fn() -> Duration + Send + Sync + 'static) {
        let _ = self.0.queue.oldest_due.set(Box::new(oldest_due));
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

// === impl State ===

impl State {
    const ALL: [Self; 4] = [Self::Ready, Self::Failing, Self::NotReady, Self::Suspended];

    fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Failing => "failing",
            Self::NotReady => "not_ready",
            Self::Suspended => "suspended",
        }
    }
}

// === impl ReconcileResult ===

impl ReconcileResult {
    const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Panic];

    fn label(self) -> Label {
        let result = match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Panic => "panic",
        };
        [("result", result)]
    }
}

// === impl Objects ===

impl Objects {
    /// A panic elsewhere leaves the map whole: every change to it is a single call.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Object>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let seen = self.lock().clone();

        let mut states = encoder.encode_descriptor(
            "credentials",
            "Objects, by state.",
            None,
            MetricType::Gauge,
        )?;
        for state in State::ALL {
            let count = seen.values().filter(|object| object.state == state).count();
            let label = [("state", state.name())];
            states.encode_family(&label)?.encode_gauge(&count)?;
        }

        if !self.per_object {
            return Ok(());
        }
        let mut expiries = encoder.encode_descriptor(
            "credential_expiration_timestamp",
            "When the first credential of an object expires, in seconds since 1970.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for ((namespace, name), object) in &seen {
            if let Some(expires_at) = object.expires_at {
                let labels = [("namespace", namespace.as_str()), ("name", name.as_str())];
                expiries
                    .encode_family(&labels)?
                    .encode_gauge(&expires_at.as_second())?;
            }
        }
        Ok(())
    }
}

// === impl Queue ===

impl Collector for Queue {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(oldest_due) = self.oldest_due.get() else {
            return Ok(());
        };
        encoder
            .encode_descriptor(
                "queue_oldest_due",
                "How late the oldest due item is that was not started.",
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?
            .encode_gauge(&oldest_due().as_secs_f64())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
