//! A Secret that is not ours is never touched, and one of ours is never seized from its user.

use anyhow::{Context as _, Result};
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::{
    Objects, Scene, TestRegistry, condition, control_plane_with, manifest, run, soon,
};

/// Longer than the sweep interval of acrcred.
pub const SWEEP: SignedDuration = SignedDuration::from_mins(11);

fn foreign_secret(name: &str) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"mine": "yes"}},
        "stringData": {"password": "hunter2"},
    }))
    .expect("a Secret")
}

pub async fn patch(objects: &Objects, name: &str, change: Value) -> Result<Secret> {
    let patch = Patch::Merge(change);
    Ok(objects
        .secrets
        .patch(name, &PatchParams::default(), &patch)
        .await?)
}

/// Everything that a write by anybody would change.
fn fingerprint(secret: &Secret) -> Value {
    json!([
        secret.metadata.uid,
        secret.metadata.resource_version,
        secret.metadata.managed_fields,
        secret.data
    ])
}

pub async fn served(name: &str) -> Result<(Scene, TestRegistry, crate::harness::Acrcred)> {
    let scene = Scene::new(name).await?;
    let contoso = scene.registry("contoso").await?;
    let acrcred = scene.start().await?;
    scene
        .objects()
        .create_ready(&manifest("acr", &[&contoso]))
        .await?;
    Ok((scene, contoso, acrcred))
}

#[test]
fn a_foreign_secret_of_the_same_name_is_reported_and_left_alone() {
    run(async {
        let scene = Scene::new("foreign").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let before = objects
            .secrets
            .create(&PostParams::default(), &foreign_secret("acr"))
            .await?;
        let _acrcred = scene.start().await?;
        objects.create(&manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        let message = &condition(&object, "Ready").context("a condition")?.message;
        assert!(message.contains("acrcred.dev/adopt=acr"), "{message}");
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );
        // Gone by its user's hand: now the name is free.
        objects
            .secrets
            .delete("acr", &DeleteParams::default())
            .await?;
        scene.clock.advance(SWEEP);
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn a_foreign_secret_that_appears_while_minting_is_not_seized() {
    run(async {
        let scene = Scene::new("race").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let slow = Kind::Slow {
            headers_ms: 2_000,
            body_ms: 0,
        };
        scene.emulator.add_fault(
            Fault::new(Endpoint::Exchange, Match::registry(&contoso.server), slow).times(1),
        );
        objects.create(&manifest("acr", &[&contoso])).await?;
        soon("the mint has begun", async || {
            if scene.connects_to(&contoso.server) > 0 && scene.upstream_calls().0 == 1 {
                Ok(())
            } else {
                Err("not yet".into())
            }
        })
        .await?;
        let before = objects
            .secrets
            .create(&PostParams::default(), &foreign_secret("acr"))
            .await?;
        objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );

        // Nor does it go with our object, while a Secret of ours does.
        objects.create_ready(&manifest("ours", &[&contoso])).await?;
        objects.delete("acr").await?;
        objects.delete("ours").await?;
        objects.collected("ours").await?;
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );
        Ok(())
    });
}

#[test]
fn a_secret_that_was_replaced_between_rotations_is_not_seized() {
    run(async {
        let (scene, _contoso, _acrcred) = served("replaced").await?;
        let objects = scene.objects();
        objects
            .secrets
            .delete("acr", &DeleteParams::default())
            .await?;
        let before = objects
            .secrets
            .create(&PostParams::default(), &foreign_secret("acr"))
            .await?;
        // acrcred still believes in the Secret that it wrote, and comes to rotate it.
        scene.clock.advance(SignedDuration::from_mins(95));
        objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );
        Ok(())
    });
}

#[test]
fn either_lost_half_of_the_mark_is_repaired_and_both_are_not_ours() {
    run(async {
        let (scene, contoso, _acrcred) = served("halves").await?;
        let objects = scene.objects();
        let token = objects.token("acr", &contoso).await?;
        let lost: [Value; 2] = [
            json!({"metadata": {"ownerReferences": null}}),
            json!({"metadata": {"annotations": {"acrcred.dev/owner-uid": null}}}),
        ];
        for half in &lost {
            patch(&objects, "acr", half.clone()).await?;
            scene.clock.advance(SWEEP);
            soon("the mark is whole again", async || {
                let metadata = objects
                    .secret("acr")
                    .await
                    .map_err(|e| e.to_string())?
                    .metadata;
                let annotated = metadata
                    .annotations
                    .is_some_and(|a| a.contains_key("acrcred.dev/owner-uid"));
                if annotated && metadata.owner_references.is_some() {
                    Ok(())
                } else {
                    Err(half.to_string())
                }
            })
            .await?;
        }
        assert_eq!(
            objects.token("acr", &contoso).await?,
            token,
            "nothing was minted anew"
        );
        assert_eq!(scene.upstream_calls(), (1, 1));
        for half in &lost {
            patch(&objects, "acr", half.clone()).await?;
        }
        let before = objects.secret("acr").await?;
        scene.clock.advance(SWEEP);
        objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );
        Ok(())
    });
}

#[test]
fn a_re_created_object_is_served_once_the_old_secret_is_collected() {
    run(async {
        let (scene, contoso, _acrcred) = served("replace").await?;
        let objects = scene.objects();
        let old = objects.secret("acr").await?.metadata.uid;
        for _ in 0..3 {
            // As `kubectl replace --force` and GitOps tools do.
            objects.delete("acr").await?;
            objects.create_ready(&manifest("acr", &[&contoso])).await?;
        }
        assert_ne!(objects.secret("acr").await?.metadata.uid, old);
        assert_eq!(
            scene.upstream_calls(),
            (1, 1),
            "a young token serves the new object"
        );
        Ok(())
    });
}

#[test]
fn a_secret_is_taken_over_only_where_its_user_says_so() {
    run(async {
        let scene = Scene::new("adopt").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let secret = |name: &str, adopt: &str| -> Secret {
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {"acrcred.dev/adopt": adopt}},
                "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": "{\"auths\":{\"old.example\":{}}}"},
            }))
            .expect("a Secret")
        };
        let handed = objects
            .secrets
            .create(&PostParams::default(), &secret("handed", "handed"))
            .await?;
        let other = objects
            .secrets
            .create(&PostParams::default(), &secret("other", "handed"))
            .await?;
        objects.create(&manifest("other", &[&contoso])).await?;
        objects
            .create_ready(&manifest("handed", &[&contoso]))
            .await?;
        objects
            .has("other", "Stalled", "True", "SecretNotOwned")
            .await?;
        assert_eq!(
            fingerprint(&objects.secret("other").await?),
            fingerprint(&other)
        );

        let adopted = objects.secret("handed").await?;
        assert_eq!(adopted.metadata.uid, handed.metadata.uid);
        let payload = String::from_utf8(objects.docker_config("handed").await?)?;
        assert!(payload.contains(&contoso.server) && !payload.contains("old.example"));
        let crane = scene.crane(payload.as_bytes())?;
        crane
            .pull(&format!("{}/team/app:v1", contoso.server))
            .await?;
        Ok(())
    });
}

#[test]
fn an_immutable_secret_and_one_of_another_type_are_named() {
    run(async {
        let (scene, contoso, _acrcred) = served("unusable").await?;
        let objects = scene.objects();
        patch(&objects, "acr", json!({"immutable": true})).await?;
        scene.clock.advance(SignedDuration::from_mins(95));
        let object = objects
            .has("acr", "RefreshFailing", "True", "SecretImmutable")
            .await?;
        assert_eq!(
            condition(&object, "Ready").map(|c| c.status.as_str()),
            Some("True")
        );

        let owner = objects.create(&manifest("typed", &[&contoso])).await?;
        objects.ready("typed").await?;
        objects
            .secrets
            .delete("typed", &DeleteParams::default())
            .await?;
        let mut opaque = foreign_secret("typed");
        let uid = owner.metadata.uid.unwrap_or_default();
        opaque.metadata.annotations = Some([("acrcred.dev/owner-uid".to_owned(), uid)].into());
        objects
            .secrets
            .create(&PostParams::default(), &opaque)
            .await?;
        scene.clock.advance(SWEEP);
        objects
            .has("typed", "Stalled", "True", "SecretTypeMismatch")
            .await?;
        Ok(())
    });
}

#[test]
fn where_owners_are_guarded_data_is_refreshed_and_the_lost_owner_reported() {
    run(async {
        // OpenShift has it on: who changes owner references needs the right to delete, which acrcred lacks.
        let control_plane = control_plane_with("OwnerReferencesPermissionEnforcement").await?;
        let scene = Scene::with_control_plane(control_plane, "guarded").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        let owners = objects.secret("acr").await?.metadata.owner_references;
        assert!(
            owners.is_some_and(|owners| owners.len() == 1),
            "created with its owner"
        );

        let lost = json!({"metadata": {"ownerReferences": null}});
        patch(&objects, "acr", lost).await?;
        scene.advance(SignedDuration::from_mins(95));
        objects.another_token("acr", &contoso, &token).await?;
        let told = |object: &acrcred::api::AcrCredential| {
            condition(object, "Ready").is_some_and(|ready| {
                ready.status == "True" && ready.message.contains("owner reference")
            })
        };
        objects
            .status("acr", "the lost owner is reported", told)
            .await?;
        assert!(
            objects
                .secret("acr")
                .await?
                .metadata
                .owner_references
                .is_none()
        );
        Ok(())
    });
}
