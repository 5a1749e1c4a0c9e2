//! `spec.suspend`.

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::json;

use crate::harness::{Scene, condition, manifest, run, soon};

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

#[test]
fn after_a_restart_shrinking_while_suspended_takes_along_what_cannot_be_issued_again() {
    run(async {
        let scene = Scene::new("shrink-restarted").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        objects
            .change("acr", json!({"spec": {"suspend": true}}))
            .await?;
        objects.has("acr", "Ready", "True", "Suspended").await?;
        acrcred.stop().await?;
        let before = objects.secret("acr").await?;
        let calls = scene.upstream_calls();

        // Nothing is lost by the restart alone.
        let _acrcred = scene.start().await?;
        scene.clock.advance(SignedDuration::from_mins(11));
        soon("the Secret was verified", async || {
            let calls = scene.calls().await.map_err(|error| error.to_string())?;
            match calls.count(|call| call.name == "acr" && call.dry_run) {
                0 => Err(calls.to_string()),
                _ => Ok(()),
            }
        })
        .await?;
        assert_eq!(objects.secret("acr").await?, before);

        let spec = json!({"spec": {"registries": [{"server": contoso.server}]}});
        objects.change("acr", spec).await?;
        objects.has("acr", "Ready", "False", "Suspended").await?;
        assert_eq!(objects.token("acr", &fabrikam).await?, None);
        assert_eq!(scene.upstream_calls(), calls);
        objects
            .change("acr", json!({"spec": {"suspend": false}}))
            .await?;
        objects.ready("acr").await?;
        let token = objects.token("acr", &contoso).await?;
        scene.emulator.verify_token(&token.context("a token")?)?;
        let uid = objects.secret("acr").await?.metadata.uid;
        assert_eq!(uid, before.metadata.uid);
        Ok(())
    });
}
