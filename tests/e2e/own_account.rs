//! acrcred's own `ServiceAccount` is nobody's to name.

use std::fs;

use acrcred::api::AcrCredential;
use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, PostParams};

use crate::harness::{
    CONTROLLER, Objects, Scene, Tuning, allow_impersonation_in, condition, manifest, run, soon,
};

/// Of the token file, and so of what is in the cache.
const AUDIENCE: &str = "api://AzureADTokenExchange";

#[test]
fn an_object_that_names_acrcreds_own_account_gets_nothing_while_the_token_file_is_unreadable() {
    run(async {
        let scene = Scene::new("own-account").await?;
        let contoso = scene.registry("contoso").await?;
        let (namespace, account) = CONTROLLER;
        // Its operator let it impersonate everywhere, and with the audience of its own token.
        allow_impersonation_in(scene.control_plane, namespace).await?;
        let tuning = Tuning {
            watch_namespaces: vec![scene.namespace.clone(), namespace.to_owned()],
            impersonation_audiences: vec![AUDIENCE.to_owned()],
            ..Tuning::of(&scene)
        };
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("hot", &[&contoso])).await?;
        let asked = scene.upstream_calls();

        fs::remove_file(scene.token_path())?;
        // What the file said is believed for a second.
        let mut number = 0;
        soon("acrcred has noticed", async || {
            number += 1;
            let name = format!("dark-{number}");
            let created = objects.create(&manifest(&name, &[&contoso])).await;
            created.map_err(|error| error.to_string())?;
            let is_decided = |object: &AcrCredential| condition(object, "Ready").is_some();
            let object = objects.status(&name, "it is decided", is_decided).await;
            let object = object.map_err(|error| error.to_string())?;
            match condition(&object, "Ready") {
                Some(ready) if ready.reason == "InvalidIdentity" => Ok(()),
                _ => Err(format!("{:?}", object.status)),
            }
        })
        .await?;

        let inside = Objects::new(scene.control_plane.admin(), namespace);
        let named = |name: &str, account: &str| {
            let mut object = manifest(name, &[&contoso]);
            object.spec.identity = Some(acrcred::api::ServiceAccountIdentity {
                service_account_name: account.to_owned(),
                client_id: Some(scene.client_id.clone()),
                tenant_id: Some(scene.tenant_id.clone()),
            });
            object
        };
        let name = format!("own-{}", scene.namespace);
        inside.create(&named(&name, account)).await?;
        let refused = inside.has(&name, "Stalled", "True", "Forbidden").await?;
        ensure!(
            inside.secrets.get_opt(&name).await?.is_none(),
            "it got a Secret"
        );
        ensure!(scene.upstream_calls() == asked, "it was asked for");
        let ready = condition(&refused, "Ready").context("a condition")?;
        ensure!(ready.status == "False");
        let told = &ready.message;
        ensure!(told.contains("acrcred's own ServiceAccount"), "{told}");

        // The positive control: what it would have got is in the cache and is handed out, once the file is back.
        scene.token_file().await?;
        scene.clock.advance(jiff::SignedDuration::from_mins(1));
        objects
            .create_ready(&manifest("again", &[&contoso]))
            .await?;
        ensure!(
            scene.upstream_calls().0 == asked.0,
            "the cache was cold: {:?}",
            scene.upstream_calls()
        );
        inside.has(&name, "Stalled", "True", "Forbidden").await?;
        ensure!(
            inside.secrets.get_opt(&name).await?.is_none(),
            "it got a Secret"
        );

        // Another account of that namespace may be named: it is this one that is refused.
        let other = format!("other-{}", scene.namespace);
        let accounts: Api<ServiceAccount> = Api::namespaced(scene.control_plane.admin(), namespace);
        let mut puller = ServiceAccount::default();
        puller.metadata.name = Some(other.clone());
        accounts.create(&PostParams::default(), &puller).await?;
        inside.create(&named(&other, &other)).await?;
        let tried = soon("its token was asked for", async || {
            let calls = scene.control_plane.audit().settled().await;
            let calls = calls.map_err(|error| error.to_string())?;
            let asked = calls.on("serviceaccounts/token");
            let asked = asked
                .in_namespace(namespace)
                .by_service_account(namespace, account);
            match (asked.count(|call| call.name == other), asked) {
                (0, asked) => Err(asked.to_string()),
                (_, asked) => Ok(asked),
            }
        })
        .await?;
        ensure!(
            tried.count(|call| call.name == account && call.code < 300) == 0,
            "{tried}"
        );
        for name in [&name, &other] {
            inside
                .credentials
                .delete(name, &DeleteParams::default())
                .await?;
        }
        Ok(())
    });
}
