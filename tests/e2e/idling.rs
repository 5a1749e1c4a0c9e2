//! acrcred waits for what is next, and does not ask all the time whether it has come.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::SignedDuration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::harness::{Acrcred, Scene, Tuning, manifest, run, soon};

/// acrcred on a single thread of its own, which a loop without end holds up, and nobody else.
pub struct Apart {
    acrcred: Option<Acrcred>,
    runtime: Option<Runtime>,
}

impl Apart {
    pub fn start(scene: &Scene, tuning: Tuning) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let starting = scene.start_tuned(tuning);
        Ok(Self {
            acrcred: Some(block_in_place(|| runtime.block_on(starting))?),
            runtime: Some(runtime),
        })
    }

    pub fn acrcred(&self) -> &Acrcred {
        self.acrcred
            .as_ref()
            .expect("it is there until it is dropped")
    }

    /// That its thread has a moment for something else.
    async fn is_responsive(&self) -> Result<()> {
        let runtime = self.runtime.as_ref().context("a runtime")?;
        let pong = runtime.spawn(async {});
        let answered = timeout(Duration::from_secs(5), pong).await;
        answered.context("its thread is held up: a loop without end?")??;
        Ok(())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.acrcred.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[test]
fn without_an_object_the_check_of_the_policy_is_not_made_all_the_time() {
    run(async {
        let scene = Scene::with_own_time("idle").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = Apart::start(&scene, Tuning::of(&scene))?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        acrcred.is_responsive().await?;
        let is_known = || {
            let metrics = acrcred.acrcred().metrics.encode();
            metrics.contains("acrcred_credentials{state=\"ready\"} 1")
        };
        ensure!(is_known(), "{}", acrcred.acrcred().metrics.encode());

        objects.delete("acr").await?;
        soon("acrcred has heard of it", async || {
            (!is_known())
                .then_some(())
                .ok_or_else(|| "not yet".to_owned())
        })
        .await?;
        // The check is due, and there is no namespace to make it in.
        scene.advance(SignedDuration::from_mins(61));
        for _ in 0..3 {
            acrcred.is_responsive().await?;
        }
        // The positive control: with an object, it is made.
        objects
            .create_ready(&manifest("later", &[&contoso]))
            .await?;
        Ok(())
    });
}
