//! What is asked for, what is granted, and what can then be pulled.

use anyhow::{Context as _, Result};
use azure_emulator::fault::{Fault, Kind, Match, Spoil};
use azure_emulator::journal::Endpoint;
use azure_emulator::registry::BodyStyle;
use azure_emulator::state::Mode;
use jiff::SignedDuration;
use serde_json::json;

use super::{APP, OTHER, attribute_based, classic, image, let_read, limits};
use crate::harness::{Scene, TestRegistry, condition, limited, manifest, run};

/// That the Secret pulls one repository and not the other.
async fn pulls_one_alone(scene: &Scene, name: &str, registry: &TestRegistry) -> Result<()> {
    let crane = scene.crane(&scene.objects().docker_config(name).await?)?;
    crane.pull(&image(registry, APP)).await?;
    let refused = crane.pull(&image(registry, OTHER)).await;
    assert!(refused.is_err(), "{name} pulls what it does not name");
    Ok(())
}

#[test]
fn a_classic_registry_lets_pull_what_is_named_and_nothing_else() {
    run(async {
        let scene = Scene::new("limited").await?;
        let contoso = classic(&scene, "contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&limited("limited", &contoso, &[APP]))
            .await?;
        pulls_one_alone(&scene, "limited", &contoso).await?;
        let token = objects.token("limited", &contoso).await?;
        let claims = scene.emulator.verify_token(&token.context("a token")?)?;
        let access = json!([{"type": "repository", "name": APP, "actions": ["pull"]}]);
        assert_eq!(claims["access"], access);
        let [request] = &limits(&scene)[..] else {
            panic!("not one request");
        };
        assert_eq!(request.scope.as_deref(), Some("repository:team/app:pull"));
        assert_eq!(request.method, "POST");

        // The positive control: the same identity, without the limit.
        objects.create_ready(&manifest("wide", &[&contoso])).await?;
        let crane = scene.crane(&objects.docker_config("wide").await?)?;
        for repository in [APP, OTHER] {
            crane.pull(&image(&contoso, repository)).await?;
        }
        Ok(())
    });
}

#[test]
fn an_attribute_based_registry_lets_pull_what_is_named_and_readable() {
    run(async {
        let scene = Scene::new("abac").await?;
        let contoso = attribute_based(&scene, "contoso", &[APP, OTHER]).await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&limited("limited", &contoso, &[APP]))
            .await?;
        pulls_one_alone(&scene, "limited", &contoso).await?;
        let both = limited("both", &contoso, &[OTHER, APP]);
        objects.create_ready(&both).await?;
        let crane = scene.crane(&objects.docker_config("both").await?)?;
        for repository in [APP, OTHER] {
            crane.pull(&image(&contoso, repository)).await?;
        }
        Ok(())
    });
}

#[test]
fn an_object_may_name_one_registry_whole_and_another_in_part() {
    run(async {
        let scene = Scene::new("mixed").await?;
        let (contoso, fabrikam) = (
            classic(&scene, "contoso").await?,
            classic(&scene, "fabrikam").await?,
        );
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        let mut object = manifest("acr", &[&contoso, &fabrikam]);
        object.spec.registries[0].repositories = Some(vec![APP.into()]);
        objects.create_ready(&object).await?;
        pulls_one_alone(&scene, "acr", &contoso).await?;
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane.pull(&image(&fabrikam, OTHER)).await?;
        assert_eq!((scene.upstream_calls(), limits(&scene).len()), ((1, 2), 1));

        acrcred.stop().await?;
        let _again = scene.start().await?;
        objects
            .create_ready(&manifest("later", &[&fabrikam]))
            .await?;
        assert_eq!(limits(&scene).len(), 1, "a restart mints nothing fresh");
        Ok(())
    });
}

#[test]
fn a_service_account_of_ones_own_may_be_limited_too() {
    run(async {
        let scene = Scene::new("own-limited").await?;
        let puller = scene.puller().await?;
        let contoso = puller.registry("contoso").await?;
        scene.push(&contoso, OTHER).await?;
        let _acrcred = scene.start().await?;
        let mut object = puller.manifest("acr", &[&contoso]);
        object.spec.registries[0].repositories = Some(vec![APP.into()]);
        scene.objects().create_ready(&object).await?;
        pulls_one_alone(&scene, "acr", &contoso).await
    });
}

#[test]
fn limits_share_the_sign_in_and_the_exchange() {
    run(async {
        let scene = Scene::new("share-limits").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let lists = [
            &["a"][..],
            &["b"],
            &["a", "b"],
            &["b", "a"],
            &["a"],
            &["c", "d"],
        ];
        for (number, list) in lists.iter().enumerate() {
            let object = limited(&format!("acr-{number}"), &contoso, list);
            objects.create(&object).await?;
        }
        objects.create(&manifest("wide", &[&contoso])).await?;
        for number in 0..lists.len() {
            objects.ready(&format!("acr-{number}")).await?;
        }
        objects.ready("wide").await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        assert_eq!(limits(&scene).len(), 4, "one for each different list");
        assert_eq!(
            objects.token("acr-2", &contoso).await?,
            objects.token("acr-3", &contoso).await?
        );
        assert_ne!(
            objects.token("acr-0", &contoso).await?,
            objects.token("wide", &contoso).await?
        );
        Ok(())
    });
}

/// `AcrPull` on an attribute-based registry: neither endpoint says why it is worth nothing.
async fn acr_pull_is_not_enough(body: BodyStyle) -> Result<()> {
    let scene = Scene::with_own_time("acr-pull").await?;
    let contoso = scene.empty_registry("azurecr.io", "contoso", |registry| {
        registry.mode = Mode::Abac;
        registry.no_role_status = 200;
        registry.body = body;
    })?;
    scene.assign_role(&contoso)?;
    scene.push(&contoso, APP).await?;
    let _acrcred = scene.start().await?;
    let objects = scene.objects();
    objects
        .create(&limited("acr", &contoso, &[OTHER, APP]))
        .await?;
    let object = objects
        .has("acr", "Ready", "False", "InsufficientScope")
        .await?;
    assert!(condition(&object, "Reconciling").is_some());
    let message = &condition(&object, "Ready").context("a condition")?.message;
    for part in [
        "(not granted: team/app, team/other)",
        "Container Registry Repository Reader",
        "ignores AcrPull",
        "az role assignment create",
    ] {
        assert!(message.contains(part), "{body:?}: {message}");
    }
    assert_eq!(message.contains("HTTP 401"), body == BodyStyle::Acr);
    assert!(objects.secrets.get_opt("acr").await?.is_none());

    // The role comes, and nobody touches the object.
    let_read(&scene, &contoso, &[APP, OTHER])?;
    scene.advance(SignedDuration::from_secs(70));
    objects.ready("acr").await?;
    let crane = scene.crane(&objects.docker_config("acr").await?)?;
    crane.pull(&image(&contoso, APP)).await?;
    Ok(())
}

#[test]
fn acr_pull_is_not_enough_on_an_attribute_based_registry() {
    run(async {
        Box::pin(acr_pull_is_not_enough(BodyStyle::Acr)).await?;
        Box::pin(acr_pull_is_not_enough(BodyStyle::Compat)).await
    });
}

#[test]
fn a_token_that_grants_more_is_never_written() {
    run(async {
        let scene = Scene::with_own_time("more").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let mut opened = Vec::new();
        for (number, how) in [Spoil::ExtraRepository, Spoil::ExtraAction, Spoil::NoAccess]
            .into_iter()
            .enumerate()
        {
            let name = format!("more-{number}");
            let registry = scene.empty_registry("azurecr.io", &format!("more{number}x"), |_| {})?;
            scene.assign_role(&registry)?;
            let matching = Match::registry(&registry.server);
            let kind = Kind::Malformed { how };
            scene
                .emulator
                .add_fault(Fault::new(Endpoint::Token, matching, kind));
            objects.create(&limited(&name, &registry, &[APP])).await?;
            let object = objects
                .has(&name, "Ready", "False", "MalformedAnswer")
                .await?;
            let message = &condition(&object, "Ready").context("a condition")?.message;
            assert!(message.contains("granted more"), "{how:?}: {message}");
            assert!(objects.secrets.get_opt(&name).await?.is_none(), "{how:?}");
            opened.push((name, registry));
        }
        scene.emulator.clear_faults();
        scene.advance(SignedDuration::from_secs(80));
        for (name, registry) in &opened {
            objects.ready(name).await?;
            assert!(objects.token(name, registry).await?.is_some());
        }
        Ok(())
    });
}
