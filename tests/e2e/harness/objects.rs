//! The test's objects, through the admin's eyes.

use std::time::Duration;

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{TestRegistry, soon};

/// `AcrCredential`s and Secrets of one namespace.
pub struct Objects {
    pub credentials: Api<AcrCredential>,
    pub secrets: Api<Secret>,
}

/// An `AcrCredential` for registries, with the controller's identity.
pub fn manifest(name: &str, registries: &[&TestRegistry]) -> AcrCredential {
    let registries: Vec<Value> = registries
        .iter()
        .map(|r| json!({"server": r.server}))
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "acrcred.dev/v1alpha1",
        "kind": "AcrCredential",
        "metadata": {"name": name},
        "spec": {"registries": registries},
    }))
    .expect("a valid object")
}

/// The same for one registry and just these of its repositories.
pub fn limited(name: &str, registry: &TestRegistry, repositories: &[&str]) -> AcrCredential {
    let mut object = manifest(name, &[registry]);
    let names = repositories.iter().map(ToString::to_string);
    object.spec.registries[0].repositories = Some(names.collect());
    object
}

/// The condition of a type, if the object has it.
pub fn condition<'a>(object: &'a AcrCredential, kind: &str) -> Option<&'a Condition> {
    let status = object.status.as_ref()?;
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}

impl Objects {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            credentials: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client, namespace),
        }
    }

    pub async fn create(&self, object: &AcrCredential) -> Result<AcrCredential> {
        Ok(self
            .credentials
            .create(&PostParams::default(), object)
            .await?)
    }

    /// Creates an object and waits until it is ready.
    pub async fn create_ready(&self, object: &AcrCredential) -> Result<AcrCredential> {
        let name = self.create(object).await?.metadata.name.context("a name")?;
        self.ready(&name).await
    }

    /// Merges a change into an object.
    pub async fn change(&self, name: &str, change: Value) -> Result<AcrCredential> {
        let patch = Patch::Merge(change);
        Ok(self
            .credentials
            .patch(name, &PatchParams::default(), &patch)
            .await?)
    }

    pub async fn delete(&self, name: &str) -> Result<()> {
        self.credentials
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Waits until an object of the present generation is ready.
    pub async fn ready(&self, name: &str) -> Result<AcrCredential> {
        self.has(name, "Ready", "True", "Issued").await
    }

    /// Waits for a condition of the present generation, with status and reason.
    pub async fn has(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Result<AcrCredential> {
        let what = format!("{name} has {kind}={status} ({reason})");
        soon(&what, async || {
            let object = self
                .credentials
                .get(name)
                .await
                .map_err(|error| error.to_string())?;
            let found = condition(&object, kind).is_some_and(|condition| {
                condition.status == status
                    && condition.reason == reason
                    && condition.observed_generation == object.metadata.generation
            });
            if found {
                Ok(object)
            } else {
                Err(format!("{:?}", object.status))
            }
        })
        .await
    }

    /// Waits for an object's status to satisfy a predicate.
    pub async fn status(
        &self,
        name: &str,
        what: &str,
        predicate: impl Fn(&AcrCredential) -> bool,
    ) -> Result<AcrCredential> {
        soon(what, async || {
            let object = self
                .credentials
                .get(name)
                .await
                .map_err(|error| error.to_string())?;
            if predicate(&object) {
                Ok(object)
            } else {
                Err(format!("{:?}", object.status))
            }
        })
        .await
    }

    /// Waits until the garbage collector has taken a Secret. It looks for new kinds every 30 s only.
    pub async fn collected(&self, secret: &str) -> Result<()> {
        let limit = Duration::from_mins(1);
        controlplane::eventually(limit, "the Secret is collected", async || {
            match self.secrets.get_opt(secret).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("still there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    pub async fn secret(&self, name: &str) -> Result<Secret> {
        Ok(self.secrets.get(name).await?)
    }

    /// The Secret's payload, as a Docker configuration.
    pub async fn docker_config(&self, name: &str) -> Result<Vec<u8>> {
        docker_config(&self.secret(name).await?)
    }

    /// The token that the Secret holds for a registry, if any.
    pub async fn token(&self, name: &str, registry: &TestRegistry) -> Result<Option<String>> {
        let config: Value = serde_json::from_slice(&self.docker_config(name).await?)?;
        let entry = &config["auths"][&registry.server]["password"];
        Ok(entry.as_str().map(str::to_owned))
    }

    /// Waits until the Secret holds another token for a registry than `old`.
    pub async fn another_token(
        &self,
        name: &str,
        registry: &TestRegistry,
        old: &str,
    ) -> Result<String> {
        soon("the Secret holds a new token", async || {
            match self.token(name, registry).await {
                Ok(Some(token)) if token != old => Ok(token),
                Ok(_) => Err("the old one, or none".into()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }
}

fn docker_config(secret: &Secret) -> Result<Vec<u8>> {
    let data = secret
        .data
        .as_ref()
        .and_then(|data| data.get(".dockerconfigjson"));
    Ok(data.context("a Docker configuration")?.0.clone())
}
