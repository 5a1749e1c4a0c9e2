//! What there is per object.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{STATES, Standing};

/// Objects by namespace and name. Their series are written from here at each scrape, so that one that
/// is forgotten leaves nothing behind.
#[derive(Debug)]
pub(super) struct Objects {
    pub per_object: bool,
    pub seen: Mutex<BTreeMap<(String, String), Standing>>,
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
        "When the next refresh of an object is planned, in seconds since 1970; stays where it is while refreshes fail.",
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

// === impl Objects ===

impl Objects {
    /// A panic elsewhere leaves the map whole: every change to it is a single call.
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Standing>> {
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
