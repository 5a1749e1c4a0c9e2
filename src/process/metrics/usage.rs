//! What the process takes of the machine, under the names that every Prometheus client uses. Linux only:
//! elsewhere nothing is told.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Reads `/proc` at each scrape.
#[derive(Debug)]
pub(super) struct Usage;

/// The kernel reports times in hundredths of a second, whatever its own clock does (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

impl Collector for Usage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = resident_bytes() {
            let (name, help) = ("process_resident_memory", "Memory of the process.");
            encoder
                .encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?
                .encode_gauge(&bytes)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let (name, help) = ("process_cpu", "Processor time of the process.");
            encoder
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let (name, help) = ("process_open_fds", "Open file descriptors of the process.");
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&open.count())?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// User and system time: fields 14 and 15 of proc(5)'s stat, counted after the name, which may hold anything.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |field: &str| field.parse::<f64>().ok();
    let mut fields = fields.split_whitespace().skip(11);
    Some((ticks(fields.next()?)? + ticks(fields.next()?)?) / TICKS_PER_SECOND)
}
