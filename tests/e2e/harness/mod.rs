//! The shared control plane and what a test needs of its own.

mod acrcred;
mod crane;
mod helm;
pub mod impersonation;
mod objects;
mod program;
mod puller;
mod replicas;
mod scanner;
mod scene;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use controlplane::{ControlPlane, Options};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

pub use acrcred::{Acrcred, Tuning};
pub use crane::Crane;
pub use helm::{Helm, chart};
pub use impersonation::{allow_impersonation_in, token_request};
pub use objects::{Objects, condition, limited, manifest};
pub use program::{Program, acrcred, refuses};
pub use puller::Puller;
pub use replicas::{LEASE, REFRESH};
pub use scanner::Scanner;
pub use scene::{CONTROLLER, Scene, TestRegistry, is_policy_check};

/// How long anything may take that takes a moment.
pub const SOON: Duration = Duration::from_secs(20);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // kube and reqwest may each bring a provider; the process names one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime")
});

static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// Adds to a file below `target/tmp`, from which `make` prints or writes tables.
pub fn note(file: &str, line: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    let file = OpenOptions::new().create(true).append(true).open(path);
    // What cannot be noted fails no test.
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// Runs a test on the runtime that all share, and notes how long it took (`make test` prints the slowest).
pub fn run(test: impl Future<Output = anyhow::Result<()>>) {
    let started = Instant::now();
    let result = RUNTIME.block_on(test);
    let took = started.elapsed().as_secs_f64();
    let thread = std::thread::current();
    let line = format!("{took:8.2} s  {}\n", thread.name().unwrap_or_default());
    note("durations", &line);
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

/// The control plane of this run, with the CRD and the roles of `config/`, unmodified.
pub async fn control_plane() -> anyhow::Result<&'static ControlPlane> {
    CONTROL_PLANE
        .get_or_try_init(|| start_control_plane(Options::default()))
        .await
}

/// A control plane with the CRD, the roles and the policies of `config/`. The role for impersonation is not bound.
pub async fn start_control_plane(options: Options) -> anyhow::Result<ControlPlane> {
    let control_plane = ControlPlane::start(Options {
        crds: vec![config("crd/acrcred.dev_acrcredentials.yaml")],
        ..options
    })
    .await?;
    for folder in ["rbac", "policy", "impersonation"] {
        let manifests = control_plane.render(&config(folder)).await?;
        control_plane.apply(manifests).await?;
    }
    policy_is_in_force(&control_plane).await?;
    impersonation::policy_is_in_force(&control_plane).await?;
    Ok(control_plane)
}

/// A control plane of its own with a further admission plugin, for the one test that needs it.
pub async fn control_plane_with(plugin: &str) -> anyhow::Result<&'static ControlPlane> {
    let options = Options {
        admission_plugins: vec![plugin.to_owned()],
        ..Options::default()
    };
    // Lives as long as the run, like the one that all share.
    Ok(Box::leak(Box::new(start_control_plane(options).await?)))
}

/// The API server takes a moment to enforce a new admission policy.
async fn policy_is_in_force(control_plane: &ControlPlane) -> anyhow::Result<()> {
    let namespace = control_plane.create_namespace("policy").await?;
    let (controller, name) = CONTROLLER;
    let client = control_plane
        .service_account_client(controller, name)
        .await?;
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let mut no_owner = Secret::default();
    no_owner.metadata.name = Some("no-owner".into());
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    soon("the admission policy is in force", async || {
        match secrets.create(&dry_run, &no_owner).await {
            Err(kube::Error::Api(status))
                if status.is_forbidden() && status.message.contains("acrcred-secrets") =>
            {
                Ok(())
            }
            other => Err(format!("{:?}", other.map(|_| "accepted"))),
        }
    })
    .await
}

/// A path under `config/`.
pub fn config(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(path)
}

/// Waits for a state, with the usual limit.
pub async fn soon<T>(
    what: &str,
    attempt: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    controlplane::eventually(SOON, what, attempt).await
}
