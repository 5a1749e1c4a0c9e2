//! The way to the API server.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// More than what kube waits beyond the end of a watch (5 s), so that its own limit comes first.
const SILENCE: Duration = Duration::from_secs(7);

/// Indicates that no client for the API server can be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file that `KUBECONFIG` names cannot be used.
    #[error("KUBECONFIG cannot be used: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// No kubeconfig, and not in a pod.
    #[error("not in a cluster, and KUBECONFIG is not set: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// The configuration names something that cannot be had.
    #[error("cannot set up a client for the API server: {0}")]
    Client(#[from] kube::Error),
}

/// A client for the cluster of `kubeconfig`, or for the one that this pod runs in.
///
/// kube would take `HTTPS_PROXY` for the API server too, without asking `NO_PROXY`. That variable speaks
/// of Azure; the API server is reached directly, or through the kubeconfig's own `proxy-url`.
///
/// A connection that says nothing for longer than a watch may last is given up: kube limits the silence of
/// a watch, but not the wait for its beginning, nor that for a list.
pub async fn connect(
    kubeconfig: Option<&Path>,
    watch_timeout: Duration,
) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => from_kubeconfig(path).await?,
        None => Config::incluster()?,
    };
    config.read_timeout = Some(watch_timeout + SILENCE);
    // Else the time that a connection waited unused would count.
    config.reset_reader_on_write = true;
    // kube would try again inside the call, for minutes and with a delay that grows to a quarter of an hour:
    // a watch would come back that late, and a call keep others waiting. Whoever calls tries again.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ConnectError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let has_own_proxy = own_proxy(&kubeconfig).is_some();
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url.take_if(|_| !has_own_proxy);
    Ok(config)
}

/// The `proxy-url` of the current context's cluster.
fn own_proxy(kubeconfig: &Kubeconfig) -> Option<&str> {
    let current = kubeconfig.current_context.as_ref()?;
    let mut contexts = kubeconfig.contexts.iter();
    let context = contexts
        .find(|context| context.name == *current)?
        .context
        .as_ref()?;
    let mut clusters = kubeconfig.clusters.iter();
    let cluster = clusters
        .find(|cluster| cluster.name == context.cluster)?
        .cluster
        .as_ref()?;
    cluster.proxy_url.as_deref().filter(|url| !url.is_empty())
}
