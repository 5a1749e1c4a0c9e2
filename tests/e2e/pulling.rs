//! The main job: a Secret appears, and what it holds really pulls.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::harness::{Scene, condition, manifest, run};

#[test]
fn a_secret_appears_and_really_pulls() {
    run(async {
        let scene = Scene::new("pulls").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;

        let image = format!("{}/team/app:v1", contoso.server);
        let anonymous = scene.crane(br#"{"auths":{}}"#)?;
        assert!(
            anonymous.pull(&image).await.is_err(),
            "the image is not private"
        );
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        assert!(crane.pull(&image).await?.starts_with("sha256:"));
        assert_eq!(
            crane.tags(&format!("{}/team/app", contoso.server)).await?,
            "v1"
        );

        let status = object.status.clone().context("a status")?;
        assert_eq!(
            status.secret.as_ref().map(|secret| secret.name.as_str()),
            Some("acr")
        );
        assert!(
            status.expires_at > status.refresh_at && status.refresh_at > status.last_refresh_at
        );
        assert!(
            condition(&object, "Reconciling").is_none() && condition(&object, "Stalled").is_none()
        );
        Ok(())
    });
}

#[test]
fn the_secret_is_what_the_api_server_and_the_kubelet_expect() {
    run(async {
        let scene = Scene::new("secret-shape").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let secret = objects.secret("acr").await?;
        assert_eq!(
            secret.type_.as_deref(),
            Some("kubernetes.io/dockerconfigjson")
        );
        let owners = secret.metadata.owner_references.context("an owner")?;
        assert_eq!(owners.len(), 1);
        assert_eq!(Some(&owners[0].uid), object.metadata.uid.as_ref());
        assert_eq!(owners[0].block_owner_deletion, None);
        let annotations = secret.metadata.annotations.context("annotations")?;
        let expected = BTreeMap::from([("acrcred.dev/owner".to_owned(), "acr".to_owned())]);
        assert_eq!(annotations, expected);
        let labels = secret.metadata.labels.context("labels")?;
        let expected = [
            ("app.kubernetes.io/managed-by", "acrcred"),
            ("velero.io/exclude-from-backup", "true"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(labels, BTreeMap::from(expected));
        assert_eq!(secret.data.context("data")?.len(), 1);
        Ok(())
    });
}

#[test]
fn one_flipped_byte_of_the_password_does_not_pull() {
    run(async {
        let scene = Scene::new("flipped").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let image = format!("{}/team/app:v1", contoso.server);
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        pull_with(&scene, &contoso.server, &token)?
            .pull(&image)
            .await?;

        let mut flipped = token.into_bytes();
        let middle = flipped.len() - 40;
        flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
        let flipped = String::from_utf8(flipped)?;
        let refused = pull_with(&scene, &contoso.server, &flipped)?
            .pull(&image)
            .await;
        assert!(refused.is_err(), "the emulator is lenient");
        Ok(())
    });
}

fn pull_with(scene: &Scene, server: &str, token: &str) -> Result<crate::harness::Crane> {
    let config = serde_json::json!({"auths": {server: {
        "username": "00000000-0000-0000-0000-000000000000", "password": token,
    }}});
    scene.crane(config.to_string().as_bytes())
}

#[test]
fn a_stopped_registry_process_makes_pulls_fail() {
    run(async {
        let scene = Scene::new("stopped").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        let image = format!("{}/team/app:v1", contoso.server);
        crane.pull(&image).await?;
        scene.emulator.stop_registry(&contoso.server).await?;
        assert!(
            crane.pull(&image).await.is_err(),
            "pulls do not reach the real registry"
        );
        scene.emulator.start_registry(&contoso.server).await?;
        crane.pull(&image).await?;
        Ok(())
    });
}

#[test]
fn a_deleted_object_takes_its_secret_along() {
    run(async {
        let scene = Scene::new("deleted").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        objects
            .create_ready(&manifest("stays", &[&contoso]))
            .await?;
        // Deletion needs neither Azure nor acrcred.
        acrcred.stop().await?;
        objects.delete("acr").await?;
        objects.collected("acr").await?;
        objects.secret("stays").await?;
        Ok(())
    });
}
