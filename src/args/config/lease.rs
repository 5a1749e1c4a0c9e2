//! Whether and how replicas share the work.

use std::time::Duration;

use super::super::{ConfigError, value};
use super::{Environment, single};

/// The lease that replicas share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// Its namespace (`POD_NAMESPACE`); `None`: the namespace of the pod or of the kubeconfig.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The pod (`POD_NAME` or `HOSTNAME`).
    pub pod: String,
    /// How long it stands without a renewal: 3 s to 10 min, in whole seconds.
    pub duration: Duration,
}

// === impl LeaseConfig ===

impl LeaseConfig {
    const NAME: &str = "acrcred";
    const DURATION: Duration = Duration::from_secs(15);

    pub(super) fn new(
        leader_elect: Option<&str>,
        name: Option<&str>,
        duration: Option<&str>,
        env: &Environment<'_>,
    ) -> Result<Option<Self>, ConfigError> {
        let elect = single("leader-elect", leader_elect, value::boolean)?.unwrap_or(false);
        let lease = Self {
            namespace: env.get("POD_NAMESPACE"),
            name: single("lease-name", name, value::object_name)?
                .unwrap_or_else(|| Self::NAME.to_owned()),
            pod: env
                .get("POD_NAME")
                .or_else(|| env.get("HOSTNAME"))
                .unwrap_or_else(|| Self::NAME.to_owned()),
            duration: single("lease-duration", duration, value::lease_duration)?
                .unwrap_or(Self::DURATION),
        };
        Ok(elect.then_some(lease))
    }
}
