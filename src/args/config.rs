//! The validated configuration.

mod clouds;
mod lease;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Url;

pub use lease::LeaseConfig;

use super::value;
use super::{Args, ConfigError};
use crate::credential::{ClientId, Clouds, InvalidId, TenantId};
use crate::plan::PolicyRule;
use crate::process::{LogFilter, LogFormat};

/// What the operator decided, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who may use the controller identity; empty means nobody.
    pub allow_controller_identity: Vec<PolicyRule>,
    /// The pod's own identity; there is one exactly if somebody may use it.
    pub controller_identity: Option<ControllerIdentity>,
    /// Tenant of identities that name none (`AZURE_TENANT_ID`).
    pub default_tenant_id: Option<TenantId>,
    /// The enabled clouds: where their identities sign in, and for which audience. Never empty.
    pub clouds: Clouds,
    /// The audiences that assertions of users' `ServiceAccount`s may have, the default first. Never empty.
    pub impersonation_audiences: Vec<String>,
    /// When to refresh, as a fraction of a credential's life: 0.1 to 0.9.
    pub refresh_fraction: f64,
    /// How long a token of Entra or a registry may be shared; zero: not at all.
    pub token_cache_max_life: SignedDuration,
    /// How often to look for foreign changes.
    pub resync_interval: SignedDuration,
    /// Whether to watch the Secrets that are kept.
    pub watch_secrets: Vec<String>,
    /// Prefixes of label and annotation keys that users may set on their Secrets; empty: none.
    pub secret_metadata_prefixes: Vec<String>,
    /// The namespaces to serve, each once; empty: all.
    pub watch_namespaces: Vec<String>,
    /// Label selector for our objects; empty: all.
    pub selector: String,
    /// Server-side timeout of a watch: 1 to 200 whole seconds.
    pub watch_timeout: Duration,
    /// The lease that replicas share; `None`: this one works alone.
    pub lease: Option<LeaseConfig>,
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

/// The pod's own federated identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerIdentity {
    /// Its application.
    pub client_id: ClientId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Where the kubelet keeps its assertion fresh. Was readable at start.
    pub token_file: PathBuf,
}

/// The proxy of Azure traffic. `Debug` leaves out the URL, which may hold a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    /// URL of an HTTP proxy, with its scheme.
    pub https: Option<String>,
    /// Hosts to reach without it, in the notation of `NO_PROXY`.
    pub no_proxy: Option<String>,
}

/// An audience that is for registries alone, and that federated credentials made for Azure/msi-acrpull have.
const DEFAULT_IMPERSONATION_AUDIENCE: &str = "api://AzureCRTokenExchange";

/// Reads a variable; one that is set to nothing counts as not set.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

// === impl Config ===

impl Config {
    /// Validates `args` with the environment of this process.
    pub fn from_environment(args: Args) -> Result<Self, ConfigError> {
        Self::new(args, &|name| std::env::var(name).ok())
    }

    /// Validates `args` with the environment that `env` shows.
    // One field after the other: nothing to hold in mind.
    #[allow(clippy::too_many_lines)]
    pub fn new(args: Args, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let Args {
            allow_controller_identity,
            clouds,
            registry_audience,
            impersonation_audiences,
            refresh_fraction,
            token_cache_max_life,
            resync_interval,
            watch_secrets,
            secret_metadata_prefixes,
            watch_namespaces,
            selector,
            watch_timeout,
            leader_elect,
            lease_name,
            lease_duration,
            admin_listen,
            metrics_per_object,
            log_format,
            log_level,
        } = args;
        let env = Environment(env);

        let allow_controller_identity: Vec<PolicyRule> = list(
            "allow-controller-identity",
            allow_controller_identity,
            PolicyRule::from_str,
        )?
        .unwrap_or_default();
        let controller_identity = if allow_controller_identity.is_empty() {
            None
        } else {
            Some(ControllerIdentity::from_environment(&env)?)
        };
        let audience = single(
            "registry-audience",
            registry_audience.as_deref(),
            value::audience,
        )?;
        Ok(Self {
            allow_controller_identity,
            controller_identity,
            default_tenant_id: env.id("AZURE_TENANT_ID")?,
            clouds: match audience {
                Some(audience) => clouds::enabled(clouds, &env)?.with_audience(&audience),
                None => clouds::enabled(clouds, &env)?,
            },
            impersonation_audiences: narrowing(
                "impersonation-audiences",
                list(
                    "impersonation-audiences",
                    impersonation_audiences,
                    value::impersonation_audience,
                )?,
                "name an audience, or leave it out",
            )?
            .unwrap_or_else(|| vec![DEFAULT_IMPERSONATION_AUDIENCE.to_owned()]),
            refresh_fraction: single(
                "refresh-fraction",
                refresh_fraction.as_deref(),
                value::refresh_fraction,
            )?
            .unwrap_or(0.5),
            token_cache_max_life: single(
                "token-cache-max-life",
                token_cache_max_life.as_deref(),
                value::token_cache_max_life,
            )?
            .unwrap_or(SignedDuration::from_hours(24)),
            resync_interval: single(
                "resync-interval",
                resync_interval.as_deref(),
                value::resync_interval,
            )?
            .unwrap_or(SignedDuration::from_mins(10)),
            watch_secrets: list("watch-secrets", watch_secrets, value::object_name)?
                .unwrap_or_default(),
            secret_metadata_prefixes: list(
                "secret-metadata-prefixes",
                secret_metadata_prefixes,
                value::metadata_prefix,
            )?
            .unwrap_or_default(),
            watch_namespaces: narrowing(
                "watch-namespaces",
                list("watch-namespaces", watch_namespaces, value::namespace)?,
                "name a namespace, or leave it out to serve all",
            )?
            .map(|names| BTreeSet::from_iter(names).into_iter().collect())
            .unwrap_or_default(),
            selector: single("selector", selector.as_deref(), value::selector)?.unwrap_or_default(),
            watch_timeout: single(
                "watch-timeout",
                watch_timeout.as_deref(),
                value::watch_timeout,
            )?
            .unwrap_or(value::MAX_WATCH_TIMEOUT),
            lease: LeaseConfig::new(
                leader_elect.as_deref(),
                lease_name.as_deref(),
                lease_duration.as_deref(),
                &env,
            )?,
            admin_listen: single(
                "admin-listen",
                admin_listen.as_deref(),
                value::listen_address,
            )?
            .unwrap_or((Ipv4Addr::UNSPECIFIED, 8080).into()),
            metrics_per_object: single(
                "metrics-per-object",
                metrics_per_object.as_deref(),
                value::boolean,
            )?
            .unwrap_or(true),
            log_format: single("log-format", log_format.as_deref(), value::log_format)?
                .unwrap_or_default(),
            log_filter: match single("log-level", log_level.as_deref(), LogFilter::from_str)? {
                Some(filter) => filter,
                None => env.parse("RUST_LOG")?.unwrap_or_default(),
            },
            proxy: Proxy::from_environment(&env)?,
            ca_file: env.get("SSL_CERT_FILE").map(PathBuf::from),
            kubeconfig: env.get("KUBECONFIG").map(PathBuf::from),
        })
    }
}

/// A flag set to nothing counts as not set, as templates of deployments produce it.
fn single<T, E: fmt::Display>(
    flag: &'static str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, ConfigError> {
    text.map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| parse(text).map_err(|error| ConfigError::flag(flag, text, error.to_string())))
        .transpose()
}

/// Blank entries are dropped; `None` where the flag was not given at all.
fn list<T, E: fmt::Display>(
    flag: &'static str,
    texts: Option<Vec<String>>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<Vec<T>>, ConfigError> {
    let Some(texts) = texts else { return Ok(None) };
    let parsed: Result<Vec<Option<T>>, ConfigError> = texts
        .into_iter()
        .map(|text| single(flag, Some(&text), &parse))
        .collect();
    Ok(Some(parsed?.into_iter().flatten().collect()))
}

/// Where nothing means everything, an explicitly empty list is more likely an accident.
fn narrowing<T>(
    flag: &'static str,
    list: Option<Vec<T>>,
    remedy: &'static str,
) -> Result<Option<Vec<T>>, ConfigError> {
    match list {
        Some(list) if list.is_empty() => Err(ConfigError::Empty { flag, remedy }),
        list => Ok(list),
    }
}

// === impl ControllerIdentity ===

impl ControllerIdentity {
    fn from_environment(env: &Environment<'_>) -> Result<Self, ConfigError> {
        const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
        let missing = |variable| ConfigError::Missing { variable };
        let identity = Self {
            client_id: env
                .id("AZURE_CLIENT_ID")?
                .ok_or(missing("AZURE_CLIENT_ID"))?,
            tenant_id: env
                .id("AZURE_TENANT_ID")?
                .ok_or(missing("AZURE_TENANT_ID"))?,
            token_file: env.get(TOKEN_FILE).ok_or(missing(TOKEN_FILE))?.into(),
        };
        check_readable(&identity.token_file)
            .map_err(|error| ConfigError::TokenFile(error.kind()))?;
        Ok(identity)
    }
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
            .map_err(|source| ConfigError::Id { variable, source })
    }
}

#[cfg(test)]
mod tests;
