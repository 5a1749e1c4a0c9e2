//! A spec that asks for less is served at once, one that asks for more when there is more.

use std::time::Duration;

use anyhow::{Context as _, Result};
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{APP, OTHER, attribute_based, classic, image, let_read, limits};
use crate::harness::{Objects, Scene, TestRegistry, condition, limited, manifest, run};

/// Less than acrcred waits for an answer of Azure.
const AT_ONCE: Duration = Duration::from_secs(8);

fn spec(registry: &TestRegistry, repositories: &[&str]) -> Value {
    let registries = json!([{"server": registry.server, "repositories": repositories}]);
    json!({"spec": {"registries": registries}})
}

async fn entry_is_gone(objects: &Objects, name: &str, registry: &TestRegistry) -> Result<()> {
    controlplane::eventually(AT_ONCE, "the entry is gone", async || {
        match objects.token(name, registry).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("still there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

#[test]
fn narrowing_waits_for_no_upstream() {
    run(async {
        let scene = Scene::with_own_time("narrowing").await?;
        let contoso = classic(&scene, "contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&limited("acr", &contoso, &[APP, OTHER]))
            .await?;
        objects.create_ready(&manifest("wide", &[&contoso])).await?;
        let hang = || Kind::Slow {
            headers_ms: 60_000,
            body_ms: 0,
        };
        scene.emulator.add_fault(Fault::new(
            Endpoint::Login,
            Match::tenant(&scene.tenant_id),
            hang(),
        ));
        for endpoint in [Endpoint::Exchange, Endpoint::Token] {
            let matching = Match::registry(&contoso.server);
            scene
                .emulator
                .add_fault(Fault::new(endpoint, matching, hang()));
        }
        // Nothing shared is young enough any more.
        scene.advance(SignedDuration::from_mins(20));
        for name in ["acr", "wide"] {
            objects.change(name, spec(&contoso, &[APP])).await?;
            entry_is_gone(&objects, name, &contoso).await?;
        }
        // When the answers come again, so does a credential of the right size.
        scene.emulator.clear_faults();
        for name in ["acr", "wide"] {
            objects
                .has(name, "Ready", "False", "UpstreamUnavailable")
                .await?;
        }
        scene.advance(SignedDuration::from_secs(80));
        for name in ["acr", "wide"] {
            objects.ready(name).await?;
            let crane = scene.crane(&objects.docker_config(name).await?)?;
            crane.pull(&image(&contoso, APP)).await?;
            assert!(crane.pull(&image(&contoso, OTHER)).await.is_err());
        }
        Ok(())
    });
}

#[test]
fn narrowing_goes_on_while_suspended() {
    run(async {
        let scene = Scene::new("narrow-suspended").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let mut change = spec(&contoso, &[APP]);
        change["spec"]["suspend"] = json!(true);
        objects.change("acr", change).await?;
        objects.has("acr", "Ready", "False", "Suspended").await?;
        assert_eq!(objects.token("acr", &contoso).await?, None);
        assert_eq!(limits(&scene).len(), 0);

        objects
            .change("acr", json!({"spec": {"suspend": false}}))
            .await?;
        objects.ready("acr").await?;
        assert_eq!(limits(&scene).len(), 1);
        Ok(())
    });
}

#[test]
fn widening_keeps_what_there_is_until_there_is_more() {
    run(async {
        let scene = Scene::with_own_time("widening").await?;
        let contoso = attribute_based(&scene, "contoso", &[APP]).await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&limited("acr", &contoso, &[APP]))
            .await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        objects.change("acr", spec(&contoso, &[APP, OTHER])).await?;
        let object = objects
            .has("acr", "RefreshFailing", "True", "InsufficientScope")
            .await?;
        let message = &condition(&object, "RefreshFailing").context("it")?.message;
        assert!(message.contains("(not granted: team/other)"), "{message}");
        assert_eq!(objects.token("acr", &contoso).await?.as_ref(), Some(&token));

        let_read(&scene, &contoso, &[APP, OTHER])?;
        scene.advance(SignedDuration::from_secs(70));
        let wider = objects.another_token("acr", &contoso, &token).await?;
        objects.ready("acr").await?;
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane.pull(&image(&contoso, OTHER)).await?;

        let whole = json!({"spec": {"registries": [{"server": contoso.server}]}});
        objects.change("acr", whole).await?;
        let whole = objects.another_token("acr", &contoso, &wider).await?;
        let claims = scene.emulator.verify_token(&whole)?;
        assert_eq!(claims["grant_type"], "refresh_token");
        Ok(())
    });
}
