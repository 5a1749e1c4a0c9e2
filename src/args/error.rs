//! Why the program does not start, in one sentence that names what to set.

use std::error::Error as _;

use clap::error::ContextKind;

use super::{EnvironmentFileError, twin};
use crate::credential::{AuthorityError, InvalidId};

/// Indicates that flags and environment do not add up to a configuration. Names the flag or variable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A flag's value cannot be used.
    #[error("--{flag} (or {}) cannot be {value:?}: {remedy}", twin(flag))]
    Flag {
        /// Its name, without dashes.
        flag: String,
        /// What was given, cut to a recognisable length.
        value: String,
        /// What to set.
        remedy: String,
    },
    /// A list that narrows was given, and is empty.
    #[error("--{0} (or {twin}) is empty: name at least one, or leave it out", twin = twin(.0))]
    Empty(&'static str),
    /// A rule allows the controller's own identity, but the environment does not name it.
    #[error(
        "{0} is not set, but --allow-controller-identity needs it: label the pod with azure.workload.identity/use=true and annotate its ServiceAccount with the client id, so that the workload identity webhook sets it, or set it yourself"
    )]
    Missing(&'static str),
    /// A client or tenant id is malformed.
    #[error("{0} cannot be used, {1}: set the id that Microsoft Entra shows")]
    Id(&'static str, InvalidId),
    /// The authority is none of the known ones.
    #[error("AZURE_AUTHORITY_HOST cannot be used: {0}")]
    Authority(#[from] AuthorityError),
    /// Two authorities are named for a custom cloud.
    #[error(
        "AZURE_AUTHORITY_HOST is neither the activeDirectoryEndpoint of the file that AZURE_ENVIRONMENT_FILEPATH names, nor the authority of one of Azure's own clouds: make the two agree, or unset it"
    )]
    AuthorityConflict,
    /// The file that describes a custom cloud cannot be used.
    #[error("AZURE_ENVIRONMENT_FILEPATH {0}")]
    EnvironmentFile(#[from] EnvironmentFileError),
    /// The token file cannot be read. The path is left out: it may be the token by mistake.
    #[error(
        "AZURE_FEDERATED_TOKEN_FILE names a file that cannot be read ({0}): mount a projected ServiceAccount token and set its path"
    )]
    TokenFile(std::io::ErrorKind),
    /// The proxy's URL is malformed. It is left out: it may hold a password.
    #[error(
        "HTTPS_PROXY is not the URL of an HTTP proxy: set one such as http://proxy.example:3128"
    )]
    Proxy,
    /// `RUST_LOG` is malformed.
    #[error("RUST_LOG cannot be used: {0}")]
    RustLog(#[from] crate::process::LogFilterError),
}

impl ConfigError {
    /// Of a value that a parser of ours refuses; `None` for what clap itself has to say.
    pub(super) fn of_value(error: &clap::Error) -> Option<Self> {
        const RECOGNISABLE: usize = 64;
        let told = |kind| Some(error.get(kind)?.to_string());
        // Such as `--clouds <CLOUD>` or `--leader-elect[=<BOOL>]`.
        let usage = told(ContextKind::InvalidArg)?;
        let flag = usage.trim_start_matches('-').split([' ', '[']).next()?;
        let value = told(ContextKind::InvalidValue)?;
        Some(Self::Flag {
            flag: flag.to_owned(),
            value: value.trim().chars().take(RECOGNISABLE).collect(),
            remedy: error.source()?.to_string(),
        })
    }
}
