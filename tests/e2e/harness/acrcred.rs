//! acrcred in this process: the same code as the program, with the test's clock and namespace.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use acrcred::azure::{AssertionFile, AssertionSource, Minter, Transport, TransportConfig};
use acrcred::controller::{Controller, ControllerOptions};
use acrcred::credential::{Cloud, Clouds, EnabledCloud, TenantId};
use acrcred::plan::{Policy, PolicyRule, Settings};
use acrcred::process::{Clock, LeaseOptions, Metrics, Readiness};
use anyhow::Result;
use controlplane::fault_proxy::FaultProxy;
use jiff::SignedDuration;
use strum::IntoEnumIterator as _;
use tokio_util::sync::CancellationToken;

use super::{CONTROLLER, Scene, soon};

/// What a test may set.
pub struct Tuning {
    pub policy: Vec<(String, String)>,
    pub clouds: Clouds,
    pub impersonation_audiences: Vec<String>,
    pub default_tenant_id: Option<TenantId>,
    pub resync_interval: SignedDuration,
    pub secret_metadata_prefixes: Vec<String>,
    pub watch_namespaces: Vec<String>,
    /// In place of the pod's token file.
    pub assertion: Option<Box<dyn AssertionSource>>,
    pub watch_secrets: Vec<String>,
    pub watch_timeout: Duration,
    /// Where the API server is found, if not at its own address.
    pub api_server: Option<String>,
    /// The lease that it shares with others.
    pub lease: Option<LeaseOptions>,
    /// If its clock is another than the scene's.
    pub clock: Option<Clock>,
}

/// A running acrcred; stops when dropped.
pub struct Acrcred {
    pub metrics: Metrics,
    controller: Arc<Controller>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Tuning {
    /// Allowed to use the controller's identity in the test's namespace, for every registry.
    pub fn of(scene: &Scene) -> Self {
        Self {
            policy: vec![(scene.namespace.clone(), "*".into())],
            clouds: Cloud::iter().map(EnabledCloud::from).collect(),
            impersonation_audiences: vec!["api://AzureCRTokenExchange".into()],
            default_tenant_id: None,
            resync_interval: SignedDuration::from_mins(10),
            secret_metadata_prefixes: Vec::new(),
            watch_namespaces: vec![scene.namespace.clone()],
            assertion: None,
            watch_secrets: Vec::new(),
            watch_timeout: Duration::from_secs(200),
            api_server: None,
            lease: None,
            clock: None,
        }
    }
}

impl Scene {
    /// Starts acrcred as the `ServiceAccount` that it has in a cluster.
    pub async fn start(&self) -> Result<Acrcred> {
        self.start_tuned(Tuning::of(self)).await
    }

    pub async fn start_tuned(&self, tuning: Tuning) -> Result<Acrcred> {
        let metrics = Metrics::new("test", true);
        let clock = tuning.clock.clone().unwrap_or_else(|| self.clock.clone());
        let readiness = Readiness::default();
        let transport = Transport::new(&self.transport())?;
        let rules = tuning.policy.iter();
        let rules: Result<Vec<PolicyRule>, _> = rules
            .map(|(namespace, server)| format!("{namespace}/{server}").parse())
            .collect();
        let controller = Controller::new(ControllerOptions {
            client: self.client(&tuning).await?,
            settings: Arc::new(Settings {
                policy: Policy(rules.map_err(anyhow::Error::msg)?),
                clouds: tuning.clouds,
                controller: Some((self.client_id.parse()?, self.tenant_id.parse()?)),
                impersonation_audiences: tuning.impersonation_audiences,
                default_tenant_id: tuning.default_tenant_id,
                refresh_fraction: 0.5,
                secret_metadata_prefixes: tuning.secret_metadata_prefixes,
            }),
            assertion: Some(match tuning.assertion {
                Some(assertion) => assertion,
                None => Box::new(AssertionFile::new(self.token_file().await?)),
            }),
            minter: Minter::new(
                transport,
                clock.clone(),
                metrics.clone(),
                SignedDuration::from_hours(24),
            ),
            clock,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            watch_namespaces: tuning.watch_namespaces,
            selector: String::new(),
            resync_interval: tuning.resync_interval,
            watch_secrets: tuning.watch_secrets,
            watch_timeout: tuning.watch_timeout,
            lease: tuning.lease,
        });
        let late = controller.clone();
        metrics.watch_queue(move || late.backlog());
        let stop = CancellationToken::new();
        let task = tokio::spawn(controller.clone().run(stop.clone()));
        soon("acrcred has its first list", async || {
            let awaited = readiness.awaited();
            if awaited.is_empty() {
                Ok(())
            } else {
                Err(awaited.join(", "))
            }
        })
        .await?;
        Ok(Acrcred {
            metrics,
            controller,
            stop,
            task: Some(task),
        })
    }

    /// acrcred's way to the API server; through a proxy, just as the program sets it up.
    async fn client(&self, tuning: &Tuning) -> Result<kube::Client> {
        let (namespace, name) = CONTROLLER;
        let Some(server) = &tuning.api_server else {
            return self
                .control_plane
                .service_account_client(namespace, name)
                .await;
        };
        let dir = self.dir.path().join("behind-a-proxy");
        let kubeconfig = self
            .control_plane
            .service_account_kubeconfig_at(server, namespace, name, &dir)
            .await?;
        Ok(acrcred::controller::connect(Some(&kubeconfig), tuning.watch_timeout).await?)
    }

    /// A fault proxy in front of the API server.
    pub async fn fault_proxy(&self) -> Result<FaultProxy> {
        FaultProxy::start(self.control_plane.url(), self.control_plane.ca_file()).await
    }

    /// How acrcred reaches Azure: through the emulator's proxy.
    pub fn transport(&self) -> TransportConfig {
        TransportConfig {
            https_proxy: Some(self.emulator.proxy_url()),
            no_proxy: None,
            ca_file: Some(self.emulator.ca_file().to_owned()),
        }
    }

    /// Where [`Scene::token_file`] puts it.
    pub fn token_path(&self) -> PathBuf {
        self.dir.path().join("azure-identity-token")
    }

    /// The federated token file that the pod would have, with a new token.
    pub async fn token_file(&self) -> Result<PathBuf> {
        let (namespace, name) = CONTROLLER;
        let audience = "api://AzureADTokenExchange";
        let token = self
            .control_plane
            .service_account_token(namespace, name, &[audience], 3600)
            .await?;
        let path = self.token_path();
        tokio::fs::write(&path, token).await?;
        Ok(path)
    }
}

impl Acrcred {
    /// How late it is with what is due.
    pub fn oldest_due(&self) -> Duration {
        self.controller.backlog().oldest
    }

    /// Waits until somebody has started on everything that is due.
    pub async fn catches_up(&self) -> Result<()> {
        soon("what is due was started", async || {
            match self.oldest_due() {
                late if late.is_zero() => Ok(()),
                late => Err(format!("{late:?}")),
            }
        })
        .await
    }

    /// Stops it as SIGTERM does, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await?;
        }
        Ok(())
    }
}

impl Drop for Acrcred {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
