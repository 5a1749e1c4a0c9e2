//! What the variables say.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

const TENANT: &str = "ACRCRED_TEST_TENANT_ID";
const CLIENT: &str = "ACRCRED_TEST_CLIENT_ID";
const IMAGE: &str = "ACRCRED_TEST_IMAGE";
const KUBECONFIG: &str = "KUBECONFIG";

/// Everything that differs from one subscription to another.
pub struct Setting {
    pub tenant_id: String,
    pub client_id: String,
    /// Of one file: the cluster whose issuer Entra trusts.
    pub kubeconfig: PathBuf,
    /// `SERVER/REPOSITORY:TAG`.
    pub image: String,
    /// The parts of the image's name.
    pub server: String,
    pub repository: String,
    pub tag: String,
}

impl Setting {
    /// Names every variable that is missing, since nobody wants to learn of them one by one.
    pub fn from_environment() -> Result<Self> {
        let values = [TENANT, CLIENT, IMAGE, KUBECONFIG]
            .map(|name| (name, std::env::var(name).unwrap_or_default()));
        let missing: Vec<&str> = values
            .iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(name, _)| *name)
            .collect();
        ensure!(
            missing.is_empty(),
            "set {} first; docs/testing-against-azure.md says to what",
            missing.join(", ")
        );
        let [tenant_id, client_id, image, kubeconfig] = values.map(|(_, value)| value);
        let parts = image.split_once('/').and_then(|(server, path)| {
            let (repository, tag) = path.rsplit_once(':')?;
            Some((server.to_owned(), repository.to_owned(), tag.to_owned()))
        });
        let (server, repository, tag) = parts
            .with_context(|| format!("{IMAGE} must be like contoso.azurecr.io/team/app:v1"))?;
        Ok(Self {
            tenant_id,
            client_id,
            kubeconfig: kubeconfig.into(),
            image,
            server,
            repository,
            tag,
        })
    }
}
