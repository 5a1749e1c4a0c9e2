//! What `docs/gitops.md` gives to Flux and to Argo CD, on objects as the API server stores them.

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use controlplane::Tool;
use jiff::SignedDuration;
use kube::api::{Api, ApiResource, DynamicObject};
use mlua::{Lua, LuaSerdeExt as _};
use serde_json::{Value, json};

use crate::harness::{Helm, Scene, manifest, run};

const PAGE: &str = include_str!("../../docs/gitops.md");
const HEALTH: &str = "resource.customizations.health.acrcred.dev_AcrCredential";

/// The objects of the page.
fn documents() -> Result<Vec<Value>> {
    let blocks = PAGE.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```"));
    blocks
        .flat_map(|(block, _)| block.split("---\n"))
        .map(|text| Ok(serde_saphyr::from_str(text)?))
        .collect()
}

fn document(kind: &str, name: &str) -> Result<Value> {
    let found = documents()?
        .into_iter()
        .find(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name}"))
}

/// What Argo CD shows of an object: its health, and why.
fn argo(object: &Value) -> Result<(String, String)> {
    let map = document("ConfigMap", "argocd-cm")?;
    let script = map["data"][HEALTH].as_str().context("a script")?;
    let lua = Lua::new();
    let text = |error: mlua::Error| anyhow::anyhow!("{error}");
    let object = lua.to_value(object).map_err(text)?;
    lua.globals().set("obj", object).map_err(text)?;
    let health: mlua::Table = lua.load(script).eval().map_err(text)?;
    let get = |key| health.get::<String>(key).map_err(text);
    Ok((get("status")?, get("message")?))
}

/// What Flux makes of an object: the generation first, then each expression in the order of its RFC 0009.
fn flux(object: &Value) -> Result<&'static str> {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    if status["observedGeneration"] != metadata["generation"] {
        return Ok("in progress");
    }
    let kustomization = document("Kustomization", "credentials")?;
    let rule = &kustomization["spec"]["healthCheckExprs"][0];
    ensure!(
        rule["apiVersion"] == object["apiVersion"] && rule["kind"] == object["kind"],
        "the rule is for others: {rule}"
    );
    for (name, outcome) in [
        ("inProgress", "in progress"),
        ("failed", "failed"),
        ("current", "current"),
    ] {
        if let Some(expression) = rule[name].as_str()
            && is_true(expression, object)?
        {
            return Ok(outcome);
        }
    }
    Ok("in progress")
}

/// Evaluates CEL, with the object's fields as variables.
fn is_true(expression: &str, object: &Value) -> Result<bool> {
    let program = cel::Program::compile(expression)?;
    let mut context = cel::Context::default();
    for (name, value) in object.as_object().context("an object")? {
        let added = context.add_variable(name.clone(), value);
        added.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    }
    match program.execute(&context)? {
        cel::Value::Bool(outcome) => Ok(outcome),
        other => anyhow::bail!("{expression} is {other:?}"),
    }
}

/// An object with every field that the API server answers, not only those that acrcred knows.
async fn stored(scene: &Scene, name: &str) -> Result<Value> {
    let resource = ApiResource::erase::<AcrCredential>(&());
    let client = scene.control_plane.admin();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &scene.namespace, &resource);
    Ok(serde_json::to_value(api.get(name).await?)?)
}

/// Compares what both tools make of an object; returns Argo CD's message.
async fn shows(scene: &Scene, name: &str, in_flux: &str, in_argo: &str) -> Result<String> {
    let object = stored(scene, name).await?;
    let (health, message) = argo(&object)?;
    assert_eq!((flux(&object)?, &*health), (in_flux, in_argo), "{object:#}");
    Ok(message)
}

fn outage(scene: &Scene) -> Fault {
    let unavailable = Kind::status(503);
    Fault::new(
        Endpoint::Login,
        Match::tenant(&scene.tenant_id),
        unavailable,
    )
}

#[test]
fn flux_and_argo_cd_see_each_state_as_the_page_says() {
    run(async {
        let scene = Scene::with_own_time("gitops").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        shows(&scene, "acr", "in progress", "Progressing").await?;

        let fault = scene.emulator.add_fault(outage(&scene));
        let acrcred = scene.start().await?;
        let reason = "UpstreamUnavailable";
        objects.has("acr", "Reconciling", "True", reason).await?;
        let why = shows(&scene, "acr", "in progress", "Progressing").await?;
        assert!(why.contains("503"), "{why}");

        scene.emulator.remove_fault(fault);
        scene.advance(SignedDuration::from_mins(2));
        objects.ready("acr").await?;
        shows(&scene, "acr", "current", "Healthy").await?;

        let fault = scene.emulator.add_fault(outage(&scene));
        scene.advance(SignedDuration::from_mins(100));
        objects.has("acr", "RefreshFailing", "True", reason).await?;
        let why = shows(&scene, "acr", "current", "Healthy").await?;
        assert!(why.contains("503"), "{why}");

        let suspend = |suspend: bool| json!({"spec": {"suspend": suspend}});
        objects.change("acr", suspend(true)).await?;
        objects.has("acr", "Ready", "True", "Suspended").await?;
        shows(&scene, "acr", "current", "Suspended").await?;
        scene.advance(SignedDuration::from_mins(185));
        objects.has("acr", "Ready", "False", "Suspended").await?;
        shows(&scene, "acr", "in progress", "Suspended").await?;

        scene.emulator.remove_fault(fault);
        objects.change("acr", suspend(false)).await?;
        objects.ready("acr").await?;
        acrcred.stop().await?;
        let change = json!({"spec": {"secret": {"labels": {"a": "b"}}}});
        objects.change("acr", change).await?;
        shows(&scene, "acr", "in progress", "Progressing").await?;
        Ok(())
    });
}

#[test]
fn flux_and_argo_cd_see_that_somebody_must_act() {
    run(async {
        let scene = Scene::new("gitops-stalled").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let mut object = manifest("acr", &[&contoso]);
        object.spec.attach = Some(serde_json::from_value(
            json!({"serviceAccounts": ["default"]}),
        )?);
        let objects = scene.objects();
        objects.create(&object).await?;
        objects
            .has("acr", "Stalled", "True", "FieldNotSupported")
            .await?;
        let why = shows(&scene, "acr", "failed", "Degraded").await?;
        assert!(why.contains("attach"), "{why}");
        Ok(())
    });
}

#[test]
fn the_values_of_the_page_are_taken_and_its_object_too() {
    run(async {
        let helm = Helm::new(Tool::Helm)?;
        let release = document("HelmRelease", "acrcred")?;
        let application = document("Application", "acrcred")?;
        let values = [
            &release["spec"]["values"],
            &application["spec"]["source"]["helm"]["valuesObject"],
        ];
        let ids = [
            ("CLIENT_ID", "22222222-0000-4000-8000-000000000001"),
            ("TENANT_ID", "11111111-0000-4000-8000-000000000001"),
            ("REGISTRY", "registry.example"),
        ];
        for values in values {
            let text = ids.iter().fold(values.to_string(), |text, (name, id)| {
                text.replace(name, id)
            });
            let values: Value = serde_json::from_str(&text)?;
            let rendered = helm.template("acrcred", "acrcred-system", &values).await?;
            assert!(rendered.contains("--allow-controller-identity=team-a/contoso.azurecr.io"));
            assert!(rendered.contains("helm.sh/resource-policy: keep"));
        }

        let scene = Scene::new("gitops-page").await?;
        let mut object: AcrCredential = serde_json::from_value(document("AcrCredential", "acr")?)?;
        object.metadata.namespace = None;
        scene.objects().create(&object).await?;
        Ok(())
    });
}
