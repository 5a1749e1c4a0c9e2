//! The `ServiceAccount`s that objects name: read, and their tokens requested.

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
use crate::plan::{ServiceAccountFacts, ServiceAccountState};

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
    /// Reads the `ServiceAccount` of that name in the object's namespace.
    pub(super) async fn read_service_account(
        &self,
        name: &str,
        key: &ObjectKey,
    ) -> Result<ServiceAccountState, ApiError> {
        if !is_name(name) {
            return Ok(ServiceAccountState::Missing);
        }
        let step = "reading the ServiceAccount";
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
        match self.limit.call(step, accounts.get_metadata(name)).await? {
            Ok(account) => {
                let facts = ServiceAccountFacts::of(&account.metadata);
                Ok(ServiceAccountState::Found(Box::new(facts)))
            }
            Err(status) if status.is_not_found() => Ok(ServiceAccountState::Missing),
            Err(status) if status.is_forbidden() => Ok(ServiceAccountState::Forbidden),
            Err(status) => {
                let cause = ApiFailure::from(&*status);
                Err(ApiError::Failed { step, cause })
            }
        }
    }
}

/// The schema says the same; a name that is a path must not get as far as a URL even so.
fn is_name(name: &str) -> bool {
    name.split('.').all(|label| {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(is_plain)
    })
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
                failed(Cause::ApiServer)
            })?
            .map_err(|status| refused(&status))?;
        let token = answer.status.map(|status| Token::new(status.token));
        let token = token.ok_or_else(|| failed(Cause::Malformed))?;
        let issuer = issuer_of(&token, self.subject).map_err(failed)?;
        self.controller.learn_issuer(issuer);
        Ok(token)
    }

    fn max_cache_life(&self) -> Option<SignedDuration> {
        Some(MAX_CACHE_LIFE)
    }
}

/// The issuer of an assertion that speaks for `subject` and no other. Entra knows a `ServiceAccount` by its name
/// only: one that was re-created since it was read must neither get nor share what its predecessor did.
fn issuer_of(assertion: &Token, subject: &Subject) -> Result<String, Cause> {
    let federation = Federation::of_assertion(assertion).ok_or(Cause::Malformed)?;
    if federation.subject == *subject {
        Ok(federation.issuer)
    } else {
        Err(Cause::ServiceAccountChanged)
    }
}

fn refused(status: &Status) -> MintError {
    let cause = match status.code {
        403 => Cause::ImpersonationForbidden,
        404 => Cause::NoServiceAccount,
        409 => Cause::ServiceAccountChanged,
        _ => Cause::ApiServer,
    };
    MintError {
        status: Some(status.code),
        ..failed(cause)
    }
}

fn failed(cause: Cause) -> MintError {
    MintError::new(Hop::Assertion, cause)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    fn assertion(subject: &str, uid: &str, audience: &Value) -> Token {
        let claims = json!({
            "iss": "https://issuer.example/", "sub": subject, "aud": audience,
            "kubernetes.io": {"serviceaccount": {"uid": uid}},
        });
        Token::new(format!(
            "e30.{}.c2ln",
            URL_SAFE_NO_PAD.encode(claims.to_string())
        ))
    }

    #[test]
    fn an_assertion_counts_only_for_the_service_account_that_was_read() {
        let (name, uid, audience) = ("system:serviceaccount:a:b", "u", "api://x");
        let subject = Subject {
            name: name.into(),
            service_account_uid: uid.into(),
            audience: audience.into(),
        };
        let judge = |token: Token| issuer_of(&token, &subject);
        let right = judge(assertion(name, uid, &json!([audience])));
        assert_eq!(right, Ok("https://issuer.example/".into()));
        let other = Err(Cause::ServiceAccountChanged);
        assert_eq!(judge(assertion(name, "v", &json!([audience]))), other);
        assert_eq!(
            judge(assertion(
                "system:serviceaccount:a:c",
                uid,
                &json!([audience])
            )),
            other
        );
        assert_eq!(judge(assertion(name, uid, &json!(["api://y"]))), other);
        let malformed = Err(Cause::Malformed);
        assert_eq!(
            judge(assertion(name, uid, &json!([audience, "api://y"]))),
            malformed
        );
        assert_eq!(judge(Token::new("opaque".into())), malformed);
    }

    #[test]
    fn a_name_that_is_a_path_is_not_looked_up() {
        assert!(is_name("build-robot.v2"));
        for name in [
            "",
            ".",
            "..",
            "a..b",
            "../secrets/x",
            "a/token",
            "a?b",
            "A",
            "a%2fb",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
