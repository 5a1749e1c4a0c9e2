//! acrcred's clock is set forward by a day, and back again: its time was wrong, so what it planned is planned again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use azure_emulator::journal::Endpoint;
use controlplane::eventually;
use jiff::SignedDuration;

use crate::harness::{REFRESH, Scene, condition, manifest, run};
use crate::history::History;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// By when everything is right again.
const RECOVERY: Duration = Duration::from_mins(1);

#[test]
fn a_clock_that_is_a_day_ahead_for_a_while_costs_no_credential_and_no_rotation() {
    run(async {
        let scene = Scene::with_own_time("clock").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let history = History::from_now(&scene).await?;

        // Of acrcred alone: for Azure and the API server it is still today.
        let asked = scene.journal(Endpoint::Exchange).len();
        scene.clock.advance(DAY);
        let ahead = objects
            .status("acr", "it takes its credentials for expired", |object| {
                condition(object, "Ready").is_some_and(|ready| ready.status == "False")
            })
            .await?;
        ensure!(condition(&ahead, "Stalled").is_none(), "{:?}", ahead.status);
        // It has tried, and put what failed off, by the wrong time.
        crate::harness::soon("it has asked for new ones", async || {
            match scene.journal(Endpoint::Exchange).len() {
                now if now > asked => Ok(()),
                now => Err(format!("{now} exchanges")),
            }
        })
        .await?;
        acrcred.catches_up().await?;

        let back = Instant::now();
        scene.clock.advance(-DAY);
        eventually(RECOVERY, "it is ready again", async || {
            let object = objects.credentials.get("acr").await;
            let object = object.map_err(|error| error.to_string())?;
            let ready = condition(&object, "Ready").is_some_and(|ready| ready.status == "True");
            (ready && condition(&object, "RefreshFailing").is_none())
                .then_some(())
                .ok_or_else(|| format!("{:?}", object.status))
        })
        .await?;
        let took = back.elapsed();
        ensure!(took < RECOVERY, "{took:?}");
        for version in history.versions().await? {
            ensure!(
                version.tokens.len() == 2,
                "an entry was removed: {version:?}"
            );
        }
        ensure!(acrcred.oldest_due() < Duration::from_secs(5));

        let object = objects.ready("acr").await?;
        let status = object.status.context("a status")?;
        let refresh = status.refresh_at.context("a time")?.0;
        ensure!(
            refresh < scene.clock.now() + REFRESH,
            "the next refresh is planned for {refresh}"
        );
        let mut tokens = Vec::new();
        for registry in [&contoso, &fabrikam] {
            tokens.push((
                registry,
                objects.token("acr", registry).await?.context("a token")?,
            ));
        }
        scene.advance(REFRESH);
        for (registry, token) in tokens {
            objects.another_token("acr", registry, &token).await?;
        }
        objects.ready("acr").await?;
        Ok(())
    });
}
