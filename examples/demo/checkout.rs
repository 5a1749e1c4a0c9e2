//! Where things are in the checkout, and where cargo puts what it builds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The checkout, in which `kubectl apply -f config/…` is typed.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target folder.
pub fn target() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let target = this.ancestors().nth(3);
    Ok(target.context("this program is in no folder")?.to_owned())
}

/// A program of this workspace: `target/debug/NAME`, beside `target/debug/examples/demo`.
pub fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let built = this
        .ancestors()
        .nth(2)
        .context("this program is in no folder")?;
    let path = built.join(name);
    let hint = "run `cargo build --workspace --all-targets`";
    ensure!(
        path.is_file(),
        "there is no program {}: {hint}",
        path.display()
    );
    Ok(path)
}
