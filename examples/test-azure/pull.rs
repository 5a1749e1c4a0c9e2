//! What the Secret is good for.

use std::io::ErrorKind;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::setting::Setting;

/// What an image may be described by.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Asks for the manifest as a container runtime does, with the credential of a Docker configuration or with none.
pub async fn digest(setting: &Setting, docker_config: Option<&[u8]>) -> Result<String> {
    let Setting {
        server,
        repository,
        tag,
        ..
    } = setting;
    let client = reqwest::Client::new();
    let scope = format!("service={server}&scope=repository:{repository}:pull");
    let mut ask = client.get(format!("https://{server}/oauth2/token?{scope}"));
    if let Some(config) = docker_config {
        let config: Value = serde_json::from_slice(config)?;
        let auth = config["auths"][server]["auth"].as_str();
        let auth = auth.with_context(|| format!("the Secret has no entry for {server}"))?;
        ask = ask.header("authorization", format!("Basic {auth}"));
    }
    let answer = ask.send().await?;
    let status = answer.status();
    ensure!(
        status.is_success(),
        "the registry gives no token to pull with ({status})"
    );
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let token = answer["access_token"].as_str().context("no access_token")?;

    let manifest = client
        .get(format!("https://{server}/v2/{repository}/manifests/{tag}"))
        .header("accept", MANIFESTS)
        .bearer_auth(token)
        .send()
        .await?;
    let status = manifest.status();
    ensure!(
        status.is_success(),
        "{} cannot be pulled ({status})",
        setting.image
    );
    let digest = manifest.headers().get("docker-content-digest");
    Ok(digest
        .context("a manifest without a digest")?
        .to_str()?
        .to_owned())
}

/// The same by crane, if it is on the `PATH`.
pub async fn digest_by_crane(setting: &Setting, docker_config: &[u8]) -> Result<Option<String>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("config.json"), docker_config)?;
    let run = Command::new("crane")
        .args(["digest", &setting.image])
        .env("DOCKER_CONFIG", dir.path())
        .kill_on_drop(true)
        .output()
        .await;
    let output = match run {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.context("cannot run crane")?,
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "crane: {}", errors.trim());
    Ok(Some(String::from_utf8(output.stdout)?.trim().to_owned()))
}
