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
        client,
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
    controller.run(stop.clone()).await;
    if !stop.is_cancelled() {
        return Err("a watch or the leader election ended unexpectedly; see the log".into());
    }
    admin.await?;
    tracing::info!("stopped");
    Ok(())
}
