//! The Kubernetes control plane, and kubectl.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use controlplane::{ControlPlane, Options, eventually};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

use crate::checkout;
use crate::folder::Folder;
use crate::secret::PullSecret;
use crate::shell::Line;
use crate::stop::in_one_piece;
use crate::story::Story;

/// How long a reconcile may take that takes a moment.
pub const SOON: Duration = Duration::from_secs(20);
/// The admission policy of `config/impersonation`.
pub const TOKEN_POLICY: &str = "acrcred-impersonation";

/// A running control plane; ends when dropped.
pub struct Cluster {
    pub control_plane: ControlPlane,
    kubectl_cache: String,
}

impl Cluster {
    pub async fn start(folder: &Folder) -> Result<Self> {
        Self::start_with(folder, Options::default()).await
    }

    /// With other parts than the usual.
    pub async fn start_with(folder: &Folder, options: Options) -> Result<Self> {
        let options = Options {
            dir: Some(folder.folder("cluster")?),
            ..options
        };
        Ok(Self {
            control_plane: in_one_piece(ControlPlane::start(options)).await?,
            kubectl_cache: folder.folder("kubectl-cache")?.display().to_string(),
        })
    }

    /// `kubectl …`, typed in the checkout.
    pub fn kubectl(&self, arguments: &[&str]) -> Line {
        let mut command = self.control_plane.kubectl();
        command.env("KUBECACHEDIR", &self.kubectl_cache);
        Line::new("kubectl", command, arguments).at(checkout::root())
    }

    /// Runs `kubectl …`, whose arguments hold no blanks; it has to succeed.
    pub async fn run(&self, story: &Story, arguments: &str) -> Result<String> {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        self.kubectl(&arguments).run(story).await
    }

    /// What a namespace's Secret of that name holds, if there is one.
    pub async fn pull_secret(&self, namespace: &str, name: &str) -> Result<Option<PullSecret>> {
        let secrets: Api<Secret> = Api::namespaced(self.control_plane.admin(), namespace);
        secrets
            .get_opt(name)
            .await?
            .as_ref()
            .map(PullSecret::read)
            .transpose()
    }

    /// The Secret that must be there.
    pub async fn the_pull_secret(&self, namespace: &str, name: &str) -> Result<PullSecret> {
        let secret = self.pull_secret(namespace, name).await?;
        secret.with_context(|| format!("there is no Secret {namespace}/{name}"))
    }

    /// The status of an `AcrCredential`, as JSON.
    pub async fn status(&self, namespace: &str, name: &str) -> Result<serde_json::Value> {
        let object = self.credentials(namespace).get(name).await?;
        Ok(object.data.get("status").cloned().unwrap_or_default())
    }

    /// Names of the Secrets in a namespace.
    pub async fn secrets(&self, namespace: &str) -> Result<Vec<String>> {
        let secrets: Api<Secret> = Api::namespaced(self.control_plane.admin(), namespace);
        let list = secrets.list(&ListParams::default()).await?;
        Ok(list
            .into_iter()
            .filter_map(|secret| secret.metadata.name)
            .collect())
    }

    /// Waits until the admission policy keeps a `ServiceAccount` from Secrets that are not acrcred's: the
    /// API server takes a moment to enforce a new one.
    pub async fn fenced(&self, (account, name): (&str, &str), namespace: &str) -> Result<()> {
        let client = self
            .control_plane
            .service_account_client(account, name)
            .await?;
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let mut unmarked = Secret::default();
        unmarked.metadata.name = Some("unmarked".into());
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        eventually(
            SOON,
            "the admission policy is in force",
            async || match secrets.create(&dry_run, &unmarked).await {
                Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(()),
                Err(error) => Err(error.to_string()),
                Ok(_) => Err("a Secret that is not acrcred's could be created".to_owned()),
            },
        )
        .await
    }

    /// Waits until the admission policy keeps a `ServiceAccount` from tokens of others for the API server.
    pub async fn tokens_fenced(
        &self,
        (account, name): (&str, &str),
        namespace: &str,
    ) -> Result<()> {
        let plane = &self.control_plane;
        let client = plane.service_account_client(account, name).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let (create, unlimited) = (PostParams::default(), TokenRequest::default());
        eventually(SOON, "the policy on tokens is in force", async || {
            let token = accounts
                .create_token_request("default", &create, &unlimited)
                .await;
            match token {
                Err(kube::Error::Api(status)) if status.message.contains(TOKEN_POLICY) => Ok(()),
                Err(error) => Err(error.to_string()),
                Ok(_) => Err("a token for the API server could be made".to_owned()),
            }
        })
        .await
    }

    fn credentials(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("acrcred.dev", "v1alpha1", "AcrCredential");
        let resource = ApiResource::from_gvk_with_plural(&kind, "acrcredentials");
        Api::namespaced_with(self.control_plane.admin(), namespace, &resource)
    }

    pub fn kubeconfig(&self) -> &Path {
        self.control_plane.kubeconfig()
    }
}
