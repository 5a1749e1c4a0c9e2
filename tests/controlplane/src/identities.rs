//! `ServiceAccount`s and what can be done in their name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};

use crate::{
    ControlPlane,
    kubeconfig::{Kubeconfig, Token, write_private},
};

/// Longer than any test or demo.
const CLIENT_TOKEN_SECONDS: i64 = 24 * 60 * 60;
const TOKEN_FILE: &str = "token";

impl ControlPlane {
    /// Creates a `ServiceAccount` with annotations.
    pub async fn create_service_account(
        &self,
        namespace: &str,
        name: &str,
        annotations: &[(&str, &str)],
    ) -> Result<ServiceAccount> {
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(name.to_owned());
        account.metadata.annotations = Some(
            annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        );
        let accounts = Api::namespaced(self.admin(), namespace);
        accounts
            .create(&PostParams::default(), &account)
            .await
            .with_context(|| format!("cannot create ServiceAccount {namespace}/{name}"))
    }

    /// A token of a `ServiceAccount` by `TokenRequest`; without audiences, one for the API server itself. The server refuses less than
    /// 600 s.
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
        expiration_seconds: i64,
    ) -> Result<String> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audiences
                    .iter()
                    .map(|&audience| audience.to_owned())
                    .collect(),
                expiration_seconds: Some(expiration_seconds),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| {
                format!("cannot create a token of ServiceAccount {namespace}/{name}")
            })?;
        Ok(answer
            .status
            .context("a TokenRequest without status")?
            .token)
    }

    /// Writes `DIR/kubeconfig` of a `ServiceAccount`, whose token stands in `DIR/token` as it does in a pod, and returns its path.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        dir: &Path,
    ) -> Result<PathBuf> {
        self.service_account_kubeconfig_at(self.url(), namespace, name, dir)
            .await
    }

    /// The same, for clients that find the API server at `server`, such as behind a
    /// [`FaultProxy`](crate::fault_proxy::FaultProxy).
    pub async fn service_account_kubeconfig_at(
        &self,
        server: &str,
        namespace: &str,
        name: &str,
        dir: &Path,
    ) -> Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        self.renew_service_account_token(namespace, name, &dir)
            .await?;
        let path = dir.join("kubeconfig");
        let user = &format!("system:serviceaccount:{namespace}:{name}");
        let token = Token::File(&dir.join(TOKEN_FILE));
        Kubeconfig {
            server,
            ca_file: self.ca_file(),
            user,
            token,
        }
        .write(&path)?;
        Ok(path)
    }

    /// Replaces the token of a kubeconfig that [`ControlPlane::service_account_kubeconfig`] wrote to `dir`, as the kubelet does in a pod.
    pub async fn renew_service_account_token(
        &self,
        namespace: &str,
        name: &str,
        dir: &Path,
    ) -> Result<()> {
        let token = self
            .service_account_token(namespace, name, &[], CLIENT_TOKEN_SECONDS)
            .await?;
        write_private(&dir.join(TOKEN_FILE), &token)
    }

    /// A client with the rights of a `ServiceAccount`, and no others.
    pub async fn service_account_client(&self, namespace: &str, name: &str) -> Result<Client> {
        let token = self
            .service_account_token(namespace, name, &[], CLIENT_TOKEN_SECONDS)
            .await?;
        let mut config = self.anonymous();
        config.auth_info.token = Some(token.into());
        Ok(self.client(config))
    }
}
