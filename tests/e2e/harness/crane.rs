//! The real client: what crane can pull, a pod can.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Result, bail, ensure};
use azure_emulator::Emulator;
use tempfile::TempDir;
use tokio::process::Command;

/// crane with a Docker configuration of its own.
pub struct Crane {
    program: PathBuf,
    proxy: String,
    ca: PathBuf,
    dir: TempDir,
}

impl Crane {
    pub fn new(program: &Path, emulator: &Emulator, docker_config: &[u8]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("config.json"), docker_config)?;
        Ok(Self {
            program: program.to_owned(),
            proxy: emulator.proxy_url(),
            ca: emulator.ca_file().to_owned(),
            dir,
        })
    }

    /// Pulls an image, checks that it is one, and returns its digest.
    pub async fn pull(&self, image: &str) -> Result<String> {
        let tarball = self.dir.path().join("pulled.tar");
        let path = tarball.to_string_lossy().into_owned();
        self.run(&["pull", image, &path]).await?;
        ensure!(
            tokio::fs::metadata(&tarball).await?.len() > 0,
            "an empty image"
        );
        self.run(&["digest", image]).await
    }

    /// The tags of a repository.
    pub async fn tags(&self, repository: &str) -> Result<String> {
        self.run(&["ls", repository]).await
    }

    /// Pushes an image of one small layer.
    pub async fn push(&self, image: &str) -> Result<()> {
        let layer = self.dir.path().join("layer.tar");
        // An empty archive: two blocks of zeros.
        tokio::fs::write(&layer, [0; 1024]).await?;
        let layer = layer.to_string_lossy().into_owned();
        self.run(&["append", "--new_layer", &layer, "--new_tag", image])
            .await?;
        Ok(())
    }

    /// Runs crane; returns what it wrote to stdout.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("DOCKER_CONFIG", self.dir.path())
            .env("HTTPS_PROXY", &self.proxy)
            .env("SSL_CERT_FILE", &self.ca)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "crane {}: {}",
                arguments[0],
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}
