//! The commands of docs/installing.md, as somebody would type them.

use std::os::unix::fs::symlink;
use std::process::Stdio;

use anyhow::{Result, ensure};
use controlplane::{ControlPlane, Options, Tool};
use tokio::process::Command;

use crate::harness::run;

const PAGE: &str = include_str!("../../../docs/installing.md");
/// What a reader replaces.
const NAMES: [(&str, &str); 3] = [
    ("REGISTRY", "registry.example"),
    ("CLIENT_ID", "22222222-0000-4000-8000-000000000001"),
    ("TENANT_ID", "11111111-0000-4000-8000-000000000001"),
];

/// The blocks of shell, one after the other.
fn script() -> String {
    let blocks = PAGE.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```"));
    let script: String = blocks.map(|(block, _)| block).collect();
    NAMES
        .iter()
        .fold(script, |script, (name, value)| script.replace(name, value))
}

#[test]
fn every_command_of_the_page_works_in_its_order_with_both_versions() {
    run(async {
        let control_plane = ControlPlane::start(Options::default()).await?;
        for version in crate::harness::Helm::VERSIONS {
            let home = tempfile::tempdir()?;
            let tools = control_plane.tools();
            symlink(tools.path(version), home.path().join("helm"))?;
            symlink(tools.path(Tool::Kubectl), home.path().join("kubectl"))?;
            let output = Command::new("/bin/sh")
                .args(["-eux", "-c", &script()])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .env_clear()
                .env("PATH", home.path())
                .env("HOME", home.path())
                .env("KUBECONFIG", control_plane.kubeconfig())
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{version}: {text}");
            assert!(text.matches("+ helm ").count() >= 4, "{text}");
            clean(&control_plane).await?;
        }
        Ok(())
    });
}

/// Takes away what the single file leaves.
async fn clean(control_plane: &ControlPlane) -> Result<()> {
    let mut kubectl = control_plane.kubectl();
    kubectl.args([
        "delete",
        "--ignore-not-found",
        "--filename",
        "config/install.yaml",
    ]);
    let output = kubectl
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}");
    Ok(())
}
