//! Every call to the API server but the watches and the lease: bounded in number and time, and counted. `answer` says
//! what their answers mean. No text of the API server gets further than that, since it may quote a Secret; of a refusal,
//! only the HTTP status and the name of the webhook or policy do.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::{self, ApiFailure, ApiResult};
use super::watched::WatchedCredential;
use crate::api::{AcrCredential, AcrCredentialStatus, FIELD_MANAGER, OWNER_ANNOTATION};
use crate::credential::names::is_subdomain;
use crate::credential::{Cause, Hop, MintError, Token};
use crate::plan::{SecretAnswer, SecretCall, ServiceAccountFacts};
use crate::process::Metrics;

/// Calls under way at once. kube speaks HTTP/1.1: each is a connection.
const IN_FLIGHT: usize = 32;
/// The deadline of a call, and of the wait for a slot; kube itself would wait without end.
const DEADLINE: Duration = Duration::from_secs(10);
/// The shortest life that the API server grants to a `ServiceAccount` token, in seconds: it is used at once.
const ASSERTION_LIFE: i64 = 600;
/// Limit of the events API for a note, in bytes.
const NOTE_LIMIT: usize = 1024;

/// The API server as acrcred's `ServiceAccount` sees it.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    slots: Arc<Semaphore>,
    metrics: Metrics,
}

// === impl Cluster ===

impl Cluster {
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            client,
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            metrics,
        }
    }

    /// Waits for permission to make calls; `None` if there is none within 10 s.
    pub async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = tokio::time::timeout(DEADLINE, self.slots.clone().acquire_owned()).await;
        // The semaphore is never closed.
        slot.ok()?.ok()
    }

    /// The user name that the API server knows this process by (KEP-3325).
    pub async fn own_user(&self) -> ApiResult<String> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let review = SelfSubjectReview::default();
        let call = reviews.create(&params, &review);
        let answer = self.call("create", "selfsubjectreviews", call).await?;
        let user = answer.status.and_then(|status| status.user_info);
        user.and_then(|user| user.username)
            .ok_or(ApiFailure::Unreadable)
    }

    /// Reads the metadata of a `ServiceAccount`.
    pub async fn read_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<ServiceAccountFacts, Cause> {
        // The schema says the same; a name that is a path must not get as far as a URL even so.
        if !is_subdomain(name) {
            return Err(Cause::NoServiceAccount);
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let call = accounts.get_metadata(name);
        let answer = self.call("get", "serviceaccounts", call).await;
        let account = answer.map_err(|failure| cause_of(&failure, name))?;
        Ok(ServiceAccountFacts::of(&account.metadata))
    }

    /// A token of a `ServiceAccount` for one audience, for 10 minutes.
    pub async fn request_token(
        &self,
        namespace: &str,
        name: &str,
        audience: &str,
    ) -> Result<Token, MintError> {
        let failed = |cause| MintError::new(Hop::Assertion, cause);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![audience.to_owned()],
                expiration_seconds: Some(ASSERTION_LIFE),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let Some(_slot) = self.slot().await else {
            return Err(failed(Cause::ApiServer));
        };
        let call = accounts.create_token_request(name, &params, &request);
        match self.call("create", "serviceaccounts/token", call).await {
            Ok(answer) => {
                let token = answer.status.map(|status| Token::new(status.token));
                token.ok_or_else(|| failed(Cause::Malformed))
            }
            Err(failure) => Err(MintError {
                status: failure.code(),
                ..failed(cause_of(&failure, name))
            }),
        }
    }

    /// Whether the API server lets acrcred make a token that it accepts itself, which the policy of
    /// `config/impersonation` forbids. Asks by trying, without effect, in acrcred's own namespace.
    pub async fn is_impersonation_unlimited(&self) -> bool {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(ASSERTION_LIFE + 1),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.client.clone());
        let params = dry_run();
        let call = accounts.create_token_request("default", &params, &request);
        self.call("create", "serviceaccounts/token", call)
            .await
            .is_ok()
    }

    /// Makes a call about a Secret.
    pub async fn secret(&self, object: &AcrCredential, call: &SecretCall) -> SecretAnswer {
        let namespace = object.namespace().unwrap_or_default();
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let name = object.secret_name();
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            dry_run: call.write().is_none(),
        };
        let secret = call.secret();
        let result = if let SecretCall::Create(_) = call {
            let call = secrets.create(&params, secret);
            self.call("create", "secrets", call).await
        } else {
            let call = secrets.replace(name, &params, secret);
            self.call("update", "secrets", call).await
        };
        match result {
            Ok(secret) => answer::stored(object, &secret.metadata),
            Err(failure) => {
                let (namespace, call_name): (_, &str) = (&namespace, call.into());
                match failure.code() {
                    Some(404) => {}
                    Some(409) => tracing::info!(
                        namespace,
                        secret = name,
                        "the Secret is not in the version that acrcred knows"
                    ),
                    _ => tracing::warn!(
                        %failure,
                        namespace,
                        secret = name,
                        call = call_name,
                        "a request about a Secret failed"
                    ),
                }
                answer::refused(object, call, &failure)
            }
        }
    }

    /// Replaces the whole status, so that nothing that another client put there survives; the answer, or `None` if
    /// there is no such object. The test keeps the status of a re-created object from speaking of its predecessor.
    pub async fn write_status(
        &self,
        object: &AcrCredential,
        status: &AcrCredentialStatus,
    ) -> ApiResult<Option<AcrCredential>> {
        let namespace = object.namespace().unwrap_or_default();
        let objects: Api<WatchedCredential> = Api::namespaced(self.client.clone(), &namespace);
        let operations = json!([
            {"op": "test", "path": "/metadata/uid", "value": object.metadata.uid},
            {"op": "add", "path": "/status", "value": status},
        ]);
        let patch = serde_json::from_value(operations).map_err(|_| ApiFailure::Unsendable)?;
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let name = object.name_any();
        let patch = Patch::Json::<()>(patch);
        let call = objects.patch_status(&name, &params, &patch);
        match self.call("patch", "acrcredentials/status", call).await {
            Ok(written) => Ok(written.object().ok()),
            // Deleted or re-created meanwhile; the watch reports it.
            Err(ApiFailure::Refused(status)) if answer::is_of_another(&status) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Publishes an event. One that cannot be published is only logged: the condition says the same.
    pub async fn publish(&self, object: &AcrCredential, event: &Condition, now: Timestamp) {
        let namespace = object.namespace().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let mut note = event.message.clone();
        note.truncate(note.floor_char_boundary(NOTE_LIMIT));
        let name = object.name_any();
        // A name that is its own: a name in use would need the right to change events.
        let unique = format!("{:x}", now.as_nanosecond());
        let prefix = &name[..name.floor_char_boundary(200)];
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}.{unique}")),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            action: Some("Refresh".into()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(event.reason.clone()),
            regarding: Some(object.object_ref(&())),
            reporting_controller: Some(FIELD_MANAGER.into()),
            reporting_instance: Some(FIELD_MANAGER.into()),
            type_: Some("Warning".into()),
            ..Event::default()
        };
        let params = PostParams::default();
        let call = events.create(&params, &event);
        if let Err(failure) = self.call("create", "events", call).await {
            tracing::warn!(%failure, "cannot publish an event");
        }
    }

    /// Whether the admission policy refuses, without effect, a Secret without owner in this namespace. Fails if something
    /// else refuses it.
    pub async fn refuses_unmarked(&self, namespace: &str) -> ApiResult<bool> {
        let unmarked = Secret {
            metadata: ObjectMeta {
                generate_name: Some("acrcred-policy-check-".into()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let params = dry_run();
        let call = self.call("create", "secrets", secrets.create(&params, &unmarked));
        is_refused(call.await, answer::WRITTEN_UNMARKED)
    }

    /// Whether the admission policy refuses, without effect, to give a Secret of ours another owner. Likewise.
    pub async fn refuses_seizing(&self, secret: &Secret) -> ApiResult<bool> {
        let mut seized = secret.clone();
        let annotations = seized.metadata.annotations.get_or_insert_default();
        // A name that nobody can guess: to the owner that a user has given it, the policy lets it go.
        let unknown = RandomState::new().build_hasher().finish();
        annotations.insert(
            OWNER_ANNOTATION.into(),
            format!("policy-check-{unknown:016x}"),
        );
        let (namespace, name) = (seized.namespace().unwrap_or_default(), seized.name_any());
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let params = dry_run();
        let call = self.call(
            "update",
            "secrets",
            secrets.replace(&name, &params, &seized),
        );
        is_refused(call.await, answer::NOT_OWNED)
    }

    /// Makes a call within its deadline, and counts it.
    async fn call<T>(
        &self,
        verb: &'static str,
        resource: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> ApiResult<T> {
        let result = answer::within(DEADLINE, call).await;
        let outcome = result.as_ref().err().map_or("success", ApiFailure::name);
        self.metrics.api_requested(verb, resource, outcome);
        result
    }
}

/// Why a `ServiceAccount` cannot be used.
fn cause_of(failure: &ApiFailure, name: &str) -> Cause {
    match failure.code() {
        Some(403) => Cause::ImpersonationForbidden,
        Some(404) => Cause::NoServiceAccount,
        Some(409) => Cause::ServiceAccountChanged,
        _ => {
            tracing::warn!(%failure, service_account = name, "cannot use a ServiceAccount");
            Cause::ApiServer
        }
    }
}

fn is_refused(result: ApiResult<Secret>, sentence: &str) -> ApiResult<bool> {
    match result {
        Ok(_) => Ok(false),
        Err(ApiFailure::Refused(status)) if answer::is_refused_by_policy(&status, sentence) => {
            Ok(true)
        }
        Err(failure) => Err(failure),
    }
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}
