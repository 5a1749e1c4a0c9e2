//! The way to the API server.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A slow API server must not hold up the start for a warning.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let current = kubeconfig.current_context.clone().unwrap_or_default();
    let context = kubeconfig
        .contexts
        .iter()
        .find(|context| context.name == current);
    let cluster = context
        .and_then(|context| context.context.as_ref())
        .map(|context| &context.cluster);
    let own_proxy = kubeconfig
        .clusters
        .iter()
        .find(|named| Some(&named.name) == cluster)
        .and_then(|named| named.cluster.as_ref()?.proxy_url.clone())
        .is_some_and(|url| !url.is_empty());
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    if !own_proxy {
        config.proxy_url = None;
    }
    Ok(config)
}

/// Whether we may make a token that the API server itself accepts, which the policy of `config/impersonation`
/// forbids. Asks by trying, in our own namespace, for one that works nowhere beyond what we can do there anyway.
pub async fn is_impersonation_unfenced(client: &Client) -> bool {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(601),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let call = accounts.create_token_request("default", &dry_run, &request);
    matches!(tokio::time::timeout(PATIENCE, call).await, Ok(Ok(_)))
}
