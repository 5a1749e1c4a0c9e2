//! Kubernetes fails, in every way that an API server was seen to: nothing is lost, nothing is done twice,
//! and no restart is needed.

mod outage;
mod watches;
mod writes;

use std::time::Duration;

use anyhow::{Result, ensure};
use controlplane::fault_proxy::FaultProxy;
use jiff::SignedDuration;

use crate::harness::{Acrcred, Objects, Scene, TestRegistry, Tuning, manifest, soon};

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

    /// Lets the time of a refresh come, in which nothing is done for an object that was deleted.
    async fn leaves_alone(&self, deleted: &str) -> Result<()> {
        let calls = async || {
            let calls = self.scene.calls().await?;
            anyhow::Ok(calls.count(|call| call.name == deleted))
        };
        let before = calls().await?;
        self.scene.advance(REFRESH);
        // The positive control: what is due then is done.
        self.acrcred.catches_up().await?;
        let control = manifest("control", &[&self.contoso]);
        self.objects.create_ready(&control).await?;
        ensure!(calls().await? == before, "calls for {deleted}");
        Ok(())
    }

    /// How many tokens the registries have given out.
    fn exchanges(&self) -> usize {
        self.scene.upstream_calls().1
    }
}
