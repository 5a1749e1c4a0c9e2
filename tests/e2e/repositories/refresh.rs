//! Limited tokens live 75 minutes, and roles change meanwhile.

use anyhow::Context as _;
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use azure_emulator::state::Mode;
use jiff::SignedDuration;
use serde_json::json;

use super::{APP, OTHER, attribute_based, classic, image, let_read, limits};
use crate::harness::{Scene, condition, limited, manifest, run};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

#[test]
fn a_life_of_75_minutes_drives_the_schedule() {
    run(async {
        let scene = Scene::with_own_time("schedule").await?;
        let contoso = classic(&scene, "contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = objects
            .create_ready(&limited("acr", &contoso, &[APP]))
            .await?;
        let status = object.status.context("a status")?;
        let now = scene.clock.now();
        let expires_in = status
            .expires_at
            .context("an expiry")?
            .0
            .duration_since(now);
        let refresh_in = status
            .refresh_at
            .context("a refresh")?
            .0
            .duration_since(now);
        assert!(
            (74 * MINUTE..=75 * MINUTE).contains(&expires_in),
            "{expires_in:?}"
        );
        assert!(
            (29 * MINUTE..=38 * MINUTE).contains(&refresh_in),
            "{refresh_in:?}"
        );
        let mut token = objects.token("acr", &contoso).await?.context("a token")?;
        for _ in 0..4 {
            scene.advance(39 * MINUTE);
            token = objects.another_token("acr", &contoso, &token).await?;
            objects.ready("acr").await?;
        }
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane.pull(&image(&contoso, APP)).await?;
        assert_eq!(limits(&scene).len(), 5);
        Ok(())
    });
}

#[test]
fn a_role_that_shrinks_is_named_and_the_old_credential_stays() {
    run(async {
        let scene = Scene::with_own_time("shrunk-role").await?;
        let contoso = attribute_based(&scene, "contoso", &[APP, OTHER]).await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&limited("acr", &contoso, &[APP, OTHER]))
            .await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        let_read(&scene, &contoso, &[APP])?;
        scene.advance(40 * MINUTE);
        let object = objects
            .has("acr", "RefreshFailing", "True", "InsufficientScope")
            .await?;
        let message = &condition(&object, "RefreshFailing").context("it")?.message;
        assert!(message.contains("(not granted: team/other)"), "{message}");
        assert_eq!(condition(&object, "Ready").context("it")?.status, "True");
        assert_eq!(objects.token("acr", &contoso).await?.as_ref(), Some(&token));
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane.pull(&image(&contoso, APP)).await?;

        scene.advance(36 * MINUTE);
        objects
            .has("acr", "Ready", "False", "InsufficientScope")
            .await?;
        let_read(&scene, &contoso, &[APP, OTHER])?;
        scene.advance(13 * MINUTE);
        objects.another_token("acr", &contoso, &token).await?;
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn a_switch_of_the_mode_repairs_itself() {
    run(async {
        let scene = Scene::with_own_time("mode-switch").await?;
        let contoso = classic(&scene, "contoso").await?;
        let_read(&scene, &contoso, &[APP, OTHER])?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&limited("old", &contoso, &[APP]))
            .await?;
        let token = objects.token("old", &contoso).await?.context("a token")?;
        scene.advance(MINUTE);
        scene.emulator.update(|state| {
            for registry in &mut state.registries {
                registry.mode = Mode::Abac;
            }
        })?;
        scene.emulator.raise_epoch(&contoso.server)?;
        let crane = scene.crane(&objects.docker_config("old").await?)?;
        let refused = crane.pull(&image(&contoso, APP)).await;
        assert!(refused.is_err(), "the switch ended no token");

        // The shared refresh token is of the old mode: it is replaced once, and serves the next again.
        for (name, repositories) in [("new", &[OTHER][..]), ("newer", &[OTHER, APP])] {
            let object = limited(name, &contoso, repositories);
            objects.create_ready(&object).await?;
            let crane = scene.crane(&objects.docker_config(name).await?)?;
            crane.pull(&image(&contoso, OTHER)).await?;
        }
        assert_eq!(scene.upstream_calls(), (1, 2));
        // Nothing tells of it to those that are served; a user can.
        let refresh = json!({"metadata": {"annotations": {"acrcred.dev/refresh": "1"}}});
        objects.change("old", refresh).await?;
        objects.another_token("old", &contoso, &token).await?;
        let crane = scene.crane(&objects.docker_config("old").await?)?;
        crane.pull(&image(&contoso, APP)).await?;
        Ok(())
    });
}

#[test]
fn a_scope_that_is_refused_for_good_costs_few_exchanges() {
    run(async {
        let scene = Scene::with_own_time("refused").await?;
        let contoso = attribute_based(&scene, "contoso", &[OTHER]).await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&limited("acr", &contoso, &[APP])).await?;
        objects
            .has("acr", "Ready", "False", "InsufficientScope")
            .await?;
        for _ in 0..10 {
            let before = limits(&scene).len();
            scene.advance(MINUTE + MINUTE / 3);
            crate::harness::soon("another attempt", async || {
                let now = limits(&scene).len();
                // The last attempt may have been judged only after the time was turned.
                scene.advance(SignedDuration::from_secs(1));
                (now > before).then_some(()).ok_or(format!("{now}"))
            })
            .await?;
        }
        let (logins, exchanges) = scene.upstream_calls();
        assert_eq!(logins, 1);
        assert!(exchanges <= 4, "{exchanges} exchanges in 13 minutes");
        Ok(())
    });
}

#[test]
fn retry_after_of_the_token_endpoint_is_a_floor_for_the_whole_registry() {
    run(async {
        let scene = Scene::with_own_time("token-floor").await?;
        let contoso = scene.registry("contoso").await?;
        let throttle = Kind::Throttle {
            retry_after: Some(300),
            http_date: false,
            json: false,
        };
        let matching = Match::registry(&contoso.server);
        let fault = Fault::new(Endpoint::Token, matching, throttle).times(1);
        scene.emulator.add_fault(fault);
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&limited("first", &contoso, &["a"])).await?;
        objects.has("first", "Ready", "False", "Throttled").await?;
        objects.create(&limited("other", &contoso, &["b"])).await?;
        objects.create(&manifest("wide", &[&contoso])).await?;
        objects.has("other", "Ready", "False", "Throttled").await?;
        // The refresh token is there: who needs no more of the registry has it.
        objects.ready("wide").await?;
        scene.advance(4 * MINUTE);
        objects.create(&limited("late", &contoso, &["c"])).await?;
        objects.has("late", "Ready", "False", "Throttled").await?;
        assert_eq!((scene.upstream_calls(), limits(&scene).len()), ((1, 1), 1));
        scene.advance(2 * MINUTE);
        for name in ["first", "other", "late"] {
            objects.ready(name).await?;
        }
        Ok(())
    });
}
