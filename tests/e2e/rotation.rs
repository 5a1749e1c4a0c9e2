//! Time passes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use azure_emulator::journal::Endpoint;
use jiff::SignedDuration;

use crate::harness::{Scene, condition, manifest, run, soon};

#[test]
fn rotation_keeps_the_uid_three_times_over() {
    run(async {
        let scene = Scene::with_own_time("rotates").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let uid = objects.secret("acr").await?.metadata.uid;
        let mut tokens =
            BTreeSet::from([objects.token("acr", &contoso).await?.context("a token")?]);
        let mut last = tokens.first().cloned().context("a token")?;
        for _ in 0..3 {
            // A refresh token lives three hours and is refreshed at half of that, less up to a tenth.
            scene.advance(SignedDuration::from_mins(95));
            last = objects.another_token("acr", &contoso, &last).await?;
            assert!(tokens.insert(last.clone()), "an old token came back");
            assert_eq!(objects.secret("acr").await?.metadata.uid, uid);
            let crane = scene.crane(&objects.docker_config("acr").await?)?;
            crane
                .pull(&format!("{}/team/app:v1", contoso.server))
                .await?;
        }
        assert_eq!(scene.journal(Endpoint::Exchange).len(), 4);
        Ok(())
    });
}

#[test]
fn nothing_is_refreshed_before_its_time() {
    run(async {
        let scene = Scene::with_own_time("not-early").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        // At two fifths of its life the earliest object is due: half, less the whole jitter.
        scene.advance(SignedDuration::from_mins(70));
        acrcred.catches_up().await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        let first = objects.token("acr", &contoso).await?.context("a token")?;
        scene.advance(SignedDuration::from_mins(25));
        objects.another_token("acr", &contoso, &first).await?;
        Ok(())
    });
}

#[test]
fn a_rotation_costs_one_secret_write_and_one_status_write() {
    run(async {
        let scene = Scene::with_own_time("two-writes").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let before = objects.create_ready(&manifest("acr", &[&contoso])).await?;
        assert_eq!(scene.calls().await?.writes().len(), 2, "first credential");
        let first = objects.token("acr", &contoso).await?.context("a token")?;
        scene.advance(SignedDuration::from_mins(95));
        objects.another_token("acr", &contoso, &first).await?;
        let refreshed = |object: &acrcred::api::AcrCredential| {
            object.status.as_ref().map(|s| s.expires_at.clone())
                != before.status.as_ref().map(|s| s.expires_at.clone())
        };
        objects
            .status("acr", "the status tells the new expiry", refreshed)
            .await?;
        let calls = scene.calls().await?;
        assert_eq!(
            calls.writes().len(),
            4,
            "{:?}",
            calls.iter().map(ToString::to_string).collect::<Vec<_>>()
        );
        assert!(calls.forbidden().is_empty());
        Ok(())
    });
}

#[test]
fn a_restart_with_everything_fresh_mints_and_writes_nothing() {
    run(async {
        let scene = Scene::new("restart").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        for number in 0..50 {
            objects
                .create(&manifest(&format!("acr-{number}"), &[&contoso]))
                .await?;
        }
        for number in 0..50 {
            objects.ready(&format!("acr-{number}")).await?;
        }
        acrcred.stop().await?;
        let (calls, writes) = (scene.upstream_calls(), scene.calls().await?.writes().len());

        let acrcred = scene.start().await?;
        reads_all(&scene, 50).await?;
        assert_eq!(scene.upstream_calls(), calls);
        assert_eq!(scene.calls().await?.writes().len(), writes);
        // The positive control: the restarted one does work.
        objects
            .create_ready(&manifest("one-more", &[&contoso]))
            .await?;
        assert_eq!(scene.calls().await?.writes().len(), writes + 2);
        drop(acrcred);
        Ok(())
    });
}

/// Waits until acrcred has looked at that many Secrets.
async fn reads_all(scene: &Scene, count: usize) -> Result<()> {
    soon("every Secret was read", async || {
        let calls = scene.calls().await.map_err(|error| error.to_string())?;
        let reads = calls.count(|call| call.field_manager == "acrcred-read");
        if reads >= count {
            Ok(())
        } else {
            Err(format!("{reads} reads"))
        }
    })
    .await
}

#[test]
fn an_old_credential_outlives_an_outage_and_its_expiry_is_told() {
    run(async {
        let scene = Scene::with_own_time("outage").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        scene
            .emulator
            .update(|state| state.role_assignments.clear())?;

        scene.advance(SignedDuration::from_mins(95));
        let object = objects
            .has("acr", "RefreshFailing", "True", "RegistryRefused")
            .await?;
        assert_eq!(
            condition(&object, "Ready").map(|c| c.status.as_str()),
            Some("True")
        );
        assert!(
            condition(&object, "Stalled").is_none() && condition(&object, "Reconciling").is_none()
        );
        assert_eq!(
            objects.token("acr", &contoso).await?.as_deref(),
            Some(token.as_str())
        );

        scene.advance(SignedDuration::from_mins(90));
        let object = objects
            .has("acr", "Ready", "False", "RegistryRefused")
            .await?;
        assert!(condition(&object, "RefreshFailing").is_none());

        scene.assign_role(&contoso)?;
        scene.advance(SignedDuration::from_mins(15));
        objects.ready("acr").await?;
        assert_ne!(
            objects.token("acr", &contoso).await?.as_deref(),
            Some(token.as_str())
        );
        Ok(())
    });
}
