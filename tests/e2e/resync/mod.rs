//! The regular write of what should be there: free where nothing changed, a repair where something did, and no war with
//! another client that writes too.

mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::drift::may_watch_secrets;
use crate::harness::{Acrcred, Scene, Tuning, condition, manifest, run, soon};
use crate::ownership::{RESYNC, message, patch};
use webhook::{LABEL, Webhook};

/// Writes of Secrets, dry runs left out, and how many of them changed something.
async fn puts(scene: &Scene) -> Result<usize> {
    let calls = scene.calls().await?.on("secrets").writes();
    Ok(calls.count(|call| call.verb == "update" && call.code == 200))
}

/// Lets one resync after the other come due.
async fn resyncs(scene: &Scene, times: usize) -> Result<()> {
    for _ in 0..times {
        let before = puts(scene).await?;
        scene.clock.advance(RESYNC);
        soon("the resync has come", async || match puts(scene).await {
            Ok(now) if now > before => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
    }
    Ok(())
}

#[test]
fn a_resync_of_what_is_there_changes_nothing() {
    run(async {
        let scene = Scene::new("free").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let before = objects.secret("acr").await?;
        resyncs(&scene, 4).await?;
        assert_eq!(objects.secret("acr").await?, before);
        let now = objects.credentials.get("acr").await?;
        assert_eq!(
            now.metadata.resource_version,
            object.metadata.resource_version
        );
        assert_eq!(scene.upstream_calls(), (1, 1));
        // The positive control: what another client changed is put right by the same write.
        let forged = json!({"stringData": {".dockerconfigjson": "{\"auths\":{}}"}, "metadata": {"labels": {"a": "b"}}});
        patch(&objects, "acr", forged).await?;
        scene.clock.advance(RESYNC);
        soon("it is put right", async || {
            let now = objects.secret("acr").await.map_err(|e| e.to_string())?;
            let is_right = now.data == before.data && now.metadata.labels == before.metadata.labels;
            is_right.then_some(()).ok_or_else(|| "not yet".to_owned())
        })
        .await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        Ok(())
    });
}

#[test]
fn a_resync_changes_nothing_where_a_policy_engine_labels_each_write() {
    run(async {
        let scene = Scene::new("labelled").await?;
        let webhook = Webhook::start(&scene).await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let before = objects.secret("acr").await?;
        let labels = before.metadata.labels.clone().context("labels")?;
        ensure!(labels.contains_key(LABEL), "{labels:?}");
        let seen = webhook.seen();
        resyncs(&scene, 3).await?;
        ensure!(webhook.seen() >= seen + 3, "the webhook did not see them");
        assert_eq!(objects.secret("acr").await?, before);
        // A new process believes in it just so.
        drop(acrcred);
        let _acrcred = scene.start().await?;
        let looks = async || {
            let calls = scene.calls().await?.on("secrets");
            anyhow::Ok(calls.count(|call| call.dry_run && call.code == 200))
        };
        scene.clock.advance(RESYNC);
        soon("the Secret was verified", async || match looks().await {
            Ok(count) if count > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        let control = manifest("control", &[&contoso]);
        objects.create_ready(&control).await?;
        assert_eq!(objects.secret("acr").await?, before);
        Ok(())
    });
}

/// Another client that wants something else in the Secret, and answers each write of acrcred.
struct Opponent {
    answers: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Opponent {
    const MANAGER: &str = "other-controller";

    async fn write(secrets: &Api<Secret>, number: usize) -> Result<()> {
        let params = PatchParams {
            field_manager: Some(Self::MANAGER.into()),
            ..PatchParams::default()
        };
        let labels = json!({"theirs": number.to_string()});
        let change = json!({"metadata": {"labels": labels}});
        secrets
            .patch("acr", &params, &Patch::Merge(change))
            .await
            .map(drop)?;
        Ok(())
    }

    /// Begins, and answers until it is dropped.
    async fn start(scene: &Scene) -> Result<Self> {
        let secrets = scene.objects().secrets;
        Self::write(&secrets, 0).await?;
        let (answers, stop) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let (count, over) = (answers.clone(), stop.clone());
        let version = secrets.get("acr").await?.metadata.resource_version;
        let version = version.context("a version")?;
        let work = async move {
            let params = WatchParams::default().fields("metadata.name=acr");
            let mut events = Box::pin(secrets.watch(&params, &version).await?);
            while let Some(event) = events.next().await {
                let WatchEvent::Modified(secret) = event? else {
                    continue;
                };
                let labels = secret.metadata.labels.unwrap_or_default();
                if !labels.contains_key("theirs") {
                    let number = 1 + count.fetch_add(1, Ordering::SeqCst);
                    Self::write(&secrets, number).await?;
                }
            }
            anyhow::Ok(())
        };
        tokio::spawn(async move { over.run_until_cancelled(work).await });
        Ok(Self { answers, stop })
    }
}

impl Drop for Opponent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Lets a minute pass in small steps, in each of which what is due is done.
async fn a_minute_passes(scene: &Scene, acrcred: &Acrcred) -> Result<()> {
    for _ in 0..20 {
        scene.clock.advance(SignedDuration::from_secs(3));
        acrcred.catches_up().await?;
        // The audit log has everything until now, and the answers to it have had time to come.
        scene.calls().await?;
    }
    Ok(())
}

#[test]
fn a_client_that_reverts_each_write_is_named_and_repairs_are_limited() {
    run(async {
        let scene = Scene::new("war").await?;
        let contoso = scene.registry("contoso").await?;
        may_watch_secrets(&scene).await?;
        let mut tuning = Tuning::of(&scene);
        tuning.watch_secrets = vec!["acr".into()];
        let acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let before = puts(&scene).await?;
        let opponent = Opponent::start(&scene).await?;
        a_minute_passes(&scene, &acrcred).await?;
        let writes = puts(&scene).await? - before;
        ensure!((1..=4).contains(&writes), "{writes} writes in a minute");
        let answers = opponent.answers.load(Ordering::SeqCst);
        ensure!(answers >= writes, "{answers} answers to {writes} writes");
        let object = objects
            .status("acr", "the other client is named", |object| {
                message(object).is_ok_and(|message| message.contains(Opponent::MANAGER))
            })
            .await?;
        let ready = condition(&object, "Ready").context("a condition")?;
        ensure!(ready.status == "True", "{ready:?}");

        // One repair a resync, from now on.
        let before = puts(&scene).await?;
        scene.clock.advance(RESYNC);
        a_minute_passes(&scene, &acrcred).await?;
        let writes = puts(&scene).await? - before;
        ensure!(writes == 1, "{writes} writes at one resync");
        // Left alone, it is repaired for good.
        drop(opponent);
        scene.clock.advance(RESYNC);
        soon("it is put right", async || {
            let labels = objects.secret("acr").await.map_err(|e| e.to_string())?;
            let labels = labels.metadata.labels.unwrap_or_default();
            let is_right = !labels.contains_key("theirs");
            is_right.then_some(()).ok_or_else(|| format!("{labels:?}"))
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_client_that_changes_the_secret_now_and_then_is_no_conflict() {
    run(async {
        let scene = Scene::new("now-and-then").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let before = objects.secret("acr").await?.data;
        // Each is repaired at the next resync, and the next comes a quarter of an hour later.
        for number in 0..4 {
            let forged = json!({"stringData": {".dockerconfigjson": "{\"auths\":{}}"}});
            patch(&objects, "acr", forged).await?;
            scene.clock.advance(RESYNC);
            let what = format!("repair {number} is reported");
            let stated = soon(&what, async || {
                let secret = objects.secret("acr").await.map_err(|e| e.to_string())?;
                let object = objects
                    .credentials
                    .get("acr")
                    .await
                    .map_err(|e| e.to_string())?;
                let stated = object
                    .status
                    .as_ref()
                    .and_then(|status| status.secret.as_ref());
                let stated = stated.map(|stated| &stated.resource_version);
                let is_stated = stated == secret.metadata.resource_version.as_ref();
                let is_repaired = is_stated && secret.data == before;
                is_repaired
                    .then_some(object)
                    .ok_or_else(|| "not yet".to_owned())
            })
            .await?;
            let message = message(&stated)?;
            ensure!(!message.contains("keeps changing"), "{number}: {message}");
            scene.clock.advance(SignedDuration::from_mins(4));
        }
        Ok(())
    });
}

#[test]
fn a_client_that_writes_all_the_time_costs_no_request_for_each_of_its_writes() {
    run(async {
        let scene = Scene::new("noise").await?;
        let contoso = scene.registry("contoso").await?;
        may_watch_secrets(&scene).await?;
        let mut tuning = Tuning::of(&scene);
        tuning.watch_secrets = vec!["acr".into()];
        let acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let before = scene.calls().await?.on("secrets").len();
        let changes = Changes::from_now(&scene).await?;
        for number in 0..40 {
            Opponent::write(&objects.secrets, number).await?;
            // What acrcred makes of it has had the time to come.
            acrcred.catches_up().await?;
            scene.calls().await?;
        }
        a_minute_passes(&scene, &acrcred).await?;
        let count = changes.of_secrets().await?["acr"];
        ensure!(count >= 40, "{count} changes");
        let calls = scene.calls().await?.on("secrets");
        let asked = calls.len() - before;
        ensure!(asked <= 20, "{asked} requests in a minute");
        Ok(())
    });
}
