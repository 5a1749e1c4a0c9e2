//! The controller as a program: parse, set up, run.

use std::process::ExitCode;
use std::sync::Arc;

use acrcred::args::Config;
use acrcred::azure::{AssertionFile, AssertionSource, Minter, Transport, TransportConfig};
use acrcred::controller::{self, Controller, ControllerOptions};
use acrcred::process::{self, Admin, Clock, Metrics, Readiness};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match Config::read().map_err(Failure::from).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acrcred: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(config: Config) -> Result<(), Failure> {
    // Before any client is built, or kube and reqwest could each want another.
    let _ = rustls::crypto::ring::default_provider().install_default();
    process::init(config.log_format, config.log_filter)?;
    let stop = process::signal()?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), config.metrics_per_object);
    let readiness = Readiness::default();
    let listener = TcpListener::bind(config.admin_listen)
        .await
        .map_err(|error| {
            format!(
                "cannot listen on {} (--admin-listen): {error}",
                config.admin_listen
            )
        })?;
    let clock = Clock::system();
    let transport = Transport::new(&TransportConfig {
        https_proxy: config.proxy.https,
        no_proxy: config.proxy.no_proxy,
        ca_file: config.ca_file,
    })?;
    let client = controller::connect(config.kubeconfig.as_deref(), config.watch_timeout).await?;
    let controller = Controller::new(ControllerOptions {
        client: client.clone(),
        settings: Arc::new(config.settings),
        assertion: config
            .token_file
            .map(|path| -> Box<dyn AssertionSource> { Box::new(AssertionFile::new(path)) }),
        minter: Minter::new(
            transport,
            clock.clone(),
            metrics.clone(),
            config.token_cache_max_life,
        ),
        clock,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        watch_namespaces: config.watch_namespaces,
        selector: config.selector,
        resync_interval: config.resync_interval,
        watch_secrets: config.watch_secrets,
        watch_timeout: config.watch_timeout,
        lease: config.lease,
    });
    let late = controller.clone();
    metrics.watch_queue(move || late.backlog());
    let admin = Admin { readiness, metrics };
    let admin = tokio::spawn(admin.serve(listener, stop.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    tokio::spawn(async move { warn_where_unlimited(&client).await });
    controller.run(stop.clone()).await;
    if !stop.is_cancelled() {
        return Err("a watch or the leader election ended unexpectedly; see the log".into());
    }
    admin.await?;
    tracing::info!("stopped");
    Ok(())
}

/// What RBAC cannot limit, an admission policy does; a missing one would go unnoticed.
async fn warn_where_unlimited(client: &kube::Client) {
    if controller::is_impersonation_unfenced(client).await {
        tracing::warn!(
            "no admission policy limits the ServiceAccount tokens that acrcred may request; install it with the chart value policies.install=true"
        );
    }
}
