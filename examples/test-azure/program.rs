//! acrcred, with what its pod would have.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::config::{AuthInfo, Kubeconfig};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::setting::Setting;

/// The audience that the federated credential names.
const FEDERATION_AUDIENCE: &str = "api://AzureADTokenExchange";
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// The running program; killed when dropped.
pub struct Program {
    child: Child,
    dir: TempDir,
}

impl Program {
    /// Starts it for one namespace, with the rights of its `ServiceAccount` and no others.
    pub async fn start(setting: &Setting, cluster: &Cluster, namespace: &str) -> Result<Self> {
        // mkdtemp: mode 0700.
        let dir = tempfile::tempdir()?;
        let kubeconfig = dir.path().join("kubeconfig");
        let assertion = dir.path().join("azure-identity-token");
        let token = cluster.token(None).await?;
        write_private(&kubeconfig, &with_token(&setting.kubeconfig, &token)?)?;
        let federated = cluster.token(Some(FEDERATION_AUDIENCE)).await?;
        write_private(&assertion, federated.as_bytes())?;
        let child = Command::new(beside_this("acrcred")?)
            .arg(format!("--watch-namespaces={namespace}"))
            .arg(format!(
                "--allow-controller-identity={namespace}/{}",
                setting.server
            ))
            .args(["--admin-listen=127.0.0.1:0", "--log-format=text"])
            .env("KUBECONFIG", kubeconfig)
            .env("AZURE_TENANT_ID", &setting.tenant_id)
            .env("AZURE_CLIENT_ID", &setting.client_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", assertion)
            .stdin(Stdio::null())
            .stderr(File::create(dir.path().join("log"))?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start acrcred")?;
        Ok(Self { child, dir })
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(_) => bail!("acrcred ended by itself; its log:\n{}", self.log()),
        }
    }

    /// Ends it as the kubelet does; it has to obey.
    pub async fn stop(mut self) -> Result<()> {
        self.check()?;
        let id = self.child.id().context("it runs")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let ended = timeout(ENDS_WITHIN, self.child.wait()).await;
        let status = ended.context("acrcred does not end")??;
        ensure!(
            status.success(),
            "acrcred did not end well:\n{}",
            self.log()
        );
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A program that cargo put beside the folder of this one.
fn beside_this(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().and_then(Path::parent);
    let path = folder.context("a folder")?.join(name);
    ensure!(
        path.is_file(),
        "{} is not built; use make test-azure",
        path.display()
    );
    Ok(path)
}

/// The same cluster, as another user.
fn with_token(kubeconfig: &Path, token: &str) -> Result<Vec<u8>> {
    let mut document = Kubeconfig::read_from(kubeconfig)?;
    let current = document.current_context.clone().unwrap_or_default();
    let contexts = document.contexts.iter();
    let user = contexts
        .filter(|context| context.name == current)
        .find_map(|context| context.context.as_ref()?.user.clone())
        .context("the current context of KUBECONFIG names no user")?;
    document.auth_infos.retain(|named| named.name == user);
    for named in &mut document.auth_infos {
        named.auth_info = Some(AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        });
    }
    // YAML too.
    Ok(serde_json::to_vec(&document)?)
}

fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(content)?)
}
