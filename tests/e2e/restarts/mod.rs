//! A new process, or a new leader, knows of a Secret what the status says of it, and no token.

mod fleet;
mod held;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use controlplane::{Call, Calls};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::changes::Changes;
use crate::harness::{Acrcred, Objects, Scene, TestRegistry, condition, manifest, run, soon};
use crate::ownership::{RESYNC, fingerprint, patch};

const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How acrcred begins again.
#[derive(Clone, Copy)]
enum Beginning {
    /// As another process.
    Restart,
    /// As the replica that follows the leader.
    HandOver,
}

impl Beginning {
    async fn first(self, scene: &Scene) -> Result<Acrcred> {
        match self {
            Self::Restart => scene.start().await,
            Self::HandOver => {
                scene.allow_lease().await?;
                let acrcred = scene.start_replica("first", LEASE_DURATION).await?;
                acrcred.is_leader().await?;
                Ok(acrcred)
            }
        }
    }

    async fn next(self, scene: &Scene, first: Acrcred) -> Result<Acrcred> {
        match self {
            Self::Restart => {
                first.stop().await?;
                scene.start().await
            }
            Self::HandOver => {
                let next = scene.start_replica("next", LEASE_DURATION).await?;
                first.stop().await?;
                next.is_leader().await?;
                Ok(next)
            }
        }
    }
}

/// Requests about Secrets and `ServiceAccount`s, but for those of the object that shows that acrcred works, and writes
/// of a status.
fn about(calls: &Calls) -> Calls {
    let is_about = |call: &Call| {
        ["secrets", "serviceaccounts"].contains(&&*call.resource) || call.subresource == "status"
    };
    calls.matching(|call| is_about(call) && call.name != "control")
}

/// How often each Secret was verified.
fn verified(calls: &Calls) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let calls = calls.on("secrets");
    for call in calls.iter().filter(|call| call.dry_run && call.code == 200) {
        *counts.entry(call.name.clone()).or_default() += 1;
    }
    counts
}

async fn nothing_is_done_while_everything_is_fresh(beginning: Beginning) -> Result<()> {
    let scene = Scene::new("fresh").await?;
    let contoso = scene.registry("contoso").await?;
    let puller = scene.puller().await?;
    puller.assign_role(&contoso)?;
    let objects = scene.objects();
    let first = beginning.first(&scene).await?;
    let mut names: Vec<String> = (0..20).map(|number| format!("acr-{number}")).collect();
    for name in &names {
        objects.create(&manifest(name, &[&contoso])).await?;
    }
    for number in 0..4 {
        let name = format!("own-{number}");
        objects.create(&puller.manifest(&name, &[&contoso])).await?;
        names.push(name);
    }
    for name in &names {
        objects.ready(name).await?;
    }
    let (upstream, before) = (scene.upstream_calls(), scene.calls().await?.len());
    let since = async || {
        let calls = scene.calls().await?;
        // In the order of the log.
        let earlier: Vec<_> = calls.iter().take(before).cloned().collect();
        anyhow::Ok(about(&calls.matching(|call| !earlier.contains(call))))
    };
    let changes = Changes::from_now(&scene).await?;

    let acrcred = beginning.next(&scene, first).await?;
    scene.clock.advance(SignedDuration::from_secs(40));
    acrcred.catches_up().await?;
    // The positive control: it works, and has had the time for more.
    objects
        .create_ready(&manifest("control", &[&contoso]))
        .await?;
    let calls = since().await?;
    ensure!(calls.is_empty(), "{calls}");
    // The control is a process's first one, which mints.
    let (logins, exchanges) = upstream;
    ensure!(scene.upstream_calls() == (logins + 1, exchanges + 1));

    // From a minute on, each Secret is verified once, spread over the resync interval.
    scene.clock.advance(SignedDuration::from_mins(6));
    acrcred.catches_up().await?;
    let calls = soon("the first are verified", async || match since().await {
        Ok(calls) if !calls.is_empty() => Ok(calls),
        other => Err(format!("{other:?}")),
    })
    .await?;
    let half = verified(&calls).len();
    ensure!(half < names.len(), "all at once: {calls}");
    scene.clock.advance(SignedDuration::from_secs(290));
    let calls = soon("all are verified", async || match since().await {
        Ok(calls) if verified(&calls).len() == names.len() => Ok(calls),
        Ok(calls) => Err(calls.to_string()),
        Err(error) => Err(error.to_string()),
    })
    .await?;
    ensure!(
        verified(&calls).values().all(|count| *count == 1),
        "{calls}"
    );
    ensure!(calls.writes().is_empty(), "{calls}");
    ensure!(calls.on("serviceaccounts").len() <= 4, "{calls}");
    ensure!(scene.upstream_calls() == (logins + 1, exchanges + 1));
    let (mut secrets, mut objects) = (changes.of_secrets().await?, changes.of_objects().await?);
    ensure!(secrets.remove("control").is_some() && objects.remove("control").is_some());
    ensure!(
        secrets.is_empty() && objects.is_empty(),
        "{secrets:?} {objects:?}"
    );
    acrcred.stop().await
}

#[test]
fn a_restart_with_everything_fresh_mints_and_writes_nothing() {
    run(nothing_is_done_while_everything_is_fresh(
        Beginning::Restart,
    ));
}

#[test]
fn a_hand_over_with_everything_fresh_mints_and_writes_nothing() {
    run(nothing_is_done_while_everything_is_fresh(
        Beginning::HandOver,
    ));
}

async fn pulls(scene: &Scene, objects: &Objects, contoso: &TestRegistry) -> Result<()> {
    let crane = scene.crane(&objects.docker_config("acr").await?)?;
    crane
        .pull(&format!("{}/team/app:v1", contoso.server))
        .await?;
    Ok(())
}

#[test]
fn a_secret_that_was_changed_while_acrcred_was_down_is_put_right() {
    run(async {
        for beginning in [Beginning::Restart, Beginning::HandOver] {
            let scene = Scene::new("changed-down").await?;
            let contoso = scene.registry("contoso").await?;
            let objects = scene.objects();
            let first = beginning.first(&scene).await?;
            let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
            let before = objects.secret("acr").await?;
            let running = match beginning {
                Beginning::Restart => {
                    first.stop().await?;
                    None
                }
                Beginning::HandOver => Some(first),
            };
            let forged = json!({"auths": {"evil.example": {}}}).to_string();
            let forged = json!({"stringData": {".dockerconfigjson": forged}});
            patch(&objects, "acr", forged).await?;
            let acrcred = match running {
                Some(first) => beginning.next(&scene, first).await?,
                None => scene.start().await?,
            };
            scene.clock.advance(RESYNC);
            soon("it is put right", async || {
                let payload = objects.docker_config("acr").await;
                let payload = payload.map_err(|error| error.to_string())?;
                let payload = String::from_utf8_lossy(&payload).into_owned();
                let is_right = payload.contains(&contoso.server) && !payload.contains("evil");
                is_right.then_some(()).ok_or_else(|| "not yet".to_owned())
            })
            .await?;
            pulls(&scene, &objects, &contoso).await?;
            let now = objects.secret("acr").await?;
            ensure!(now.metadata.uid == before.metadata.uid);
            let stated = objects
                .status("acr", "the status names it", |object| {
                    let status = object.status.as_ref();
                    let stated = status.and_then(|status| status.secret.as_ref());
                    let stated = stated.map(|stated| &stated.resource_version);
                    stated == now.metadata.resource_version.as_ref()
                })
                .await?;
            // Its lifetime lasted: nobody was told that it was not ready.
            let since = |object| condition(object, "Ready").map(|c| c.last_transition_time.clone());
            ensure!(since(&stated) == since(&object), "{stated:?}");
            ensure!(scene.upstream_calls().1 == 2);
            acrcred.stop().await?;
        }
        Ok(())
    });
}

#[test]
fn a_secret_that_was_deleted_while_acrcred_was_down_comes_back() {
    run(async {
        let scene = Scene::new("deleted-down").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        objects
            .create_ready(&manifest("stays", &[&contoso]))
            .await?;
        let (old, stays) = (objects.secret("acr").await?, objects.secret("stays").await?);
        acrcred.stop().await?;
        let deletion = DeleteParams::default();
        objects.secrets.delete("acr", &deletion).await?;
        let _acrcred = scene.start().await?;
        scene.clock.advance(RESYNC);
        let new = soon("the Secret is back", async || {
            match objects.secrets.get_opt("acr").await {
                Ok(Some(new)) => Ok(new),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        ensure!(new.metadata.uid != old.metadata.uid);
        objects.ready("acr").await?;
        pulls(&scene, &objects, &contoso).await?;
        ensure!(objects.secret("stays").await? == stays);
        let uid = |object: &acrcred::api::AcrCredential| {
            let status = object.status.as_ref();
            Some(status?.secret.as_ref()?.uid.clone())
        };
        objects
            .status("acr", "the status names it", |object| {
                uid(object) == new.metadata.uid
            })
            .await?;
        let exchanges = scene.upstream_calls().1;
        ensure!(exchanges == 2, "{exchanges} exchanges");
        new.data.context("data").map(drop)
    });
}

#[test]
fn a_foreign_secret_that_took_the_place_while_acrcred_was_down_is_left_alone() {
    run(async {
        let scene = Scene::new("replaced-down").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        acrcred.stop().await?;
        let deletion = DeleteParams::default();
        objects.secrets.delete("acr", &deletion).await?;
        let foreign: Secret = serde_json::from_value(json!({
            "metadata": {"name": "acr"},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": "{\"auths\":{\"theirs.example\":{}}}"},
        }))?;
        let params = PostParams::default();
        let before = objects.secrets.create(&params, &foreign).await?;
        let _acrcred = scene.start().await?;
        scene.clock.advance(RESYNC);
        objects
            .has("acr", "Stalled", "True", "SecretNotOwned")
            .await?;
        let now = objects.secret("acr").await?;
        assert_eq!(fingerprint(&now), fingerprint(&before));
        // The positive control: what is ours is written.
        objects
            .create_ready(&manifest("control", &[&contoso]))
            .await?;
        Ok(())
    });
}
