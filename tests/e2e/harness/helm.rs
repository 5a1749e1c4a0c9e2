//! Helm, in both versions that people have.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use anyhow::{Result, ensure};
use controlplane::{ControlPlane, Tool, Tools};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

static TOOLS: OnceLock<Tools> = OnceLock::new();

/// Helm with a home of its own.
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    dir: TempDir,
}

/// The chart's folder, or a path in it.
pub fn chart(path: &str) -> PathBuf {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/acrcred");
    if path.is_empty() {
        chart
    } else {
        chart.join(path)
    }
}

impl Helm {
    /// The newest first.
    pub const VERSIONS: [Tool; 2] = [Tool::Helm, Tool::Helm3];

    /// One that knows of no cluster.
    pub fn new(version: Tool) -> Result<Self> {
        // Built before, so this takes a moment.
        let tools = TOOLS.get_or_init(|| Tools::ensure(&Self::VERSIONS).expect("helm"));
        Ok(Self {
            program: tools.path(version).to_owned(),
            kubeconfig: None,
            dir: tempfile::tempdir()?,
        })
    }

    /// One that installs as administrator.
    pub fn on(control_plane: &ControlPlane, version: Tool) -> Result<Self> {
        Ok(Self {
            kubeconfig: Some(control_plane.kubeconfig().to_owned()),
            ..Self::new(version)?
        })
    }

    /// Runs a command on the chart: `COMMAND CHART` with values, such as `template acrcred`.
    pub async fn chart(&self, command: &[&str], values: &Value) -> Result<Output> {
        let mut file = tempfile::NamedTempFile::new_in(self.dir.path())?;
        serde_json::to_writer(&mut file, values)?;
        let mut helm = self.command(command);
        helm.arg(chart("")).arg("--values").arg(file.path());
        Ok(helm.output().await?)
    }

    /// What the chart renders for a release.
    pub async fn template(&self, release: &str, namespace: &str, values: &Value) -> Result<String> {
        self.template_with(release, namespace, values, &[]).await
    }

    /// The same, with further arguments.
    pub async fn template_with(
        &self,
        release: &str,
        namespace: &str,
        values: &Value,
        arguments: &[&str],
    ) -> Result<String> {
        // Without a cluster, helm 3 would think of one that is years old.
        let version = Tool::KubeApiserver.version();
        let command = ["template", release, "--namespace", namespace];
        let command = [&command[..], &["--kube-version", version], arguments].concat();
        stdout(&self.chart(&command, values).await?)
    }

    /// Installs the chart, or upgrades the release.
    pub async fn upgrade(&self, release: &str, namespace: &str, values: &Value) -> Result<String> {
        let command = ["upgrade", "--install", release, "--namespace", namespace];
        stdout(&self.chart(&command, values).await?)
    }

    /// Runs any other command; returns what it prints.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        stdout(&self.command(arguments).output().await?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .envs(self.kubeconfig.iter().map(|path| ("KUBECONFIG", path)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

fn stdout(output: &Output) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm: {}", errors.trim());
    Ok(String::from_utf8(output.stdout.clone())?)
}
