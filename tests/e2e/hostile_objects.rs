//! What a tenant may put into its own objects never keeps acrcred from serving the others.

use anyhow::{Context as _, Result, ensure};
use hyper::http::Request;
use serde_json::{Value, json};

use crate::harness::{Scene, condition, manifest, run, soon};

/// Later than any time that acrcred's library can hold.
const FAR: &str = "9999-12-31T23:59:59Z";

impl Scene {
    fn path_of(&self, name: &str) -> String {
        let namespace = &self.namespace;
        format!("/apis/acrcred.dev/v1alpha1/namespaces/{namespace}/acrcredentials/{name}")
    }

    /// Merges a change into an object, or a part of it; the answer is not parsed.
    async fn merge_raw(&self, path: &str, change: &Value) -> Result<String> {
        let request = Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(change.to_string().into_bytes())?;
        Ok(self.control_plane.admin().request_text(request).await?)
    }
}

#[test]
fn an_object_whose_field_managers_have_a_time_that_cannot_be_read_hides_no_other() {
    run(async {
        let scene = Scene::new("far-managers").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        objects.create(&manifest("hostile", &[&contoso])).await?;
        let managers = json!({
            "metadata": {"managedFields": [{
                "manager": "x", "operation": "Update", "apiVersion": "acrcred.dev/v1alpha1",
                "time": FAR, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:registries": {}}},
            }]},
            "spec": {"suspend": false},
        });
        let path = scene.path_of("hostile");
        let answer = scene.merge_raw(&path, &managers).await?;
        ensure!(answer.contains(FAR), "the API server keeps it: {answer}");

        let _acrcred = scene.start().await?;
        objects
            .create_ready(&manifest("other", &[&contoso]))
            .await?;
        // It is served like any other.
        let serves = |text: &str| text.contains("\"reason\":\"Issued\"");
        soon("the hostile object is served", async || {
            let request = Request::get(&path)
                .body(Vec::new())
                .map_err(|e| e.to_string())?;
            let text = scene.control_plane.admin().request_text(request).await;
            let text = text.map_err(|error| error.to_string())?;
            if serves(&text) { Ok(()) } else { Err(text) }
        })
        .await
    });
}

#[test]
fn a_status_that_cannot_be_read_is_replaced() {
    run(async {
        let scene = Scene::new("far-status").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let path = format!("{}/status", scene.path_of("acr"));
        let forged = json!({"status": {"expiresAt": FAR, "refreshAt": FAR}});

        // While acrcred runs: a change of the spec that comes after it is seen.
        scene.merge_raw(&path, &forged).await?;
        let narrower =
            json!({"spec": {"registries": [{"server": contoso.server, "repositories": ["a/b"]}]}});
        scene.merge_raw(&scene.path_of("acr"), &narrower).await?;
        objects.ready("acr").await?;

        // And after a start.
        acrcred.stop().await?;
        let answer = scene.merge_raw(&path, &forged).await?;
        ensure!(answer.contains(FAR), "the API server keeps it: {answer}");
        let _acrcred = scene.start().await?;
        let object = objects.ready("acr").await?;
        let ready = condition(&object, "Ready").context("a condition")?;
        ensure!(ready.observed_generation == object.metadata.generation);
        Ok(())
    });
}
