//! Flags and environment, read and validated once. Nothing else in this crate reads the environment.
//! Of what it links, the TLS library does where it looks for the system's certificates: then `SSL_CERT_DIR`
//! takes their place.

mod config;
mod environment_file;
mod error;
mod value;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::str::FromStr as _;
use std::time::Duration;

use clap::{Arg, ArgAction, Parser};
use jiff::SignedDuration;

pub use config::{Config, Proxy};
pub use environment_file::EnvironmentFileError;
pub use error::ConfigError;
use value::{Setting, optional, or_default};

use crate::credential::{Audience, Cloud};
use crate::plan::PolicyRule;
use crate::process::{LogFilter, LogFormat};

/// Keeps image pull Secrets for Azure Container Registry alive, without a stored password.
///
/// Every flag can also be set as ACRCRED_ and its name in the environment; a flag wins over its
/// variable. Lists are comma-separated, or the flag is repeated. Durations have units: 90s, 10m, 1h30m.
#[expect(
    clippy::doc_markdown,
    reason = "the comments are the help text, where backticks would show"
)]
#[derive(Clone, Debug, Parser)]
#[command(version, about, after_help = ENVIRONMENT, max_term_width = 110, mut_args(with_twin))]
struct Args {
    /// Who may use the controller's own identity: NAMESPACE/SERVER, where * stands for anything but
    /// a slash, such as team-a/contoso.azurecr.io or */*.azurecr.io [default: nobody]
    #[arg(long, value_name = "NAMESPACE/SERVER", value_delimiter = ',', value_parser = optional(PolicyRule::from_str), help_heading = IDENTITIES)]
    allow_controller_identity: Vec<Option<PolicyRule>>,

    /// Clouds whose registries may be sent tokens: AzurePublicCloud, AzureUSGovernmentCloud,
    /// AzureChinaCloud, beside that of AZURE_ENVIRONMENT_FILEPATH [default: none where that is set, else the
    /// cloud of AZURE_AUTHORITY_HOST, else AzurePublicCloud]
    #[arg(long, value_name = "CLOUD", value_delimiter = ',', value_parser = optional(value::cloud), help_heading = IDENTITIES)]
    clouds: Vec<Option<Cloud>>,

    /// Audience to ask Entra tokens for, in every cloud [default: https://containerregistry.azure.net, and
    /// Resource Manager's in the cloud of AZURE_ENVIRONMENT_FILEPATH]
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, value_parser = optional(value::audience), help_heading = IDENTITIES)]
    registry_audience: Setting<Audience>,

    /// Audiences that assertions of users' ServiceAccounts may have; the first is the default, a ServiceAccount
    /// picks another with the annotation acrcred.dev/audience. Keep the policy of config/impersonation equal
    #[arg(long, value_name = "AUDIENCE", default_value = "api://AzureCRTokenExchange", value_delimiter = ',', value_parser = optional(value::impersonation_audience), help_heading = IDENTITIES)]
    impersonation_audiences: Vec<Option<String>>,

    /// When to replace a credential, as a fraction of its life from 0.1 to 0.9
    #[arg(long, value_name = "FRACTION", default_value = "0.5", value_parser = or_default(value::refresh_fraction), help_heading = REFRESH)]
    refresh_fraction: f64,

    /// How long a token of Entra or a registry may serve others from memory; 0 switches that off
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = or_default(value::token_cache_max_life), help_heading = REFRESH)]
    token_cache_max_life: SignedDuration,

    /// How often to write or verify each Secret without another reason, which repairs changes; at least 10s
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = or_default(value::resync_interval), help_heading = REFRESH)]
    resync_interval: SignedDuration,

    /// Prefixes of the labels and annotations that users may set on their Secrets [default: none]
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = optional(value::metadata_prefix), help_heading = SCOPE)]
    secret_metadata_prefixes: Vec<Option<String>>,

    /// Names of Secrets to watch, so that changes are repaired in seconds instead of at the next resync; needs the
    /// rights of config/watch-secrets for these names [default: none]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = optional(value::object_name), help_heading = REFRESH)]
    watch_secrets: Vec<Option<String>>,

    /// Namespaces to serve [default: all]
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', value_parser = optional(value::namespace), help_heading = SCOPE)]
    watch_namespaces: Vec<Option<String>>,

    /// Serve only objects with these labels, such as shard=a,tier!=test [default: all]
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true, value_parser = or_default(value::selector), help_heading = SCOPE)]
    selector: String,

    /// Server-side timeout of each watch, which is then started again; 1s to 200s
    #[arg(long, value_name = "DURATION", default_value = "200s", value_parser = or_default(value::watch_timeout), help_heading = SCOPE)]
    watch_timeout: Duration,

    /// Whether replicas share one lease, whose holder does the work while the others stand by; needs the Role
    /// for leases of config/rbac
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set, value_parser = or_default(value::boolean), help_heading = REPLICAS)]
    leader_elect: bool,

    /// Name of the lease; installations or shards in one namespace need a name each
    #[arg(long, value_name = "NAME", default_value = "acrcred", value_parser = or_default(value::object_name), help_heading = REPLICAS)]
    lease_name: String,

    /// How long after its holder fell silent the lease goes to another, in whole seconds, 3s to 10m
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = or_default(value::lease_duration), help_heading = REPLICAS)]
    lease_duration: Duration,

    /// Where to serve /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080", value_parser = or_default(value::listen_address), help_heading = OBSERVATION)]
    admin_listen: SocketAddr,

    /// Whether there is a metric for each object: true or false
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set, value_parser = or_default(value::boolean), help_heading = OBSERVATION)]
    metrics_per_object: bool,

    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = or_default(value::log_format), help_heading = OBSERVATION)]
    log_format: LogFormat,

    /// What acrcred logs: off, error, warn, info, debug or trace, also for a part of it, such as
    /// info,acrcred::azure=debug [default: RUST_LOG, else info]
    #[arg(long, value_name = "LEVEL", default_value = "", hide_default_value = true, value_parser = optional(LogFilter::from_str), help_heading = OBSERVATION)]
    log_level: Setting<LogFilter>,
}

const IDENTITIES: &str = "Who may get credentials, and from where";
const REFRESH: &str = "When work is done";
const SCOPE: &str = "What is served";
const REPLICAS: &str = "How replicas share the work";
const OBSERVATION: &str = "How to watch it";

const ENVIRONMENT: &str = "\
Environment:
  AZURE_CLIENT_ID             client id of the controller's own identity
  AZURE_TENANT_ID             its tenant, and the default tenant of all other identities
  AZURE_FEDERATED_TOKEN_FILE  file with its ServiceAccount token
  AZURE_AUTHORITY_HOST        where the identities of its cloud sign in
                              (these four are set by the Azure workload identity webhook)
  AZURE_ENVIRONMENT_FILEPATH  JSON file that describes a cloud which is none of Azure's own: Azure
                              Stack, an air-gapped one
  HTTPS_PROXY, NO_PROXY       proxy to Entra and registries, and the hosts to reach without it;
                              the way to the API server is set in the kubeconfig (proxy-url)
  SSL_CERT_FILE               certificates to trust instead of the system's; where it is not set,
                              SSL_CERT_DIR names folders of them
  KUBECONFIG                  the cluster to serve, when not running in it
  POD_NAME, POD_NAMESPACE     who holds the lease, and where it is, if not as HOSTNAME and the pod's
                              ServiceAccount or the kubeconfig say
  RUST_LOG                    same as --log-level, which wins";

/// `--log-level` → `ACRCRED_LOG_LEVEL`.
fn twin(flag: &str) -> String {
    format!("ACRCRED_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// The help says it once for all flags.
fn with_twin(flag: Arg) -> Arg {
    let twin = twin(flag.get_long().unwrap_or_default());
    flag.env(OsString::from(twin)).hide_env(true)
}
