//! The annotation `acrcred.dev/refresh`: new credentials now, once.

use anyhow::{Context as _, Result};
use azure_emulator::journal::Endpoint;
use serde_json::json;

use crate::harness::{Objects, Scene, manifest, run};

async fn ask(objects: &Objects, name: &str, value: &str) -> Result<()> {
    let annotation = json!({"metadata": {"annotations": {"acrcred.dev/refresh": value}}});
    objects.change(name, annotation).await?;
    objects
        .status(name, "the refresh is told as served", |object| {
            let status = object.status.as_ref();
            status.and_then(|s| s.last_handled_refresh.as_deref()) == Some(value)
        })
        .await?;
    Ok(())
}

#[test]
fn a_new_value_gets_a_new_credential_and_the_same_value_none() {
    run(async {
        let scene = Scene::with_own_time("refresh").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let first = objects.token("acr", &contoso).await?.context("a token")?;
        ask(&objects, "acr", "2026-11-23T10:00:00Z").await?;
        let second = objects.token("acr", &contoso).await?.context("a token")?;
        assert_ne!(second, first);
        assert_eq!(scene.upstream_calls(), (1, 2), "one exchange more");

        // Neither the same value again, nor another label, nor a restart asks for more.
        objects
            .change("acr", json!({"metadata": {"labels": {"a": "b"}}}))
            .await?;
        acrcred.stop().await?;
        let _acrcred = scene.start().await?;
        // The positive control: another value does, and what it waits for has passed the rest.
        scene.advance(jiff::SignedDuration::from_mins(2));
        ask(&objects, "acr", "again").await?;
        assert_eq!(scene.journal(Endpoint::Exchange).len(), 3);
        assert_ne!(objects.token("acr", &contoso).await?, Some(second));
        Ok(())
    });
}

#[test]
fn many_objects_that_are_refreshed_together_share_what_is_minted() {
    run(async {
        let scene = Scene::new("refresh-all").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let names: Vec<String> = (0..20).map(|n| format!("acr-{n}")).collect();
        for name in &names {
            objects.create_ready(&manifest(name, &[&contoso])).await?;
        }
        assert_eq!(scene.upstream_calls(), (1, 1));
        let old = objects.token("acr-0", &contoso).await?;
        for name in &names {
            ask(&objects, name, "release-7").await?;
            assert_ne!(objects.token(name, &contoso).await?, old);
        }
        assert_eq!(scene.upstream_calls(), (1, 2));
        Ok(())
    });
}

#[test]
fn a_failing_object_is_tried_again_at_once() {
    run(async {
        let scene = Scene::with_own_time("refresh-failing").await?;
        let contoso = scene
            .image_registry("azurecr.io", "contoso", |_| {})
            .await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Reconciling", "True", "RegistryRefused")
            .await?;
        // No role within a quarter of an hour: from now on once in ten minutes.
        scene.advance(jiff::SignedDuration::from_mins(16));
        objects
            .has("acr", "Stalled", "True", "RegistryRefused")
            .await?;
        scene.assign_role(&contoso)?;
        ask(&objects, "acr", "now").await?;
        objects.ready("acr").await?;
        Ok(())
    });
}
