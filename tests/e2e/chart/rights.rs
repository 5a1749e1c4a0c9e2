//! What the chart gives acrcred is enough for its work, and no more than the policies allow.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use controlplane::Tool;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::{Value, json};

use super::objects::only;
use crate::harness::{Helm, Program, Scene, control_plane, manifest, run, soon, token_request};

const RELEASE: &str = "own";
const ACCOUNT: &str = "own-acrcred";

/// A release in a namespace of its own, which serves the test's namespace.
struct Release<'a> {
    scene: &'a Scene,
    namespace: String,
}

impl<'a> Release<'a> {
    async fn install(scene: &'a Scene, scope: &str) -> Result<Self> {
        let namespace = scene.control_plane.create_namespace("release").await?;
        let values = json!({
            "clientId": scene.client_id,
            "tenantId": scene.tenant_id,
            "allowControllerIdentity": [format!("{}/*", scene.namespace)],
            "clouds": ["AzurePublicCloud"],
            "impersonation": {"enabled": true, "namespaces": [scene.namespace]},
            "impersonationAudiences": ["api://AzureCRTokenExchange", "api://another"],
            "watchNamespaces": [scene.namespace],
            "watchSecrets": {"names": ["acr"]},
            "rbac": {"scope": scope},
            "crds": {"install": false},
            "fullnameOverride": format!("{ACCOUNT}-{}", scene.namespace),
            "serviceAccount": {"name": ACCOUNT},
        });
        let helm = Helm::on(scene.control_plane, Tool::Helm)?;
        helm.upgrade(RELEASE, &namespace, &values).await?;
        scene.trust((&namespace, ACCOUNT))?;
        Ok(Self { scene, namespace })
    }

    /// The container as the API server has it.
    async fn container(&self) -> Result<Value> {
        let client = self.scene.control_plane.admin();
        let deployments: Api<Deployment> = Api::namespaced(client, &self.namespace);
        let name = format!("{ACCOUNT}-{}", self.scene.namespace);
        let deployment = serde_json::to_value(deployments.get(&name).await?)?;
        Ok(deployment["spec"]["template"]["spec"].clone())
    }

    /// The program with the flags, the variables and the rights that its Pod would have.
    async fn start(&self) -> Result<Program> {
        let pod = self.container().await?;
        let token = self.token_file(&pod).await?;
        let dir = self.scene.dir.path().join("release");
        let control_plane = self.scene.control_plane;
        let kubeconfig = control_plane
            .service_account_kubeconfig(&self.namespace, ACCOUNT, &dir)
            .await?;
        let container = &pod["containers"][0];
        let flags = container["args"].as_array().context("flags")?;
        let flags = flags.iter().filter_map(Value::as_str);
        // This machine may use the port for something else.
        let flags = flags.filter(|flag| !flag.starts_with("--admin-listen="));
        let variables = container["env"].as_array().context("variables")?;
        let variables = variables
            .iter()
            .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)));
        Program::start_with(self.scene, |command| {
            command
                .args(flags)
                .envs(variables)
                .env("POD_NAME", "own-acrcred-0")
                .env("POD_NAMESPACE", &self.namespace)
                .env("AZURE_FEDERATED_TOKEN_FILE", token)
                .env("KUBECONFIG", kubeconfig);
        })
        .await
    }

    /// What the kubelet would mount for Entra.
    async fn token_file(&self, pod: &Value) -> Result<PathBuf> {
        let token = &pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        let audience = token["audience"].as_str().context("an audience")?;
        let seconds = token["expirationSeconds"].as_i64().context("a life")?;
        let token = self.scene.control_plane;
        let token = token
            .service_account_token(&self.namespace, ACCOUNT, &[audience], seconds)
            .await?;
        let path = self
            .scene
            .dir
            .path()
            .join("azure-identity-token-of-release");
        tokio::fs::write(&path, token).await?;
        Ok(path)
    }
}

async fn the_rights_suffice(scope: &str) -> Result<()> {
    let scene = Scene::new("chart").await?;
    let contoso = scene.registry("contoso").await?;
    let puller = scene.puller().await?;
    let fabrikam = puller.registry("fabrikam").await?;
    let release = Release::install(&scene, scope).await?;
    let program = release.start().await?;

    let objects = scene.objects();
    objects.create_ready(&manifest("acr", &[&contoso])).await?;
    objects
        .create_ready(&puller.manifest("theirs", &[&fabrikam]))
        .await?;
    let token = objects.token("acr", &contoso).await?.context("a token")?;
    let refresh = json!({"metadata": {"annotations": {"acrcred.dev/refresh": "now"}}});
    objects.change("acr", refresh).await?;
    objects.another_token("acr", &contoso, &token).await?;
    program.terminate().await?;

    let calls = scene.control_plane.audit().settled().await?;
    let calls = calls.by_service_account(&release.namespace, ACCOUNT);
    let of_teams = calls.in_namespace(&scene.namespace);
    let of_teams = of_teams.matching(|call| !crate::harness::is_policy_check(call));
    assert!(of_teams.len() >= 8, "{of_teams}");
    assert!(of_teams.forbidden().is_empty(), "{}", of_teams.forbidden());
    // The rest of its own namespace is left out: at its start it tries there what the policies refuse.
    let leases = calls.in_namespace(&release.namespace).on("leases");
    assert!(leases.len() >= 2, "{leases}");
    assert!(leases.forbidden().is_empty(), "{}", leases.forbidden());
    Ok(())
}

#[test]
fn the_rights_of_a_release_suffice_in_the_whole_cluster() {
    run(the_rights_suffice("cluster"));
}

#[test]
fn the_rights_of_a_release_suffice_in_single_namespaces() {
    run(the_rights_suffice("namespaces"));
}

fn refused_by<T: std::fmt::Debug>(policy: &str, answer: kube::Result<T>) -> Result<(), String> {
    match answer {
        Err(kube::Error::Api(status)) if status.message.contains(policy) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn the_policies_of_a_release_bind_its_own_service_account() {
    run(async {
        let scene = Scene::new("fenced").await?;
        let release = Release::install(&scene, "cluster").await?;
        let client = scene
            .control_plane
            .service_account_client(&release.namespace, ACCOUNT)
            .await?;
        let params = PostParams::default();
        let name = format!("{ACCOUNT}-{}", scene.namespace);

        let secrets: Api<Secret> = Api::namespaced(client.clone(), &scene.namespace);
        let no_owner: Secret = serde_json::from_value(json!({"metadata": {"name": "no-owner"}}))?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        soon("the policy on Secrets is in force", async || {
            let answer = secrets.create(&dry_run, &no_owner).await;
            refused_by(&format!("{name}-secrets"), answer)
        })
        .await?;

        let accounts: Api<ServiceAccount> = Api::namespaced(client, &scene.namespace);
        let ask = async |audience| {
            let request = token_request(&[audience], Some(600));
            accounts
                .create_token_request("default", &params, &request)
                .await
        };
        soon("the policy on tokens is in force", async || {
            let answer = ask(scene.control_plane.issuer()).await;
            refused_by(&format!("{name}-impersonation"), answer)
        })
        .await?;
        // The positive control: what the values allow.
        ask("api://AzureCRTokenExchange").await?;
        ask("api://another").await?;
        Ok(())
    });
}

/// The Pod that the Deployment would make.
fn pod_of(rendered: &str) -> Result<Pod> {
    let template = &only(rendered, "Deployment")?["spec"]["template"];
    let mut pod: Pod = serde_json::from_value(template.clone())?;
    pod.metadata.name = Some("acrcred".into());
    Ok(pod)
}

#[test]
fn the_default_pod_is_restricted() {
    run(async {
        let control_plane = control_plane().await?;
        let name = format!("restricted-{:08x}", std::process::id());
        let enforce = (
            "pod-security.kubernetes.io/enforce".to_owned(),
            "restricted".to_owned(),
        );
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some([enforce].into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let params = PostParams::default();
        Api::all(control_plane.admin())
            .create(&params, &namespace)
            .await?;
        let pods: Api<Pod> = Api::namespaced(control_plane.admin(), &name);
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let helm = Helm::new(Tool::Helm)?;
        let all = json!({
            "clientId": "22222222-0000-4000-8000-000000000001",
            "environmentFile": {"content": "{}"},
            "caBundle": {"configMap": "trusted"},
        });
        for values in [json!({}), all] {
            let pod = pod_of(&helm.template("acrcred", &name, &values).await?)?;
            pods.create(&dry_run, &pod).await?;
        }
        for values in [
            json!({"hostNetwork": true}),
            json!({"securityContext": {"allowPrivilegeEscalation": true}}),
            json!({"podSecurityContext": {"seccompProfile": null}}),
        ] {
            let pod = pod_of(&helm.template("acrcred", &name, &values).await?)?;
            refused_by("restricted", pods.create(&dry_run, &pod).await)
                .map_err(|other| anyhow::anyhow!("{values}: {other}"))?;
        }
        Ok(())
    });
}
