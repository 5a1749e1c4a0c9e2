//! The cluster, through the eyes of whoever runs the test.

use std::path::Path;
use std::time::{Duration, Instant};

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use serde_json::json;
use tokio::time::sleep;

use crate::program::Program;

/// Namespace and name of acrcred's `ServiceAccount` in `config/rbac`.
const ACCOUNT: (&str, &str) = ("acrcred-system", "acrcred");
/// Of the `AcrCredential` and of its Secret.
const NAME: &str = "acr";
/// For new roles and federated credentials, which take minutes to spread.
const READY_WITHIN: Duration = Duration::from_mins(15);
const COLLECTED_WITHIN: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(500);
const WATCH_TIMEOUT: Duration = Duration::from_secs(200);

/// A cluster with acrcred's definitions, roles and policy in it.
pub struct Cluster {
    client: Client,
}

/// A namespace for this test alone.
pub struct Home {
    pub namespace: String,
    namespaces: Api<Namespace>,
    credentials: Api<AcrCredential>,
    secrets: Api<Secret>,
}

/// What is told of a credential that works.
pub struct Issued {
    pub expires_at: String,
}

impl Cluster {
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let client = acrcred::controller::connect(Some(kubeconfig), WATCH_TIMEOUT).await?;
        let credentials: Api<AcrCredential> = Api::all(client.clone());
        credentials
            .list(&ListParams::default().limit(1))
            .await
            .context(
                "cannot list AcrCredentials; apply config/crd, config/rbac and config/policy",
            )?;
        Ok(Self { client })
    }

    /// A token of acrcred's `ServiceAccount`; without an audience, one for the API server.
    pub async fn token(&self, audience: Option<&str>) -> Result<String> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.into_iter().map(str::to_owned).collect(),
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let (namespace, name) = ACCOUNT;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token of ServiceAccount {namespace}/{name}"))?;
        Ok(answer
            .status
            .context("a TokenRequest without status")?
            .token)
    }

    pub async fn create_home(&self) -> Result<Home> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let new = Namespace {
            metadata: ObjectMeta {
                generate_name: Some("acrcred-test-".into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let created = namespaces
            .create(&PostParams::default(), &new)
            .await
            .context("cannot create a namespace")?;
        let namespace = created
            .metadata
            .name
            .context("a namespace without a name")?;
        Ok(Home {
            credentials: Api::namespaced(self.client.clone(), &namespace),
            secrets: Api::namespaced(self.client.clone(), &namespace),
            namespaces,
            namespace,
        })
    }
}

impl Home {
    pub async fn create_credential(&self, server: &str) -> Result<()> {
        let object: AcrCredential = serde_json::from_value(json!({
            "apiVersion": "acrcred.dev/v1alpha1",
            "kind": "AcrCredential",
            "metadata": {"name": NAME},
            "spec": {"registries": [{"server": server}]},
        }))?;
        let params = PostParams::default();
        self.credentials.create(&params, &object).await?;
        Ok(())
    }

    /// Waits while trouble may pass, and no longer.
    pub async fn until_ready(&self, acrcred: &mut Program) -> Result<Issued> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut told = String::new();
        loop {
            acrcred.check()?;
            let status = self.credentials.get(NAME).await?.status.unwrap_or_default();
            let is = |kind: &str| {
                let mut conditions = status.conditions.iter();
                conditions.find(|c| c.type_ == kind && c.status == "True")
            };
            if is("Ready").is_some() {
                let expires_at = status.expires_at.context("Ready without an expiry")?;
                return Ok(Issued {
                    expires_at: expires_at.0.to_string(),
                });
            }
            let presented = serde_json::to_string(&status.identity)?;
            if let Some(stalled) = is("Stalled") {
                bail!(
                    "{}: {} (presented: {presented})",
                    stalled.reason,
                    stalled.message
                );
            }
            let trouble = is("Reconciling").map_or("", |c| c.message.as_str());
            if trouble != told {
                println!("waiting: {trouble}");
                trouble.clone_into(&mut told);
            }
            ensure!(
                Instant::now() < deadline,
                "not ready after {READY_WITHIN:?}: {told} (presented: {presented})"
            );
            sleep(PAUSE).await;
        }
    }

    /// What a kubelet would read out of the Secret.
    pub async fn docker_config(&self) -> Result<Vec<u8>> {
        let secret = self.secrets.get(NAME).await?;
        let data = secret.data.unwrap_or_default();
        let config = data.get(".dockerconfigjson");
        Ok(config
            .context("the Secret has no .dockerconfigjson")?
            .0
            .clone())
    }

    /// Waits until the garbage collector has taken the Secret.
    pub async fn delete_credential(&self) -> Result<()> {
        let params = DeleteParams::default();
        self.credentials.delete(NAME, &params).await?;
        let deadline = Instant::now() + COLLECTED_WITHIN;
        while self.secrets.get_opt(NAME).await?.is_some() {
            ensure!(
                Instant::now() < deadline,
                "the Secret is still there after {COLLECTED_WITHIN:?}"
            );
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// And everything in it.
    pub async fn delete(self) -> Result<()> {
        self.namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .with_context(|| {
                format!("cannot delete namespace {}; do it by hand", self.namespace)
            })?;
        Ok(())
    }
}
