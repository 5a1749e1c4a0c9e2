//! Kubernetes fails, in every way that an API server was seen to: nothing is lost, nothing is done twice,
//! and no restart is needed.

mod outage;
mod watches;
mod writes;

use std::time::Duration;

use anyhow::Result;
use controlplane::fault_proxy::FaultProxy;
use jiff::SignedDuration;

use crate::harness::{Acrcred, Objects, Scene, TestRegistry, Tuning, soon};

/// Nobody waits longer than this for acrcred to begin with what is due.
const PROMPT: Duration = Duration::from_secs(5);
/// A refresh is due by then, at half the life of three hours.
const REFRESH: SignedDuration = SignedDuration::from_mins(95);

/// acrcred behind a fault proxy.
struct Behind {
    scene: Scene,
    proxy: FaultProxy,
    acrcred: Acrcred,
    objects: Objects,
    contoso: TestRegistry,
}

impl Behind {
    async fn start(name: &str, watch_timeout: Duration) -> Result<Self> {
        let scene = Scene::with_own_time(name).await?;
        let contoso = scene.registry("contoso").await?;
        let proxy = scene.fault_proxy().await?;
        let mut tuning = Tuning::of(&scene);
        tuning.api_server = Some(proxy.url());
        tuning.watch_timeout = watch_timeout;
        let acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        let behind = Self {
            scene,
            proxy,
            acrcred,
            objects,
            contoso,
        };
        behind.watches().await?;
        Ok(behind)
    }

    /// Waits until a watch is open.
    async fn watches(&self) -> Result<()> {
        soon("a watch is open", async || {
            match self.proxy.open_watches() {
                0 => Err("none".into()),
                _ => Ok(()),
            }
        })
        .await
    }

    /// How many tokens the registries have given out.
    fn exchanges(&self) -> usize {
        self.scene.upstream_calls().1
    }
}
