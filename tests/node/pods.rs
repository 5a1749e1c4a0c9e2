//! Pods of tests, and what the kubelet says of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::images::Image;

/// The kubelet waits 10 s after a failed pull, then 20 s, then 40 s.
const STARTS_WITHIN: Duration = Duration::from_secs(90);

/// Pods of one namespace on one node.
pub struct Pods {
    api: Api<Pod>,
    node: String,
}

impl Pods {
    pub fn new(client: Client, namespace: &str, node: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            node: node.to_owned(),
        }
    }

    /// Creates a pod that pulls each time it starts.
    pub async fn create(&self, name: &str, image: &Image, secret: Option<&str>) -> Result<()> {
        self.create_with(name, &image.reference, "Always", secret)
            .await
    }

    pub async fn create_with(
        &self,
        name: &str,
        image: &str,
        policy: &str,
        secret: Option<&str>,
    ) -> Result<()> {
        let secrets: Vec<Value> = secret.iter().map(|name| json!({"name": name})).collect();
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": self.node,
                // There is neither a network plugin nor anybody who could call the node ready.
                "hostNetwork": true,
                "tolerations": [{"operator": "Exists"}],
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "imagePullSecrets": secrets,
                "containers": [{"name": "main", "image": image, "imagePullPolicy": policy}],
            },
        }))?;
        self.api.create(&PostParams::default(), &pod).await?;
        Ok(())
    }

    /// Lets the pods of the `ServiceAccount` `default` pull with a Secret.
    pub async fn name_in_service_account(&self, secret: &str) -> Result<()> {
        let namespace = self.api.namespace().context("a namespace")?;
        let client = self.api.clone().into_client();
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let patch = Patch::Merge(json!({"imagePullSecrets": [{"name": secret}]}));
        accounts
            .patch("default", &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Waits until it runs; returns the image that runs, by digest.
    pub async fn runs(&self, name: &str) -> Result<String> {
        self.eventually(name, "the pod runs", |status| {
            let state = status.state.as_ref()?;
            state.running.as_ref()?;
            Some(status.image_id.clone())
        })
        .await
    }

    /// Waits until its image cannot be pulled; returns what the kubelet was told.
    pub async fn is_refused(&self, name: &str) -> Result<String> {
        self.eventually(name, "the image is refused", |status| {
            let waiting = status.state.as_ref()?.waiting.as_ref()?;
            let refused = waiting.reason.as_deref() == Some("ErrImagePull");
            waiting.message.clone().filter(|_| refused)
        })
        .await
    }

    async fn eventually<T>(
        &self,
        name: &str,
        what: &str,
        seen: impl Fn(&ContainerStatus) -> Option<T>,
    ) -> Result<T> {
        let value = controlplane::eventually(STARTS_WITHIN, what, async || {
            let pod = self
                .api
                .get(name)
                .await
                .map_err(|error| error.to_string())?;
            let status = pod.status.and_then(|status| {
                status
                    .container_statuses
                    .unwrap_or_default()
                    .into_iter()
                    .next()
            });
            let found = status.as_ref().and_then(&seen);
            found.ok_or_else(|| format!("{:?}", status.map(|status| status.state)))
        });
        value.await.with_context(|| format!("pod {name}"))
    }
}
