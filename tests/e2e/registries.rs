//! Several registries in one Secret, and what each accepts.

use acrcred::credential::{Audience, Clouds};
use azure_emulator::registry::ArmAuth;
use jiff::SignedDuration;
use serde_json::json;

use crate::harness::{Scene, Tuning, condition, manifest, run};

/// As `--registry-audience` has it.
fn resource_manager(clouds: Clouds) -> Clouds {
    clouds.with_audience(&Audience::new("https://management.azure.com/"))
}

#[test]
fn a_changed_spec_mints_only_for_the_registry_that_changed() {
    run(async {
        let scene = Scene::new("changed").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let tailspin = scene.registry("tailspin").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let kept = objects.token("acr", &contoso).await?;
        let calls = scene.upstream_calls();

        let registries = json!([{"server": contoso.server}, {"server": tailspin.server}]);
        objects
            .change("acr", json!({"spec": {"registries": registries}}))
            .await?;
        objects.ready("acr").await?;
        assert_eq!(objects.token("acr", &contoso).await?, kept);
        assert_eq!(objects.token("acr", &fabrikam).await?, None);
        assert!(objects.token("acr", &tailspin).await?.is_some());
        assert_eq!(scene.upstream_calls(), (calls.0, calls.1 + 1));
        Ok(())
    });
}

#[test]
fn a_registry_that_fails_holds_back_no_other() {
    run(async {
        let scene = Scene::new("partial").await?;
        let contoso = scene.registry("contoso").await?;
        let closed = scene.empty_registry("azurecr.io", "closed", |_| {})?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create(&manifest("acr", &[&closed, &contoso]))
            .await?;
        let object = objects
            .has("acr", "Ready", "False", "RegistryRefused")
            .await?;
        let message = &condition(&object, "Ready").expect("just seen").message;
        assert!(
            message.contains(&closed.server) && message.contains("AcrPull"),
            "{message}"
        );
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane
            .pull(&format!("{}/team/app:v1", contoso.server))
            .await?;
        let status = object.status.expect("just seen");
        let reasons: Vec<_> = status
            .registries
            .iter()
            .map(|r| r.reason.as_str())
            .collect();
        assert_eq!(reasons, ["RegistryRefused", "Issued"]);
        Ok(())
    });
}

#[test]
fn a_registry_without_authentication_as_arm_takes_the_registry_audience_only() {
    run(async {
        let scene = Scene::new("as-arm").await?;
        let no_arm = |registry: &mut azure_emulator::registry::Registry| {
            registry.arm_auth = ArmAuth::Disabled;
        };
        let contoso = scene.registry_in("azurecr.io", "contoso", no_arm).await?;
        let fabrikam = scene.registry("fabrikam").await?;
        let objects = scene.objects();

        let acrcred = scene.start().await?;
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        for registry in [&contoso, &fabrikam] {
            let crane = scene.crane(&objects.docker_config("acr").await?)?;
            crane
                .pull(&format!("{}/team/app:v1", registry.server))
                .await?;
        }
        acrcred.stop().await?;

        // The negative control: the same identity, the Resource Manager's audience.
        let mut tuning = Tuning::of(&scene);
        tuning.clouds = resource_manager(tuning.clouds);
        let _acrcred = scene.start_tuned(tuning).await?;
        objects
            .create_ready(&manifest("fabrikam", &[&fabrikam]))
            .await?;
        objects.create(&manifest("contoso", &[&contoso])).await?;
        objects
            .has("contoso", "Ready", "False", "ArmAuthenticationDisabled")
            .await?;
        assert!(objects.secrets.get_opt("contoso").await?.is_none());
        Ok(())
    });
}

#[test]
fn a_registry_that_disables_authentication_as_arm_is_named_and_the_old_credential_stays() {
    run(async {
        let scene = Scene::with_own_time("arm-off").await?;
        let fabrikam = scene.registry("fabrikam").await?;
        let mut tuning = Tuning::of(&scene);
        tuning.clouds = resource_manager(tuning.clouds);
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&fabrikam])).await?;
        let token = objects.token("acr", &fabrikam).await?.expect("a token");
        let set = |arm_auth: ArmAuth| {
            scene.emulator.update(|state| {
                state
                    .registries
                    .iter_mut()
                    .for_each(|r| r.arm_auth = arm_auth);
            })
        };
        set(ArmAuth::Disabled)?;
        scene.advance(SignedDuration::from_mins(95));
        let object = objects
            .has("acr", "RefreshFailing", "True", "ArmAuthenticationDisabled")
            .await?;
        assert_eq!(
            condition(&object, "Ready").map(|c| c.status.as_str()),
            Some("True")
        );
        assert_eq!(
            objects.token("acr", &fabrikam).await?.as_ref(),
            Some(&token)
        );
        set(ArmAuth::Enabled)?;
        scene.advance(SignedDuration::from_mins(2));
        objects.another_token("acr", &fabrikam, &token).await?;
        Ok(())
    });
}
