//! Calls to the API server: bounded in number and time, their failures sorted.

use std::sync::Arc;
use std::time::Duration;

use kube::core::Status;
use tokio::sync::Semaphore;

/// Calls under way at once. kube speaks HTTP/1.1: each is a connection.
const IN_FLIGHT: usize = 32;
/// kube itself would wait without end.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bounds the number of calls under way.
#[derive(Clone, Debug)]
pub struct ApiLimit(Arc<Semaphore>);

/// Indicates that a call failed for no fault of the object: it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No answer in time.
    #[error("{0}: the API server did not answer within 10 s")]
    Timeout(&'static str),
    /// An answer that helps nobody, or none.
    #[error("{step}: {source}")]
    Failed {
        step: &'static str,
        source: Box<kube::Error>,
    },
    /// The Secret changed under our hands again and again.
    #[error("the Secret is being changed by somebody else all the time")]
    Contended,
}

// === impl ApiLimit ===

impl Default for ApiLimit {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IN_FLIGHT)))
    }
}

impl ApiLimit {
    /// Makes a call once there is room for it. The outer error is one that says nothing of the object.
    pub(super) async fn call<T>(
        &self,
        step: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<Result<T, Box<Status>>, ApiError> {
        // The semaphore is never closed.
        let _permit = self.0.acquire().await;
        match tokio::time::timeout(DEADLINE, call).await {
            Err(_) => Err(ApiError::Timeout(step)),
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(kube::Error::Api(status))) if is_about_the_object(&status) => Ok(Err(status)),
            Ok(Err(source)) => Err(ApiError::Failed {
                step,
                source: Box::new(source),
            }),
        }
    }
}

fn is_about_the_object(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 404 | 409 | 422)
}
