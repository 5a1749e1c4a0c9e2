//! Calls to the API server: bounded in number and time, their failures sorted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use kube::core::Status;
use tokio::sync::Semaphore;

use crate::process::Metrics;

/// Calls under way at once. kube speaks HTTP/1.1: each is a connection.
const IN_FLIGHT: usize = 32;
/// kube itself would wait without end.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bounds the number of calls under way, and counts them.
#[derive(Clone, Debug)]
pub struct ApiLimit {
    slots: Arc<Semaphore>,
    metrics: Metrics,
}

/// Indicates that a call failed for no fault of the object: it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No answer in time.
    #[error("{0}: the API server did not answer within 10 s")]
    Timeout(&'static str),
    /// An answer that helps nobody, or none.
    #[error("{step}: {cause}")]
    Failed {
        step: &'static str,
        cause: ApiFailure,
    },
    /// The Secret changed under our hands again and again.
    #[error("the Secret is being changed by somebody else all the time")]
    Contended,
}

/// What a failed call comes to. Not `kube::Error` itself, whose text quotes the answer: the answer to a
/// request about a Secret, or a webhook's complaint of one, holds the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiFailure {
    /// The API server refused: HTTP status, and how many seconds it wants to be left alone.
    Status(u16, u32),
    /// There was no connection, or it broke.
    Unreachable,
    /// The answer cannot be read.
    Unreadable,
    /// The request could not be made.
    Unsendable,
}

// === impl ApiFailure ===

impl From<&kube::Error> for ApiFailure {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(&**status),
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

impl From<&Status> for ApiFailure {
    fn from(status: &Status) -> Self {
        let details = status.details.as_ref();
        Self::Status(
            status.code,
            details.map_or(0, |details| details.retry_after_seconds),
        )
    }
}

impl fmt::Display for ApiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code, _) => write!(f, "the API server answered HTTP {code}"),
            Self::Unreachable => f.write_str("the API server cannot be reached"),
            Self::Unreadable => f.write_str("the API server's answer cannot be read"),
            Self::Unsendable => {
                f.write_str("the request cannot be made; check the kubeconfig or the pod's token")
            }
        }
    }
}

// === impl ApiError ===

impl ApiError {
    /// How long the API server wants to be left alone.
    pub(super) fn retry_after(&self) -> SignedDuration {
        match self {
            Self::Failed {
                cause: ApiFailure::Status(_, seconds),
                ..
            } => SignedDuration::from_secs((*seconds).into()),
            _ => SignedDuration::ZERO,
        }
    }
}

// === impl ApiLimit ===

impl ApiLimit {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            metrics,
        }
    }

    /// Makes a call once there is room for it. The outer error is one that says nothing of the object.
    pub(super) async fn call<T>(
        &self,
        step: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<Result<T, Box<Status>>, ApiError> {
        // The semaphore is never closed.
        let _permit = self.slots.acquire().await;
        let answer = tokio::time::timeout(DEADLINE, call).await;
        let outcome = answer.as_ref().map_or("timeout", outcome);
        self.metrics.api_requested(step, outcome);
        match answer {
            Err(_) => Err(ApiError::Timeout(step)),
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(kube::Error::Api(status))) if is_about_the_object(&status) => Ok(Err(status)),
            Ok(Err(error)) => Err(ApiError::Failed {
                step,
                cause: ApiFailure::from(&error),
            }),
        }
    }
}

/// For the metrics.
fn outcome<T>(answer: &kube::Result<T>) -> &'static str {
    let Err(error) = answer else {
        return "success";
    };
    match ApiFailure::from(error) {
        ApiFailure::Status(403, _) => "forbidden",
        ApiFailure::Status(404, _) => "not_found",
        ApiFailure::Status(409, _) => "conflict",
        ApiFailure::Status(429, _) => "throttled",
        ApiFailure::Status(400..500, _) => "refused",
        ApiFailure::Status(..) => "failed",
        ApiFailure::Unreachable => "unreachable",
        ApiFailure::Unreadable => "unreadable",
        ApiFailure::Unsendable => "unsendable",
    }
}

fn is_about_the_object(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 404 | 409 | 422)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_wrote_is_in_no_error() {
        let secret = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl";
        let unreadable = serde_json::from_str::<u8>(&format!("\"{secret}\"")).unwrap_err();
        let mut refused = Status::failure(secret, secret);
        refused.code = 500;
        for error in [
            kube::Error::Api(Box::new(refused)),
            kube::Error::SerdeError(unreadable),
            kube::Error::Service(secret.into()),
        ] {
            let cause = ApiFailure::from(&error);
            let error = ApiError::Failed {
                step: "creating the Secret",
                cause,
            };
            let text = format!("{error} {error:?}");
            assert!(
                text.starts_with("creating the Secret: ") && !text.contains("eyJ"),
                "{text}"
            );
        }
    }
}
