//! A restart with a thousand objects of three registries each, while one registry is down.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{BodyKind, Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use futures::StreamExt as _;
use jiff::SignedDuration;
use kube::api::ListParams;
use serde_json::Value;

use crate::harness::{Acrcred, Objects, Scene, TestRegistry, manifest, run};

const OBJECTS: usize = 1_000;
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// For a thousand objects, on a machine that runs other tests too.
const LIMIT: Duration = Duration::from_secs(150);

/// The servers that each Secret has entries for, and its resource version.
async fn entries(objects: &Objects) -> Result<BTreeMap<String, (Vec<String>, String)>> {
    let list = objects.secrets.list(&ListParams::default()).await?;
    list.items
        .into_iter()
        .map(|secret| {
            let name = secret.metadata.name.context("a name")?;
            let version = secret.metadata.resource_version.unwrap_or_default();
            let mut data = secret.data.context("data")?;
            let payload = data.remove(".dockerconfigjson").context("a payload")?;
            let config: Value = serde_json::from_slice(&payload.0)?;
            let auths = config["auths"].as_object().context("auths")?;
            Ok((name, (auths.keys().cloned().collect(), version)))
        })
        .collect()
}

/// Waits until the Secrets are as they should be.
async fn settle(
    objects: &Objects,
    what: &str,
    is_right: impl Fn(&BTreeMap<String, (Vec<String>, String)>) -> bool,
) -> Result<BTreeMap<String, (Vec<String>, String)>> {
    controlplane::eventually(LIMIT, what, async || {
        let now = entries(objects).await.map_err(|error| error.to_string())?;
        if is_right(&now) {
            Ok(now)
        } else {
            Err(format!(
                "{} Secrets, one of them: {:?}",
                now.len(),
                now.iter().next()
            ))
        }
    })
    .await
}

/// Mints that succeeded, as the metrics count them.
fn mints(acrcred: &Acrcred) -> usize {
    let metrics = acrcred.metrics.encode();
    let prefix = "acrcred_refresh_total{outcome=\"success\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(prefix));
    line.and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

/// Takes its time: three thousand credentials are issued, and most of them again.
#[test]
fn a_fleet_that_restarts_while_a_registry_is_down_loses_nothing_early() {
    run(async {
        let scene = Scene::with_own_time("fleet").await?;
        let contoso = scene.registry("contoso").await?;
        let fabrikam = scene.registry("fabrikam").await?;
        let litware = scene.registry("litware").await?;
        let registries: [&TestRegistry; 3] = [&contoso, &fabrikam, &litware];
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        let created = futures::stream::iter(0..OBJECTS)
            .map(|number| {
                let object = manifest(&format!("acr-{number}"), &registries);
                let objects = &objects;
                async move { objects.create(&object).await.map(|_| ()) }
            })
            .buffer_unordered(32)
            .collect::<Vec<Result<()>>>()
            .await;
        created.into_iter().collect::<Result<Vec<()>>>()?;
        let is_whole = |(servers, _): &(Vec<String>, String)| servers.len() == 3;
        let before = settle(&objects, "every Secret is whole", |now| {
            now.len() == OBJECTS && now.values().all(is_whole)
        })
        .await?;
        controlplane::eventually(LIMIT, "every object is ready", async || {
            let metrics = acrcred.metrics.encode();
            let line = format!("acrcred_credentials{{state=\"ready\"}} {OBJECTS}");
            metrics
                .contains(&line)
                .then_some(())
                .ok_or_else(|| "not yet".to_owned())
        })
        .await?;
        ensure!(mints(&acrcred) == 3 * OBJECTS, "{} mints", mints(&acrcred));
        acrcred.stop().await?;

        let down = Kind::Status {
            status: 503,
            body: BodyKind::Text,
            code: None,
            text: None,
            reason: None,
            retry_after: None,
        };
        let matching = Match::registry(&fabrikam.server);
        let fault = scene
            .emulator
            .add_fault(Fault::new(Endpoint::Exchange, matching, down));
        let exchanges = scene.journal(Endpoint::Exchange).len();
        let acrcred = scene.start().await?;
        // Verified within one resync interval and its quiet minute, and nothing else.
        for _ in 0..12 {
            scene.advance(MINUTE);
            acrcred.catches_up().await?;
        }
        ensure!(entries(&objects).await? == before, "something was written");
        ensure!(
            mints(&acrcred) == 0,
            "{} mints of what is fresh",
            mints(&acrcred)
        );
        ensure!(scene.journal(Endpoint::Exchange).len() == exchanges);

        // Due: contoso and litware are issued once and held, since fabrikam's live token is not known.
        scene.advance(85 * MINUTE);
        controlplane::eventually(LIMIT, "two of three are in hand", async || {
            match mints(&acrcred) {
                count if count >= 2 * OBJECTS => Ok(()),
                count => Err(format!("{count}")),
            }
        })
        .await?;
        for _ in 0..6 {
            scene.advance(10 * MINUTE);
            acrcred.catches_up().await?;
        }
        // 157 minutes of 180: more than a tenth is left.
        let now = entries(&objects).await?;
        ensure!(now == before, "an entry was lost early");
        ensure!(
            mints(&acrcred) == 2 * OBJECTS,
            "{} mints: one was issued again",
            mints(&acrcred)
        );

        // A tenth is left: what is in hand goes before what cannot be had.
        scene.advance(8 * MINUTE);
        let two = settle(&objects, "what could be had is written", |now| {
            now.values().all(|(servers, _)| servers.len() == 2)
        })
        .await?;
        ensure!(
            two.values()
                .all(|(servers, _)| !servers.contains(&fabrikam.server))
        );
        // The positive control: when it answers again, everything is whole.
        scene.emulator.remove_fault(fault);
        scene.advance(2 * MINUTE);
        settle(&objects, "every Secret is whole again", |now| {
            now.values().all(is_whole)
        })
        .await?;
        acrcred.stop().await
    });
}
