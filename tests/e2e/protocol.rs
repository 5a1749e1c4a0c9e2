//! What Entra and the registries are known to do, each under its number in `docs/vectors.md`, where no other test is about it.

use anyhow::{Context as _, Result};
use azure_emulator::fault::{BodyKind, Fault, Kind, Match, Spoil};
use azure_emulator::journal::Endpoint;
use azure_emulator::registry::Registry;
use azure_emulator::state::{IdentityKind, Tenant};
use jiff::SignedDuration;

use crate::harness::{Scene, TestRegistry, condition, manifest, run, soon};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn logins(scene: &Scene) -> usize {
    scene.journal(Endpoint::Login).len()
}

fn refused(status: u16, code: &str) -> Kind {
    Kind::Status {
        status,
        body: BodyKind::Native,
        code: Some(code.to_owned()),
        text: None,
        reason: None,
        retry_after: None,
    }
}

async fn message(scene: &Scene, name: &str) -> Result<String> {
    let object = scene.objects().credentials.get(name).await?;
    let ready = condition(&object, "Ready").context("a condition")?;
    Ok(ready.message.clone())
}

/// E1.
#[test]
fn an_entra_token_is_shared_until_five_minutes_before_its_end() {
    run(async {
        let scene = Scene::with_own_time("e1").await?;
        scene.emulator.update(|state| {
            for identity in &mut state.identities {
                identity.token_lifetime_s = Some(3600);
            }
        })?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        for (name, later, expected) in [("contoso", 0, 1), ("fabrikam", 54, 1), ("litware", 2, 2)] {
            let registry = scene.registry(name).await?;
            scene.advance(later * MINUTE);
            objects.create_ready(&manifest(name, &[&registry])).await?;
            assert_eq!(logins(&scene), expected, "{name}");
        }
        Ok(())
    });
}

/// E2.
#[test]
fn a_day_long_token_of_a_managed_identity_serves_many_rotations() {
    run(async {
        let scene = Scene::with_own_time("e2").await?;
        scene.emulator.update(|state| {
            for identity in &mut state.identities {
                identity.kind = IdentityKind::Uami;
            }
        })?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let mut token = objects.token("acr", &contoso).await?.context("a token")?;
        for _ in 0..3 {
            scene.advance(95 * MINUTE);
            token = objects.another_token("acr", &contoso, &token).await?;
        }
        assert_eq!(scene.upstream_calls(), (1, 4));
        scene.advance(SignedDuration::from_hours(20));
        objects.another_token("acr", &contoso, &token).await?;
        assert_eq!(logins(&scene), 2, "a day is over");
        Ok(())
    });
}

/// E4.
#[test]
fn a_federated_credential_without_the_issuers_slash_is_told_apart() {
    run(async {
        let scene = Scene::with_own_time("e4").await?;
        let contoso = scene.registry("contoso").await?;
        scene.emulator.update(|state| {
            let identities = state.identities.iter_mut();
            for credential in identities.flat_map(|identity| &mut identity.federated_credentials) {
                credential.issuer = credential.issuer.trim_end_matches('/').to_owned();
            }
        })?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Reconciling", "True", "FederationMismatch")
            .await?;
        let told = message(&scene, "acr").await?;
        for words in ["700211", "trailing slash", scene.control_plane.issuer()] {
            assert!(told.contains(words), "{words}: {told}");
        }
        Ok(())
    });
}

/// E8.
#[test]
fn an_assertion_outside_of_its_dates_is_read_anew_once() {
    run(async {
        let scene = Scene::with_own_time("e8").await?;
        let contoso = scene.registry("contoso").await?;
        let expired = || {
            let tenant = Match::tenant(&scene.tenant_id);
            Fault::new(Endpoint::Login, tenant, refused(401, "700024"))
        };
        scene.emulator.add_fault(expired().times(1));
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        assert_eq!(logins(&scene), 2);
        assert_eq!(
            scene.calls().await?.writes().len(),
            2,
            "no failure was worth telling"
        );

        scene.emulator.add_fault(expired());
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        scene.advance(100 * MINUTE);
        let failing = objects
            .status("acr", "its refresh fails", |object| {
                condition(object, "RefreshFailing").is_some()
            })
            .await?;
        let told = &condition(&failing, "RefreshFailing")
            .context("just seen")?
            .message;
        assert!(told.contains("clock"), "{told}");
        assert_eq!(objects.token("acr", &contoso).await?, Some(token));
        let attempts = scene.journal(Endpoint::Login).len() - 2;
        assert!(attempts % 2 == 0 && attempts <= 8, "{attempts} calls");
        Ok(())
    });
}

/// E23.
#[test]
fn an_entra_token_without_a_life_is_used_once_and_asked_for_in_no_hurry() {
    run(async {
        for how in [Spoil::ExpiresZero, Spoil::ExpiresNegative] {
            let scene = Scene::with_own_time("e23").await?;
            let (contoso, fabrikam) = (
                scene.registry("contoso").await?,
                scene.registry("fabrikam").await?,
            );
            let tenant = Match::tenant(&scene.tenant_id);
            let spoilt = Fault::new(Endpoint::Login, tenant, Kind::Malformed { how });
            scene.emulator.add_fault(spoilt);
            let acrcred = scene.start().await?;
            let objects = scene.objects();
            objects.create_ready(&manifest("acr", &[&contoso])).await?;
            scene.advance(30 * MINUTE);
            acrcred.catches_up().await?;
            assert_eq!(logins(&scene), 1);
            let other = manifest("other", &[&fabrikam]);
            objects.create_ready(&other).await?;
            assert_eq!(logins(&scene), 2, "{how:?}: nobody shares it");
        }
        Ok(())
    });
}

async fn refuses(scene: &Scene, registry: &TestRegistry) -> Result<String> {
    let objects = scene.objects();
    let object = manifest("acr", &[registry]);
    objects.create(&object).await?;
    objects
        .has("acr", "Reconciling", "True", "RegistryRefused")
        .await?;
    let told = message(scene, "acr").await?;
    // Roles need a quarter of an hour to spread at most; then a human must act.
    for _ in 0..18 {
        scene.advance(MINUTE);
        objects
            .has("acr", "Ready", "False", "RegistryRefused")
            .await?;
    }
    objects
        .has("acr", "Stalled", "True", "RegistryRefused")
        .await?;
    assert!(objects.secrets.get_opt("acr").await?.is_none());
    Ok(told)
}

/// A5, A7 and A11.
#[test]
fn what_a_registry_refuses_is_told_and_turns_to_a_human_in_time() {
    run(async {
        let scene = Scene::with_own_time("a5").await?;
        let closed = scene.empty_registry("azurecr.io", "closed", |_| {})?;
        let _acrcred = scene.start().await?;
        let told = refuses(&scene, &closed).await?;
        assert!(told.contains("AcrPull"), "{told}");

        let scene = Scene::with_own_time("a7").await?;
        let tenant_id = "44444444-0000-4000-8000-000000000000";
        scene.emulator.add_tenant(Tenant {
            tenant_id: tenant_id.into(),
            ..Tenant::default()
        })?;
        let foreign = |registry: &mut Registry| registry.tenant_id = tenant_id.into();
        let foreign = scene.empty_registry("azurecr.io", "foreign", foreign)?;
        scene.assign_role(&foreign)?;
        let _acrcred = scene.start().await?;
        let told = refuses(&scene, &foreign).await?;
        assert!(told.contains("tenant"), "{told}");

        let scene = Scene::with_own_time("a11").await?;
        let shut = |registry: &mut Registry| registry.public_network_access = false;
        let shut = scene.empty_registry("azurecr.io", "shut", shut)?;
        scene.assign_role(&shut)?;
        let _acrcred = scene.start().await?;
        let told = refuses(&scene, &shut).await?;
        assert!(told.contains("firewall"), "{told}");
        Ok(())
    });
}

/// A10.
#[test]
fn of_several_retry_after_the_latest_counts() {
    run(async {
        let scene = Scene::with_own_time("a10").await?;
        let contoso = scene.registry("contoso").await?;
        for seconds in [60, 300] {
            let throttle = Kind::Throttle {
                retry_after: Some(seconds),
                http_date: false,
                json: true,
            };
            let one = Fault::new(
                Endpoint::Exchange,
                Match::registry(&contoso.server),
                throttle,
            );
            scene.emulator.add_fault(one.times(1));
        }
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Reconciling", "True", "Throttled")
            .await?;
        let exchanges = || scene.journal(Endpoint::Exchange);
        scene.advance(2 * MINUTE);
        soon("it came back", async || match exchanges().len() {
            1 => Err("not yet".to_owned()),
            _ => Ok(()),
        })
        .await?;
        // Enough for the first of the two, and not for the second.
        scene.advance(3 * MINUTE);
        acrcred.catches_up().await?;
        let control = scene.registry("control").await?;
        let other = manifest("control", &[&control]);
        objects.create_ready(&other).await?;
        scene.advance(4 * MINUTE);
        objects.ready("acr").await?;
        let times: Vec<_> = exchanges()
            .iter()
            .filter(|call| call.host == contoso.server)
            .map(|call| call.time + SignedDuration::from_secs(call.clock_offset_s))
            .collect();
        let [first, second, third] = times[..] else {
            panic!("{times:?}");
        };
        assert!(second.duration_since(first) >= MINUTE, "{times:?}");
        assert!(third.duration_since(second) >= 5 * MINUTE, "{times:?}");
        Ok(())
    });
}

/// A12.
#[test]
fn a_registry_that_does_not_exist_is_named() {
    run(async {
        let scene = Scene::new("a12").await?;
        let contoso = scene.registry("contoso").await?;
        let nowhere = TestRegistry {
            server: contoso.server.replace("contoso", "nowhere"),
        };
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = manifest("acr", &[&contoso, &nowhere]);
        objects.create(&object).await?;
        objects
            .has("acr", "Reconciling", "True", "UpstreamUnavailable")
            .await?;
        let told = message(&scene, "acr").await?;
        assert!(
            told.contains(&nowhere.server) && told.contains("DNS"),
            "{told}"
        );
        assert!(scene.connects_to(&nowhere.server) > 0);
        assert!(objects.token("acr", &contoso).await?.is_some());
        Ok(())
    });
}

/// A31.
#[test]
fn every_shape_of_a_login_server_is_served() {
    run(async {
        let scene = Scene::new("a31").await?;
        // With the dash of a domain name label.
        let home = scene.registry("contoso-a1b2c").await?;
        let regional = TestRegistry {
            server: home.server.replace(".azurecr.io", ".eastus.geo.azurecr.io"),
        };
        scene.emulator.update(|state| {
            let registries = &mut state.registries;
            let home = registries
                .iter_mut()
                .find(|registry| registry.login_servers[0] == home.server);
            if let Some(home) = home {
                home.login_servers.push(regional.server.clone());
            }
        })?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = manifest("acr", &[&home, &regional]);
        objects.create_ready(&object).await?;
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        for server in [&home.server, &regional.server] {
            crane.pull(&format!("{server}/team/app:v1")).await?;
        }
        assert_eq!(scene.upstream_calls(), (1, 2));
        Ok(())
    });
}

/// K18.
#[test]
fn a_credential_that_expired_while_acrcred_was_down_works_again_after_its_start() {
    run(async {
        let scene = Scene::with_own_time("k18").await?;
        let contoso = scene.registry("contoso").await?;
        let image = format!("{}/team/app:v1", contoso.server);
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let pulls = async || {
            let config = objects.docker_config("acr").await?;
            scene.crane(&config)?.pull(&image).await
        };
        pulls().await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        acrcred.stop().await?;
        scene.advance(4 * 60 * MINUTE);
        assert!(pulls().await.is_err(), "an expired credential pulls");

        let _acrcred = scene.start().await?;
        objects.another_token("acr", &contoso, &token).await?;
        pulls().await?;
        Ok(())
    });
}
