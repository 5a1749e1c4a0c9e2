//! The suffix picks the cloud; the audience is the same in each.

use acrcred::credential::Clouds;
use azure_emulator::cloud::Cloud as AzureCloud;
use azure_emulator::journal::Endpoint;
use azure_emulator::state::Tenant;

use crate::harness::{Scene, Tuning, manifest, run};

#[test]
fn each_suffix_has_its_own_authority_and_all_have_one_audience() {
    run(async {
        for (cloud, suffix, authority) in [
            (
                AzureCloud::Public,
                "azurecr.io",
                "login.microsoftonline.com",
            ),
            (
                AzureCloud::UsGovernment,
                "azurecr.us",
                "login.microsoftonline.us",
            ),
            (AzureCloud::China, "azurecr.cn", "login.chinacloudapi.cn"),
        ] {
            let scene = Scene::new("clouds").await?;
            let tenant_id = scene.tenant_id.clone();
            scene.emulator.add_tenant(Tenant {
                tenant_id,
                cloud,
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
        // Mended in Azure, and found without anybody touching the object.
        scene.trust(crate::harness::CONTROLLER)?;
        objects.ready("acr").await?;
        Ok(())
    });
}
