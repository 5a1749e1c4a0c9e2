//! `spec.suspend`.

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::json;

use crate::harness::{Scene, condition, manifest, run};

#[test]
fn a_suspended_object_mints_nothing_and_still_tells_its_expiry() {
    run(async {
        let scene = Scene::with_own_time("suspended").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;

        objects
            .change("acr", json!({"spec": {"suspend": true}}))
            .await?;
        objects.has("acr", "Ready", "True", "Suspended").await?;
        scene.advance(SignedDuration::from_mins(185));
        let object = objects.has("acr", "Ready", "False", "Suspended").await?;
        assert!(
            condition(&object, "Stalled").is_none() && condition(&object, "Reconciling").is_none()
        );
        assert_eq!(scene.upstream_calls(), (1, 1));

        objects
            .change("acr", json!({"spec": {"suspend": false}}))
            .await?;
        objects.ready("acr").await?;
        assert_ne!(objects.token("acr", &contoso).await?, Some(token));
        Ok(())
    });
}

#[test]
fn an_object_that_is_born_suspended_asks_for_nothing() {
    run(async {
        let scene = Scene::new("born-suspended").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let mut object = manifest("acr", &[&contoso]);
        object.spec.suspend = true;
        objects.create(&object).await?;
        objects.has("acr", "Ready", "False", "Suspended").await?;
        assert_eq!(scene.upstream_calls(), (0, 0));
        objects
            .change("acr", json!({"spec": {"suspend": false}}))
            .await?;
        objects.ready("acr").await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        Ok(())
    });
}

#[test]
fn shrinking_goes_on_while_suspended() {
    run(async {
        let scene = Scene::new("shrink").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let kept = objects.token("acr", &contoso).await?;
        let spec = json!({"spec": {"suspend": true, "registries": [{"server": contoso.server}]}});
        objects.change("acr", spec).await?;
        objects.has("acr", "Ready", "True", "Suspended").await?;
        assert_eq!(objects.token("acr", &fabrikam).await?, None);
        assert_eq!(objects.token("acr", &contoso).await?, kept);
        Ok(())
    });
}
