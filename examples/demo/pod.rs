//! acrcred as it runs in a pod: its `ServiceAccount`, its two token files, nobody else's rights.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::azure::{Azure, CLIENT, TENANT};
use crate::checkout;
use crate::cluster::{Cluster, SOON};
use crate::folder::{Folder, write_private};
use crate::shell::quoted;
use crate::story::Story;

/// Namespace and name of acrcred's `ServiceAccount`.
pub const ACCOUNT: (&str, &str) = ("acrcred-system", "acrcred");
/// Who may use acrcred's own identity.
pub const POLICY: &str = "demo/*";
const FEDERATION_AUDIENCE: &str = "api://AzureADTokenExchange";
const ASSERTION_SECONDS: i64 = 3600;
const ENDS_WITHIN: Duration = Duration::from_secs(8);

/// The subject that Entra is told to trust.
pub fn subject() -> String {
    let (namespace, name) = ACCOUNT;
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The running program; ends when dropped.
pub struct Pod {
    child: Child,
    files: Files,
    admin: String,
}

/// What the pod would have mounted.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// A kubeconfig with its token, and the federated token.
    pub async fn write(folder: &Folder, cluster: &Cluster) -> Result<Self> {
        let files = Self {
            dir: folder.folder("pod")?,
        };
        let (namespace, name) = ACCOUNT;
        let control_plane = &cluster.control_plane;
        control_plane
            .service_account_kubeconfig(namespace, name, &files.dir)
            .await?;
        files.renew(cluster).await?;
        Ok(files)
    }

    /// Replaces both tokens, as the kubelet does.
    pub async fn renew(&self, cluster: &Cluster) -> Result<()> {
        let (namespace, name) = ACCOUNT;
        let control_plane = &cluster.control_plane;
        control_plane
            .renew_service_account_token(namespace, name, &self.dir)
            .await?;
        let audience = &[FEDERATION_AUDIENCE];
        let assertion = control_plane
            .service_account_token(namespace, name, audience, ASSERTION_SECONDS)
            .await?;
        write_private(&self.assertion(), assertion.as_bytes())
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub fn assertion(&self) -> PathBuf {
        self.dir.join("azure-identity-token")
    }
}

impl Pod {
    /// Starts it and waits until it says that it is ready.
    pub async fn start(
        story: &Story,
        folder: &Folder,
        azure: &Azure,
        files: Files,
    ) -> Result<Self> {
        let admin = free_address()?;
        let arguments = [
            "--allow-controller-identity",
            POLICY,
            "--admin-listen",
            &admin,
        ];
        let arguments = [&arguments[..], &["--log-format", "text"]].concat();
        let environment = [
            ("AZURE_CLIENT_ID", CLIENT.to_owned()),
            ("AZURE_TENANT_ID", TENANT.to_owned()),
            (
                "AZURE_FEDERATED_TOKEN_FILE",
                files.assertion().display().to_string(),
            ),
            ("KUBECONFIG", files.kubeconfig().display().to_string()),
            ("HTTPS_PROXY", azure.proxy()),
            ("SSL_CERT_FILE", azure.ca_file()),
        ];
        show(story, &environment, &arguments);
        let log = File::create(folder.acrcreds_log())?;
        let child = tied_to_our_life(&checkout::program("acrcred")?)?
            .args(arguments)
            .env_clear()
            .envs(environment)
            // Ctrl-C is for the demo, which then ends it in its turn.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start acrcred")?;
        let mut pod = Self {
            child,
            files,
            admin,
        };
        pod.ready().await?;
        Ok(pod)
    }

    async fn ready(&mut self) -> Result<()> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(SOON)
            .build()?;
        let url = format!("http://{}/readyz", self.admin);
        let deadline = Instant::now() + SOON;
        loop {
            self.check()?;
            if client
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "acrcred is not ready after {SOON:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("acrcred ended by itself ({status})"),
        }
    }

    /// Replaces its two tokens.
    pub async fn renew_tokens(&self, cluster: &Cluster) -> Result<()> {
        self.files.renew(cluster).await
    }

    /// The federated token that it now presents to Entra.
    pub fn assertion(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.files.assertion())?)
    }

    /// What it shows the API server.
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.kubeconfig()
    }

    /// Where it serves health and metrics.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Ends it as the kubelet does; it has to obey.
    pub fn stop(&mut self) -> Result<()> {
        self.check()?;
        let status = self
            .end()
            .with_context(|| format!("SIGTERM did not end acrcred in {ENDS_WITHIN:?}"))?;
        ensure!(status.success(), "acrcred did not end well ({status})");
        Ok(())
    }

    /// Its exit status; none if it had to be killed.
    fn end(&mut self) -> Option<ExitStatus> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)?;
        let deadline = Instant::now() + ENDS_WITHIN;
        // Before each wait it is still ours, or a zombie: the id cannot be somebody else's.
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        let _ = kill_process(pid, Signal::TERM);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.end();
    }
}

fn show(story: &Story, environment: &[(&str, String)], arguments: &[&str]) {
    story.says("acrcred gets this environment, and no other variable:");
    for (variable, value) in environment {
        story.command(&format!("export {variable}={}", quoted(value)));
    }
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    story.command(&format!("acrcred {}", words.join(" ")));
}

/// `program`, to be killed when this process dies, even by SIGKILL.
fn tied_to_our_life(program: &Path) -> Result<Command> {
    if !cfg!(target_os = "linux") {
        return Ok(Command::new(program));
    }
    let mut command = Command::new(checkout::program("controlplane")?);
    command
        .args(["child", "--parent", &std::process::id().to_string(), "--"])
        .arg(program);
    Ok(command)
}

fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
