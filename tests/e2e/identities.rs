//! Tenants, and the token file that the kubelet renews.

use std::os::unix::fs::symlink;

use acrcred::azure::AssertionFile;
use anyhow::{Context as _, Result};
use azure_emulator::journal::Endpoint;
use azure_emulator::state::Tenant;
use jiff::SignedDuration;

use crate::harness::{CONTROLLER, Puller, Scene, Tuning, manifest, run};

#[test]
fn two_tenants_are_served_side_by_side() {
    run(async {
        let scene = Scene::new("tenants").await?;
        let first = scene.puller().await?;
        let second = Puller {
            name: "second".into(),
            client_id: format!("4{}", &first.client_id[1..]),
            tenant_id: format!("5{}", &first.tenant_id[1..]),
            ..scene.absent_puller()
        };
        scene.emulator.add_tenant(Tenant {
            tenant_id: second.tenant_id.clone(),
            ..Tenant::default()
        })?;
        second.create().await?;
        second.trust()?;
        let contoso = first.registry("contoso").await?;
        let other_tenant = second.tenant_id.clone();
        let fabrikam = scene
            .image_registry("azurecr.io", "fabrikam", |registry| {
                registry.tenant_id = other_tenant;
            })
            .await?;
        second.assign_role(&fabrikam)?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        for (puller, registry) in [(&first, &contoso), (&second, &fabrikam)] {
            let object = objects
                .create_ready(&puller.manifest(&puller.name, &[registry]))
                .await?;
            let identity = object.status.and_then(|status| status.identity);
            assert_eq!(identity.context("the facts")?.tenant_id, puller.tenant_id);
            let crane = scene.crane(&objects.docker_config(&puller.name).await?)?;
            crane
                .pull(&format!("{}/team/app:v1", registry.server))
                .await?;
        }
        // Each registry trusts its own tenant only (vector A7).
        objects
            .create(&first.manifest("wrong", &[&fabrikam]))
            .await?;
        objects
            .has("wrong", "Reconciling", "True", "RegistryRefused")
            .await?;
        Ok(())
    });
}

#[test]
fn a_service_account_without_a_tenant_gets_the_operators() {
    run(async {
        let scene = Scene::new("default-tenant").await?;
        let puller = scene.puller().await?;
        puller
            .annotate("azure.workload.identity/tenant-id", None)
            .await?;
        let contoso = puller.registry("contoso").await?;
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects.create(&puller.manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Stalled", "True", "InvalidIdentity")
            .await?;
        let told = format!("{:?}", object.status);
        assert!(told.contains("AZURE_TENANT_ID"), "{told}");
        acrcred.stop().await?;
        let tuning = Tuning {
            default_tenant_id: Some(puller.tenant_id.parse()?),
            ..Tuning::of(&scene)
        };
        let _acrcred = scene.start_tuned(tuning).await?;
        objects.ready("acr").await?;
        Ok(())
    });
}

/// The kubelet writes each token into a directory of its own and turns a link to it (`AtomicWriter`).
async fn renew(scene: &Scene, generation: u32) -> Result<()> {
    let (namespace, name) = CONTROLLER;
    let token = scene
        .control_plane
        .service_account_token(namespace, name, &["api://AzureADTokenExchange"], 3600)
        .await?;
    let volume = scene.dir.path().join("volume");
    let written = volume.join(format!("..{generation}"));
    std::fs::create_dir_all(&written)?;
    std::fs::write(written.join("token"), token)?;
    let turned = volume.join("..data_tmp");
    symlink(&written, &turned)?;
    std::fs::rename(&turned, volume.join("..data"))?;
    if generation > 1 {
        std::fs::remove_dir_all(volume.join(format!("..{}", generation - 1)))?;
    } else {
        symlink("..data/token", volume.join("token"))?;
    }
    Ok(())
}

#[test]
fn a_token_file_that_is_renewed_is_read_anew_for_each_sign_in() {
    run(async {
        let scene = Scene::with_own_time("renewed").await?;
        let contoso = scene.registry("contoso").await?;
        renew(&scene, 1).await?;
        let file = AssertionFile::new(scene.dir.path().join("volume/token"));
        let tuning = Tuning {
            assertion: Some(Box::new(file)),
            ..Tuning::of(&scene)
        };
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        for generation in 2..4 {
            let token = objects.token("acr", &contoso).await?.context("a token")?;
            renew(&scene, generation).await?;
            scene.advance(SignedDuration::from_mins(95));
            objects.another_token("acr", &contoso, &token).await?;
        }
        let logins = scene.journal(Endpoint::Login);
        assert_eq!(logins.len(), 3);
        assert!(logins.iter().all(|login| login.status == 200));
        Ok(())
    });
}
