//! The program, as a Deployment would run it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::{CONTROLLER, SOON, Scene, soon};

static STARTS: AtomicUsize = AtomicUsize::new(0);

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    admin: String,
    log: PathBuf,
}

/// The program with nothing set.
pub fn acrcred() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acrcred"));
    command.env_clear().kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Waits for the end of a program that must not start; returns what it said.
pub async fn refuses(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().await?;
    let text = String::from_utf8(stderr)?;
    ensure!(!status.success() && stdout.is_empty(), "it started: {text}");
    Ok(text)
}

impl Program {
    /// Starts it and waits until it is ready.
    pub async fn start(scene: &Scene) -> Result<Self> {
        Self::start_with(scene, |_| {}).await
    }

    /// Starts it with other arguments or variables, and waits until it is ready.
    pub async fn start_with(scene: &Scene, adjust: impl FnOnce(&mut Command)) -> Result<Self> {
        let program = Self::spawn_with(scene, scene.control_plane.url(), adjust).await?;
        soon("it is ready", async || match program.get("/readyz").await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        Ok(program)
    }

    /// Starts it for an API server at that address, and waits for nothing.
    pub async fn spawn(scene: &Scene, server: &str) -> Result<Self> {
        Self::spawn_with(scene, server, |_| {}).await
    }

    async fn spawn_with(
        scene: &Scene,
        server: &str,
        adjust: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let (namespace, name) = CONTROLLER;
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let dir = scene.dir.path().join(format!("pod-{number}"));
        let kubeconfig = scene
            .control_plane
            .service_account_kubeconfig_at(server, namespace, name, &dir)
            .await?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let admin = listener.local_addr()?.to_string();
        drop(listener);
        let log = dir.join("log");
        let policy = format!("{}/*", scene.namespace);
        let mut command = acrcred();
        command
            .args(["--allow-controller-identity", &policy])
            .args(["--watch-namespaces", &scene.namespace])
            .args(["--log-level", "trace", "--admin-listen", &admin])
            .env("KUBECONFIG", kubeconfig)
            .env("AZURE_CLIENT_ID", &scene.client_id)
            .env("AZURE_TENANT_ID", &scene.tenant_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", scene.token_file().await?)
            .env("HTTPS_PROXY", scene.emulator.proxy_url())
            .env("SSL_CERT_FILE", scene.emulator.ca_file())
            // A pipe that nobody empties would stop it.
            .stderr(File::create(&log)?);
        adjust(&mut command);
        let child = command.spawn()?;
        Ok(Self { child, admin, log })
    }

    /// What it answers to whoever asks for its health and metrics.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{}{path}", self.admin);
        let answer = client.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Result<Pid> {
        let id = self.child.id().context("it runs")?;
        Pid::from_raw(i32::try_from(id)?).context("a process id")
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        Ok(ended.context("it does not end")??)
    }

    /// Stops it as the kubelet does; returns its log.
    pub async fn terminate(mut self) -> Result<String> {
        kill_process(self.pid()?, Signal::TERM)?;
        let status = self.ended().await?;
        let log = self.log()?;
        ensure!(status.success(), "{log}");
        Ok(log)
    }
}
