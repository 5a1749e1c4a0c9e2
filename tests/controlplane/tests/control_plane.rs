//! The control plane against itself: one is started for all behaviours, since that is what costs time.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use controlplane::{ControlPlane, Options, Tool, eventually};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.example}
spec:
  group: test.example
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
";

#[tokio::test]
async fn a_control_plane_is_real_and_leaves_nothing_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let crds = folder.path().join("crds.yaml");
    std::fs::write(&crds, WIDGETS)?;
    let plane = ControlPlane::start(Options {
        crds: vec![crds],
        ..Options::default()
    })
    .await?;
    eprintln!("started in {:?}", plane.startup());

    the_issuer_ends_with_a_slash(&plane).await?;
    the_published_keys_need_no_administrator(&plane).await?;
    an_account_without_rights_gets_403_and_the_audit_log_shows_it(&plane).await?;
    dry_runs_are_told_from_writes(&plane).await?;
    counts_are_exact_right_after_a_burst(&plane).await?;
    a_kubeconfig_of_a_service_account_acts_in_its_name(&plane, folder.path()).await?;
    the_owned_are_collected_with_their_owner(&plane).await?;
    manifests_of_new_kinds_apply_in_one_go(&plane).await?;

    let (pids, dir) = (plane.process_ids(), plane.dir().to_owned());
    ensure!(
        pids.len() == 4 && pids.iter().all(|&pid| runs(pid)),
        "a supervisor and three programs run: {pids:?}"
    );
    drop(plane);
    ensure!(
        !pids.iter().any(|&pid| runs(pid)),
        "still there: {:?}",
        pids.iter().filter(|&&pid| runs(pid)).collect::<Vec<_>>()
    );
    ensure!(!dir.exists(), "the temporary folder is still there");
    Ok(())
}

async fn the_issuer_ends_with_a_slash(plane: &ControlPlane) -> Result<()> {
    let namespace = plane.create_namespace("issuer").await?;
    let token = plane
        .service_account_token(&namespace, "default", &["api://AzureADTokenExchange"], 600)
        .await?;
    let payload = token.split('.').nth(1).context("not a JWT")?;
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload)?)?;
    assert_eq!(claims["iss"], plane.issuer());
    assert!(plane.issuer().ends_with('/'));
    assert_eq!(claims["aud"], json!(["api://AzureADTokenExchange"]));
    Ok(())
}

async fn the_published_keys_need_no_administrator(plane: &ControlPlane) -> Result<()> {
    let jwks = plane.jwks();
    let mut config = controlplane::client_config(plane.kubeconfig()).await?;
    config.auth_info = kube::config::AuthInfo::default();
    config.auth_info.token_file = Some(jwks.bearer_token_file.display().to_string());
    let client = Client::try_from(config)?;
    let path = jwks
        .url
        .strip_prefix(plane.url())
        .context("the keys are not at the API server")?;
    let keys: Value = client
        .request(http::Request::get(path).body(Vec::new())?)
        .await?;
    assert_eq!(keys["keys"][0]["kty"], "RSA");
    let refused = Api::<Secret>::namespaced(client, "default")
        .list(&ListParams::default())
        .await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.is_forbidden()));
    Ok(())
}

async fn an_account_without_rights_gets_403_and_the_audit_log_shows_it(
    plane: &ControlPlane,
) -> Result<()> {
    let namespace = plane.create_namespace("powerless").await?;
    plane
        .create_service_account(&namespace, "nobody", &[])
        .await?;
    let secrets: Api<Secret> = Api::namespaced(
        plane.service_account_client(&namespace, "nobody").await?,
        &namespace,
    );
    for _ in 0..3 {
        let refused = secrets.get("any").await;
        assert!(matches!(refused, Err(kube::Error::Api(status)) if status.is_forbidden()));
    }
    let calls = plane
        .audit()
        .settled()
        .await?
        .by_service_account(&namespace, "nobody");
    assert_eq!(
        (
            calls.len(),
            calls
                .forbidden()
                .on("secrets")
                .in_namespace(&namespace)
                .len()
        ),
        (3, 3),
        "{calls}"
    );
    Ok(())
}

async fn dry_runs_are_told_from_writes(plane: &ControlPlane) -> Result<()> {
    let namespace = plane.create_namespace("patches").await?;
    let objects: Api<ConfigMap> = Api::namespaced(plane.admin(), &namespace);
    let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}}))?;
    objects
        .create(
            &PostParams {
                field_manager: Some("acrcred".into()),
                ..PostParams::default()
            },
            &object,
        )
        .await?;
    let dry_run = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    objects
        .patch("a", &dry_run, &Patch::Merge(json!({})))
        .await?;
    let calls = plane
        .audit()
        .settled()
        .await?
        .in_namespace(&namespace)
        .on("configmaps")
        .matching(|call| call.name == "a");
    assert_eq!((calls.len(), calls.writes().len()), (2, 1), "{calls}");
    assert_eq!(
        calls.count(|call| call.field_manager == "acrcred" && call.code == 201),
        1,
        "{calls}"
    );
    Ok(())
}

async fn counts_are_exact_right_after_a_burst(plane: &ControlPlane) -> Result<()> {
    const CALLS: usize = 300;
    let namespace = plane.create_namespace("burst").await?;
    let client = plane.service_account_client(&namespace, "default").await?;
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let refused = join_all((0..CALLS).map(|_| secrets.get_opt("any"))).await;
    ensure!(
        refused.iter().all(Result::is_err),
        "the account has no rights"
    );
    let calls = plane
        .audit()
        .settled()
        .await?
        .by_service_account(&namespace, "default");
    assert_eq!(calls.forbidden().len(), CALLS);
    Ok(())
}

async fn a_kubeconfig_of_a_service_account_acts_in_its_name(
    plane: &ControlPlane,
    folder: &Path,
) -> Result<()> {
    let namespace = plane.create_namespace("identity").await?;
    let kubeconfig = plane
        .service_account_kubeconfig(&namespace, "default", &folder.join(&namespace))
        .await?;
    let output = plane
        .kubectl()
        .args(["auth", "whoami", "-o", "json"])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .await?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .context(String::from_utf8_lossy(&output.stderr).into_owned())?;
    assert_eq!(
        answer["status"]["userInfo"]["username"],
        format!("system:serviceaccount:{namespace}:default")
    );
    assert!(plane.tools().path(Tool::Crane).is_file());
    Ok(())
}

/// The owner is of a kind that was defined before the controller manager started.
async fn the_owned_are_collected_with_their_owner(plane: &ControlPlane) -> Result<()> {
    let namespace = plane.create_namespace("garbage").await?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("test.example", "v1", "Widget"));
    let widgets: Api<DynamicObject> = Api::namespaced_with(plane.admin(), &namespace, &resource);
    let owner = widgets
        .create(
            &PostParams::default(),
            &DynamicObject::new("owner", &resource),
        )
        .await?;
    let reference = json!({"apiVersion": "test.example/v1", "kind": "Widget", "name": "owner", "uid": owner.uid()});
    let objects: Api<ConfigMap> = Api::namespaced(plane.admin(), &namespace);
    for name in ["owned", "free"] {
        let owners = if name == "owned" {
            json!([reference])
        } else {
            json!([])
        };
        let object: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owners}}))?;
        objects.create(&PostParams::default(), &object).await?;
    }
    widgets
        .delete("owner", &kube::api::DeleteParams::default())
        .await?;
    eventually(
        SOON,
        "the owned ConfigMap is collected",
        async || match objects.get_opt("owned").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await?;
    ensure!(
        objects.get_opt("free").await?.is_some(),
        "what nobody owns stays"
    );
    Ok(())
}

async fn manifests_of_new_kinds_apply_in_one_go(plane: &ControlPlane) -> Result<()> {
    let namespace = plane.create_namespace("manifests").await?;
    let text = format!(
        "apiVersion: test.example/v1\nkind: Gadget\nmetadata: {{name: one}}\n---\n{}",
        WIDGETS
            .replace("widget", "gadget")
            .replace("Widget", "Gadget")
    );
    let applied = plane.apply_in(&namespace, text).await?;
    let names: Vec<_> = applied.iter().map(ResourceExt::name_any).collect();
    assert_eq!(
        names,
        ["gadgets.test.example", "one"],
        "the definition comes first"
    );
    assert_eq!(applied[1].namespace().as_deref(), Some(namespace.as_str()));
    Ok(())
}

fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}
