//! Kubeconfig files, and clients made from them.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process,
};

use anyhow::{Context, Result};
use kube::config::{Config, KubeConfigOptions};
use serde_json::json;

/// A kubeconfig with one user, who has a bearer token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kubeconfig<'a> {
    /// The API server's address.
    pub(crate) server: &'a str,
    /// Its certificate authority, PEM.
    pub(crate) ca_file: &'a Path,
    /// The user's name; the server does not look at it.
    pub(crate) user: &'a str,
    /// Where the user's token comes from.
    pub(crate) token: Token<'a>,
}

/// Where a bearer token comes from.
#[derive(Clone, Copy)]
pub(crate) enum Token<'a> {
    /// It stands in the kubeconfig.
    Inline(&'a str),
    /// Clients read it from this file, again and again.
    File(&'a Path),
}

impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Kubeconfig<'_> {
    /// Writes it to `path`, readable by the owner alone.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let user = match self.token {
            Token::Inline(token) => json!({ "token": token }),
            Token::File(file) => json!({ "tokenFile": file }),
        };
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "controlplane", "cluster": {"server": self.server, "certificate-authority": self.ca_file}}],
            "users": [{"name": self.user, "user": user}],
            "contexts": [{"name": self.user, "context": {"cluster": "controlplane", "user": self.user}}],
            "current-context": self.user,
        });
        write_private(path, &serde_saphyr::to_string(&document)?)
    }
}

/// Writes a file that only its owner can read, in one step: a reader sees the old content or the new.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    let unfinished = path.with_extension(format!("unfinished-{}", process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A client configuration for tests: a failure shows at once instead of being retried, and no proxy stands between.
pub async fn client_config(kubeconfig: &Path) -> Result<Config> {
    let document = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(document, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    config.proxy_url = None;
    Ok(config)
}
