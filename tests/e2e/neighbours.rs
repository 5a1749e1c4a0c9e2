//! Nothing waits for another's misfortune.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acrcred::azure::{AssertionFile, AssertionSource};
use acrcred::credential::{MintError, Token};
use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Instant, interval};

use crate::harness::{Acrcred, Objects, Scene, TestRegistry, Tuning, manifest, run, soon};

/// The token file of the pod, which once makes whoever reads it panic.
struct PanicsOnce {
    file: AssertionFile,
    armed: Arc<AtomicBool>,
}

#[async_trait]
impl AssertionSource for PanicsOnce {
    async fn assertion(&self) -> Result<Token, MintError> {
        assert!(
            !self.armed.swap(false, Ordering::SeqCst),
            "a bug that nobody knows of"
        );
        self.file.assertion().await
    }
}

#[test]
fn a_panic_ends_one_reconcile_is_counted_and_tried_again() {
    run(async {
        let scene = Scene::new("panics").await?;
        let contoso = scene.registry("contoso").await?;
        let armed = Arc::new(AtomicBool::new(false));
        let file = AssertionFile::new(scene.token_file().await?);
        let mut tuning = Tuning::of(&scene);
        tuning.assertion = Some(Box::new(PanicsOnce {
            file,
            armed: armed.clone(),
        }));
        let acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("before", &[&contoso]))
            .await?;

        armed.store(true, Ordering::SeqCst);
        let mut created = 0;
        // The token file is read once a second: one of these meets the panic.
        soon("the panic was counted", async || {
            let name = format!("panics-{created}");
            created += 1;
            objects
                .create(&manifest(&name, &[&contoso]))
                .await
                .map_err(|e| e.to_string())?;
            let metrics = acrcred.metrics.encode();
            let counted = metrics.contains("acrcred_reconcile_total{result=\"panic\"} 1");
            if counted { Ok(()) } else { Err(metrics) }
        })
        .await?;
        objects
            .create_ready(&manifest("after", &[&contoso]))
            .await?;
        assert!(acrcred.oldest_due().is_zero());
        scene.clock.advance(SignedDuration::from_mins(6));
        for number in 0..created {
            objects.ready(&format!("panics-{number}")).await?;
        }
        Ok(())
    });
}

const BROKEN: usize = 1_000;
/// Longer than two rotations of the victim.
const STORM: Duration = Duration::from_secs(65);
const VICTIM_LIFE: i64 = 60;

/// The worst that was seen while the storm lasted.
#[derive(Default)]
struct Worst {
    /// Least part of the victim's life that was left.
    life_left: Option<f64>,
    lateness: Duration,
}

/// Takes its time: two rotations of a credential that lives a minute, watched while they happen.
#[test]
fn a_thousand_broken_neighbours_and_a_hanging_registry_leave_a_victim_alone() {
    run(async {
        let scene = Scene::new("victim").await?;
        let neighbour = scene.control_plane.create_namespace("neighbour").await?;
        let short = |registry: &mut azure_emulator::registry::Registry| {
            registry.refresh_token_lifetime_s = Some(VICTIM_LIFE);
        };
        let contoso = scene.registry_in("azurecr.io", "contoso", short).await?;
        let closed = scene.empty_registry("azurecr.io", "closed", |_| {})?;
        let hanging = scene.empty_registry("azurecr.io", "hanging", |_| {})?;
        let hangs = Kind::Slow {
            headers_ms: 60_000,
            body_ms: 0,
        };
        scene.emulator.add_fault(Fault::new(
            Endpoint::Exchange,
            Match::registry(&hanging.server),
            hangs,
        ));

        let mut tuning = Tuning::of(&scene);
        tuning.watch_namespaces.push(neighbour.clone());
        tuning.policy.push((neighbour.clone(), "*".into()));
        let acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        objects.create(&manifest("hanging", &[&hanging])).await?;

        let neighbours = Objects::new(scene.control_plane.admin(), &neighbour);
        let broken = async {
            futures::stream::iter(0..BROKEN)
                .for_each_concurrent(8, async |number| {
                    let object = manifest(&format!("broken-{number}"), &[&closed]);
                    // What matters is the load, not that each of them arrives.
                    let _ = neighbours.create(&object).await;
                })
                .await;
        };
        let flips = flip(&neighbours);
        let watching = watch(&objects, &contoso, &acrcred);
        let (worst, ()) = tokio::join!(watching, async {
            tokio::join!(broken, flips);
        });
        let worst = worst?;
        let life_left = worst.life_left.context("the victim was never seen")?;
        ensure!(
            life_left >= 0.25,
            "the victim was down to {life_left:.2} of its life"
        );
        ensure!(
            worst.lateness < Duration::from_secs(5),
            "work was {:?} late",
            worst.lateness
        );
        let exchanges = scene.journal(Endpoint::Exchange);
        let of_victim = exchanges
            .iter()
            .filter(|entry| entry.host == contoso.server)
            .count();
        ensure!(
            (2..=6).contains(&of_victim),
            "{of_victim} exchanges for the victim"
        );
        // One for all who share the identity, and at most one more after each of two evictions.
        ensure!(
            scene.journal(Endpoint::Login).len() <= 3,
            "{}",
            scene.journal(Endpoint::Login).len()
        );
        Ok(())
    });
}

/// Annotations flip twenty times a second.
async fn flip(neighbours: &Objects) {
    let until = Instant::now() + STORM;
    let mut tick = interval(Duration::from_millis(50));
    for number in 0_usize.. {
        tick.tick().await;
        if Instant::now() > until {
            return;
        }
        let name = format!("broken-{}", number % BROKEN);
        let change =
            json!({"metadata": {"annotations": {"acrcred.dev/refresh": number.to_string()}}});
        // An object that is not there yet flips next time.
        let _ = neighbours.change(&name, change).await;
    }
}

async fn watch(objects: &Objects, registry: &TestRegistry, acrcred: &Acrcred) -> Result<Worst> {
    let until = Instant::now() + STORM;
    let mut tick = interval(Duration::from_millis(100));
    let mut worst = Worst::default();
    while Instant::now() < until {
        tick.tick().await;
        let token = objects
            .token("acr", registry)
            .await?
            .context("the victim's token")?;
        let claims = acrcred::credential::Claims::parse(&token).context("no JWT")?;
        let left = claims
            .expires_at
            .duration_since(Timestamp::now())
            .as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let left = left / VICTIM_LIFE as f64;
        worst.life_left = Some(worst.life_left.map_or(left, |least| least.min(left)));
        worst.lateness = worst.lateness.max(acrcred.oldest_due());
    }
    Ok(worst)
}
