//! The private folder of a control plane, and the files in it.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rsa::{
    Generate as _, PrivateKey,
    pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
};
use serde_json::json;
use tempfile::TempDir;

use crate::kubeconfig::write_private;

/// The group that may do anything.
const ADMINISTRATORS: &str = "system:masters";
/// The group that Kubernetes lets read the keys of `ServiceAccount` tokens.
const KEY_READERS: &str = "system:serviceaccounts";
pub(super) const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub(super) const ADMIN: &str = "admin";

/// The folder; removed when dropped if it is temporary.
pub(super) struct Home {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Home {
    pub(super) fn create(dir: Option<PathBuf>, keep: bool) -> Result<Self> {
        if let Some(path) = dir {
            return Ok(Self {
                path: given(&path)?,
                _temporary: None,
            });
        }
        let mut temporary = tempfile::Builder::new()
            .prefix("controlplane-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .context("cannot create a temporary folder")?;
        temporary.disable_cleanup(keep);
        Ok(Self {
            path: temporary.path().to_owned(),
            _temporary: Some(temporary),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The same as text, for a flag.
    pub(super) fn flag(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }
}

fn given(path: &Path) -> Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    let path = path.canonicalize()?;
    ensure!(
        fs::read_dir(&path)?.next().is_none(),
        "{} is not empty: a control plane starts from nothing",
        path.display()
    );
    Ok(path)
}

/// The bearer tokens of those who are not `ServiceAccount`s.
pub(super) struct Tokens {
    pub(super) admin: String,
    pub(super) controller_manager: String,
}

impl Tokens {
    /// Makes them up, and writes the files for the API server and for readers of its keys.
    pub(super) fn create(home: &Home) -> Result<Self> {
        let tokens = Self {
            admin: random(),
            controller_manager: random(),
        };
        let key_reader = random();
        let table = [
            (&tokens.admin, ADMIN, ADMINISTRATORS),
            (
                &tokens.controller_manager,
                CONTROLLER_MANAGER,
                ADMINISTRATORS,
            ),
            (&key_reader, "key-reader", KEY_READERS),
        ]
        .map(|(token, user, group)| format!("{token},{user},{user},\"{group}\"\n"))
        .concat();
        write_private(&home.file("tokens.csv"), &table)?;
        write_private(&home.file("key-reader.token"), &key_reader)?;
        Ok(tokens)
    }
}

fn random() -> String {
    format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    )
}

/// Writes `sa.key` and `sa.pub`, with which `ServiceAccount` tokens are signed and verified: RSA, as in every cluster.
pub(super) fn write_signing_key(private: &Path, public: &Path) -> Result<()> {
    let key = PrivateKey::generate();
    write_private(private, &key.to_pkcs8_pem(LineEnding::LF)?)?;
    write_private(
        public,
        &key.to_public_key().to_public_key_pem(LineEnding::LF)?,
    )
}

/// Everybody's calls except the control plane's own; metadata only, so that no token is ever logged.
pub(super) fn write_audit_policy(path: &Path) -> Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": ["system:apiserver", CONTROLLER_MANAGER]},
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
            {"level": "Metadata"},
        ],
    });
    write_private(path, &serde_saphyr::to_string(&policy)?)
}
