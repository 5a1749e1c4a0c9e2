//! The validated configuration.

mod clouds;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser as _;
use jiff::SignedDuration;
use reqwest::Url;

use super::{Args, ConfigError};
use crate::credential::{ClientId, InvalidId, TenantId};
use crate::plan::{Policy, Settings};
use crate::process::{LeaseOptions, LogFilter, LogFormat};

/// What the operator decided, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What decisions about objects rest on. It has a controller identity exactly if a rule allows its use.
    pub settings: Settings,
    /// Where the kubelet keeps the assertion of the controller identity fresh, if there is one. Was readable at start.
    pub token_file: Option<PathBuf>,
    /// How long a token of Entra or a registry may be shared; zero: not at all.
    pub token_cache_max_life: SignedDuration,
    /// How often to look for foreign changes.
    pub resync_interval: SignedDuration,
    /// Whether to watch the Secrets that are kept.
    pub watch_secrets: Vec<String>,
    /// The namespaces to serve, each once; empty: all.
    pub watch_namespaces: Vec<String>,
    /// Label selector for our objects; empty: all.
    pub selector: String,
    /// Server-side timeout of a watch: 1 to 200 whole seconds.
    pub watch_timeout: Duration,
    /// The lease that replicas share; `None`: this one works alone.
    pub lease: Option<LeaseOptions>,
    /// Where the admin server listens.
    pub admin_listen: SocketAddr,
    /// Whether there is a metric for each object.
    pub metrics_per_object: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: LogFilter,
    /// The way to Entra and the registries.
    pub proxy: Proxy,
    /// `SSL_CERT_FILE`: certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
}

/// The proxy of Azure traffic. `Debug` leaves out the URL, which may hold a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    /// URL of an HTTP proxy, with its scheme.
    pub https: Option<String>,
    /// Hosts to reach without it, in the notation of `NO_PROXY`.
    pub no_proxy: Option<String>,
}

const TENANT_ID: &str = "AZURE_TENANT_ID";

/// Reads a variable; one that is set to nothing counts as not set.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

// === impl Config ===

impl Config {
    /// Reads the flags and the environment of this process. For `--help`, and for what clap itself refuses, it
    /// ends the process in clap's words.
    pub fn read() -> Result<Self, ConfigError> {
        let args = Args::try_parse()
            .map_err(|error| ConfigError::of_value(&error).unwrap_or_else(|| error.exit()))?;
        Self::new(args, &|name| std::env::var(name).ok())
    }

    /// Validates `args` with the environment that `env` shows.
    fn new(args: Args, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let env = Environment(env);
        let pod = env.get("POD_NAME").or_else(|| env.get("HOSTNAME"));
        let lease = LeaseOptions {
            namespace: env.get("POD_NAMESPACE"),
            name: args.lease_name,
            identity: LeaseOptions::unique_identity(pod.as_deref().unwrap_or("acrcred")),
            duration: args.lease_duration,
        };
        let rules = without_blanks(args.allow_controller_identity);
        let controller = (!rules.is_empty()).then(|| controller_identity(&env));
        let (controller, token_file) = controller.transpose()?.unzip();
        let clouds = clouds::enabled(args.clouds, &env)?;
        let audiences = args.impersonation_audiences;
        let namespaces = narrowing("watch-namespaces", args.watch_namespaces)?;
        Ok(Self {
            settings: Settings {
                policy: Policy(rules),
                clouds: match args.registry_audience {
                    Some(audience) => clouds.with_audience(&audience),
                    None => clouds,
                },
                controller,
                impersonation_audiences: narrowing("impersonation-audiences", audiences)?,
                default_tenant_id: env.id(TENANT_ID)?,
                refresh_fraction: args.refresh_fraction,
                secret_metadata_prefixes: without_blanks(args.secret_metadata_prefixes),
            },
            token_file,
            token_cache_max_life: args.token_cache_max_life,
            resync_interval: args.resync_interval,
            watch_secrets: without_blanks(args.watch_secrets),
            watch_namespaces: BTreeSet::from_iter(namespaces).into_iter().collect(),
            selector: args.selector,
            watch_timeout: args.watch_timeout,
            lease: args.leader_elect.then_some(lease),
            admin_listen: args.admin_listen,
            metrics_per_object: args.metrics_per_object,
            log_format: args.log_format,
            log_filter: match args.log_level {
                Some(filter) => filter,
                None => env.parse("RUST_LOG")?.unwrap_or_default(),
            },
            proxy: Proxy::from_environment(&env)?,
            ca_file: env.get("SSL_CERT_FILE").map(PathBuf::from),
            kubeconfig: env.get("KUBECONFIG").map(PathBuf::from),
        })
    }
}

fn without_blanks<T>(entries: Vec<Option<T>>) -> Vec<T> {
    entries.into_iter().flatten().collect()
}

/// Where nothing means everything, an explicitly empty list is more likely an accident.
fn narrowing<T>(flag: &'static str, entries: Vec<Option<T>>) -> Result<Vec<T>, ConfigError> {
    let is_given = !entries.is_empty();
    let list = without_blanks(entries);
    if is_given && list.is_empty() {
        Err(ConfigError::Empty(flag))
    } else {
        Ok(list)
    }
}

/// The pod's own federated identity, and the file with its assertion.
fn controller_identity(
    env: &Environment<'_>,
) -> Result<((ClientId, TenantId), PathBuf), ConfigError> {
    use ConfigError::Missing;
    const CLIENT_ID: &str = "AZURE_CLIENT_ID";
    const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
    let client_id = env.id(CLIENT_ID)?.ok_or(Missing(CLIENT_ID))?;
    let tenant_id = env.id(TENANT_ID)?.ok_or(Missing(TENANT_ID))?;
    let token_file = PathBuf::from(env.get(TOKEN_FILE).ok_or(Missing(TOKEN_FILE))?);
    check_readable(&token_file).map_err(|error| ConfigError::TokenFile(error.kind()))?;
    Ok(((client_id, tenant_id), token_file))
}

/// Opening a directory works; reading it would not.
fn check_readable(path: &Path) -> io::Result<()> {
    match File::open(path)?.metadata()? {
        file if file.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => Ok(()),
    }
}

// === impl Proxy ===

impl Proxy {
    /// Where both spellings are set, the upper-case one counts, as in Go programs.
    fn from_environment(env: &Environment<'_>) -> Result<Self, ConfigError> {
        let either = |upper, lower| env.get(upper).or_else(|| env.get(lower));
        Ok(Self {
            https: either("HTTPS_PROXY", "https_proxy")
                .map(proxy_url)
                .transpose()?,
            no_proxy: either("NO_PROXY", "no_proxy"),
        })
    }
}

/// `proxy.example:3128` is understood as curl understands it.
fn proxy_url(text: String) -> Result<String, ConfigError> {
    let url = if text.contains("://") {
        text
    } else {
        format!("http://{text}")
    };
    match Url::parse(&url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(url),
        _ => Err(ConfigError::Proxy),
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("https", &self.https.as_ref().map(|_| "…"))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

// === impl Environment ===

impl Environment<'_> {
    fn get(&self, variable: &str) -> Option<String> {
        (self.0)(variable)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn parse<T: FromStr>(&self, variable: &str) -> Result<Option<T>, T::Err> {
        self.get(variable).map(|value| value.parse()).transpose()
    }

    fn id<T: FromStr<Err = InvalidId>>(
        &self,
        variable: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        self.parse(variable)
            .map_err(|source| ConfigError::Id(variable, source))
    }
}

#[cfg(test)]
mod tests;
