//! Images for pods, pushed to the emulated registries with crane.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use controlplane::node::image;

use crate::dockerfile;
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
    let dir = tempfile::tempdir()?;
    let layer = dir.path().join("layer.tar");
    image::write_layer(root.path(), &layer)?;
    let entrypoint = ["/busybox", "sleep", "infinity"].map(str::to_owned);
    let (name, user) = ("team/waits:v1", "65532:65532");
    push(scene, registry, name, &layer, &entrypoint, user).await
}

/// acrcred's, from the files that the Dockerfile names.
pub async fn push_acrcred(scene: &Scene, registry: &TestRegistry) -> Result<Image> {
    let stage = dockerfile::stage()?;
    let dir = tempfile::tempdir()?;
    let layer = dir.path().join("layer.tar");
    stage.write_layer(&dockerfile::program()?, &layer)?;
    let (entrypoint, user) = (&stage.entrypoint, &stage.user);
    push(scene, registry, "acrcred:test", &layer, entrypoint, user).await
}

async fn push(
    scene: &Scene,
    registry: &TestRegistry,
    name: &str,
    layer: &Path,
    entrypoint: &[String],
    user: &str,
) -> Result<Image> {
    let crane = scene.crane_as_admin(registry)?;
    let reference = format!("{}/{name}", registry.server);
    let layer = layer.display().to_string();
    crane
        .run(&["append", "--new_layer", &layer, "--new_tag", &reference])
        .await?;
    crane
        .run(&[
            "mutate",
            &reference,
            "--entrypoint",
            &entrypoint.join(","),
            "--user",
            user,
            "--set-platform",
            image::platform(),
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
