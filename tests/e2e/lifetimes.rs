//! Odd lives, odd clocks, and changes that take their time in Azure.

use anyhow::{Context as _, Result};
use azure_emulator::fault::{BodyKind, Fault, Kind, Match, Spoil};
use azure_emulator::journal::Endpoint;
use azure_emulator::keys::KeyName;
use jiff::{SignedDuration, Timestamp};

use crate::harness::{CONTROLLER, Scene, TestRegistry, condition, manifest, run, soon};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

async fn with_life(name: &str, life: i64) -> Result<(Scene, TestRegistry)> {
    let scene = Scene::with_own_time(name).await?;
    let set = |registry: &mut azure_emulator::registry::Registry| {
        registry.refresh_token_lifetime_s = Some(life);
    };
    let contoso = scene.registry_in("azurecr.io", "contoso", set).await?;
    Ok((scene, contoso))
}

#[test]
fn tokens_of_one_second_do_not_make_a_hot_loop() {
    run(async {
        let (scene, contoso) = with_life("one-second", 1).await?;
        let _acrcred = scene.start().await?;
        scene
            .objects()
            .create(&manifest("acr", &[&contoso]))
            .await?;
        for minted in 1..=6 {
            soon("the next mint", async || match scene.upstream_calls() {
                (_, exchanges) if exchanges >= minted => Ok(()),
                (_, exchanges) => Err(format!("{exchanges} of {minted}")),
            })
            .await?;
            scene.advance(seconds(11));
        }
        let (_, exchanges) = scene.upstream_calls();
        assert!(exchanges <= 7, "{exchanges} exchanges in a minute");
        Ok(())
    });
}

#[test]
fn a_token_that_is_expired_on_arrival_is_not_written() {
    run(async {
        let (scene, contoso) = with_life("expired", -30).await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Ready", "False", "MalformedAnswer")
            .await?;
        let message = &condition(&object, "Ready").context("a condition")?.message;
        assert!(message.contains("clock"), "{message}");
        assert!(objects.secrets.get_opt("acr").await?.is_none());
        Ok(())
    });
}

#[test]
fn an_expiry_in_a_thousand_years_is_looked_at_within_a_day() {
    run(async {
        let scene = Scene::with_own_time("far").await?;
        let contoso = scene.registry("contoso").await?;
        let far = Kind::Malformed { how: Spoil::FarExp };
        scene.emulator.add_fault(Fault::new(
            Endpoint::Exchange,
            Match::registry(&contoso.server),
            far,
        ));
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let status = object.status.context("a status")?;
        let day = scene.clock.now() + SignedDuration::from_hours(24) + MINUTE;
        assert!(status.expires_at.context("an expiry")?.0 <= day);
        assert!(status.refresh_at.context("a refresh")?.0 <= day - SignedDuration::from_hours(11));
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        scene.advance(SignedDuration::from_hours(13));
        objects.another_token("acr", &contoso, &token).await?;
        Ok(())
    });
}

#[test]
fn clocks_that_disagree_by_ten_minutes_shorten_no_life_below_a_half() {
    run(async {
        for skew in [10 * MINUTE, -10 * MINUTE] {
            let (scene, contoso) = with_life("skew", 3600).await?;
            // Azure's clock alone: acrcred's is now behind, or ahead.
            scene.emulator.advance(skew);
            let _acrcred = scene.start().await?;
            let objects = scene.objects();
            let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
            let status = object.status.context("a status")?;
            let refresh: Timestamp = status.refresh_at.context("a refresh")?.0;
            let wait = refresh.duration_since(scene.clock.now());
            assert!(
                (18 * MINUTE..=31 * MINUTE).contains(&wait),
                "skew {skew}: {wait}"
            );
            let token = objects.token("acr", &contoso).await?.context("a token")?;
            scene.advance(31 * MINUTE);
            objects.another_token("acr", &contoso, &token).await?;
        }
        Ok(())
    });
}

fn throttled(retry_after: &str) -> Kind {
    Kind::Status {
        status: 429,
        body: BodyKind::Text,
        code: None,
        text: None,
        reason: None,
        retry_after: Some(retry_after.to_owned()),
    }
}

#[test]
fn retry_after_is_a_floor_for_everybody_who_shares_the_key() {
    run(async {
        let scene = Scene::with_own_time("throttled").await?;
        let contoso = scene.registry("contoso").await?;
        let tenant = Match::tenant(&scene.tenant_id);
        let fault = scene
            .emulator
            .add_fault(Fault::new(Endpoint::Login, tenant, throttled("300")));
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        for number in 0..5 {
            objects
                .create(&manifest(&format!("acr-{number}"), &[&contoso]))
                .await?;
        }
        for number in 0..5 {
            objects
                .has(&format!("acr-{number}"), "Reconciling", "True", "Throttled")
                .await?;
        }
        assert_eq!(scene.upstream_calls(), (1, 0));
        scene.emulator.remove_fault(fault);
        for _ in 0..4 {
            scene.advance(MINUTE);
            acrcred.catches_up().await?;
        }
        assert_eq!(
            scene.upstream_calls(),
            (1, 0),
            "nobody came before the time"
        );
        scene.advance(3 * MINUTE);
        for number in 0..5 {
            objects.ready(&format!("acr-{number}")).await?;
        }
        assert_eq!(scene.upstream_calls(), (2, 1));
        Ok(())
    });
}

#[test]
fn a_retry_after_of_a_year_is_capped_at_a_quarter_of_an_hour() {
    run(async {
        let scene = Scene::with_own_time("a-year").await?;
        let contoso = scene.registry("contoso").await?;
        let one = Fault::new(
            Endpoint::Exchange,
            Match::registry(&contoso.server),
            throttled("31536000"),
        );
        scene.emulator.add_fault(one.times(1));
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Reconciling", "True", "Throttled")
            .await?;
        scene.advance(16 * MINUTE);
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn an_upstream_that_hangs_is_given_up_after_ten_seconds() {
    run(async {
        let scene = Scene::new("hangs").await?;
        let contoso = scene.registry("contoso").await?;
        let hangs = Kind::Slow {
            headers_ms: 60_000,
            body_ms: 0,
        };
        scene.emulator.add_fault(Fault::new(
            Endpoint::Exchange,
            Match::registry(&contoso.server),
            hangs,
        ));
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Reconciling", "True", "UpstreamUnavailable")
            .await?;
        Ok(())
    });
}

#[test]
fn a_role_and_a_federation_that_take_minutes_to_spread_are_waited_for() {
    run(async {
        let scene = Scene::with_own_time("spreads").await?;
        let contoso = scene.registry("contoso").await?;
        let later = Timestamp::now() + 5 * MINUTE;
        scene.emulator.update(|state| {
            for role in &mut state.role_assignments {
                role.effective_after = Some(later);
            }
        })?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        for _ in 0..4 {
            // A human need not act yet.
            objects
                .has("acr", "Reconciling", "True", "RegistryRefused")
                .await?;
            scene.advance(MINUTE);
        }
        scene.advance(3 * MINUTE);
        objects.ready("acr").await?;
        assert!(
            scene.upstream_calls().1 <= 15,
            "{:?}",
            scene.upstream_calls()
        );
        Ok(())
    });
}

#[test]
fn a_federation_that_flaps_converges() {
    run(async {
        let scene = Scene::with_own_time("flaps").await?;
        let contoso = scene.registry("contoso").await?;
        scene.emulator.update(|state| {
            for credential in state
                .identities
                .iter_mut()
                .flat_map(|i| &mut i.federated_credentials)
            {
                credential.flap = 3;
            }
        })?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        for _ in 0..6 {
            scene.advance(seconds(30));
            objects
                .status("acr", "it was looked at", |object| {
                    condition(object, "Ready").is_some()
                })
                .await?;
        }
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn an_application_that_is_disabled_leaves_the_old_credential_to_its_end() {
    run(async {
        let scene = Scene::with_own_time("disabled").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let token = objects.token("acr", &contoso).await?;
        let enable = |enabled: bool| {
            scene.emulator.update(|state| {
                state
                    .identities
                    .iter_mut()
                    .for_each(|i| i.enabled = enabled);
            })
        };
        enable(false)?;
        scene.advance(95 * MINUTE);
        objects
            .has("acr", "RefreshFailing", "True", "InvalidIdentity")
            .await?;
        assert_eq!(objects.token("acr", &contoso).await?, token);
        enable(true)?;
        scene.advance(13 * MINUTE);
        objects
            .another_token("acr", &contoso, &token.context("a token")?)
            .await?;
        Ok(())
    });
}

#[test]
fn a_shared_entra_token_that_a_registry_refuses_is_replaced_once() {
    run(async {
        let scene = Scene::with_own_time("evicted").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("contoso", &[&contoso]))
            .await?;
        // Entra's keys change: registries refuse what the cache still holds.
        scene.emulator.rotate_key(KeyName::Entra, false).await?;
        objects
            .create_ready(&manifest("fabrikam", &[&fabrikam]))
            .await?;
        assert_eq!(scene.journal(Endpoint::Login).len(), 2);

        // A registry that always refuses does not do that again and again.
        let closed = scene.empty_registry("azurecr.io", "closed", |_| {})?;
        objects.create(&manifest("closed", &[&closed])).await?;
        objects
            .has("closed", "Ready", "False", "RegistryRefused")
            .await?;
        for _ in 0..4 {
            scene.advance(MINUTE);
            objects
                .has("closed", "Ready", "False", "RegistryRefused")
                .await?;
        }
        assert!(
            scene.journal(Endpoint::Login).len() <= 3,
            "{}",
            scene.journal(Endpoint::Login).len()
        );
        Ok(())
    });
}

#[test]
fn a_federation_that_is_taken_away_and_given_back_needs_no_touch() {
    run(async {
        let scene = Scene::with_own_time("federation-back").await?;
        let contoso = scene.registry("contoso").await?;
        scene.emulator.update(|state| {
            state
                .identities
                .iter_mut()
                .for_each(|identity| identity.federated_credentials.clear());
        })?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Reconciling", "True", "FederationMismatch")
            .await?;
        // It is not corrected for half an hour: now a person must act.
        for _ in 0..20 {
            scene.advance(MINUTE);
            objects
                .has("acr", "Ready", "False", "FederationMismatch")
                .await?;
        }
        objects
            .has("acr", "Stalled", "True", "FederationMismatch")
            .await?;
        scene.trust(CONTROLLER)?;
        scene.advance(13 * MINUTE);
        objects.ready("acr").await?;
        Ok(())
    });
}
