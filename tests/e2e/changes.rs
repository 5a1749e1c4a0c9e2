//! What really changed in a namespace, as the API server's own versions show: a write of what is there changes nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;

use crate::harness::Scene;

/// How often each object of a namespace changed, by name.
type Counts = BTreeMap<String, usize>;

/// Changes since a moment.
pub struct Changes {
    secrets: Api<Secret>,
    objects: Api<AcrCredential>,
    since: String,
}

impl Changes {
    /// Those from now on.
    pub async fn from_now(scene: &Scene) -> Result<Self> {
        let objects = scene.objects();
        let (secrets, objects) = (objects.secrets, objects.credentials);
        let list = objects.list(&ListParams::default()).await?;
        let since = list.metadata.resource_version.context("a version")?;
        Ok(Self {
            secrets,
            objects,
            since,
        })
    }

    /// How often each Secret was created or changed.
    pub async fn of_secrets(&self) -> Result<Counts> {
        self.count(&self.secrets, true).await
    }

    /// How often each `AcrCredential` was changed.
    pub async fn of_objects(&self) -> Result<Counts> {
        self.count(&self.objects, false).await
    }

    /// The API server ends the watch after a second, and has sent every change by then.
    async fn count<K>(&self, api: &Api<K>, with_created: bool) -> Result<Counts>
    where
        K: Resource + Clone + Debug + DeserializeOwned + 'static,
    {
        let params = WatchParams::default().timeout(1).disable_bookmarks();
        let mut events = std::pin::pin!(api.watch(&params, &self.since).await?);
        let mut counts = Counts::new();
        while let Some(event) = events.next().await {
            let event = event?;
            ensure!(!matches!(event, WatchEvent::Error(_)), "{event:?}");
            let changed = match event {
                WatchEvent::Modified(object) => Some(object),
                WatchEvent::Added(object) if with_created => Some(object),
                _ => None,
            };
            if let Some(name) = changed.and_then(|object| object.meta().name.clone()) {
                *counts.entry(name).or_default() += 1;
            }
        }
        Ok(counts)
    }
}
