//! What `make test-azure` runs is run here against the emulator, so that only Azure itself is left to doubt.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::journal::Endpoint;
use controlplane::Tool;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use tokio::process::Command;

use crate::harness::{Scene, run};

fn test_azure() -> Result<Command> {
    let path = Path::new(env!("CARGO_BIN_EXE_acrcred")).with_file_name("examples/test-azure");
    ensure!(
        path.is_file(),
        "it is not built; run: cargo build --examples"
    );
    let mut command = Command::new(path);
    command.env_clear().kill_on_drop(true).stdin(Stdio::null());
    Ok(command)
}

/// It with everything set for a test's own identity and registry.
fn prepared(scene: &Scene, image: &str) -> Result<Command> {
    let crane = scene.control_plane.tools().path(Tool::Crane);
    let mut command = test_azure()?;
    command
        .env("ACRCRED_TEST_TENANT_ID", &scene.tenant_id)
        .env("ACRCRED_TEST_CLIENT_ID", &scene.client_id)
        .env("ACRCRED_TEST_IMAGE", image)
        .env("KUBECONFIG", scene.control_plane.kubeconfig())
        .env("HTTPS_PROXY", scene.emulator.proxy_url())
        .env("SSL_CERT_FILE", scene.emulator.ca_file())
        .env("PATH", crane.parent().context("a folder")?);
    Ok(command)
}

async fn told(mut command: Command) -> Result<(bool, String)> {
    let output = command.output().await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

/// Whether it left its namespace behind, other than on its way out.
async fn is_left(scene: &Scene, text: &str) -> Result<bool> {
    let mut words = text.split_whitespace();
    let name = words.find(|word| word.starts_with("acrcred-test-"));
    let name = name.with_context(|| format!("no namespace is named: {text}"))?;
    let namespaces: Api<Namespace> = Api::all(scene.control_plane.admin());
    let found = namespaces.get_opt(name).await?;
    Ok(found.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none()))
}

#[test]
fn the_story_for_real_azure_works_on_the_emulator() {
    run(async {
        let scene = Scene::new("azure").await?;
        let contoso = scene.registry("contoso").await?;
        let image = format!("{}/team/app:v1", contoso.server);
        let (worked, text) = told(prepared(&scene, &image)?).await?;
        assert!(worked, "{text}");
        for words in [
            "and private",
            "crane says the same",
            "took its Secret along",
            "All of it",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert_eq!(scene.upstream_calls(), (1, 1));
        assert!(!scene.journal(Endpoint::V2).is_empty());
        assert!(!is_left(&scene, &text).await?, "{text}");
        Ok(())
    });
}

#[test]
fn the_story_for_real_azure_fails_where_azure_refuses_and_cleans_up() {
    run(async {
        let scene = Scene::new("azure-refuses").await?;
        let contoso = scene.registry("contoso").await?;
        let image = format!("{}/team/app:v1", contoso.server);
        let mut nobody = prepared(&scene, &image)?;
        nobody.env(
            "ACRCRED_TEST_TENANT_ID",
            "33333333-0000-4000-8000-000000000000",
        );
        let (worked, text) = told(nobody).await?;
        assert!(!worked && text.contains("InvalidIdentity"), "{text}");
        assert!(!is_left(&scene, &text).await?, "{text}");

        let public = scene
            .registry_in("azurecr.io", "public", |registry| {
                registry.anonymous_pull = true;
            })
            .await?;
        let image = format!("{}/team/app:v1", public.server);
        let (worked, text) = told(prepared(&scene, &image)?).await?;
        assert!(!worked && text.contains("without a credential"), "{text}");
        Ok(())
    });
}

#[test]
fn the_story_for_real_azure_names_every_missing_variable_at_once() {
    run(async {
        let mut nothing = test_azure()?;
        nothing.env("ACRCRED_TEST_CLIENT_ID", "here");
        let (worked, text) = told(nothing).await?;
        assert!(!worked && text.trim_end().lines().count() == 1, "{text}");
        for name in ["ACRCRED_TEST_TENANT_ID", "ACRCRED_TEST_IMAGE", "KUBECONFIG"] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert!(!text.contains("ACRCRED_TEST_CLIENT_ID"), "{text}");
        Ok(())
    });
}
