//! Debian's containerd and runc, unpacked into the cache of tools: nothing is installed, so that no service starts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::tools;

/// What runc links comes along; busybox is what the pods of tests run.
const PACKAGES: [&str; 4] = ["containerd", "runc", "libseccomp2", "busybox-static"];

/// The folder that the packages are unpacked in.
#[derive(Clone, Debug)]
pub(super) struct Packages(PathBuf);

impl Packages {
    pub(super) fn obtainable() -> bool {
        ["apt-get", "dpkg-deb"].iter().all(|program| {
            let version = Command::new(program).arg("--version").output();
            version.is_ok_and(|output| output.status.success())
        })
    }

    /// Finds them in the cache, or downloads and unpacks them: the versions that the distribution has now.
    pub(super) fn ensure() -> Result<Self> {
        let cache = tools::cache()?;
        let folder = cache.join("debian-node");
        if !folder.is_dir() {
            let _lock = tools::lock(&cache.join("lock"))?;
            if !folder.is_dir() {
                // Renamed when complete, so that nobody ever sees half of it.
                let unfinished = tempfile::tempdir_in(&cache)?;
                unpack(unfinished.path())?;
                fs::rename(unfinished.path().join("root"), &folder)?;
            }
        }
        Ok(Self(folder))
    }

    pub(super) fn containerd(&self) -> PathBuf {
        self.0.join("usr/bin/containerd")
    }

    pub(super) fn ctr(&self) -> PathBuf {
        self.0.join("usr/bin/ctr")
    }

    pub(super) fn runc(&self) -> PathBuf {
        self.0.join("usr/sbin/runc")
    }

    pub(super) fn busybox(&self) -> PathBuf {
        self.0.join("bin/busybox")
    }

    /// Where containerd looks for its shim.
    pub(super) fn programs(&self) -> PathBuf {
        self.0.join("usr/bin")
    }

    /// Where runc's libraries are: the folder is named for the machine's architecture.
    pub(super) fn libraries(&self) -> Option<PathBuf> {
        let folders = fs::read_dir(self.0.join("usr/lib")).ok()?;
        folders
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
    }
}

fn unpack(folder: &Path) -> Result<()> {
    tools::say("downloading containerd and runc from Debian (first use, then cached)");
    let download = || run("apt-get", &[&["download"], &PACKAGES[..]].concat(), folder);
    // A machine whose lists are old or missing learns of newer versions first.
    if download().is_err() {
        run("apt-get", &["update"], folder)?;
        download()?;
    }
    for entry in fs::read_dir(folder)? {
        let package = entry?.path();
        if package
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            let package = package.display().to_string();
            run("dpkg-deb", &["--extract", &package, "root"], folder)?;
        }
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
