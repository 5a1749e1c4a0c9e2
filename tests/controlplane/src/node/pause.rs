//! The image of a pod's sandbox: a process that does nothing, so that the pod's namespaces have somebody to belong to.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Known to containerd alone: it is imported, not pulled.
pub(super) const NAME: &str = "acrcred.test/pause:1";
/// The archive in the node's folder.
pub(super) const ARCHIVE: &str = "pause.tar";

/// Writes an image archive in Docker's format, with a static busybox that sleeps.
pub(super) fn write_archive(dir: &Path, busybox: &Path) -> Result<()> {
    let (root, image) = (dir.join("pause-root"), dir.join("pause-image"));
    fs::create_dir_all(&root)?;
    fs::create_dir_all(&image)?;
    fs::copy(busybox, root.join("busybox"))?;
    tar(&image.join("layer.tar"), &root)?;
    let configuration = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/busybox", "sleep", "infinity"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&fs::read(image.join("layer.tar"))?)]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    fs::write(image.join("config.json"), configuration.to_string())?;
    fs::write(image.join("manifest.json"), manifest.to_string())?;
    tar(&dir.join(ARCHIVE), &image)
}

/// What Go and image manifests call this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar(archive: &Path, folder: &Path) -> Result<()> {
    let status = Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(folder)
        .arg(".")
        .status()
        .context("cannot run tar")?;
    ensure!(status.success(), "tar failed ({status})");
    Ok(())
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
