//! What is asked for at each scrape: the objects, and what waits to be started.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Backlog, Standing};

/// The values of the label `state` of an object.
const STATES: [&str; 4] = ["ready", "failing", "not_ready", "suspended"];

/// Objects by namespace and name.
type Objects = BTreeMap<(String, String), Standing>;

/// Series are written from here at each scrape, so that an object that is forgotten leaves nothing behind.
pub(super) struct Scraped {
    per_object: bool,
    objects: Mutex<Objects>,
    pub backlog: OnceLock<Box<dyn Fn() -> Backlog + Send + Sync>>,
}

/// One family with a series for each object: its name, help, unit, and the value of an object, if it has one.
type Family = (
    &'static str,
    &'static str,
    Option<Unit>,
    fn(&Standing) -> Option<i64>,
);

const FAMILIES: [Family; 3] = [
    (
        "credential_expiration_timestamp",
        "When the first credential of an object expires, in seconds since 1970.",
        Some(Unit::Seconds),
        |standing| standing.expires_at.map(Timestamp::as_second),
    ),
    (
        "credential_refresh_timestamp",
        "When the next refresh of an object is planned, in seconds since 1970; does not change while refreshes fail.",
        Some(Unit::Seconds),
        |standing| standing.refresh_at.map(Timestamp::as_second),
    ),
    (
        "credential_ready",
        "1 if what an object asks for works, else 0; none while it is suspended.",
        None,
        |standing| standing.is_ready.map(i64::from),
    ),
];

// === impl Scraped ===

impl Scraped {
    pub fn new(per_object: bool) -> Self {
        Self {
            per_object,
            objects: Mutex::default(),
            backlog: OnceLock::new(),
        }
    }

    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock()
    }

    pub fn backlog(&self) -> Option<Backlog> {
        self.backlog.get().map(|backlog| backlog())
    }
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(Backlog { items, oldest }) = self.backlog() {
            let help = "Due items that were not started.";
            encoder
                .encode_descriptor("queue_depth", help, None, MetricType::Gauge)?
                .encode_gauge(&items)?;
            let help = "How late the oldest due item is that was not started.";
            let unit = Some(&Unit::Seconds);
            encoder
                .encode_descriptor("queue_oldest_due", help, unit, MetricType::Gauge)?
                .encode_gauge(&oldest.as_secs_f64())?;
        }

        let seen = self.objects().clone();
        let help = "Objects, by state.";
        let mut states = encoder.encode_descriptor("credentials", help, None, MetricType::Gauge)?;
        for state in STATES {
            let count = seen.values().filter(|object| object.state == state).count();
            let label = [("state", state)];
            states.encode_family(&label)?.encode_gauge(&count)?;
        }

        if !self.per_object {
            return Ok(());
        }
        for (name, help, unit, value) in FAMILIES {
            let mut family =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for ((namespace, name), standing) in &seen {
                if let Some(value) = value(standing) {
                    let labels = [("namespace", namespace.as_str()), ("name", name.as_str())];
                    family.encode_family(&labels)?.encode_gauge(&value)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraped").finish_non_exhaustive()
    }
}
