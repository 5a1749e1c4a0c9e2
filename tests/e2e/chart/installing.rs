//! Install, upgrade, roll back, uninstall, and install again.

use anyhow::{Context as _, Result};
use controlplane::{ControlPlane, Options, Tool};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use serde_json::json;

use crate::harness::{Helm, Objects, TestRegistry, config, manifest, run, soon};

const NAMESPACE: &str = "acrcred-system";
const CRD: &str = "acrcredentials.acrcred.dev";

/// A control plane without anything of ours.
async fn bare_control_plane() -> Result<ControlPlane> {
    ControlPlane::start(Options::default()).await
}

async fn replicas(control_plane: &ControlPlane) -> Result<Option<i32>> {
    let deployments: Api<Deployment> = Api::namespaced(control_plane.admin(), NAMESPACE);
    let deployment = deployments.get("acrcred").await?;
    Ok(deployment.spec.context("a spec")?.replicas)
}

/// Whether the uninstalled objects are gone, and what hangs on the CRD is not.
async fn only_the_credentials_are_left(control_plane: &ControlPlane) -> Result<()> {
    let client = control_plane.admin();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    assert!(deployments.get_opt("acrcred").await?.is_none());
    assert!(roles.get_opt("acrcred").await?.is_none());
    crds.get(CRD).await?;
    Objects::new(client, "default")
        .credentials
        .get("acr")
        .await?;
    Ok(())
}

async fn create_credential(control_plane: &ControlPlane) -> Result<()> {
    let contoso = TestRegistry {
        server: "contoso.azurecr.io".into(),
    };
    let objects = Objects::new(control_plane.admin(), "default");
    soon("the definition is served", async || {
        let created = objects.create(&manifest("acr", &[&contoso])).await;
        created.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await
}

#[test]
fn a_release_is_installed_upgraded_rolled_back_and_removed_and_the_objects_stay() {
    run(async {
        let control_plane = bare_control_plane().await?;
        let [new, old] = Helm::VERSIONS.map(|version| Helm::on(&control_plane, version));
        let (new, old) = (new?, old?);
        let identity = json!({
            "allowControllerIdentity": ["team-a/*"],
            "clientId": "22222222-0000-4000-8000-000000000001",
            "tenantId": "11111111-0000-4000-8000-000000000001",
            "image": {"repository": "registry.example/acrcred"},
        });
        let three = json!({"replicaCount": 3, "impersonation": {"enabled": true}});

        // Whoever has helm 3 moves on to 4 with a release that exists.
        let arguments = [
            "install",
            "acrcred",
            "--create-namespace",
            "--namespace",
            NAMESPACE,
        ];
        let installed = old.chart(&arguments, &identity).await?;
        let notes = String::from_utf8(installed.stdout)?;
        assert!(
            installed.status.success(),
            "{notes}{}",
            String::from_utf8_lossy(&installed.stderr)
        );
        assert!(notes.contains("STATUS: deployed"), "{notes}");
        for words in [
            "kubectl get --raw /.well-known/openid-configuration",
            "--subject system:serviceaccount:acrcred-system:acrcred",
            "--audiences api://AzureADTokenExchange",
            "kind: AcrCredential",
            "DELETES EVERY AcrCredential, AND WITH IT EVERY SECRET",
        ] {
            assert!(notes.contains(words), "{words}: {notes}");
        }
        assert!(!notes.contains("WARNING"), "{notes}");
        assert_eq!(replicas(&control_plane).await?, Some(2));
        create_credential(&control_plane).await?;

        new.upgrade("acrcred", NAMESPACE, &three).await?;
        assert_eq!(replicas(&control_plane).await?, Some(3));
        new.run(&["rollback", "acrcred", "1", "--namespace", NAMESPACE])
            .await?;
        assert_eq!(replicas(&control_plane).await?, Some(2));
        new.run(&["uninstall", "acrcred", "--namespace", NAMESPACE])
            .await?;
        only_the_credentials_are_left(&control_plane).await?;

        // The definition that was left is taken over.
        for helm in [&old, &new] {
            helm.upgrade("acrcred", NAMESPACE, &identity).await?;
            assert_eq!(replicas(&control_plane).await?, Some(2));
            helm.upgrade("acrcred", NAMESPACE, &three).await?;
            helm.run(&["rollback", "acrcred", "--namespace", NAMESPACE])
                .await?;
            assert_eq!(replicas(&control_plane).await?, Some(2));
            helm.run(&["uninstall", "acrcred", "--namespace", NAMESPACE])
                .await?;
            only_the_credentials_are_left(&control_plane).await?;
        }
        Ok(())
    });
}

#[test]
fn a_second_release_stands_beside_the_first() {
    run(async {
        let control_plane = bare_control_plane().await?;
        let helm = Helm::on(&control_plane, Tool::Helm)?;
        for (release, install) in [("acrcred", true), ("second", false)] {
            let values = json!({
                "crds": {"install": install},
                "impersonation": {"enabled": true},
                "watchSecrets": {"names": ["acr"]},
                "rbac": {"aggregateToView": true, "aggregateToEdit": true},
            });
            helm.upgrade(release, "default", &values).await?;
        }
        let risky = json!({"crds": {"install": false}, "policies": {"install": false}});
        let notes = helm.upgrade("risky", "default", &risky).await?;
        for words in [
            "image.repository is not set",
            "policies.install is false",
            "no AcrCredential can get a credential",
        ] {
            assert!(notes.contains(words), "{words}: {notes}");
        }

        // The positive control: what is there already, nobody takes over.
        let another = helm.upgrade("third", "default", &json!({})).await;
        let error = format!("{:#}", another.err().context("it was installed")?);
        assert!(error.contains("acrcredentials.acrcred.dev"), "{error}");
        Ok(())
    });
}

#[test]
fn one_command_installs_the_single_file() {
    run(async {
        let control_plane = bare_control_plane().await?;
        let mut kubectl = control_plane.kubectl();
        kubectl.args(["apply", "--server-side", "--validate=strict", "--filename"]);
        let output = kubectl.arg(config("install.yaml")).output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert_eq!(replicas(&control_plane).await?, Some(2));
        create_credential(&control_plane).await
    });
}
