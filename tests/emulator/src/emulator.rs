//! The running emulator, as tests hold it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::ChildStdin;
use tokio::runtime::Runtime;

use crate::cloud::Cloud;
use crate::core::Core;
use crate::fault::{Fault, FaultId};
use crate::journal::{Connect, Counter, Entry, Filter};
use crate::keys::KeyName;
use crate::leash::remove_at_end;
use crate::state::{Cluster, Identity, Registry, RoleAssignment, State, Tenant};
use crate::tap::Tap;
use crate::{control, proxy, token};

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the CONNECT proxy listens; port 0 for a free one.
    pub proxy_listen: SocketAddr,
    /// Where the control listener listens; port 0 for a free one. It has no authentication: loopback only.
    pub control_listen: SocketAddr,
    /// Directory for images, logs of registry processes and the CA; absent: a temporary one that is removed at the end.
    pub dir: Option<PathBuf>,
    /// The CNCF distribution `registry` program: a path, or a name on `PATH`.
    pub registry_binary: PathBuf,
    /// File for the CA's certificate; absent: `ca.pem` in the directory.
    pub ca_out: Option<PathBuf>,
    /// What exists at the start.
    pub state: State,
    /// Keep every token that is presented or issued in this process's memory, for [`Emulator::tokens`]: only for tests that search
    /// what a client left behind. Neither the program nor the control listener can ask for it.
    pub keep_tokens: bool,
}

impl Default for Options {
    fn default() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            proxy_listen: loopback,
            control_listen: loopback,
            dir: None,
            registry_binary: "registry".into(),
            ca_out: None,
            state: State::default(),
            keep_tokens: false,
        }
    }
}

/// A running emulator.
///
/// It has a runtime of its own, so that tests with a runtime each can share one; it ends when dropped, and its
/// registry processes end even when this process is killed.
#[derive(Debug)]
pub struct Emulator {
    core: Arc<Core>,
    proxy: SocketAddr,
    control: SocketAddr,
    ca_file: PathBuf,
    ca_pem: String,
    runtime: Option<Runtime>,
    _temporary: Option<Temporary>,
}

impl Emulator {
    /// Starts it: two listeners, three keys, a CA.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("azure-emulator")
            .enable_all()
            .build()?;
        let begun = runtime.spawn(begin(options)).await;
        match begun.map_err(anyhow::Error::from).and_then(|begun| begun) {
            Ok(mut emulator) => {
                emulator.runtime = Some(runtime);
                Ok(emulator)
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The proxy's address, for `HTTPS_PROXY`.
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// The control listener's address.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// File with the CA's certificate, for `SSL_CERT_FILE`.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// A copy of the state.
    pub fn state(&self) -> State {
        self.core.state.read().unwrap().clone()
    }

    /// Changes the state; an impossible result is refused and nothing changes.
    pub fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> anyhow::Result<R> {
        self.core.update(change)
    }

    /// Adds a cloud, or replaces the one with the same name.
    pub fn add_cloud(&self, cloud: Cloud) -> anyhow::Result<()> {
        self.update(|state| state.put_cloud(cloud))
    }

    /// Adds a cluster, or replaces the one with the same issuer.
    pub fn add_cluster(&self, cluster: Cluster) -> anyhow::Result<()> {
        self.update(|state| state.put_cluster(cluster))
    }

    /// Adds a tenant, or replaces the one with the same id.
    pub fn add_tenant(&self, tenant: Tenant) -> anyhow::Result<()> {
        self.update(|state| state.put_tenant(tenant))
    }

    /// Adds an identity, or replaces the one with the same client id.
    pub fn add_identity(&self, identity: Identity) -> anyhow::Result<()> {
        self.update(|state| state.put_identity(identity))
    }

    /// Adds a registry, or replaces those with one of its login servers.
    pub fn add_registry(&self, registry: Registry) -> anyhow::Result<()> {
        self.update(|state| state.put_registry(registry))
    }

    /// Adds a role assignment.
    pub fn assign_role(&self, role: RoleAssignment) -> anyhow::Result<()> {
        self.update(|state| state.put_role(role))
    }

    /// Sets how far the emulator's clock runs ahead of real time, in whole seconds.
    pub fn set_clock_offset(&self, offset: SignedDuration) {
        self.core.clock.set_offset(offset);
    }

    /// Moves the emulator's clock, by whole seconds.
    pub fn advance(&self, by: SignedDuration) {
        self.core.clock.advance(by);
    }

    /// How far the emulator's clock runs ahead of real time.
    pub fn clock_offset(&self) -> SignedDuration {
        self.core.clock.offset()
    }

    /// The whole journal, oldest first.
    pub fn journal(&self) -> Vec<Entry> {
        self.core.journal.entries(&Filter::default())
    }

    /// The journal's entries that match.
    pub fn journal_of(&self, filter: &Filter) -> Vec<Entry> {
        self.core.journal.entries(filter)
    }

    /// Every CONNECT that the proxy was asked for.
    pub fn connects(&self) -> Vec<Connect> {
        self.core.journal.connects()
    }

    /// The journal counted by endpoint, host, identity and status.
    pub fn counters(&self) -> Vec<Counter> {
        self.core.journal.counters()
    }

    /// Puts a fault in force.
    pub fn add_fault(&self, fault: Fault) -> FaultId {
        self.core.faults.add(fault)
    }

    /// Ends one fault.
    pub fn remove_fault(&self, id: FaultId) {
        self.core.faults.remove(id);
    }

    /// Ends all faults, those of other tests too.
    pub fn clear_faults(&self) {
        self.core.faults.clear();
    }

    /// Puts a new signing key in force; tokens of the old one stay good only with `keep_old`.
    pub async fn rotate_key(&self, name: KeyName, keep_old: bool) -> anyhow::Result<()> {
        self.inside(|core| async move { core.keys.rotate(name, keep_old).await })
            .await?
    }

    /// Invalidates every token that the registry has issued, as a mode switch does.
    pub fn raise_epoch(&self, login_server: &str) -> anyhow::Result<u64> {
        self.core.raise_epoch(login_server)
    }

    /// The claims of a token, if a key of the emulator signed it and it has not expired by the emulator's clock.
    pub fn verify_token(&self, token: &str) -> anyhow::Result<Value> {
        token::inspect(&self.core, token)
    }

    /// Every token that was presented or issued, valid or not, oldest first; nothing unless [`Options::keep_tokens`] is set.
    pub fn tokens(&self) -> Vec<String> {
        self.core.tap.as_ref().map(Tap::tokens).unwrap_or_default()
    }

    /// Process id of the login server's registry process, if it runs.
    pub async fn registry_pid(&self, login_server: &str) -> Option<u32> {
        let host = login_server.to_owned();
        let pid = self.inside(|core| async move { core.distributions.pid(&host).await });
        pid.await.ok().flatten()
    }

    /// Ends the login server's registry process; `/v2/` answers 502 until [`Self::start_registry`].
    pub async fn stop_registry(&self, login_server: &str) -> anyhow::Result<()> {
        let host = login_server.to_owned();
        self.inside(|core| async move { core.distributions.stop(&host).await })
            .await?
    }

    /// Lets the next request start the login server's registry process again, on the same images.
    pub async fn start_registry(&self, login_server: &str) -> anyhow::Result<()> {
        let host = login_server.to_owned();
        self.inside(|core| async move { core.distributions.allow(&host).await })
            .await
    }

    /// Ends everything and waits for the registry processes.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.inside(|core| async move { core.distributions.stop_all().await })
            .await?;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        Ok(())
    }

    /// Runs work on the emulator's own runtime, where its child processes and timers live.
    async fn inside<F, R>(&self, work: impl FnOnce(Arc<Core>) -> F) -> anyhow::Result<R>
    where
        F: Future<Output = R> + Send + 'static,
        R: Send + 'static,
    {
        let runtime = self.runtime.as_ref().context("the emulator has ended")?;
        Ok(runtime.spawn(work(Arc::clone(&self.core))).await?)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A directory that goes when the emulator is dropped, and also when this process is killed or holds the emulator in a static.
#[derive(Debug)]
struct Temporary {
    dir: TempDir,
    _leash: ChildStdin,
}

impl Temporary {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("azure-emulator-")
            .tempdir()?;
        let leash = remove_at_end(dir.path())?;
        Ok(Self { dir, _leash: leash })
    }
}

async fn begin(options: Options) -> anyhow::Result<Emulator> {
    let temporary = match &options.dir {
        Some(dir) => {
            tokio::fs::create_dir_all(dir).await?;
            None
        }
        None => Some(Temporary::new()?),
    };
    let dir = options
        .dir
        .or_else(|| {
            temporary
                .as_ref()
                .map(|temporary| temporary.dir.path().to_owned())
        })
        .context("no directory")?;
    let dir = std::path::absolute(dir)?;
    let ca_file = options.ca_out.unwrap_or_else(|| dir.join("ca.pem"));
    let tap = options.keep_tokens.then(Tap::default);
    let core = Arc::new(Core::new(options.state, dir, options.registry_binary, tap).await?);
    let ca_pem = core.authority.pem();
    tokio::fs::write(&ca_file, &ca_pem)
        .await
        .with_context(|| format!("cannot write {}", ca_file.display()))?;
    let proxy_listener = bind(options.proxy_listen).await?;
    let control_listener = bind(options.control_listen).await?;
    let (proxy, control) = (proxy_listener.local_addr()?, control_listener.local_addr()?);
    tokio::spawn(proxy::run(Arc::clone(&core), proxy_listener));
    let router = control::router(Arc::clone(&core));
    tokio::spawn(async move { axum::serve(control_listener, router).await });
    Ok(Emulator {
        core,
        proxy,
        control,
        ca_file,
        ca_pem,
        runtime: None,
        _temporary: temporary,
    })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}"))
}
