//! Where the admission policy for Secrets is not in force, acrcred writes none.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use controlplane::{ControlPlane, Options};
use jiff::SignedDuration;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, PostParams};

use crate::changes::Changes;
use crate::harness::{
    CONTROLLER, REFRESH, Scene, condition, config, manifest, run, soon, start_control_plane,
};

/// A policy that was installed is found by then: a fresh installation creates it after the Deployment.
const SECONDS: Duration = Duration::from_secs(15);

/// Waits until the API server refuses a Secret without an owner, or until it does not.
async fn is_in_force(scene: &Scene, expected: bool) -> Result<()> {
    let (namespace, name) = CONTROLLER;
    let plane = scene.control_plane;
    // The namespace of nobody's test: acrcred's calls in the other one are counted.
    let client = plane.service_account_client(namespace, name).await?;
    let secrets: Api<Secret> = Api::namespaced(client, "default");
    let unowned: Secret = serde_json::from_value(serde_json::json!({"metadata": {"name": "x"}}))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    soon("the policy is as it should be", async || {
        let answer = secrets.create(&dry_run, &unowned).await;
        match &answer {
            Ok(_) if !expected => Ok(()),
            Err(kube::Error::Api(status)) if expected && status.code == 403 => Ok(()),
            other => Err(format!("{:?}", other.as_ref().map(|_| ()))),
        }
    })
    .await
}

async fn uninstall(scene: &Scene) -> Result<()> {
    let client = scene.control_plane.admin();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client);
    bindings
        .delete("acrcred-secrets", &DeleteParams::default())
        .await?;
    is_in_force(scene, false).await
}

async fn install(scene: &Scene) -> Result<()> {
    let plane = scene.control_plane;
    let policy = plane.render(&config("policy")).await?;
    plane.apply(policy).await?;
    is_in_force(scene, true).await
}

#[test]
fn without_the_admission_policy_nothing_is_written_and_with_it_everything_is() {
    run(async {
        // Its own: what it takes away protects all the others.
        let plane: &'static ControlPlane =
            Box::leak(Box::new(start_control_plane(Options::default()).await?));
        let scene = Scene::with_control_plane(plane, "no-policy").await?;
        let contoso = scene.registry("contoso").await?;
        uninstall(&scene).await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Stalled", "True", "PolicyNotInForce")
            .await?;
        let told = &condition(&object, "Ready").context("a condition")?.message;
        ensure!(told.contains("policies.install"), "{told}");
        let writes = async || anyhow::Ok(scene.calls().await?.on("secrets").writes());
        ensure!(writes().await?.is_empty(), "{}", writes().await?);
        ensure!(objects.secrets.get_opt("acr").await?.is_none());
        ensure!(
            scene.upstream_calls().1 <= 1,
            "it mints what it cannot write"
        );

        install(&scene).await?;
        let began = Instant::now();
        objects.ready("acr").await?;
        ensure!(began.elapsed() < SECONDS, "{:?}", began.elapsed());
        let token = objects.token("acr", &contoso).await?.context("a token")?;

        // It disappears, and the hourly check finds out.
        uninstall(&scene).await?;
        scene.advance(SignedDuration::from_mins(61));
        let object = objects
            .has("acr", "RefreshFailing", "True", "PolicyNotInForce")
            .await?;
        let ready = condition(&object, "Ready").context("a condition")?;
        ensure!(ready.status == "True", "its credential still works");
        let told = &condition(&object, "RefreshFailing")
            .context("just seen")?
            .message;
        ensure!(told.contains("policies.install"), "{told}");
        let before = writes().await?.len();
        let (asked, changes) = (scene.upstream_calls(), Changes::from_now(&scene).await?);
        scene.advance(REFRESH);
        acrcred.catches_up().await?;
        objects.create(&manifest("late", &[&contoso])).await?;
        objects
            .has("late", "Stalled", "True", "PolicyNotInForce")
            .await?;
        objects.delete("late").await?;
        let shrunk = serde_json::json!({"spec": {"registries": [{"server": "other.azurecr.io"}]}});
        objects.change("acr", shrunk).await?;
        objects
            .status("acr", "its present spec is reported", |object| {
                let ready = condition(object, "Ready");
                ready.is_some_and(|ready| ready.observed_generation == object.metadata.generation)
            })
            .await?;
        let after = writes().await?;
        ensure!(after.len() == before, "{after}");
        ensure!(changes.of_secrets().await?.is_empty());
        ensure!(
            scene.upstream_calls() == asked,
            "it mints what it cannot write"
        );

        // The positive control: what waited is done as soon as it may be.
        let whole = serde_json::json!({"spec": {"registries": [{"server": contoso.server}]}});
        objects.change("acr", whole).await?;
        install(&scene).await?;
        scene.advance(SignedDuration::from_secs(75));
        objects.another_token("acr", &contoso, &token).await?;
        objects.ready("acr").await?;

        // A Secret that cannot be part of the check, as it was deleted meanwhile, does not make this last.
        uninstall(&scene).await?;
        scene.advance(SignedDuration::from_mins(61));
        objects
            .has("acr", "RefreshFailing", "True", "PolicyNotInForce")
            .await?;
        let now = DeleteParams::default();
        objects.secrets.delete("acr", &now).await?;
        install(&scene).await?;
        scene.advance(SignedDuration::from_secs(75));
        objects.ready("acr").await?;
        scene.advance(REFRESH);
        soon("the Secret is there again", async || {
            let token = objects.token("acr", &contoso).await;
            token
                .map_err(|error| error.to_string())?
                .ok_or("no token")
                .map_err(str::to_owned)
        })
        .await?;
        Ok(())
    });
}
