//! What a stolen token of acrcred can do.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use serde_json::json;

use crate::harness::impersonation::allow_impersonation_in;
use crate::harness::{CONTROLLER, Program, Scene, manifest, run, soon};

fn forbidden<T: std::fmt::Debug>(what: &str, result: kube::Result<T>) {
    match result {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {}
        other => panic!("{what} should be forbidden: {other:?}"),
    }
}

/// A Secret as acrcred would write it for the `AcrCredential` `acr`.
fn secret(name: &str) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {"acrcred.dev/owner": "acr"}},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": "{\"auths\":{}}"},
    }))
    .expect("a Secret")
}

/// By any request at all: `stolen_token`. What it may write: `secrets_policy`.
#[test]
fn a_stolen_token_reads_and_writes_no_foreign_secret() {
    run(async {
        let scene = Scene::new("stolen").await?;
        let mut foreign = secret("foreign");
        foreign.metadata.annotations = None;
        let params = PostParams::default();
        scene.objects().secrets.create(&params, &foreign).await?;

        let (namespace, name) = CONTROLLER;
        let client = scene
            .control_plane
            .service_account_client(namespace, name)
            .await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &scene.namespace);
        let everywhere: Api<Secret> = Api::all(client.clone());
        secrets.create(&params, &secret("acr")).await?;
        let listed = ListParams::default();
        let nothing = Patch::Merge(json!({}));
        let patched = PatchParams::default();
        for name in ["foreign", "acr"] {
            let by_name = ListParams::default().fields(&format!("metadata.name={name}"));
            let watched = WatchParams::default().fields(&format!("metadata.name={name}"));
            forbidden("get", secrets.get(name).await);
            forbidden("list by name", secrets.list(&by_name).await);
            forbidden(
                "watch by name",
                secrets.watch(&watched, "0").await.map(drop),
            );
            forbidden("patch", secrets.patch(name, &patched, &nothing).await);
            let deleted = DeleteParams::default();
            forbidden("delete", secrets.delete(name, &deleted).await);
            forbidden(
                "delete by name",
                secrets.delete_collection(&deleted, &by_name).await,
            );
        }
        forbidden("list", secrets.list(&listed).await);
        forbidden("list everywhere", everywhere.list(&listed).await);

        let seized = secret("foreign");
        forbidden(
            "an update",
            secrets.replace("foreign", &params, &seized).await,
        );
        let mut token = secret("token");
        token.type_ = Some("kubernetes.io/service-account-token".into());
        token.string_data = None;
        let account = (
            "kubernetes.io/service-account.name".to_owned(),
            "default".to_owned(),
        );
        token
            .metadata
            .annotations
            .get_or_insert_default()
            .extend([account]);
        forbidden("a token Secret", secrets.create(&params, &token).await);

        let accounts: Api<ServiceAccount> = Api::namespaced(client, &scene.namespace);
        let identity = Patch::Merge(
            json!({"metadata": {"annotations": {"azure.workload.identity/client-id": "x"}}}),
        );
        forbidden(
            "a ServiceAccount",
            accounts.patch("default", &patched, &identity).await,
        );

        // The positive controls: acrcred can do what it needs.
        secrets.create(&params, &secret("another")).await?;
        secrets.replace("acr", &params, &secret("acr")).await?;
        Ok(())
    });
}

#[test]
fn a_stolen_token_creates_events_and_reads_none() {
    run(async {
        let scene = Scene::new("events").await?;
        let (namespace, name) = CONTROLLER;
        let client = scene
            .control_plane
            .service_account_client(namespace, name)
            .await?;
        let events: Api<Event> = Api::namespaced(client, &scene.namespace);
        let event = json!({
            "metadata": {"name": "acr.1"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "acrcred.dev/acrcred",
            "reportingInstance": "acrcred",
            "action": "Refresh",
            "reason": "RegistryUnavailable",
            "type": "Warning",
            "regarding": {"apiVersion": "acrcred.dev/v1alpha1", "kind": "AcrCredential", "name": "acr", "namespace": scene.namespace},
        });
        let event: Event = serde_json::from_value(event)?;
        // The positive control comes first.
        let created = events.create(&PostParams::default(), &event).await?;
        forbidden("get", events.get("acr.1").await);
        forbidden("list", events.list(&ListParams::default()).await);
        let watched = events.watch(&WatchParams::default(), "0").await;
        forbidden("watch", watched.map(drop));
        let nothing = Patch::Merge(json!({}));
        let answer = events
            .patch("acr.1", &PatchParams::default(), &nothing)
            .await;
        forbidden("patch", answer);
        let answer = events
            .replace("acr.1", &PostParams::default(), &created)
            .await;
        forbidden("update", answer);
        let answer = events.delete("acr.1", &DeleteParams::default()).await;
        forbidden("delete", answer);
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
fn the_start_finds_out_whether_a_policy_limits_the_tokens_it_requests() {
    run(async {
        let scene = Scene::new("fence").await?;
        // Where RBAC lets it ask, so that the policy has to answer.
        allow_impersonation_in(scene.control_plane, "default").await?;
        let said = "no admission policy limits";
        let limited = Program::start(&scene).await?;
        // No policy speaks of the admin.
        let kubeconfig = scene.control_plane.kubeconfig();
        let admin = Program::start_with(&scene, |command| {
            command.env("KUBECONFIG", kubeconfig);
        })
        .await?;
        soon("the missing policy is reported", async || {
            match admin.log() {
                Ok(log) if log.contains(said) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let calls = async || scene.control_plane.audit().settled().await;
        let (namespace, name) = CONTROLLER;
        soon("the other one has asked too", async || {
            let calls = calls().await.map_err(|error| error.to_string())?;
            let asked = calls
                .by_service_account(namespace, name)
                .on("serviceaccounts/token")
                .in_namespace("default");
            if asked.is_empty() {
                Err("not yet".to_owned())
            } else {
                Ok(())
            }
        })
        .await?;
        assert!(!limited.log()?.contains(said));
        Ok(())
    });
}
