//! Replicas that share a lease.

use std::collections::BTreeMap;
use std::time::Duration;

use acrcred::process::LeaseOptions;
use anyhow::{Context as _, Result};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::Value;

use super::{Acrcred, Program, Scene, Tuning, config, soon};

/// The name that the Role in `config/rbac` speaks of.
pub const LEASE: &str = "acrcred";

impl Scene {
    /// Lets acrcred hold a lease in the test's namespace, by the Role that it has in its own.
    pub async fn allow_lease(&self) -> Result<()> {
        let rendered = self.control_plane.render(&config("rbac")).await?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered)?;
        for mut object in objects {
            if object["metadata"]["name"] == "acrcred-lease" {
                object["metadata"]["namespace"] = self.namespace.clone().into();
                self.control_plane.apply(object.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Starts acrcred as one of several replicas.
    pub async fn start_replica(&self, identity: &str, duration: Duration) -> Result<Acrcred> {
        let lease = self.lease_options(identity, duration);
        self.start_tuned(Tuning {
            lease: Some(lease),
            ..Tuning::of(self)
        })
        .await
    }

    /// The lease of the test's namespace.
    pub fn lease_options(&self, identity: &str, duration: Duration) -> LeaseOptions {
        LeaseOptions {
            namespace: Some(self.namespace.clone()),
            name: LEASE.into(),
            identity: identity.into(),
            duration,
        }
    }

    /// The lease as it is.
    pub async fn lease(&self) -> Result<Lease> {
        let leases: Api<Lease> = Api::namespaced(self.control_plane.admin(), &self.namespace);
        Ok(leases.get(LEASE).await?)
    }

    /// How often the lease has changed hands; the first holder counts.
    pub async fn transitions(&self) -> Result<i32> {
        let spec = self.lease().await?.spec.context("a spec")?;
        spec.lease_transitions.context("transitions")
    }

    /// How many writes of the Secret of each object the API server has taken.
    pub async fn secret_writes(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        let writes = self.calls().await?.on("secrets").writes();
        for call in writes.matching(|call| call.code < 300).iter() {
            *counts.entry(call.name.clone()).or_default() += 1;
        }
        Ok(counts)
    }
}

impl Acrcred {
    /// Whether it is the one that works.
    pub fn leads(&self) -> bool {
        let metrics = self.metrics.encode();
        metrics.lines().any(|line| line == "acrcred_leader 1")
    }

    /// Waits until it is.
    pub async fn is_leader(&self) -> Result<()> {
        soon("it leads", async || {
            self.leads()
                .then_some(())
                .ok_or_else(|| "it does not".into())
        })
        .await
    }
}

impl Program {
    /// Whether it is the one that works.
    pub async fn leads(&self) -> Result<bool> {
        let (_, metrics) = self.get("/metrics").await?;
        Ok(metrics.lines().any(|line| line == "acrcred_leader 1"))
    }

    /// Waits until it is.
    pub async fn is_leader(&self) -> Result<()> {
        soon("it leads", async || match self.leads().await {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}

/// By when a token of three hours is due for its refresh.
pub const REFRESH: SignedDuration = SignedDuration::from_mins(95);
