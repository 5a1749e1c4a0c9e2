//! A token goes to no other host than an Azure registry.

use acrcred::api::AcrCredential;
use kube::api::PostParams;
use serde_json::json;

use crate::harness::{Scene, manifest, run};

/// What the schema takes for a host and is none of ours.
const FOREIGN: [&str; 9] = [
    "evil.example",
    "azurecr.io.evil.example",
    "azurecr.io",
    "azurecr.com",
    "xazurecr.io",
    "x.data.azurecr.io",
    "x.eastus.data.azurecr.io",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "xn--cntoso-r9a.azurecr.io",
];

#[test]
fn no_request_leaves_for_a_hostile_host() {
    run(async {
        let scene = Scene::new("hostile").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        for (number, host) in FOREIGN.iter().enumerate() {
            let name = format!("hostile-{number}");
            objects.create(&object(&name, host)).await?;
            objects
                .has(&name, "Stalled", "True", "RegistryNotAllowed")
                .await?;
            let connects = scene.emulator.connects();
            assert!(
                !connects.iter().any(|connect| connect.host == *host),
                "{host}"
            );
        }
        assert_eq!(scene.upstream_calls(), (0, 0));
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        Ok(())
    });
}

#[test]
fn the_schema_refuses_what_is_no_host_before_anybody_sees_it() {
    run(async {
        let scene = Scene::new("no-host").await?;
        let objects = scene.objects();
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        for host in [
            "x.azurecr.io@evil",
            "https://x.azurecr.io/",
            "X.AzureCR.io",
            ".azurecr.io",
            "x.azurecr.io.",
            "x.azurecr.io:443",
            "x.azurecr.io/team",
            "cont\u{3bf}so.azurecr.io",
        ] {
            let refused = objects
                .credentials
                .create(&dry_run, &object("acr", host))
                .await;
            assert!(
                matches!(refused, Err(kube::Error::Api(status)) if status.code == 422),
                "{host}"
            );
        }
        objects
            .credentials
            .create(&dry_run, &object("acr", "x.azurecr.io"))
            .await?;
        Ok(())
    });
}

fn object(name: &str, host: &str) -> AcrCredential {
    serde_json::from_value(json!({
        "apiVersion": "acrcred.dev/v1alpha1",
        "kind": "AcrCredential",
        "metadata": {"name": name},
        "spec": {"registries": [{"server": host}]},
    }))
    .expect("a valid object")
}
