//! A Secret is ours by name: what a backup restores, what an object left behind and what a user hands over are taken over
//! within seconds, and nothing else is.

use std::time::{Duration, Instant};

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use serde_json::{Value, json};

use crate::changes::Changes;
use crate::harness::{Objects, Scene, TestRegistry, Tuning, condition, manifest, run, soon};
use crate::ownership::{RESYNC, fingerprint, guarded, message, patch, refusals, served};

/// A user may wait this long for what happens at once.
const SECONDS: Duration = Duration::from_secs(8);

/// What a backup or a copy holds of a Secret: none of what the API server gave it. With `owners`, as `kubectl` copies it.
fn copy_of(secret: &Secret, owners: bool) -> Secret {
    let metadata = &secret.metadata;
    Secret {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            labels: metadata.labels.clone(),
            annotations: metadata.annotations.clone(),
            owner_references: metadata.owner_references.clone().filter(|_| owners),
            ..ObjectMeta::default()
        },
        ..secret.clone()
    }
}

/// A Secret with a payload of somebody's own, perhaps with an owner.
fn docker_secret(name: &str, owner: Option<&str>) -> Secret {
    let annotations: Value = owner.map_or(json!({}), |owner| json!({"acrcred.dev/owner": owner}));
    serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": annotations, "labels": {"mine": "yes"}},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": "{\"auths\":{\"old.example\":{}}}"},
    }))
    .expect("a Secret")
}

async fn pulls(scene: &Scene, objects: &Objects, name: &str, contoso: &TestRegistry) -> Result<()> {
    let payload = objects.docker_config(name).await?;
    ensure!(
        !String::from_utf8_lossy(&payload).contains("old.example"),
        "something of the old content"
    );
    let image = format!("{}/team/app:v1", contoso.server);
    scene.crane(&payload)?.pull(&image).await?;
    Ok(())
}

/// That the Secret belongs to the object, where the API server lets acrcred say so; else the object says why it does not.
async fn belongs_to(
    objects: &Objects,
    name: &str,
    object: &AcrCredential,
    is_guarded: bool,
) -> Result<()> {
    let owners = objects.secret(name).await?.metadata.owner_references;
    let owners = owners.unwrap_or_default();
    if is_guarded {
        ensure!(owners.is_empty(), "{owners:?}");
        let message = message(object)?;
        ensure!(message.contains("owner reference"), "{message}");
    } else {
        let [owner] = &owners[..] else {
            anyhow::bail!("{owners:?}");
        };
        ensure!(Some(&owner.uid) == object.metadata.uid.as_ref());
    }
    Ok(())
}

async fn scene_of(name: &str, is_guarded: bool) -> Result<Scene> {
    if is_guarded {
        Scene::with_control_plane(guarded().await?, name).await
    } else {
        Scene::new(name).await
    }
}

async fn a_restored_backup(is_guarded: bool) -> Result<()> {
    let scene = scene_of("restored", is_guarded).await?;
    let contoso = scene.registry("contoso").await?;
    let _acrcred = scene.start().await?;
    let objects = scene.objects();
    objects.create_ready(&manifest("acr", &[&contoso])).await?;
    let backup = copy_of(&objects.secret("acr").await?, false);
    objects.delete("acr").await?;
    objects.collected("acr").await?;

    let changes = Changes::from_now(&scene).await?;
    // Velero restores Secrets before custom resources, without owners, and leaves the status out.
    let restored = objects
        .secrets
        .create(&PostParams::default(), &backup)
        .await?;
    pulls(&scene, &objects, "acr", &contoso).await?;
    let began = Instant::now();
    let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
    let took = began.elapsed();
    ensure!(took < SECONDS, "{took:?}");
    let now = objects.secret("acr").await?;
    ensure!(
        now.metadata.uid == restored.metadata.uid,
        "re-created: pods would have been without it"
    );
    belongs_to(&objects, "acr", &object, is_guarded).await?;
    pulls(&scene, &objects, "acr", &contoso).await?;
    let counts = changes.of_secrets().await?;
    // The restore, and one write, which changes nothing where even the token is the same.
    ensure!(counts["acr"] <= 2, "{counts:?}");
    Ok(())
}

#[test]
fn a_restored_backup_is_taken_over_within_seconds() {
    run(a_restored_backup(false));
}

#[test]
fn a_restored_backup_is_taken_over_where_owners_are_guarded() {
    run(a_restored_backup(true));
}

async fn an_orphaned_secret(is_guarded: bool) -> Result<()> {
    let scene = scene_of("orphaned", is_guarded).await?;
    let contoso = scene.registry("contoso").await?;
    let _acrcred = scene.start().await?;
    let objects = scene.objects();
    objects.create_ready(&manifest("acr", &[&contoso])).await?;
    let owned = objects.secret("acr").await?;
    ensure!(
        owned.metadata.owner_references.is_some(),
        "created without an owner"
    );
    objects
        .credentials
        .delete("acr", &DeleteParams::orphan())
        .await?;
    soon("the object is gone", async || {
        match objects.credentials.get_opt("acr").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|_| ()))),
        }
    })
    .await?;
    let kept = objects.secret("acr").await?;
    ensure!(
        kept.metadata.owner_references.is_none(),
        "it would be collected"
    );
    // What its user kept stays as it is, whatever falls due meanwhile.
    scene.clock.advance(RESYNC);
    objects
        .create_ready(&manifest("control", &[&contoso]))
        .await?;
    assert_eq!(
        fingerprint(&objects.secret("acr").await?),
        fingerprint(&kept)
    );

    let began = Instant::now();
    let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
    let took = began.elapsed();
    ensure!(took < SECONDS, "{took:?}");
    ensure!(objects.secret("acr").await?.metadata.uid == owned.metadata.uid);
    belongs_to(&objects, "acr", &object, is_guarded).await?;
    pulls(&scene, &objects, "acr", &contoso).await
}

#[test]
fn an_orphaned_secret_is_kept_and_taken_over_by_the_next_object_of_its_name() {
    run(an_orphaned_secret(false));
}

#[test]
fn an_orphaned_secret_is_taken_over_where_owners_are_guarded() {
    run(an_orphaned_secret(true));
}

/// `kubectl get -o yaml`, another namespace, `kubectl create`: owners and all.
async fn a_copy(is_guarded: bool) -> Result<()> {
    let scene = scene_of("blue", is_guarded).await?;
    let green = scene.control_plane.create_namespace("green").await?;
    let contoso = scene.registry("contoso").await?;
    let mut tuning = Tuning::of(&scene);
    tuning.watch_namespaces.push(green.clone());
    tuning.policy.push((green.clone(), "*".into()));
    let _acrcred = scene.start_tuned(tuning).await?;
    let blue = scene.objects();
    let green = Objects::new(scene.control_plane.admin(), &green);
    for (name, owners) in [("bare", false), ("owned", true)] {
        blue.create_ready(&manifest(name, &[&contoso])).await?;
        let before = blue.secret(name).await?;
        let copy = copy_of(&before, owners);
        green.secrets.create(&PostParams::default(), &copy).await?;
        let object = green.create(&manifest(name, &[&contoso])).await?;
        // The garbage collector takes one whose owner is not there, and it is created again.
        let object = if owners {
            soon("it has its own owner", async || {
                let secret = green.secrets.get_opt(name).await;
                let secret = secret.map_err(|error| error.to_string())?;
                let owners = secret.and_then(|secret| secret.metadata.owner_references);
                match owners.as_deref() {
                    Some([owner]) if Some(&owner.uid) == object.metadata.uid.as_ref() => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            green.ready(name).await?
        } else {
            let object = green.ready(name).await?;
            belongs_to(&green, name, &object, is_guarded).await?;
            object
        };
        ensure!(condition(&object, "Stalled").is_none());
        pulls(&scene, &green, name, &contoso).await?;
        assert_eq!(
            fingerprint(&blue.secret(name).await?),
            fingerprint(&before),
            "the source is another's"
        );
    }
    Ok(())
}

#[test]
fn a_copy_in_another_namespace_belongs_to_the_object_there() {
    run(a_copy(false));
}

#[test]
fn a_copy_is_taken_over_where_owners_are_guarded() {
    run(a_copy(true));
}

#[test]
fn a_secret_that_its_user_annotates_is_taken_over_at_the_next_try() {
    run(async {
        let scene = Scene::new("handed-over").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let params = PostParams::default();
        let mut before = Vec::new();
        for secret in [
            docker_secret("handed", None),
            docker_secret("other", Some("handed")),
        ] {
            before.push(objects.secrets.create(&params, &secret).await?);
        }
        for name in ["handed", "other"] {
            objects.create(&manifest(name, &[&contoso])).await?;
            objects
                .has(name, "Stalled", "True", "SecretNotOwned")
                .await?;
        }
        for before in &before {
            let name = before.metadata.name.as_deref().context("a name")?;
            let now = objects.secret(name).await?;
            assert_eq!(fingerprint(&now), fingerprint(before));
        }
        let owner = json!({"metadata": {"annotations": {"acrcred.dev/owner": "handed"}}});
        patch(&objects, "handed", owner).await?;
        objects.ready("handed").await?;
        let taken = objects.secret("handed").await?;
        assert_eq!(taken.metadata.uid, before[0].metadata.uid);
        let labels = taken.metadata.labels.unwrap_or_default();
        ensure!(!labels.contains_key("mine"), "{labels:?}");
        pulls(&scene, &objects, "handed", &contoso).await?;
        // The other one names another object, and stays what it was, at each of its tries.
        let tries = refusals(&scene, "other").await?;
        scene.clock.advance(RESYNC);
        soon("another try is refused", async || {
            match refusals(&scene, "other").await {
                Ok(now) if now > tries => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let now = objects.secret("other").await?;
        assert_eq!(fingerprint(&now), fingerprint(&before[1]));
        Ok(())
    });
}

#[test]
fn a_secret_that_its_user_annotates_is_taken_over_right_after_a_refresh() {
    run(async {
        let scene = Scene::new("refresh-handed").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let params = PostParams::default();
        let secret = docker_secret("acr", None);
        let before = objects.secrets.create(&params, &secret).await?;
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        // So often that the next try is minutes away.
        for _ in 0..6 {
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
        let owner = json!({"metadata": {"annotations": {"acrcred.dev/owner": "acr"}}});
        let handed = patch(&objects, "acr", owner).await?;
        // The positive control: nothing tells acrcred, and the next try is not due.
        objects
            .create_ready(&manifest("control", &[&contoso]))
            .await?;
        let now = objects.secret("acr").await?;
        assert_eq!(fingerprint(&now), fingerprint(&handed));

        let began = Instant::now();
        let refresh = json!({"metadata": {"annotations": {"acrcred.dev/refresh": "1"}}});
        objects.change("acr", refresh).await?;
        objects.ready("acr").await?;
        let took = began.elapsed();
        ensure!(took < SECONDS, "{took:?}");
        let now = objects.secret("acr").await?;
        assert_eq!(now.metadata.uid, before.metadata.uid);
        pulls(&scene, &objects, "acr", &contoso).await
    });
}

#[test]
fn of_two_objects_with_one_secret_the_one_in_its_annotation_has_it() {
    run(async {
        let (scene, contoso, _acrcred) = served("one-secret").await?;
        let objects = scene.objects();
        let before = objects.secret("acr").await?;
        let mut second = manifest("second", &[&contoso]);
        second.spec.secret = Some(serde_json::from_value(json!({"name": "acr"}))?);
        objects.create(&second).await?;
        objects
            .has("second", "Stalled", "True", "SecretNotOwned")
            .await?;
        objects.ready("acr").await?;
        assert_eq!(
            fingerprint(&objects.secret("acr").await?),
            fingerprint(&before)
        );

        // Handed to the second, it is no longer the first one's.
        let owner = json!({"metadata": {"annotations": {"acrcred.dev/owner": "second"}}});
        patch(&objects, "acr", owner).await?;
        scene.clock.advance(RESYNC);
        objects.ready("second").await?;
        objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        let now = objects.secret("acr").await?;
        assert_eq!(now.metadata.uid, before.metadata.uid);
        let annotations = now.metadata.annotations.unwrap_or_default();
        ensure!(
            annotations["acrcred.dev/owner"] == "second",
            "{annotations:?}"
        );
        pulls(&scene, &objects, "acr", &contoso).await
    });
}
