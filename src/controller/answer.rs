//! What the API server's answers mean. Its texts are compared, and never repeated: they may quote a Secret.

use std::time::Duration;

use jiff::SignedDuration;
use kube::api::ObjectMeta;
use kube::core::Status;

use crate::api::{AcrCredential, Reason};
use crate::plan::{Problem, Refusal, SecretAnswer, SecretCall, SecretVersion};

/// What our admission policy says of a Secret that belongs to another owner.
pub(super) const NOT_OWNED: &str = "the stored Secret is not owned by this AcrCredential";
/// How it begins what it says of what acrcred itself wrote.
const WRITTEN: &str = "the written Secret";
/// What our admission policy says of a Secret without an owner.
pub(super) const WRITTEN_UNMARKED: &str = "the written Secret has no annotation acrcred.dev/owner";

pub(super) type ApiResult<T> = Result<T, ApiFailure>;

/// Why a call came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ApiFailure {
    /// The API server refused. Its text stays here.
    #[error("the API server answered HTTP {}{}", .0.code, refuser(&.0.message).map_or(String::new(), |by| format!(" ({by})")))]
    Refused(Box<Status>),
    /// No answer in time.
    #[error("the API server did not answer in time")]
    Timeout,
    /// There was no connection, or it broke.
    #[error("the API server cannot be reached")]
    Unreachable,
    /// The answer cannot be read.
    #[error("the API server's answer cannot be read")]
    Unreadable,
    /// The request could not be made.
    #[error("the request cannot be made; check the kubeconfig or the pod's token")]
    Unsendable,
}

/// How a refusal names who refused: the text before the name, the quote after it, and what it is.
const REFUSERS: [(&str, char, &str); 4] = [
    ("ValidatingAdmissionPolicy '", '\'', POLICY),
    ("MutatingAdmissionPolicy '", '\'', POLICY),
    ("admission webhook \"", '"', WEBHOOK),
    ("failed calling webhook \"", '"', WEBHOOK),
];
const POLICY: &str = "admission policy";
const WEBHOOK: &str = "admission webhook";

/// Makes a call to the API server within `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> ApiResult<T> {
    let answer = tokio::time::timeout(limit, call).await;
    answer.map_or(Err(ApiFailure::Timeout), |answer| {
        answer.map_err(ApiFailure::from)
    })
}

// === impl ApiFailure ===

impl ApiFailure {
    /// The HTTP status of the answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            _ => None,
        }
    }

    /// How long the API server asks to wait.
    pub fn retry_after(&self) -> SignedDuration {
        let details = match self {
            Self::Refused(status) => status.details.as_ref(),
            _ => None,
        };
        let seconds = details.map_or(0, |details| details.retry_after_seconds);
        SignedDuration::from_secs(seconds.min(60).into())
    }

    /// For the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused(status) => match status.code {
                403 => "forbidden",
                404 => "not_found",
                409 => "conflict",
                429 => "throttled",
                400..500 => "refused",
                _ => "failed",
            },
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Unreadable => "unreadable",
            Self::Unsendable => "unsendable",
        }
    }
}

/// Not `kube::Error` itself, whose text quotes the answer.
impl From<kube::Error> for ApiFailure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                Self::Unreachable
            }
            kube::Error::SerdeError(_)
            | kube::Error::FromUtf8(_)
            | kube::Error::LinesCodecMaxLineLengthExceeded => Self::Unreadable,
            _ => Self::Unsendable,
        }
    }
}

/// The webhook or policy that a refusal names. Only what is a name is taken over.
fn refuser(text: &str) -> Option<String> {
    REFUSERS.iter().find_map(|(mark, quote, kind)| {
        let name = text.split_once(mark)?.1.split(*quote).next()?;
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        let is_one = (1..=253).contains(&name.len()) && name.bytes().all(is_name);
        is_one.then(|| format!("{kind} {name}"))
    })
}

/// Whether an admission policy refused, and said this. A validating admission policy names causes; RBAC does not.
pub(super) fn is_refused_by_policy(status: &Status, sentence: &str) -> bool {
    let details = status.details.as_ref();
    status.is_forbidden()
        && details.is_some_and(|details| !details.causes.is_empty())
        && refuser(&status.message).is_some_and(|by| by.starts_with(POLICY))
        && status.message.contains(sentence)
}

/// Whether a patch was refused because the object is gone, or is not the one of its test: what the schema refuses has
/// causes.
pub(super) fn is_of_another(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| &details.causes);
    status.is_not_found() || status.is_invalid() && causes.is_none_or(Vec::is_empty)
}

/// A 2xx answer, which shows the Secret's metadata.
pub(super) fn stored(object: &AcrCredential, metadata: &ObjectMeta) -> SecretAnswer {
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let version = metadata.resource_version.as_deref().unwrap_or_default();
    match SecretVersion::new(uid, version) {
        Some(version) if metadata.deletion_timestamp.is_some() => SecretAnswer::Going(version),
        Some(version) => SecretAnswer::Stored(version),
        None => failed(object, &ApiFailure::Unreadable),
    }
}

/// Any other answer to a call about a Secret, or none.
pub(super) fn refused(
    object: &AcrCredential,
    call: &SecretCall,
    failure: &ApiFailure,
) -> SecretAnswer {
    let ApiFailure::Refused(status) = failure else {
        return failed(object, failure);
    };
    let name = object.secret_name();
    let owner = object.metadata.name.as_deref().unwrap_or_default();
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let immutable: Vec<&str> = causes
        .filter(|cause| status.is_invalid() && cause.message.contains("immutable"))
        .map(|cause| cause.field.as_str())
        .collect();
    let is_of = |fields: &[&str]| immutable.iter().any(|field| fields.contains(field));
    let refuse = |refusal, reason, text: String| {
        SecretAnswer::Refused(refusal, Problem::needing_action(reason, text))
    };
    match status.code {
        _ if is_namespace_gone(status) => SecretAnswer::NamespaceGone,
        404 => SecretAnswer::Missing,
        409 => SecretAnswer::Conflict,
        _ if is_refused_by_policy(status, NOT_OWNED) => {
            refuse(Refusal::NotOwned, Reason::SecretNotOwned, not_owned(object))
        }
        _ if is_refused_by_policy(status, WRITTEN) => SecretAnswer::Failed {
            problem: Some(Problem::needing_action(
                Reason::SecretWriteFailed,
                format!(
                    "Secret {name} cannot be written: acrcred's own admission policy refuses it, because a mutating webhook or policy changes it on its way. Exclude Secrets with the label app.kubernetes.io/managed-by=acrcred from that webhook. Do not change acrcred's policy."
                ),
            )),
            retry_after: failure.retry_after(),
        },
        // The type and what is immutable are judged before the policy. Only with the UID is it known to be ours.
        _ if is_of(&["type", "immutable", "data"]) && !call.sends_uid() => refuse(
            Refusal::NotOwned,
            Reason::SecretNotOwned,
            format!(
                "Secret {name} exists, and is immutable or not of type kubernetes.io/dockerconfigjson, so acrcred cannot write it, whoever it belongs to. Create another AcrCredential with another spec.secret.name, and let the pods use that Secret."
            ),
        ),
        _ if is_of(&["immutable", "data"]) => refuse(
            Refusal::Immutable,
            Reason::SecretImmutable,
            format!(
                "Secret {name} is marked immutable, so acrcred cannot refresh it. Create another AcrCredential with another spec.secret.name, and let the pods use that Secret."
            ),
        ),
        403 if status.message.contains("ownerRef") => refuse(
            Refusal::OwnerReference,
            Reason::SecretWriteFailed,
            format!(
                "Secret {name} has an owner reference that acrcred may not change (OwnerReferencesPermissionEnforcement). If its annotation acrcred.dev/owner is {owner}, remove its metadata.ownerReferences. Otherwise it belongs to another controller: leave it, and create another AcrCredential with another spec.secret.name."
            ),
        ),
        403 if refuser(&status.message).is_none() => SecretAnswer::Failed {
            problem: Some(Problem::needing_action(
                Reason::Forbidden,
                format!(
                    "The API server does not let acrcred write Secret {name} (HTTP 403). Check acrcred's role in this namespace, and the namespace's quota."
                ),
            )),
            retry_after: failure.retry_after(),
        },
        _ => failed(object, failure),
    }
}

fn not_owned(object: &AcrCredential) -> String {
    let name = object.secret_name();
    let owner = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    format!(
        "Secret {name} exists and does not belong to this AcrCredential. If another AcrCredential or another tool uses it, create another AcrCredential with another spec.secret.name. To let acrcred replace its content, run: kubectl annotate secret {name} --namespace {namespace} --overwrite acrcred.dev/owner={owner}"
    )
}

/// Nothing in the message changes from attempt to attempt, as the HTTP status of a failing server does.
fn failed(object: &AcrCredential, failure: &ApiFailure) -> SecretAnswer {
    let name = object.secret_name();
    let (cause, needs_action) = cause(failure);
    SecretAnswer::Failed {
        problem: Some(Problem {
            reason: Reason::SecretWriteFailed,
            message: format!("Secret {name} cannot be written: {cause}"),
            // A server that fails may recover by itself.
            needs_action,
        }),
        retry_after: failure.retry_after(),
    }
}

/// Why the admission policy cannot be checked. Likewise.
pub(super) fn unchecked(failure: &ApiFailure) -> Problem {
    let what = "acrcred writes no Secret that needs a check of its admission policy";
    let is_of_role = match failure {
        ApiFailure::Refused(status) => {
            status.is_forbidden()
                && refuser(&status.message).is_none()
                && !is_namespace_gone(status)
        }
        _ => false,
    };
    if is_of_role {
        let text = format!("{what} (HTTP 403). Check acrcred's role: it needs create on Secrets.");
        return Problem::needing_action(Reason::Forbidden, text);
    }
    let (cause, needs_action) = cause(failure);
    Problem {
        reason: Reason::SecretWriteFailed,
        message: format!("{what}, and the check fails: {cause}"),
        needs_action,
    }
}

/// What failed and what to check, as the end of a sentence; and whether a person must act.
fn cause(failure: &ApiFailure) -> (String, bool) {
    let ApiFailure::Refused(status) = failure else {
        return (format!("{failure}."), false);
    };
    let is_refusal = (400..500).contains(&status.code) && status.code != 429;
    let text = match refuser(&status.message) {
        Some(by) if is_refusal => format!("{by} refuses it. Let it accept acrcred's Secrets."),
        Some(by) => format!("{by} fails or cannot be reached. Check it."),
        None if is_refusal => format!(
            "the API server refuses it (HTTP {}). Check spec.secret, and what admission webhooks change.",
            status.code
        ),
        None if status.code == 429 => {
            "the API server has too many requests. acrcred tries again.".to_owned()
        }
        None => "the API server fails; acrcred's log has the HTTP status. Check the API server and its admission webhooks.".to_owned(),
    };
    (text, is_refusal)
}

fn is_namespace_gone(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| {
        let mut causes = details.causes.iter();
        causes.any(|cause| cause.reason == "NamespaceTerminating")
            || status.is_not_found() && details.kind == "namespaces"
    })
}
