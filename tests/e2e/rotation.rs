//! Time passes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use azure_emulator::journal::Endpoint;
use jiff::SignedDuration;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};

use crate::changes::Changes;
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
fn a_first_credential_costs_two_calls_and_a_rotation_two_writes_that_change_something() {
    run(async {
        let scene = Scene::with_own_time("two-writes").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let names: Vec<String> = (0..24).map(|number| format!("acr-{number}")).collect();
        let (before, after) = names.split_at(20);
        // Those that were there before acrcred cost no more than those that come later.
        for name in before {
            objects.create(&manifest(name, &[&contoso])).await?;
        }
        let _acrcred = scene.start().await?;
        for name in after {
            objects.create(&manifest(name, &[&contoso])).await?;
        }
        for name in &names {
            objects.ready(name).await?;
        }
        let events: Api<Event> = Api::namespaced(scene.control_plane.admin(), &scene.namespace);
        let events = events.list(&ListParams::default()).await?.items;
        ensure!(events.is_empty(), "success is no event: {events:?}");
        let calls = scene.calls().await?;
        let asked = calls.count(|call| !["list", "watch"].contains(&&*call.verb));
        ensure!(asked == 2 * names.len(), "{calls}");
        let once: BTreeMap<String, usize> = names.iter().map(|name| (name.clone(), 1)).collect();
        ensure!(scene.secret_writes().await? == once, "{calls}");

        let changes = Changes::from_now(&scene).await?;
        let old = objects.token("acr-0", &contoso).await?.context("a token")?;
        scene.advance(SignedDuration::from_mins(95));
        for name in &names {
            objects.another_token(name, &contoso, &old).await?;
        }
        soon("each status names its new Secret", async || {
            for name in &names {
                let object = objects
                    .credentials
                    .get(name)
                    .await
                    .map_err(|e| e.to_string())?;
                let secret = objects.secret(name).await.map_err(|e| e.to_string())?;
                let stated = object.status.and_then(|status| status.secret);
                let stated = stated.map(|secret| secret.resource_version);
                if stated != secret.metadata.resource_version {
                    return Err(format!("{name}: {stated:?}"));
                }
            }
            Ok(())
        })
        .await?;
        let calls = scene.calls().await?;
        let (secrets, statuses) = (changes.of_secrets().await?, changes.of_objects().await?);
        ensure!(
            (&secrets, &statuses) == (&once, &once),
            "{secrets:?} {statuses:?} {calls}"
        );
        // The resync, due by then too, is one more PUT at most, which changes nothing.
        let writes = calls.writes().len() - 2 * names.len();
        ensure!(writes <= 3 * names.len(), "{calls}");
        ensure!(calls.forbidden().is_empty(), "{calls}");
        Ok(())
    });
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
