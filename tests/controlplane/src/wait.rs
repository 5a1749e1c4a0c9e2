//! Waiting for a state, with a limit and a reason.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Calls `attempt` until it succeeds; after `limit`, fails with `what` was awaited and the state that the last attempt saw.
///
/// ```no_run
/// # async fn example(secrets: kube::Api<k8s_openapi::api::core::v1::Secret>) -> anyhow::Result<()> {
/// use std::time::Duration;
///
/// let secret = controlplane::eventually(Duration::from_secs(5), "the Secret exists", async || {
///     secrets.get_opt("acr").await.map_err(|error| error.to_string())?.ok_or_else(|| "no Secret".to_owned())
/// })
/// .await?;
/// # Ok(()) }
/// ```
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut state = "the first attempt had not ended".to_owned();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => state = seen,
            // The attempt hung: what the one before it saw is the best there is.
            Err(_) => {}
        }
        if Instant::now() + pause >= deadline {
            bail!("not within {limit:?}: {what}; last state: {state}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_names_what_was_awaited_and_the_last_state() {
        let mut attempts = 0;
        let result: Result<()> =
            eventually(Duration::from_millis(100), "the moon is full", async || {
                attempts += 1;
                Err(format!("waxing after {attempts}"))
            })
            .await;
        let text = result.unwrap_err().to_string();
        assert!(attempts > 1);
        assert!(
            text.contains("the moon is full")
                && text.ends_with(&format!("waxing after {attempts}")),
            "{text}"
        );
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_does_not_outlive_the_limit() {
        let result: Result<()> = eventually(Duration::from_millis(50), "an answer", async || {
            std::future::pending().await
        })
        .await;
        assert!(result.unwrap_err().to_string().contains("had not ended"));
    }
}
