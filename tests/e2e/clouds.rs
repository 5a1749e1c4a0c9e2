//! The suffix picks the cloud; the audience is the same in each.

use acrcred::credential::Clouds;
use azure_emulator::cloud::{CHINA, PUBLIC, US_GOVERNMENT};
use azure_emulator::journal::Endpoint;
use azure_emulator::registry::{ArmAuth, Registry};
use azure_emulator::state::{Resource, ResourceStatus, Tenant};

use crate::harness::{Program, Scene, Tuning, condition, manifest, run};

#[test]
fn each_suffix_has_its_own_authority_and_all_have_one_audience() {
    run(async {
        for (cloud, suffix, authority) in [
            (PUBLIC, "azurecr.io", "login.microsoftonline.com"),
            (US_GOVERNMENT, "azurecr.us", "login.microsoftonline.us"),
            (CHINA, "azurecr.cn", "login.chinacloudapi.cn"),
        ] {
            let scene = Scene::new("clouds").await?;
            let tenant_id = scene.tenant_id.clone();
            scene.emulator.add_tenant(Tenant {
                tenant_id,
                cloud: cloud.into(),
                ..Tenant::default()
            })?;
            let registry = scene.registry_in(suffix, "contoso", |_| {}).await?;
            let _acrcred = scene.start().await?;
            let objects = scene.objects();
            let object = objects.create_ready(&manifest("acr", &[&registry])).await?;
            let logins = scene.journal(Endpoint::Login);
            let hosts: Vec<&str> = logins.iter().map(|login| login.host.as_str()).collect();
            assert_eq!(hosts, [authority]);
            let scope = Some("https://containerregistry.azure.net/.default");
            assert_eq!(logins[0].scope.as_deref(), scope, "{suffix}");
            let status = object.status.expect("a status");
            let audience = Some("https://containerregistry.azure.net");
            assert_eq!(status.registries[0].audience.as_deref(), audience);
            let crane = scene.crane(&objects.docker_config("acr").await?)?;
            crane
                .pull(&format!("{}/team/app:v1", registry.server))
                .await?;
        }
        Ok(())
    });
}

#[test]
fn the_authority_of_the_environment_picks_the_cloud_and_is_the_one_used() {
    run(async {
        for (cloud, suffix, authority) in [
            (PUBLIC, "azurecr.io", "login.windows.net"),
            (PUBLIC, "azurecr.io", "login.microsoft.com"),
            (CHINA, "azurecr.cn", "login.chinacloudapi.cn"),
            (CHINA, "azurecr.cn", "login.partner.microsoftonline.cn"),
        ] {
            let scene = Scene::new("authority").await?;
            scene.emulator.add_tenant(Tenant {
                tenant_id: scene.tenant_id.clone(),
                cloud: cloud.into(),
                ..Tenant::default()
            })?;
            let contoso = scene.registry_in(suffix, "contoso", |_| {}).await?;
            let elsewhere = scene.empty_registry("azurecr.us", "contoso", |_| {})?;
            let _program = Program::start_with(&scene, |command| {
                command.env("AZURE_AUTHORITY_HOST", format!("https://{authority}/"));
            })
            .await?;
            let objects = scene.objects();
            objects.create(&manifest("us", &[&elsewhere])).await?;
            objects
                .has("us", "Stalled", "True", "RegistryNotAllowed")
                .await?;
            objects.create_ready(&manifest("acr", &[&contoso])).await?;
            let logins = scene.journal(Endpoint::Login);
            let hosts: Vec<&str> = logins.iter().map(|login| login.host.as_str()).collect();
            assert_eq!(hosts, [authority]);
            assert_eq!(scene.connects_to(&elsewhere.server), 0);
        }
        Ok(())
    });
}

#[test]
fn the_audience_of_the_operator_serves_what_still_needs_resource_manager() {
    run(async {
        let scene = Scene::new("audience").await?;
        // A tenant that does not know the registry audience: only Resource Manager's tokens can be had.
        scene.emulator.add_tenant(Tenant {
            tenant_id: scene.tenant_id.clone(),
            resources: vec![Resource {
                id: "https://containerregistry.azure.net".to_owned(),
                status: ResourceStatus::Disabled,
            }],
            ..Tenant::default()
        })?;
        let fabrikam = scene.registry("fabrikam").await?;
        let no_arm = |registry: &mut Registry| registry.arm_auth = ArmAuth::Disabled;
        let contoso = scene.registry_in("azurecr.io", "contoso", no_arm).await?;
        let objects = scene.objects();
        objects.create(&manifest("fabrikam", &[&fabrikam])).await?;
        objects.create(&manifest("contoso", &[&contoso])).await?;
        let told = async |name, reason| {
            let object = objects.has(name, "Ready", "False", reason).await?;
            let ready = condition(&object, "Ready").expect("just seen");
            anyhow::Ok(ready.message.clone())
        };

        let program = Program::start(&scene).await?;
        let message = told("fabrikam", "EntraRefused").await?;
        assert!(message.contains("--registry-audience"), "{message}");
        program.terminate().await?;

        let audience = "https://management.azure.com";
        let _program = Program::start_with(&scene, |command| {
            command.args(["--registry-audience", audience]);
        })
        .await?;
        let object = objects.ready("fabrikam").await?;
        let status = object.status.expect("a status");
        assert_eq!(status.registries[0].audience.as_deref(), Some(audience));
        let crane = scene.crane(&objects.docker_config("fabrikam").await?)?;
        crane
            .pull(&format!("{}/team/app:v1", fabrikam.server))
            .await?;
        let message = told("contoso", "ArmAuthenticationDisabled").await?;
        assert!(
            message.contains("authentication-as-arm disabled")
                && message.contains("--registry-audience"),
            "{message}"
        );
        assert!(objects.secrets.get_opt("contoso").await?.is_none());
        Ok(())
    });
}

#[test]
fn a_cloud_that_is_not_enabled_is_not_asked() {
    run(async {
        let scene = Scene::new("one-cloud").await?;
        let china = scene.registry_in("azurecr.cn", "contoso", |_| {}).await?;
        let public = scene.registry("contoso").await?;
        let mut tuning = Tuning::of(&scene);
        tuning.clouds = Clouds::default();
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create(&manifest("china", &[&china])).await?;
        objects
            .has("china", "Stalled", "True", "RegistryNotAllowed")
            .await?;
        objects
            .create_ready(&manifest("public", &[&public]))
            .await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        Ok(())
    });
}

#[test]
fn the_status_says_what_entra_must_trust() {
    run(async {
        let scene = Scene::new("federation").await?;
        let contoso = scene.registry("contoso").await?;
        scene.emulator.update(|state| {
            let of_test = |identity: &&mut azure_emulator::state::Identity| {
                identity.client_id == scene.client_id
            };
            for identity in state.identities.iter_mut().filter(of_test) {
                // The commonest mistake on AKS: the issuer without its trailing slash.
                for credential in &mut identity.federated_credentials {
                    credential.issuer = credential.issuer.trim_end_matches('/').to_owned();
                }
            }
        })?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Reconciling", "True", "FederationMismatch")
            .await?;
        let identity = object
            .status
            .and_then(|status| status.identity)
            .expect("the facts");
        assert_eq!(
            identity.issuer.as_deref(),
            Some(scene.control_plane.issuer())
        );
        assert_eq!(
            identity.subject,
            "system:serviceaccount:acrcred-system:acrcred"
        );
        assert_eq!(identity.audience, "api://AzureADTokenExchange");
        assert_eq!(
            (identity.tenant_id, identity.client_id),
            (scene.tenant_id.clone(), scene.client_id.clone())
        );
        // Corrected in Azure, and found without a change of the object.
        scene.trust(crate::harness::CONTROLLER)?;
        objects.ready("acr").await?;
        Ok(())
    });
}
