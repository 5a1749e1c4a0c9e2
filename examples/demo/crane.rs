//! crane, the real client: what it can pull, a pod can.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use controlplane::Tool;
use controlplane::node::image;
use serde_json::Value;
use tokio::process::Command;

use crate::azure::Azure;
use crate::cluster::Cluster;
use crate::folder::{Folder, write_private};
use crate::image::Image;
use crate::shell::Line;
use crate::story::Story;

/// crane with one Docker configuration and nothing else.
pub struct Crane<'a> {
    folder: &'a Folder,
    azure: &'a Azure,
    cluster: &'a Cluster,
    docker_config: &'static str,
}

impl<'a> Crane<'a> {
    /// `name` is the folder of its Docker configuration.
    pub fn new(
        folder: &'a Folder,
        azure: &'a Azure,
        cluster: &'a Cluster,
        name: &'static str,
        docker_config: &[u8],
    ) -> Result<Self> {
        write_private(&folder.folder(name)?.join("config.json"), docker_config)?;
        Ok(Self {
            folder,
            azure,
            cluster,
            docker_config: name,
        })
    }

    /// Pushes an image of one small layer; returns its digest.
    pub async fn push(&self, story: &Story, layer: &str, reference: &str) -> Result<String> {
        let line = self.line(&["append", "--new_layer", layer, "--new_tag", reference]);
        let pushed = line.run(story).await?;
        let digest = pushed.lines().last().and_then(|line| line.split_once('@'));
        Ok(digest
            .context("crane did not say what it pushed")?
            .1
            .to_owned())
    }

    /// Pushes an image of one layer that starts `entrypoint` (its words joined by commas) as `user`; returns its digest.
    pub async fn assemble(
        &self,
        story: &Story,
        layer: &str,
        reference: &str,
        (entrypoint, user): &(String, String),
    ) -> Result<String> {
        self.push(story, layer, reference).await?;
        let start = ["--entrypoint", entrypoint, "--user", user];
        let platform = ["--set-platform", image::platform(), "--tag", reference];
        let mutate = [&["mutate", reference][..], &start, &platform].concat();
        self.line(&mutate).run(story).await?;
        self.line(&["digest", reference]).run(story).await
    }

    /// Lists the tags of the image's repository; the image's must be there.
    pub async fn list(&self, story: &Story, image: &Image) -> Result<()> {
        let tags = self.line(&["ls", &image.repository()]).run(story).await?;
        ensure!(
            tags.lines().any(|tag| tag == image.tag),
            "{} lacks its tag",
            image.repository()
        );
        Ok(())
    }

    /// Pulls an image; it must be the one that was pushed.
    pub async fn pull(&self, story: &Story, image: &Image) -> Result<()> {
        let (reference, layout) = (image.reference(), format!("pulled/{}", image.repository()));
        let pulled = self.folder.file(&layout);
        // crane adds to a layout that it finds.
        let _ = fs::remove_dir_all(&pulled);
        self.line(&["pull", "--format=oci", &reference, &layout])
            .run(story)
            .await?;
        let index: Value = serde_json::from_slice(&fs::read(pulled.join("index.json"))?)?;
        let digest = index["manifests"][0]["digest"].as_str().unwrap_or_default();
        story.output(digest);
        ensure!(
            digest == image.digest,
            "{reference} was pushed as {}",
            image.digest
        );
        Ok(())
    }

    /// Tries to pull an image; the registry must refuse.
    pub async fn is_refused(&self, story: &Story, image: &Image) -> Result<()> {
        let reference = image.reference();
        let line = self.line(&["pull", &reference, "never.tar"]);
        let said = line.refusal(story).await?;
        let said = said.with_context(|| format!("{reference} can be pulled"))?;
        let refused = said.contains("UNAUTHORIZED") || said.contains("401");
        ensure!(
            refused,
            "the pull of {reference} failed, but not because it was refused"
        );
        Ok(())
    }

    fn line(&self, arguments: &[&str]) -> Line {
        let mut command = Command::new(self.cluster.control_plane.tools().path(Tool::Crane));
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("HTTPS_PROXY", self.azure.proxy())
            .env("SSL_CERT_FILE", self.azure.ca_file());
        let line = Line::new("crane", command, arguments).at(self.folder.path());
        line.with("DOCKER_CONFIG", self.docker_config)
    }
}
