//! Mints as tasks: each ends in a fact, also one that panics or is cancelled.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Controller;
use super::queue::ObjectKey;
use crate::api::AcrCredential;
use crate::azure::AssertionSource;
use crate::credential::{
    AssertionClaims, Cause, Credential, Hop, MintError, MintRequest, Subject, Token,
};
use crate::process::ReconcileResult;

/// Limits how long tokens of a `ServiceAccount` are reused after it is gone or no longer trusted.
const MAX_CACHE_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// Tokens of a `ServiceAccount`, from the `TokenRequest` API, each for one audience.
struct TokenRequests<'a> {
    controller: &'a Controller,
    namespace: &'a str,
    service_account: &'a str,
    /// Whom the token must speak for, and to whom.
    subject: &'a Subject,
}

// === impl Controller ===

impl Controller {
    /// Starts a mint, after which the object is reconciled; it ends early when `over` is cancelled.
    pub(super) fn start_mint(
        self: &Arc<Self>,
        key: &ObjectKey,
        object: &Arc<AcrCredential>,
        request: MintRequest,
        over: &CancellationToken,
    ) {
        let (controller, key) = (self.clone(), key.clone());
        let (object, over) = (object.clone(), over.clone());
        let span = tracing::info_span!("mint", namespace = key.namespace, name = key.name);
        let started = Instant::now();
        let task = async move {
            let mint = controller.mint(&key.namespace, &object, &request);
            let mint = Box::pin(AssertUnwindSafe(mint).catch_unwind());
            let ended = over.run_until_cancelled(mint).await;
            let result = ended.map(|ended| {
                ended.unwrap_or_else(|_| {
                    tracing::error!("a mint panicked; it is retried like any other failure");
                    let took = started.elapsed();
                    controller.metrics.reconciled(ReconcileResult::Panic, took);
                    Err(MintError::new(Hop::Assertion, Cause::Unavailable))
                })
            });
            if let Some(result) = &result {
                controller.metrics.refreshed(match result {
                    Ok(_) => "success",
                    Err(error) => error.cause.into(),
                });
            }
            let (uid, now) = (object.metadata.uid.as_deref(), controller.clock.now());
            controller
                .objects
                .with(&key, uid.unwrap_or_default(), |facts| {
                    facts.minted(&request, result, now);
                });
            controller.reconcile(key, over).await;
        };
        self.tasks.spawn(task.instrument(span));
    }

    async fn mint(
        &self,
        namespace: &str,
        object: &AcrCredential,
        request: &MintRequest,
    ) -> Result<Credential, MintError> {
        let minter = &self.options.minter;
        match (&object.spec.identity, &self.options.assertion) {
            (Some(named), _) => {
                let tokens = TokenRequests {
                    controller: self,
                    namespace,
                    service_account: &named.service_account_name,
                    subject: &request.identity.subject,
                };
                minter.mint(request, &tokens).await
            }
            (None, Some(own)) => minter.mint(request, own.as_ref()).await,
            (None, None) => Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
        }
    }
}

// === impl TokenRequests ===

#[async_trait]
impl AssertionSource for TokenRequests<'_> {
    async fn assertion(&self) -> Result<Token, MintError> {
        let audience = &self.subject.audience;
        let cluster = &self.controller.cluster;
        let request = cluster.request_token(self.namespace, self.service_account, audience);
        let token = request.await?;
        let issuer = issuer_of(&token, self.subject)
            .map_err(|cause| MintError::new(Hop::Assertion, cause))?;
        if self.controller.known_cluster().issuer.as_ref() != Some(&issuer) {
            self.controller.learn(|facts| facts.issuer = Some(issuer));
        }
        Ok(token)
    }

    fn max_cache_life(&self) -> Option<SignedDuration> {
        Some(MAX_CACHE_LIFE)
    }
}

/// The issuer of a token that speaks for `subject` and no other. Entra knows a `ServiceAccount` by its name only: one
/// that was re-created since it was read must neither get nor share what its predecessor did.
fn issuer_of(token: &Token, subject: &Subject) -> Result<String, Cause> {
    let claims = AssertionClaims::of(token).ok_or(Cause::Malformed)?;
    if claims.subject == *subject {
        Ok(claims.issuer)
    } else {
        Err(Cause::ServiceAccountChanged)
    }
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
}
