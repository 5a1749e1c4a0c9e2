//! The ServiceAccounts that objects name: read, and their tokens requested.

use async_trait::async_trait;
use jiff::SignedDuration;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::core::Status;

use super::Controller;
use super::api_call::{ApiError, ApiFailure};
use super::queue::ObjectKey;
use crate::azure::AssertionSource;
use crate::credential::{Cause, Federation, Hop, MintError, Subject, Token};
use crate::plan::{Observed, ServiceAccountFacts, ServiceAccountState};

/// The shortest life that the API server grants, in seconds: an assertion is used at once.
const ASSERTION_LIFE: i64 = 600;
/// A `ServiceAccount` that is gone, or trusted no more, ends what its tokens can get this soon.
const MAX_CACHE_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// Assertions of a `ServiceAccount`, from the `TokenRequest` API, each for one audience.
pub(super) struct TokenRequests<'a> {
    pub controller: &'a Controller,
    pub namespace: &'a str,
    pub service_account: &'a str,
    /// Whom the assertion must speak for, and to whom.
    pub subject: &'a Subject,
}

// === impl Controller ===

impl Controller {
    /// Reads the `ServiceAccount` that the object names, if it names one.
    pub(super) async fn read_service_account(
        &self,
        observed: &mut Observed<'_>,
        key: &ObjectKey,
    ) -> Result<(), ApiError> {
        let Some(named) = &observed.object.spec.identity else {
            observed.service_account = ServiceAccountState::Unread;
            return Ok(());
        };
        let name = &named.service_account_name;
        if !is_name(name) {
            observed.service_account = ServiceAccountState::Missing;
            return Ok(());
        }
        let step = "reading the ServiceAccount";
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
        observed.service_account = match self.limit.call(step, accounts.get_metadata(name)).await? {
            Ok(account) => {
                let facts = ServiceAccountFacts::of(&account.metadata);
                ServiceAccountState::Found(Box::new(facts))
            }
            Err(status) if status.is_not_found() => ServiceAccountState::Missing,
            Err(status) if status.is_forbidden() => ServiceAccountState::Forbidden,
            Err(status) => {
                let cause = ApiFailure::from(&*status);
                return Err(ApiError::Failed { step, cause });
            }
        };
        Ok(())
    }
}

/// The schema says the same; a name that is a path must not get as far as a URL even so.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
}

// === impl TokenRequests ===

#[async_trait]
impl AssertionSource for TokenRequests<'_> {
    async fn assertion(&self) -> Result<Token, MintError> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![self.subject.audience.clone()],
                expiration_seconds: Some(ASSERTION_LIFE),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> =
            Api::namespaced(self.controller.client.clone(), self.namespace);
        let params = PostParams::default();
        let call = accounts.create_token_request(self.service_account, &params, &request);
        let answer = self
            .controller
            .limit
            .call("requesting a token of the ServiceAccount", call)
            .await
            .map_err(|error| {
                tracing::warn!(%error, "no assertion");
                failed(Cause::Unavailable)
            })?
            .map_err(|status| refused(&status))?;
        let token = answer.status.map(|status| Token::new(status.token));
        let token = token.ok_or_else(|| failed(Cause::Malformed))?;
        let federation =
            Federation::of_assertion(&token).ok_or_else(|| failed(Cause::Malformed))?;
        // Entra knows a ServiceAccount by its name only. One that was re-created since it was read must not
        // be served, nor share, what its predecessor was given.
        if federation.subject != *self.subject {
            return Err(failed(Cause::ServiceAccountChanged));
        }
        self.controller.learn_issuer(federation.issuer);
        Ok(token)
    }

    fn max_cache_life(&self) -> Option<SignedDuration> {
        Some(MAX_CACHE_LIFE)
    }
}

fn refused(status: &Status) -> MintError {
    let cause = match status.code {
        403 => Cause::ImpersonationForbidden,
        404 => Cause::NoServiceAccount,
        409 => Cause::ServiceAccountChanged,
        _ => Cause::Malformed,
    };
    MintError {
        status: Some(status.code),
        ..failed(cause)
    }
}

fn failed(cause: Cause) -> MintError {
    MintError::new(Hop::Assertion, cause)
}
