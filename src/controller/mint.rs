//! Mints as tasks: each ends in a fact, whatever happens to it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Controller;
use super::cluster::Cluster;
use super::queue::ObjectKey;
use crate::api::AcrCredential;
use crate::azure::AssertionSource;
use crate::credential::{
    AssertionClaims, Cause, Credential, Hop, MintError, MintRequest, Subject, Token,
};
use crate::process::ReconcileResult;

/// A `ServiceAccount` that is gone, or trusted no more, ends what its tokens can get this soon.
const MAX_CACHE_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// Tokens of a `ServiceAccount`, from the `TokenRequest` API, each for one audience.
struct TokenRequests<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    service_account: &'a str,
    /// Whom the token must speak for, and to whom.
    subject: &'a Subject,
    /// The issuer of the last token.
    issuer: Mutex<Option<String>>,
}

/// A mint under way. Dropped without a result, it counts as cancelled.
struct UnderWay {
    controller: Arc<Controller>,
    key: ObjectKey,
    uid: Option<String>,
    request: MintRequest,
    result: Option<Result<Credential, MintError>>,
}

// === impl UnderWay ===

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now = self.controller.clock.now();
        let result = self.result.take();
        let objects = &self.controller.objects;
        objects.with(&self.key, self.uid.as_ref(), |facts| {
            facts.minted(&self.request, result, now);
        });
    }
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
        let mut under_way = UnderWay {
            controller: self.clone(),
            key: key.clone(),
            uid: object.metadata.uid.clone(),
            request,
            result: None,
        };
        let (object, over) = (object.clone(), over.clone());
        let span = tracing::info_span!("mint", namespace = key.namespace, name = key.name);
        let started = Instant::now();
        let task = async move {
            let controller = under_way.controller.clone();
            let mint = controller.mint(&under_way.key.namespace, &object, &under_way.request);
            let mint = Box::pin(AssertUnwindSafe(mint).catch_unwind());
            let ended = over.run_until_cancelled(mint).await;
            under_way.result = ended.map(|ended| {
                ended.unwrap_or_else(|_| {
                    tracing::error!("a mint panicked; it is retried like any other failure");
                    controller
                        .metrics
                        .reconciled(ReconcileResult::Panic, started.elapsed());
                    Err(MintError::new(Hop::Assertion, Cause::Unavailable))
                })
            });
            if let Some(result) = &under_way.result {
                controller.metrics.refreshed(match result {
                    Ok(_) => "success",
                    Err(error) => error.cause.into(),
                });
            }
            let key = under_way.key.clone();
            drop(under_way);
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
        match (&object.spec.identity, &self.assertion) {
            (Some(named), _) => {
                let tokens = TokenRequests {
                    cluster: &self.cluster,
                    namespace,
                    service_account: &named.service_account_name,
                    subject: &request.identity.subject,
                    issuer: Mutex::default(),
                };
                let result = self.minter.mint(request, &tokens).await;
                let issuer = tokens
                    .issuer
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(issuer) = issuer {
                    self.learn(|facts| facts.issuer = Some(issuer));
                }
                result
            }
            (None, Some(own)) => self.minter.mint(request, own.as_ref()).await,
            (None, None) => Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
        }
    }
}

// === impl TokenRequests ===

#[async_trait]
impl AssertionSource for TokenRequests<'_> {
    async fn assertion(&self) -> Result<Token, MintError> {
        let audience = &self.subject.audience;
        let token = self
            .cluster
            .request_token(self.namespace, self.service_account, audience)
            .await?;
        let issuer = issuer_of(&token, self.subject)
            .map_err(|cause| MintError::new(Hop::Assertion, cause))?;
        *self.issuer.lock().unwrap_or_else(PoisonError::into_inner) = Some(issuer);
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
