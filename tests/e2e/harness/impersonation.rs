//! The right to make tokens of other `ServiceAccount`s, and the policy that limits it.

use anyhow::Result;
use controlplane::ControlPlane;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};

use super::{CONTROLLER, Scene, config, soon};

impl Scene {
    /// Lets acrcred make tokens of the `ServiceAccount`s of the test's namespace, as its operator would.
    pub async fn allow_impersonation(&self) -> Result<()> {
        allow_impersonation_in(self.control_plane, &self.namespace).await
    }
}

/// Binds the role in one namespace, and waits until the API server knows.
pub async fn allow_impersonation_in(control_plane: &ControlPlane, namespace: &str) -> Result<()> {
    let binding = config("impersonation/namespace");
    control_plane.apply_in(namespace, binding).await?;
    let (controller, name) = CONTROLLER;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{controller}:{name}")),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                resource: Some("serviceaccounts".into()),
                subresource: Some("token".into()),
                verb: Some("create".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    // Asked by the admin: acrcred's own calls are counted.
    let reviews: Api<SubjectAccessReview> = Api::all(control_plane.admin());
    soon("acrcred may make tokens", async || {
        let answer = reviews.create(&PostParams::default(), &review).await;
        match answer.map(|review| review.status.is_some_and(|status| status.allowed)) {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The API server takes a moment to enforce a new admission policy.
pub(super) async fn policy_is_in_force(control_plane: &ControlPlane) -> Result<()> {
    let namespace = control_plane.create_namespace("impersonation").await?;
    allow_impersonation_in(control_plane, &namespace).await?;
    let (controller, name) = CONTROLLER;
    let client = control_plane
        .service_account_client(controller, name)
        .await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &namespace);
    soon("the policy on tokens is in force", async || {
        let request = token_request(&["https://kubernetes.default.svc"], Some(600));
        match accounts
            .create_token_request("default", &PostParams::default(), &request)
            .await
        {
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(()),
            other => Err(format!("{:?}", other.map(|_| "a token"))),
        }
    })
    .await
}

/// A request for a token.
pub fn token_request(audiences: &[&str], expiration_seconds: Option<i64>) -> TokenRequest {
    TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(|&a| a.to_owned()).collect(),
            expiration_seconds,
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    }
}
