//! A Secret that is not ours is never touched, and one of ours is never seized from its user.

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use controlplane::{Call, ControlPlane};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::harness::{
    Acrcred, Objects, Scene, TestRegistry, condition, control_plane_with, manifest, run, soon,
};

/// Longer than the resync interval of acrcred.
pub const RESYNC: SignedDuration = SignedDuration::from_mins(11);
/// By when a token of three hours is due for its refresh.
const REFRESH: SignedDuration = SignedDuration::from_mins(95);

static GUARDED: OnceCell<&ControlPlane> = OnceCell::const_new();

/// A control plane on which whoever changes owner references needs the right to delete, which acrcred lacks. `OpenShift`
/// has this plugin on.
pub async fn guarded() -> Result<&'static ControlPlane> {
    let started =
        GUARDED.get_or_try_init(|| control_plane_with("OwnerReferencesPermissionEnforcement"));
    Ok(*started.await?)
}

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
pub fn fingerprint(secret: &Secret) -> Value {
    json!([secret.metadata, secret.data, secret.type_, secret.immutable])
}

/// What the `Ready` condition says.
pub fn message(object: &AcrCredential) -> Result<&str> {
    Ok(&condition(object, "Ready").context("a condition")?.message)
}

/// How often acrcred asked, without effect, whether the Secret of this name is its own, and was refused.
pub async fn refusals(scene: &Scene, name: &str) -> Result<usize> {
    let calls = scene.control_plane.audit().settled().await?;
    let calls = calls.in_namespace(&scene.namespace).on("secrets");
    let is_try = |call: &Call| call.name == name && call.dry_run && call.field_manager == "acrcred";
    Ok(calls.count(|call| is_try(call) && call.code == 403))
}

/// An object `acr` that is ready.
pub async fn served(name: &str) -> Result<(Scene, TestRegistry, Acrcred)> {
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
        let foreign: Secret = serde_json::from_value(json!({
            "metadata": {"name": "acr", "labels": {"mine": "yes"}},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": "{\"auths\":{\"old.example\":{}}}"},
        }))?;
        let params = PostParams::default();
        let before = objects.secrets.create(&params, &foreign).await?;
        let _acrcred = scene.start().await?;
        objects.create(&manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        let message = message(&object)?;
        ensure!(message.contains("kubectl annotate secret acr"), "{message}");
        ensure!(message.contains("acrcred.dev/owner=acr"), "{message}");
        ensure!(!message.contains("elete"), "{message}");
        for _ in 0..3 {
            let tries = refusals(&scene, "acr").await?;
            scene.clock.advance(RESYNC);
            soon("another try is refused", async || {
                match refusals(&scene, "acr").await {
                    Ok(now) if now > tries => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );
        // Gone by its user's hand: now the name is free.
        objects
            .secrets
            .delete("acr", &DeleteParams::default())
            .await?;
        scene.clock.advance(RESYNC);
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
        scene.clock.advance(REFRESH);
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
fn a_lost_owner_reference_is_put_back_at_the_resync() {
    run(async {
        let (scene, contoso, _acrcred) = served("lost-owner").await?;
        let objects = scene.objects();
        let before = objects.secret("acr").await?;
        let token = objects.token("acr", &contoso).await?;
        let lost = json!({"metadata": {"ownerReferences": null}});
        patch(&objects, "acr", lost).await?;
        scene.clock.advance(RESYNC);
        soon("the owner is back", async || {
            match objects.secret("acr").await {
                Ok(now) if now.metadata.owner_references == before.metadata.owner_references => {
                    Ok(())
                }
                other => Err(format!("{:?}", other.map(|now| now.metadata))),
            }
        })
        .await?;
        assert_eq!(objects.token("acr", &contoso).await?, token);
        assert_eq!(scene.upstream_calls(), (1, 1), "nothing was minted again");
        assert_eq!(
            objects.secret("acr").await?.metadata.uid,
            before.metadata.uid
        );
        Ok(())
    });
}

#[test]
fn a_secret_without_its_annotation_is_no_longer_ours() {
    run(async {
        let (scene, _contoso, _acrcred) = served("no-longer-ours").await?;
        let objects = scene.objects();
        let lost = json!({"metadata": {"annotations": {"acrcred.dev/owner": null}}});
        let before = patch(&objects, "acr", lost).await?;
        scene.clock.advance(RESYNC);
        objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );
        // Given back by its user, it is kept again.
        let back = json!({"metadata": {"annotations": {"acrcred.dev/owner": "acr"}}});
        patch(&objects, "acr", back).await?;
        scene.clock.advance(RESYNC);
        objects.ready("acr").await?;
        assert_eq!(
            objects.secret("acr").await?.metadata.uid,
            before.metadata.uid
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
            let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
            soon("the Secret is the new object's", async || {
                let owners = match objects.secrets.get_opt("acr").await {
                    Ok(secret) => secret.and_then(|secret| secret.metadata.owner_references),
                    Err(error) => return Err(error.to_string()),
                };
                let is_new =
                    |owner: &OwnerReference| Some(&owner.uid) == object.metadata.uid.as_ref();
                match owners {
                    Some(owners) if owners.iter().all(is_new) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane
            .pull(&format!("{}/team/app:v1", contoso.server))
            .await?;
        assert!(old.is_some());
        assert_eq!(
            scene.upstream_calls(),
            (1, 1),
            "a young token serves the new object"
        );
        Ok(())
    });
}

#[test]
fn an_immutable_secret_of_ours_is_named_and_so_is_a_foreign_one() {
    run(async {
        let (scene, contoso, _acrcred) = served("unusable").await?;
        let objects = scene.objects();
        let ours = patch(&objects, "acr", json!({"immutable": true})).await?;
        let mut foreign = foreign_secret("foreign");
        foreign.immutable = Some(true);
        let params = PostParams::default();
        let foreign = objects.secrets.create(&params, &foreign).await?;
        scene.clock.advance(REFRESH);
        let object = objects
            .has("acr", "RefreshFailing", "True", "SecretImmutable")
            .await?;
        let ready = condition(&object, "Ready").context("a condition")?;
        assert_eq!(ready.status, "True");
        objects.create(&manifest("foreign", &[&contoso])).await?;
        // Never taken for ours: that would be advice about somebody else's Secret.
        objects
            .has("foreign", "Stalled", "True", "SecretNotOwned")
            .await?;
        for before in [ours, foreign] {
            let name = before.metadata.name.as_deref().context("a name")?;
            let now = objects.secret(name).await?;
            assert_eq!(fingerprint(&now), fingerprint(&before));
        }
        Ok(())
    });
}

#[test]
fn a_secret_of_another_type_is_left_alone_and_the_advice_is_one_that_helps() {
    run(async {
        let (scene, contoso, _acrcred) = served("other-type").await?;
        let objects = scene.objects();
        let mut annotated = foreign_secret("annotated");
        let owner = ("acrcred.dev/owner".to_owned(), "annotated".to_owned());
        annotated.metadata.annotations = Some([owner].into());
        for secret in [foreign_secret("opaque"), annotated] {
            let params = PostParams::default();
            let before = objects.secrets.create(&params, &secret).await?;
            let name = before.metadata.name.as_deref().context("a name")?;
            objects.create(&manifest(name, &[&contoso])).await?;
            let object = objects
                .has(name, "Stalled", "True", "SecretNotOwned")
                .await?;
            let now = objects.secret(name).await?;
            assert_eq!(fingerprint(&now), fingerprint(&before));
            // The type of a Secret cannot be changed: no annotation makes it ours.
            let message = message(&object)?;
            ensure!(
                message.contains("kubernetes.io/dockerconfigjson"),
                "{message}"
            );
        }
        Ok(())
    });
}

#[test]
fn where_owners_are_guarded_data_is_refreshed_and_the_lost_owner_reported() {
    run(async {
        let scene = Scene::with_control_plane(guarded().await?, "guarded").await?;
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
        scene.advance(REFRESH);
        objects.another_token("acr", &contoso, &token).await?;
        let told = |object: &AcrCredential| {
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
