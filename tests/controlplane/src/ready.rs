//! What the supervisor tells whoever started it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The one line that `controlplane run` prints, as JSON, when everything serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// A kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// The private folder that holds everything.
    pub dir: PathBuf,
    /// The API server's address.
    pub url: String,
    /// The issuer of `ServiceAccount` tokens, with a trailing slash as AKS has it.
    pub issuer: String,
    /// The certificate authority of the API server, PEM.
    pub ca_file: PathBuf,
    /// Where the keys of `ServiceAccount` tokens are published.
    pub jwks: Jwks,
    /// The audit log, one JSON object a line.
    pub audit_log: PathBuf,
    /// The process id of each program; each leads a process group of its own.
    pub pids: BTreeMap<String, u32>,
    /// How long it took, in milliseconds.
    pub startup_millis: u64,
}

/// Where the keys that verify `ServiceAccount` tokens are published, in the words of the emulator's state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwks {
    /// The JSON Web Key Set.
    pub url: String,
    /// The certificate authority of that server, PEM.
    pub ca_file: PathBuf,
    /// A bearer token that may read the key set and little else.
    pub bearer_token_file: PathBuf,
}
