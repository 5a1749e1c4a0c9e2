//! What any long-running program needs: time, logs, metrics, an admin server, an orderly end.
//! Imports nothing else of this crate and knows nothing of credentials.

mod admin;
mod clock;
mod election;
mod log;
mod metrics;
mod one_line;
mod shutdown;

pub use admin::{Admin, Readiness, ReadinessHandle};
pub use clock::Clock;
pub use election::{Election, LeaseOptions, LeaseRecord, MAX_LEASE_DURATION, Step};
pub use log::{LogFilter, LogFilterError, LogFormat, init};
pub use metrics::{Backlog, Metrics, ReconcileResult, Standing};
pub use shutdown::signal;
