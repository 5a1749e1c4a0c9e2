//! The suffix picks the cloud; the audience is the same in each.

use acrcred::credential::Cloud;
use azure_emulator::journal::Endpoint;

use crate::harness::{Scene, Tuning, manifest, run};

#[test]
fn each_suffix_has_its_own_authority_and_all_have_one_audience() {
    run(async {
        let scene = Scene::new("clouds").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        for (suffix, authority) in [
            ("azurecr.io", "login.microsoftonline.com"),
            ("azurecr.us", "login.microsoftonline.us"),
            ("azurecr.cn", "login.chinacloudapi.cn"),
        ] {
            let registry = scene.registry_in(suffix, "contoso", |_| {}).await?;
            let name = suffix.replace('.', "-");
            let object = objects.create_ready(&manifest(&name, &[&registry])).await?;
            let logins = scene.journal(Endpoint::Login);
            let login = logins.last().expect("a request to Entra");
            assert_eq!(login.host, authority, "{suffix}");
            assert_eq!(
                login.scope.as_deref(),
                Some("https://containerregistry.azure.net/.default"),
                "{suffix}"
            );
            let status = object.status.expect("a status");
            assert_eq!(
                status.registries[0].audience.as_deref(),
                Some("https://containerregistry.azure.net")
            );
            let crane = scene.crane(&objects.docker_config(&name).await?)?;
            crane.pull(&format!("{}/team/app:v1", registry.server)).await?;
        }
        assert_eq!(scene.upstream_calls(), (3, 3));
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
        tuning.clouds = vec![Cloud::AzurePublicCloud];
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create(&manifest("china", &[&china])).await?;
        objects.has("china", "Stalled", "True", "RegistryNotAllowed").await?;
        objects.create_ready(&manifest("public", &[&public])).await?;
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
            let of_test = |identity: &&mut azure_emulator::state::Identity| identity.client_id == scene.client_id;
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
        let object = objects.has("acr", "Reconciling", "True", "FederationMismatch").await?;
        let identity = object.status.and_then(|status| status.identity).expect("the facts");
        assert_eq!(identity.issuer, scene.control_plane.issuer());
        assert_eq!(identity.subject, "system:serviceaccount:acrcred-system:acrcred");
        assert_eq!(identity.audience, "api://AzureADTokenExchange");
        assert_eq!((identity.tenant_id, identity.client_id), (scene.tenant_id.clone(), scene.client_id.clone()));
        // Mended in Azure, and found without anybody touching the object.
        scene.trust(crate::harness::CONTROLLER)?;
        objects.ready("acr").await?;
        Ok(())
    });
}
