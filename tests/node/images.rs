//! Images for pods, pushed to the emulated registries with crane.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::dockerfile::{self, Stage};
use crate::harness::{Scene, TestRegistry};

/// An image in a registry.
#[derive(Clone, Debug)]
pub struct Image {
    pub reference: String,
    /// `SERVER/REPOSITORY@sha256:…`.
    pub pinned: String,
}

// === impl Image ===

impl Image {
    /// `SERVER/REPOSITORY`.
    pub fn repository(&self) -> Result<&str> {
        Ok(self.reference.rsplit_once(':').context("a tag")?.0)
    }

    pub fn tag(&self) -> Result<&str> {
        Ok(self.reference.rsplit_once(':').context("a tag")?.1)
    }
}

/// A program that waits, with a file that makes the image unlike all others.
pub async fn push_app(scene: &Scene, registry: &TestRegistry, busybox: &Path) -> Result<Image> {
    let root = tempfile::tempdir()?;
    fs::copy(busybox, root.path().join("busybox"))?;
    fs::write(root.path().join("server"), &registry.server)?;
    let entrypoint = ["/busybox", "sleep", "infinity"].map(str::to_owned);
    push(
        scene,
        registry,
        "team/waits:v1",
        &root,
        &entrypoint,
        "65532:65532",
    )
    .await
}

/// acrcred's, from the files that the Dockerfile names.
pub async fn push_acrcred(scene: &Scene, registry: &TestRegistry) -> Result<Image> {
    let stage = Stage::read()?;
    let root = tempfile::tempdir()?;
    for (from, to) in &stage.copies {
        let to = root.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a folder")?)?;
        let from = dockerfile::built(from)?;
        fs::copy(&from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    push(
        scene,
        registry,
        "acrcred:test",
        &root,
        &stage.entrypoint,
        &stage.user,
    )
    .await
}

async fn push(
    scene: &Scene,
    registry: &TestRegistry,
    name: &str,
    root: &TempDir,
    entrypoint: &[String],
    user: &str,
) -> Result<Image> {
    let dir = tempfile::tempdir()?;
    let layer = dir.path().join("layer.tar");
    let status = Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(&layer)
        .arg("--directory")
        .arg(root.path())
        .arg(".")
        .status()?;
    ensure!(status.success(), "tar failed ({status})");

    let crane = scene.crane_as_admin(registry)?;
    let reference = format!("{}/{name}", registry.server);
    let layer = layer.display().to_string();
    crane
        .run(&["append", "--new_layer", &layer, "--new_tag", &reference])
        .await?;
    let platform = match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    };
    crane
        .run(&[
            "mutate",
            &reference,
            "--entrypoint",
            &entrypoint.join(","),
            "--user",
            user,
            "--set-platform",
            platform,
            "--tag",
            &reference,
        ])
        .await?;
    let digest = crane.run(&["digest", &reference]).await?;
    let (repository, _) = reference.rsplit_once(':').context("a tag")?;
    Ok(Image {
        pinned: format!("{repository}@{digest}"),
        reference,
    })
}
