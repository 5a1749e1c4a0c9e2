//! Secrets that are not acrcred's, each with a canary in every place.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::bodies::{OWNER, TYPE};

/// Where the canaries are.
pub const PLACES: [&str; 4] = ["data value", "label", "annotation", "data key"];
/// Another client's, which holds a deleted Secret.
const FINALIZER: &str = "example.com/hold";

/// One text for each place that is nowhere else.
pub struct Canaries(pub Vec<String>);

impl Canaries {
    /// For one test.
    pub fn of(namespace: &str) -> Self {
        let canary = |place| format!("{:x}", Sha256::digest(format!("{place} of {namespace}")));
        Self(PLACES.map(canary).to_vec())
    }
}

/// What a thief knows of a Secret, or can find out.
pub struct Target {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

/// A Secret as it is stored.
pub struct Foreign(Secret);

impl Foreign {
    /// One of each kind.
    pub async fn create_all(
        admin: &Client,
        namespace: &str,
        canaries: &Canaries,
    ) -> Result<Vec<Self>> {
        let owned_by = |secret: &mut Value, owner: &str| {
            secret["metadata"]["annotations"]["acrcred.dev/owner"] = owner.into();
        };
        let create = async |name, adjust: &dyn Fn(&mut Value)| {
            Self::create(admin, namespace, name, canaries, adjust).await
        };
        Ok(vec![
            create("opaque", &|_| {}).await?,
            create("no-owner", &|secret| secret["type"] = TYPE.into()).await?,
            create("other-owner", &|secret| {
                secret["type"] = TYPE.into();
                owned_by(secret, "another");
            })
            .await?,
            create("immutable", &|secret| {
                secret["type"] = TYPE.into();
                secret["immutable"] = true.into();
            })
            .await?,
            create("immutable-opaque", &|secret| {
                secret["immutable"] = true.into();
            })
            .await?,
            create("annotated-opaque", &|secret| owned_by(secret, OWNER)).await?,
            create("terminating", &|secret| {
                secret["type"] = TYPE.into();
                secret["metadata"]["finalizers"] = json!([FINALIZER]);
            })
            .await?
            .deleted(admin)
            .await?,
        ])
    }

    /// One with a canary in every place.
    pub async fn create(
        admin: &Client,
        namespace: &str,
        name: &str,
        canaries: &Canaries,
        adjust: impl Fn(&mut Value),
    ) -> Result<Self> {
        let [value, label, annotation, key] = &canaries.0[..] else {
            anyhow::bail!("{} canaries", canaries.0.len());
        };
        // No longer than a label may be; any 16 characters of a canary are found.
        let (label, key) = (&label[..60], &key[..60]);
        let config = json!({"auths": {"registry.example": {"username": "u", "password": value}}});
        let mut secret = json!({
            "metadata": {
                "name": name,
                "labels": {"example.com/label": label},
                "annotations": {"example.com/annotation": annotation},
            },
            "stringData": {".dockerconfigjson": config.to_string(), key: value},
        });
        adjust(&mut secret);
        let secret: Secret = serde_json::from_value(secret)?;
        let secrets: Api<Secret> = Api::namespaced(admin.clone(), namespace);
        let stored = secrets.create(&PostParams::default(), &secret).await?;
        Ok(Self(stored))
    }

    /// The same, once it is deleted and its finalizer holds it.
    async fn deleted(self, admin: &Client) -> Result<Self> {
        let target = self.target();
        let secrets: Api<Secret> = Api::namespaced(admin.clone(), &target.namespace);
        secrets
            .delete(&target.name, &DeleteParams::default())
            .await?;
        let stored = secrets.get(&target.name).await?;
        stored
            .metadata
            .deletion_timestamp
            .as_ref()
            .context("a deletion timestamp")?;
        Ok(Self(stored))
    }

    pub fn name(&self) -> &str {
        self.0.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn target(&self) -> Target {
        let metadata = self.0.metadata.clone();
        Target {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
        }
    }

    /// Fails if anything of it has changed, its resource version included.
    pub async fn is_unchanged(&self, admin: &Client) -> Result<()> {
        let target = self.target();
        let secrets: Api<Secret> = Api::namespaced(admin.clone(), &target.namespace);
        let now = serde_json::to_value(secrets.get(&target.name).await?)?;
        ensure!(
            now == serde_json::to_value(&self.0)?,
            "{} has changed",
            target.name
        );
        Ok(())
    }
}
