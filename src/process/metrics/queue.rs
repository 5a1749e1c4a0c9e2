//! What waits to be started.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Due work that nobody has started on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many items.
    pub items: usize,
    /// How late the oldest is.
    pub oldest: Duration,
}

/// Asked at each scrape.
#[derive(Default)]
pub(super) struct Queue {
    pub backlog: OnceLock<Box<dyn Fn() -> Backlog + Send + Sync>>,
}

impl Collector for Queue {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(backlog) = self.backlog.get() else {
            return Ok(());
        };
        let Backlog { items, oldest } = backlog();
        encoder
            .encode_descriptor(
                "queue_depth",
                "Due items that were not started.",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&items)?;
        encoder
            .encode_descriptor(
                "queue_oldest_due",
                "How late the oldest due item is that was not started.",
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?
            .encode_gauge(&oldest.as_secs_f64())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}
