//! What somebody changes in a Secret of ours, and what the spec changes, end where they should.

use anyhow::{Context as _, bail, ensure};
use jiff::SignedDuration;
use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::{CONTROLLER, Scene, Tuning, condition, config, manifest, run, soon};
use crate::ownership::{RESYNC, patch, served};

#[test]
fn what_somebody_edited_is_put_right_by_the_resync() {
    run(async {
        let (scene, contoso, _acrcred) = served("edited").await?;
        let objects = scene.objects();
        let uid = objects.secret("acr").await?.metadata.uid;
        let forged = json!({"auths": {
            &contoso.server: {"username": "u", "password": "p", "auth": "dTpw"},
            "evil.example": {"username": "u", "password": "p", "auth": "dTpw"},
        }});
        patch(
            &objects,
            "acr",
            json!({"stringData": {".dockerconfigjson": forged.to_string()}}),
        )
        .await?;
        scene.clock.advance(RESYNC);
        soon("the payload is ours again", async || {
            let payload = objects
                .docker_config("acr")
                .await
                .map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&payload).into_owned();
            let right = !text.contains("evil.example") && !text.contains("dTpw");
            if right && text.contains(&contoso.server) {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await?;
        assert_eq!(objects.secret("acr").await?.metadata.uid, uid);
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane
            .pull(&format!("{}/team/app:v1", contoso.server))
            .await?;

        objects
            .secrets
            .delete("acr", &DeleteParams::default())
            .await?;
        scene.clock.advance(RESYNC);
        soon("the Secret is back", async || {
            match objects.secrets.get_opt("acr").await {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{:?}", other.map(|_| ()))),
            }
        })
        .await?;
        Ok(())
    });
}

#[test]
fn labels_follow_the_spec_within_what_the_operator_allows() {
    run(async {
        let scene = Scene::new("labels").await?;
        let contoso = scene.registry("contoso").await?;
        let mut tuning = crate::harness::Tuning::of(&scene);
        tuning.secret_metadata_prefixes = vec!["team.example/".into()];
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        let mut object = manifest("acr", &[&contoso]);
        object.spec.secret = Some(serde_json::from_value(json!({
            "labels": {"team.example/a": "1", "team.example/b": "2", "argocd.argoproj.io/instance": "x"},
        }))?);
        objects.create_ready(&object).await?;
        let labels = objects
            .secret("acr")
            .await?
            .metadata
            .labels
            .unwrap_or_default();
        assert!(labels.contains_key("team.example/a") && labels.contains_key("team.example/b"));
        assert!(
            !labels.contains_key("argocd.argoproj.io/instance"),
            "{labels:?}"
        );

        // The whole Secret is acrcred's: the next write removes somebody else's label, and one that the spec no longer
        // asks for.
        patch(
            &objects,
            "acr",
            json!({"metadata": {"labels": {"mine": "yes"}}}),
        )
        .await?;
        let change = json!({"spec": {"secret": {"labels": {"team.example/b": null}}}});
        objects.change("acr", change).await?;
        soon("the label is gone", async || {
            let labels = objects
                .secret("acr")
                .await
                .map_err(|e| e.to_string())?
                .metadata
                .labels;
            let labels = labels.unwrap_or_default();
            let right = !labels.contains_key("team.example/b")
                && labels.contains_key("team.example/a")
                && labels.contains_key("app.kubernetes.io/managed-by")
                && !labels.contains_key("mine");
            if right {
                Ok(())
            } else {
                Err(format!("{labels:?}"))
            }
        })
        .await?;
        assert_eq!(scene.upstream_calls(), (1, 1), "a label mints nothing");
        Ok(())
    });
}

/// The right to watch Secrets, in the test's namespace alone.
pub async fn may_watch_secrets(scene: &Scene) -> anyhow::Result<()> {
    let role = config("watch-secrets/role.yaml");
    scene.control_plane.apply(role).await?;
    let (namespace, name) = CONTROLLER;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "watch-secrets", "namespace": scene.namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "acrcred-watch-secrets",
        },
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    });
    scene.control_plane.apply(binding.to_string()).await?;
    Ok(())
}

#[test]
fn with_the_right_to_watch_what_somebody_changes_is_put_right_in_seconds() {
    run(async {
        let scene = Scene::new("watched").await?;
        let contoso = scene.registry("contoso").await?;
        may_watch_secrets(&scene).await?;
        let mut tuning = Tuning::of(&scene);
        tuning.watch_secrets = vec!["acr".into()];
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let payload = objects.docker_config("acr").await?;
        let is_whole = async || {
            let secret = objects
                .secrets
                .get_opt("acr")
                .await
                .map_err(|e| e.to_string())?;
            let secret = secret.ok_or("no Secret")?;
            let labelled = secret
                .metadata
                .labels
                .is_some_and(|l| l.contains_key("app.kubernetes.io/managed-by"));
            let owned = secret.metadata.owner_references.is_some();
            let data = secret.data.unwrap_or_default().remove(".dockerconfigjson");
            let right = labelled && owned && data.is_some_and(|data| data.0 == payload);
            if right {
                Ok(())
            } else {
                Err("not whole".to_owned())
            }
        };
        for change in [
            json!({"stringData": {".dockerconfigjson": "{\"auths\":{}}"}}),
            json!({"metadata": {"labels": null}}),
            json!({"metadata": {"ownerReferences": null}}),
        ] {
            patch(&objects, "acr", change.clone()).await?;
            soon(&format!("{change} is put right"), is_whole).await?;
            // Three repairs in a minute would count as a conflict.
            scene.clock.advance(jiff::SignedDuration::from_mins(1));
        }
        objects
            .secrets
            .delete("acr", &DeleteParams::default())
            .await?;
        soon("the deleted Secret is back", is_whole).await?;
        assert_eq!(
            scene.upstream_calls(),
            (1, 1),
            "the young token serves again"
        );
        // Its own writes are no news: one write and four repairs, each after one look.
        let calls = scene.calls().await?.on("secrets");
        let looks = calls.count(|call| call.verb == "update" && call.dry_run);
        assert!((4..=8).contains(&looks), "{looks} looks: {calls}");
        assert_eq!(calls.writes().len(), 5, "{calls}");
        let calls = scene.calls().await?;
        assert!(calls.forbidden().is_empty(), "{}", calls.forbidden());
        Ok(())
    });
}

#[test]
fn a_secret_that_another_client_keeps_from_going_is_let_go_and_created_again_at_once() {
    run(async {
        for restarts in [false, true] {
            let (scene, contoso, acrcred) = served("terminating").await?;
            let objects = scene.objects();
            let held = json!({"metadata": {"finalizers": ["team.example/hold"]}});
            patch(&objects, "acr", held).await?;
            let deletion = DeleteParams::default();
            objects.secrets.delete("acr", &deletion).await?;
            let old = objects.secret("acr").await?;
            ensure!(
                old.metadata.deletion_timestamp.is_some(),
                "nothing keeps it"
            );
            let mut acrcred = acrcred;
            if restarts {
                acrcred.stop().await?;
                acrcred = scene.start().await?;
            }
            scene.clock.advance(RESYNC);
            let new = soon("there is another Secret", async || {
                match objects.secrets.get_opt("acr").await {
                    Ok(Some(new)) if new.metadata.uid != old.metadata.uid => Ok(new),
                    other => Err(format!("{:?}", other.map(|_| ()))),
                }
            })
            .await?;
            ensure!(new.metadata.finalizers.is_none() && new.metadata.deletion_timestamp.is_none());
            let object = objects
                .status("acr", "the status names it", |object| {
                    let status = object.status.as_ref();
                    let stated = status.and_then(|status| status.secret.as_ref());
                    stated.map(|stated| &stated.uid) == new.metadata.uid.as_ref()
                })
                .await?;
            let ready = condition(&object, "Ready").context("a condition")?;
            ensure!(ready.status == "True", "{ready:?}");
            let crane = scene.crane(&objects.docker_config("acr").await?)?;
            crane
                .pull(&format!("{}/team/app:v1", contoso.server))
                .await?;
            let exchanges = scene.upstream_calls().1;
            ensure!(
                exchanges == 1 + usize::from(restarts),
                "{exchanges} exchanges"
            );
            // The name was free for no longer than two calls take.
            let calls = scene.calls().await?.on("secrets").writes();
            let calls: Vec<_> = calls.iter().rev().take(2).collect();
            let [created, completed] = calls[..] else {
                bail!("{calls:?}");
            };
            ensure!(
                created.code == 201 && completed.verb == "update",
                "{calls:?}"
            );
            let gap = created.received.duration_since(completed.received);
            ensure!(gap < SignedDuration::from_secs(1), "{gap}");
            acrcred.stop().await?;
        }
        Ok(())
    });
}
