//! The control plane as tests and the demo see it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{DynamicObject, PostParams},
};
use tokio::{process::Command, task::spawn_blocking};

use crate::{
    Audit, Jwks, Manifests, Ready, Tool, Tools, client_config, eventually, manifests,
    supervised::Supervised,
};

const NAMESPACE_WITHIN: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Custom resource definitions, files or folders. Given here, the garbage collector knows them from the start; applied later, it
    /// learns them within 30 s.
    pub crds: Vec<PathBuf>,
    /// Whether the `ServiceAccount` admission plugin is on: pods then take over `imagePullSecrets` from their `ServiceAccount`.
    pub service_account_admission: bool,
    /// Admission plugins to run beside those that are on by default.
    pub admission_plugins: Vec<String>,
    /// An empty or new folder, which stays; absent: a temporary one.
    pub dir: Option<PathBuf>,
    /// Controllers to run beside the garbage collector and those of namespaces, `ServiceAccount`s and aggregated roles.
    pub controllers: Vec<String>,
    /// The issuer of `ServiceAccount` tokens; absent: one of the shape that AKS has.
    pub issuer: Option<String>,
    /// Whether to run the scheduler, which pods need that name no node.
    pub scheduler: bool,
}

// === impl Options ===

impl Options {
    /// With all that it takes to run pods of a Deployment on a [`Node`](crate::node::Node).
    pub fn for_nodes() -> Self {
        Self {
            service_account_admission: true,
            scheduler: true,
            controllers: [
                "deployment-controller",
                "replicaset-controller",
                "root-ca-certificate-publisher-controller",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Self::default()
        }
    }
}

/// A running control plane. Dropped, it ends and every process of it is gone; the same happens when this process dies.
///
/// Clients that it returns belong to the runtime that they are first used on, so each test asks for its own.
#[derive(Debug)]
pub struct ControlPlane {
    supervised: Supervised,
    ready: Ready,
    config: Config,
    audit: Audit,
    tools: Tools,
}

impl ControlPlane {
    /// Starts a control plane, building its programs first if need be (minutes, once), and waits until it serves.
    pub async fn start(options: Options) -> Result<Self> {
        let (tools, supervised, ready) = spawn_blocking(move || {
            // Here rather than in the supervisor, because this process may have a terminal to show progress on.
            let mut needed = Tool::CONTROL_PLANE.to_vec();
            needed.extend(options.scheduler.then_some(Tool::KubeScheduler));
            let tools = Tools::ensure(&needed)?;
            let (supervised, ready): (_, Ready) = Supervised::start("run", &arguments(options))?;
            anyhow::Ok((tools, supervised, ready))
        })
        .await??;
        let config = client_config(&ready.kubeconfig).await?;
        let audit = Audit::new(&ready.audit_log, config.clone());
        Ok(Self {
            supervised,
            ready,
            config,
            audit,
            tools,
        })
    }

    /// A new client with every right, as user `admin`. It does not retry.
    pub fn admin(&self) -> Client {
        self.client(self.config.clone())
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.ready.kubeconfig
    }

    /// The API server's address.
    pub fn url(&self) -> &str {
        &self.ready.url
    }

    /// The API server's certificate authority, PEM.
    pub fn ca_file(&self) -> &Path {
        &self.ready.ca_file
    }

    /// The issuer of `ServiceAccount` tokens, with its trailing slash.
    pub fn issuer(&self) -> &str {
        &self.ready.issuer
    }

    /// Where the keys that verify `ServiceAccount` tokens are published.
    pub fn jwks(&self) -> &Jwks {
        &self.ready.jwks
    }

    /// The folder with everything in it, logs included.
    pub fn dir(&self) -> &Path {
        &self.ready.dir
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Every tool, also those that the control plane does not run itself.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The supervisor's process id, then those of its programs.
    pub fn process_ids(&self) -> Vec<u32> {
        std::iter::once(self.supervised.pid())
            .chain(self.ready.pids.values().copied())
            .collect()
    }

    /// How long the supervisor took to start everything.
    pub fn startup(&self) -> Duration {
        Duration::from_millis(self.ready.startup_millis)
    }

    /// `kubectl` with the administrator's kubeconfig.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.tools.path(Tool::Kubectl));
        command
            .env("KUBECONFIG", self.kubeconfig())
            .kill_on_drop(true);
        command
    }

    /// Creates a namespace `PREFIX-RANDOM` and waits for its `ServiceAccount` `default`, so that each test has its own.
    pub async fn create_namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{:08x}", rand::random::<u32>());
        let client = self.admin();
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .context("cannot create a namespace")?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
        eventually(
            NAMESPACE_WITHIN,
            "the namespace has its ServiceAccount",
            async || {
                let account = accounts
                    .get_opt("default")
                    .await
                    .map_err(|error| error.to_string())?;
                account
                    .map(drop)
                    .ok_or_else(|| "no ServiceAccount `default`".to_owned())
            },
        )
        .await?;
        Ok(name)
    }

    /// Applies manifests on the server as administrator: namespaces and definitions first, awaiting the latter, then the rest. A folder
    /// with a `kustomization.yaml` is rendered by kubectl. A namespaced object without a namespace goes to `default`.
    pub async fn apply(&self, manifests: impl Into<Manifests>) -> Result<Vec<DynamicObject>> {
        self.apply_in("default", manifests).await
    }

    /// The same, with the namespace for objects that name none.
    pub async fn apply_in(
        &self,
        namespace: &str,
        manifests: impl Into<Manifests>,
    ) -> Result<Vec<DynamicObject>> {
        let manifests = match manifests.into() {
            Manifests::Path(path) if path.join("kustomization.yaml").is_file() => {
                Manifests::Text(self.render(&path).await?)
            }
            other => other,
        };
        manifests::apply(&self.admin(), manifests, namespace).await
    }

    /// Renders a kustomization.
    pub async fn render(&self, folder: &Path) -> Result<String> {
        let output = self
            .kubectl()
            .arg("kustomize")
            .arg(folder)
            .output()
            .await
            .context("cannot run kubectl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl cannot render {}: {errors}",
            folder.display()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A configuration without the administrator's identity.
    pub(crate) fn anonymous(&self) -> Config {
        let mut config = self.config.clone();
        config.auth_info = kube::config::AuthInfo::default();
        config
    }

    #[expect(clippy::unused_self, reason = "a client of this control plane")]
    pub(crate) fn client(&self, config: Config) -> Client {
        Client::try_from(config).expect("the configuration worked when the control plane started")
    }
}

fn arguments(options: Options) -> Vec<String> {
    let Options {
        crds,
        service_account_admission,
        admission_plugins,
        dir,
        controllers,
        issuer,
        scheduler,
    } = options;
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let path = |name: &str, value: &PathBuf| flag(name, &value.display().to_string());
    let mut arguments: Vec<_> = crds.iter().map(|crd| path("crds", crd)).collect();
    arguments.extend(
        controllers
            .iter()
            .map(|controller| flag("controller", controller)),
    );
    arguments.extend(
        admission_plugins
            .iter()
            .map(|plugin| flag("admission-plugin", plugin)),
    );
    arguments.extend(dir.iter().map(|dir| path("dir", dir)));
    arguments.extend(issuer.iter().map(|issuer| flag("issuer", issuer)));
    arguments.extend(service_account_admission.then(|| "--service-account-admission".to_owned()));
    arguments.extend(scheduler.then(|| "--scheduler".to_owned()));
    arguments
}
