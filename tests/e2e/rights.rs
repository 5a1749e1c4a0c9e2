//! What acrcred's own token can do when somebody steals it.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::impersonation::allow_impersonation_in;
use crate::harness::{CONTROLLER, Scene, manifest, run};

fn forbidden<T: std::fmt::Debug>(what: &str, result: kube::Result<T>) {
    match result {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {}
        other => panic!("{what} should be forbidden: {other:?}"),
    }
}

fn secret(value: &Value) -> Result<Secret> {
    Ok(serde_json::from_value(value.clone())?)
}

// One token, and all that it must not be good for.
#[allow(clippy::too_many_lines)]
#[test]
fn a_stolen_token_reads_and_writes_no_foreign_secret() {
    run(async {
        let scene = Scene::new("stolen").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        let owner = objects.create_ready(&manifest("acr", &[&contoso])).await?;
        acrcred.stop().await?;
        let foreign =
            json!({"metadata": {"name": "foreign"}, "stringData": {"password": "hunter2"}});
        objects
            .secrets
            .create(&PostParams::default(), &secret(&foreign)?)
            .await?;

        let (namespace, name) = CONTROLLER;
        let client = scene
            .control_plane
            .service_account_client(namespace, name)
            .await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &scene.namespace);
        let nothing = Patch::Merge(json!({}));
        forbidden("get", secrets.get("foreign").await);
        forbidden("get of its own", secrets.get("acr").await);
        forbidden("list", secrets.list(&ListParams::default()).await);
        forbidden(
            "list everywhere",
            Api::<Secret>::all(client.clone())
                .list(&ListParams::default())
                .await,
        );
        forbidden(
            "delete",
            secrets.delete("acr", &DeleteParams::default()).await,
        );
        forbidden(
            "empty patch",
            secrets
                .patch("foreign", &PatchParams::default(), &nothing)
                .await,
        );
        let dry_run = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        forbidden(
            "empty dry run",
            secrets.patch("foreign", &dry_run, &nothing).await,
        );
        let seize =
            Patch::Merge(json!({"metadata": {"annotations": {"acrcred.dev/owner-uid": "x"}}}));
        forbidden(
            "marking",
            secrets
                .patch("foreign", &PatchParams::default(), &seize)
                .await,
        );

        let strip = json!({"metadata": {"ownerReferences": null, "annotations": {"acrcred.dev/owner-uid": null}}});
        forbidden(
            "stripping its marks",
            secrets
                .patch("acr", &PatchParams::default(), &Patch::Merge(strip))
                .await,
        );

        let uid = owner.metadata.uid.unwrap_or_default();
        let mark =
            json!({"acrcred.dev/owner-uid": uid, "kubernetes.io/service-account.name": "default"});
        let token = json!({
            "metadata": {"name": "token", "annotations": mark},
            "type": "kubernetes.io/service-account-token",
        });
        forbidden(
            "a token Secret",
            secrets
                .create(&PostParams::default(), &secret(&token)?)
                .await,
        );
        let unmarked = json!({
            "metadata": {"name": "unmarked"},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": "{\"auths\":{}}"},
        });
        forbidden(
            "an unmarked Secret",
            secrets
                .create(&PostParams::default(), &secret(&unmarked)?)
                .await,
        );

        let accounts: Api<ServiceAccount> = Api::namespaced(client, &scene.namespace);
        let identity = Patch::Merge(
            json!({"metadata": {"annotations": {"azure.workload.identity/client-id": "x"}}}),
        );
        forbidden(
            "a ServiceAccount",
            accounts
                .patch("default", &PatchParams::default(), &identity)
                .await,
        );

        // The positive controls: what acrcred needs, it can.
        let own = secrets
            .patch("acr", &PatchParams::default(), &nothing)
            .await?;
        assert_eq!(
            own.metadata.resource_version,
            objects.secret("acr").await?.metadata.resource_version
        );
        let mut padded = unmarked.clone();
        padded["metadata"] =
            json!({"name": "padded", "annotations": {"acrcred.dev/owner-uid": uid}});
        padded["stringData"]["password"] = json!("known to the thief");
        forbidden(
            "a Secret with another key",
            secrets
                .create(&PostParams::default(), &secret(&padded)?)
                .await,
        );
        let mut marked = unmarked;
        marked["metadata"] =
            json!({"name": "marked", "annotations": {"acrcred.dev/owner-uid": uid}});
        secrets
            .create(&PostParams::default(), &secret(&marked)?)
            .await?;
        Ok(())
    });
}

#[test]
fn acrcred_needs_no_right_that_it_does_not_have() {
    run(async {
        let scene = Scene::with_own_time("rights").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let first = objects.token("acr", &contoso).await?.unwrap_or_default();
        scene.advance(jiff::SignedDuration::from_mins(95));
        objects.another_token("acr", &contoso, &first).await?;
        objects.delete("acr").await?;
        let calls = scene.calls().await?;
        assert!(calls.len() >= 4, "{calls}");
        assert!(calls.forbidden().is_empty(), "{}", calls.forbidden());
        Ok(())
    });
}

#[test]
fn the_start_finds_out_whether_the_policies_limit_it() {
    run(async {
        let scene = Scene::new("fence").await?;
        let (namespace, name) = CONTROLLER;
        let limited = scene
            .control_plane
            .service_account_client(namespace, name)
            .await?;
        assert_eq!(acrcred::controller::is_fenced(&limited).await, Some(true));
        // Where RBAC lets it ask, so that the policy has to answer.
        allow_impersonation_in(scene.control_plane, "default").await?;
        assert!(!acrcred::controller::is_impersonation_unfenced(&limited).await);
        // No policy speaks of the admin.
        let admin = scene.control_plane.admin();
        assert_eq!(acrcred::controller::is_fenced(&admin).await, Some(false));
        assert!(acrcred::controller::is_impersonation_unfenced(&admin).await);
        Ok(())
    });
}
