//! What each Secret of a namespace has held, one version after the other.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde_json::Value;

use crate::harness::Scene;

/// The Secrets since a moment.
pub struct History {
    secrets: Api<Secret>,
    since: String,
}

/// A Secret as it was at some time: the token of each server.
pub struct Version {
    pub name: String,
    pub tokens: BTreeMap<String, String>,
    pub has_owner: bool,
}

impl History {
    /// From now on.
    pub async fn from_now(scene: &Scene) -> Result<Self> {
        let secrets = scene.objects().secrets;
        let list = secrets.list(&ListParams::default()).await?;
        let since = list.metadata.resource_version.context("a version")?;
        Ok(Self { secrets, since })
    }

    /// Every version so far. The API server ends the watch after a second, and has sent every change by then.
    pub async fn versions(&self) -> Result<Vec<Version>> {
        let params = WatchParams::default().timeout(1).disable_bookmarks();
        let mut events = std::pin::pin!(self.secrets.watch(&params, &self.since).await?);
        let mut versions = Vec::new();
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                    versions.push(version(secret)?);
                }
                WatchEvent::Error(error) => anyhow::bail!("{error:?}"),
                _ => {}
            }
        }
        Ok(versions)
    }

    /// The servers that the Secret has held at any time.
    pub async fn servers(&self, name: &str) -> Result<Vec<String>> {
        let versions = self.versions().await?;
        let of_name = versions.into_iter().filter(|version| version.name == name);
        let mut servers: Vec<String> = of_name
            .flat_map(|version| version.tokens.into_keys())
            .collect();
        servers.sort();
        servers.dedup();
        Ok(servers)
    }
}

/// Without the tokens.
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<&String> = self.tokens.keys().collect();
        write!(f, "{} with {servers:?}", self.name)
    }
}

fn version(secret: Secret) -> Result<Version> {
    let data = secret.data.unwrap_or_default();
    let config = data.get(".dockerconfigjson").context("a payload")?;
    let config: Value = serde_json::from_slice(&config.0)?;
    let entries = config["auths"].as_object().context("entries")?.clone();
    let token = |entry: Value| entry["password"].as_str().unwrap_or_default().to_owned();
    Ok(Version {
        name: secret.metadata.name.context("a name")?,
        tokens: entries
            .into_iter()
            .map(|(server, entry)| (server, token(entry)))
            .collect(),
        has_owner: secret
            .metadata
            .owner_references
            .is_some_and(|owners| !owners.is_empty()),
    })
}
