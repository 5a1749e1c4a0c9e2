//! A namespace, a tenant, an identity and registries that belong to one test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use acrcred::process::Clock;
use anyhow::Result;
use azure_emulator::journal::{Endpoint, Entry, Filter};
use azure_emulator::registry::{AdminUser, Registry};
use azure_emulator::roles::Role;
use azure_emulator::state::{Cluster, Identity, JwksSource, RoleAssignment, Tenant};
use azure_emulator::{Emulator, Options};
use controlplane::{ControlPlane, Tool};
use jiff::SignedDuration;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{Crane, Objects, control_plane};

/// Namespace and name of acrcred's `ServiceAccount`.
pub const CONTROLLER: (&str, &str) = ("acrcred-system", "acrcred");
const ADMIN_PASSWORD: &str = "push-only";

static SHARED_EMULATOR: OnceCell<Arc<Emulator>> = OnceCell::const_new();
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What one test owns.
pub struct Scene {
    pub control_plane: &'static ControlPlane,
    pub emulator: Arc<Emulator>,
    pub namespace: String,
    pub tenant_id: String,
    pub client_id: String,
    pub clock: Clock,
    pub dir: TempDir,
    number: u64,
}

/// A registry with a small private image `team/app:v1` in it.
#[derive(Clone, Debug)]
pub struct TestRegistry {
    pub server: String,
}

impl Scene {
    /// On the emulator that all share: its clock stays as it is.
    pub async fn new(name: &str) -> Result<Self> {
        let control_plane = control_plane().await?;
        let emulator = SHARED_EMULATOR
            .get_or_try_init(|| start_emulator(control_plane))
            .await?
            .clone();
        Self::on(control_plane, emulator, name).await
    }

    /// With an emulator of its own, so that its time can be turned.
    pub async fn with_own_time(name: &str) -> Result<Self> {
        Self::with_control_plane(control_plane().await?, name).await
    }

    /// On another control plane, with an emulator of its own.
    pub async fn with_control_plane(
        control_plane: &'static ControlPlane,
        name: &str,
    ) -> Result<Self> {
        Self::on(control_plane, start_emulator(control_plane).await?, name).await
    }

    async fn on(
        control_plane: &'static ControlPlane,
        emulator: Arc<Emulator>,
        name: &str,
    ) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let scene = Self {
            namespace: control_plane.create_namespace(name).await?,
            tenant_id: format!("11111111-0000-4000-8000-{number:012}"),
            client_id: format!("22222222-0000-4000-8000-{number:012}"),
            clock: Clock::adjustable(),
            dir: tempfile::tempdir()?,
            control_plane,
            emulator,
            number,
        };
        scene.emulator.add_tenant(Tenant {
            tenant_id: scene.tenant_id.clone(),
            ..Tenant::default()
        })?;
        scene.trust(CONTROLLER)?;
        Ok(scene)
    }

    /// Lets the test's identity trust a `ServiceAccount` of the cluster.
    pub fn trust(&self, (namespace, name): (&str, &str)) -> Result<()> {
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        let identity = Identity::app(&self.tenant_id, &self.client_id)
            .trusting(self.control_plane.issuer(), subject);
        self.emulator.add_identity(identity)
    }

    /// A registry `NAME<n>.azurecr.io` whose images the test's identity may pull.
    pub async fn registry(&self, name: &str) -> Result<TestRegistry> {
        self.registry_in("azurecr.io", name, |_| {}).await
    }

    /// A registry of another cloud or with other settings.
    pub async fn registry_in(
        &self,
        suffix: &str,
        name: &str,
        adjust: impl FnOnce(&mut Registry),
    ) -> Result<TestRegistry> {
        let registry = self.image_registry(suffix, name, adjust).await?;
        self.assign_role(&registry)?;
        Ok(registry)
    }

    /// A registry with the image, but without roles.
    pub async fn image_registry(
        &self,
        suffix: &str,
        name: &str,
        adjust: impl FnOnce(&mut Registry),
    ) -> Result<TestRegistry> {
        let registry = self.empty_registry(suffix, name, adjust)?;
        self.push(&registry, "team/app").await?;
        Ok(registry)
    }

    /// A registry without images or roles.
    pub fn empty_registry(
        &self,
        suffix: &str,
        name: &str,
        adjust: impl FnOnce(&mut Registry),
    ) -> Result<TestRegistry> {
        let server = format!("{name}{}.{suffix}", self.number);
        let mut registry = Registry::new(&self.tenant_id, &server);
        registry.admin_user = Some(AdminUser {
            username: "admin".into(),
            password: ADMIN_PASSWORD.into(),
        });
        adjust(&mut registry);
        self.emulator.add_registry(registry)?;
        Ok(TestRegistry { server })
    }

    /// Gives the test's identity the right to pull.
    pub fn assign_role(&self, registry: &TestRegistry) -> Result<()> {
        let role = RoleAssignment::new(&self.client_id, &registry.server, Role::AcrPull);
        self.emulator.assign_role(role)
    }

    /// Moves the time of acrcred and Azure.
    pub fn advance(&self, by: SignedDuration) {
        // Azure first: what acrcred then asks for must be of the new time.
        self.emulator.advance(by);
        self.clock.advance(by);
    }

    /// Kubernetes objects of the test's namespace.
    pub fn objects(&self) -> Objects {
        Objects::new(self.control_plane.admin(), &self.namespace)
    }

    /// crane with these credentials and no others.
    pub fn crane(&self, docker_config: &[u8]) -> Result<Crane> {
        Crane::new(
            self.control_plane.tools().path(Tool::Crane),
            &self.emulator,
            docker_config,
        )
    }

    /// Puts a small image `v1` into a repository.
    pub async fn push(&self, registry: &TestRegistry, repository: &str) -> Result<()> {
        let image = format!("{}/{repository}:v1", registry.server);
        self.crane_as_admin(registry)?.push(&image).await
    }

    /// crane with the right to push.
    pub fn crane_as_admin(&self, registry: &TestRegistry) -> Result<Crane> {
        let config = serde_json::json!({"auths": {&registry.server: {
            "username": "admin", "password": ADMIN_PASSWORD,
        }}});
        self.crane(config.to_string().as_bytes())
    }

    /// Requests with the test's identity, and those to its registries.
    pub fn journal(&self, endpoint: Endpoint) -> Vec<Entry> {
        self.emulator.journal_of(&Filter {
            tenant: Some(self.tenant_id.clone()),
            endpoint: Some(endpoint),
            ..Filter::default()
        })
    }

    /// Requests to Entra and for exchanges, in this order.
    pub fn upstream_calls(&self) -> (usize, usize) {
        let of = |endpoint| self.journal(endpoint).len();
        (of(Endpoint::Login), of(Endpoint::Exchange))
    }

    /// How often anybody asked the proxy for `host`.
    pub fn connects_to(&self, host: &str) -> usize {
        let connects = self.emulator.connects();
        connects
            .iter()
            .filter(|connect| connect.host.contains(host))
            .count()
    }

    /// Requests of acrcred to the API server in the test's namespace, once all are written down, but for the checks of
    /// the admission policy, which are made for all objects together.
    pub async fn calls(&self) -> Result<controlplane::Calls> {
        let calls = self.control_plane.audit().settled().await?;
        let (namespace, name) = CONTROLLER;
        Ok(calls
            .by_service_account(namespace, name)
            .in_namespace(&self.namespace)
            .matching(|call| !is_policy_check(call)))
    }
}

/// A dry run that the policy refuses, or would have.
pub fn is_policy_check(call: &controlplane::Call) -> bool {
    let is_put = call.verb == "update" && call.code == 403;
    call.resource == "secrets" && call.dry_run && (call.verb == "create" || is_put)
}

async fn start_emulator(control_plane: &ControlPlane) -> Result<Arc<Emulator>> {
    let options = Options {
        registry_binary: control_plane.tools().path(Tool::Registry).to_owned(),
        keep_tokens: true,
        ..Options::default()
    };
    let emulator = Emulator::start(options).await?;
    let jwks = control_plane.jwks();
    emulator.add_cluster(Cluster {
        issuer: control_plane.issuer().to_owned(),
        jwks: JwksSource::Url {
            url: jwks.url.clone(),
            ca_file: Some(jwks.ca_file.display().to_string()),
            bearer_token_file: Some(jwks.bearer_token_file.display().to_string()),
        },
        jwks_cache_seconds: 0,
    })?;
    Ok(Arc::new(emulator))
}
