//! Reads and writes of one Secret, with no more rights than create and patch.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::{Value, json};

use super::Controller;
use super::api_call::ApiError;
use super::queue::ObjectKey;
use crate::api::{AcrCredential, FIELD_MANAGER, READ_FIELD_MANAGER, Reason};
use crate::plan::{Refusal, Removal, SecretWrite};

/// What came of reading the Secret.
pub(super) enum ReadSecret {
    /// There is none.
    Absent,
    /// This is it.
    Found(Box<Secret>),
    /// An admission policy hides it: it is not ours.
    Hidden,
    /// We lack the right.
    Refused(Refusal),
}

/// What came of writing the Secret.
pub(super) enum WrittenSecret {
    /// It reads like this now.
    Written(Box<Secret>),
    /// It is not what we took it for: look again.
    Conflict,
    /// The API server does not let us.
    Refused(Refusal),
    /// The API server does not let us, possibly because the Secret is another by now.
    RefusedForThis(Refusal),
    /// The namespace is gone or going: there is nothing left to do.
    NamespaceGone,
}

// === impl Controller ===

impl Controller {
    /// Reads the Secret as the answer to an empty merge patch: acrcred has no right to `get`, which would
    /// open every Secret of the namespace. An admission policy can refuse a patch by what it touches.
    pub(super) async fn read_secret(
        &self,
        object: &AcrCredential,
        key: &ObjectKey,
    ) -> Result<ReadSecret, ApiError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams {
            field_manager: Some(READ_FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let empty = Patch::Merge(json!({}));
        let call = secrets.patch(object.secret_name(), &params, &empty);
        Ok(match self.limit.call("reading the Secret", call).await? {
            Ok(secret) => ReadSecret::Found(Box::new(secret)),
            Err(status) if status.is_not_found() => ReadSecret::Absent,
            Err(status) if is_refused_by_policy(&status) => ReadSecret::Hidden,
            Err(status) => ReadSecret::Refused(refusal(object, &status)),
        })
    }

    /// Makes one write.
    pub(super) async fn write_secret(
        &self,
        object: &AcrCredential,
        key: &ObjectKey,
        write: &SecretWrite,
    ) -> Result<WrittenSecret, ApiError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let name = object.secret_name();
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let result = match write {
            SecretWrite::Create(secret) => {
                let call = secrets.create(&params, secret);
                self.limit.call("creating the Secret", call).await?
            }
            SecretWrite::Apply(secret) => {
                let params = PatchParams::apply(FIELD_MANAGER).force();
                let patch = Patch::Apply(&**secret);
                let call = secrets.patch(name, &params, &patch);
                self.limit.call("applying the Secret", call).await?
            }
            SecretWrite::Remove(removal) => {
                let params = PatchParams {
                    field_manager: Some(FIELD_MANAGER.into()),
                    ..PatchParams::default()
                };
                let patch = Patch::Merge(merge_patch(removal));
                let call = secrets.patch(name, &params, &patch);
                self.limit
                    .call("removing labels from the Secret", call)
                    .await?
            }
        };
        Ok(match result {
            Ok(secret) => WrittenSecret::Written(Box::new(secret)),
            Err(status) if is_namespace_gone(&status) => WrittenSecret::NamespaceGone,
            Err(status) if status.is_conflict() || status.is_already_exists() => {
                WrittenSecret::Conflict
            }
            // A changed UID is a change of an immutable field, and an admission policy judges what is there.
            Err(status) if status.is_invalid() || is_refused_by_policy(&status) => {
                WrittenSecret::RefusedForThis(refusal(object, &status))
            }
            Err(status) => WrittenSecret::Refused(refusal(object, &status)),
        })
    }
}

fn merge_patch(removal: &Removal) -> Value {
    let nulls =
        |keys: &[String]| -> Value { keys.iter().map(|key| (key.clone(), Value::Null)).collect() };
    json!({"metadata": {
        "uid": removal.uid,
        "resourceVersion": removal.resource_version,
        "labels": nulls(&removal.labels),
        "annotations": nulls(&removal.annotations),
    }})
}

/// A validating admission policy names its causes; RBAC does not.
pub(super) fn is_refused_by_policy(status: &Status) -> bool {
    status.is_forbidden()
        && status
            .details
            .as_ref()
            .is_some_and(|details| !details.causes.is_empty())
}

fn is_namespace_gone(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let is_terminating = causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating");
    let no_namespace = status.is_not_found()
        && status
            .details
            .as_ref()
            .is_some_and(|details| details.kind == "namespaces");
    is_terminating || no_namespace
}

/// The API server's text is left out: it may quote what we sent.
fn refusal(object: &AcrCredential, status: &Status) -> Refusal {
    let name = object.secret_name();
    let message = if status.is_invalid() {
        format!(
            "the API server finds Secret {name} invalid (HTTP 422); check spec.secret and what admission webhooks change"
        )
    } else {
        format!(
            "the API server does not let acrcred read or write Secret {name} (HTTP {}); check its roles, admission policies and the namespace's quota",
            status.code
        )
    };
    Refusal {
        reason: Reason::Forbidden,
        message,
    }
}
