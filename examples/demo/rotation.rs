//! One rotation before the reader's eyes.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use tokio::time::{Instant, sleep};

use crate::Cast;
use crate::azure::{CONTOSO, FABRIKAM, TOKEN_LIFE};
use crate::folder::Folder;
use crate::proofs::{SAMPLE, agreed_expiry, from_now, pull_with_the_secret, status_time};
use crate::secret::PullSecret;
use crate::setup::ALLOWED;
use crate::story::Story;

/// As long as the old tokens live, and then the demo's promise is broken.
const LIMIT: Duration = Duration::from_secs(TOKEN_LIFE.unsigned_abs());
const BAR: usize = 30;

/// Waits until acrcred renews the tokens, shows what changed and what did not, and pulls again.
pub async fn watch(story: &mut Story, folder: &Folder, cast: &Cast) -> Result<()> {
    story.step("Watch a rotation");
    story.says(&format!(
        "Here tokens live {TOKEN_LIFE} s, in Azure three hours; half of it is time to renew."
    ));
    let expired_at = agreed_expiry(cast).await?;
    let before = cast.cluster.the_pull_secret(ALLOWED, SAMPLE).await?;
    let due = from_now(status_time(cast, "refreshAt").await?)?;
    story.says(&format!(
        "status.refreshAt is in {due:#}, status.expiresAt in {:#}.",
        from_now(expired_at)?
    ));
    let after = rotated(story, cast, &before, due).await?;

    story.output(&format!("{:<30}{:<38}{}", "", "before", "after"));
    story.output(&format!(
        "{:<30}{:<38}{}",
        "Secret's UID", before.uid, after.uid
    ));
    for server in [CONTOSO, FABRIKAM] {
        let (old, new) = (before.digest(server)?, after.digest(server)?);
        ensure!(old != new, "the token for {server} is still the old one");
        story.output(&format!(
            "{:<30}{old:<38}{new}",
            format!("{server} SHA-256")
        ));
    }
    ensure!(
        before.uid == after.uid,
        "the Secret was deleted and re-created"
    );
    ensure!(
        after.expires_at()? > before.expires_at()?,
        "the new tokens do not live longer"
    );
    story.proved("same Secret, new tokens");

    pull_with_the_secret(story, folder, cast).await?;
    story.proved("all images are pulled again, with the new ones");
    Ok(())
}

/// The Secret after a renewal of all its tokens.
async fn rotated(
    story: &Story,
    cast: &Cast,
    before: &PullSecret,
    due: SignedDuration,
) -> Result<PullSecret> {
    let began = Instant::now();
    let due = Duration::try_from(due.max(SignedDuration::ZERO))?;
    loop {
        let now = cast.cluster.the_pull_secret(ALLOWED, SAMPLE).await?;
        if now.has_rotated_since(before) {
            story.meanwhile_over();
            return Ok(now);
        }
        ensure!(
            began.elapsed() < LIMIT,
            "the Secret still holds its old tokens after {LIMIT:?}"
        );
        story.meanwhile(&progress(began.elapsed(), due));
        sleep(Duration::from_millis(250)).await;
    }
}

fn progress(elapsed: Duration, due: Duration) -> String {
    let left = due.saturating_sub(elapsed);
    let part = if due.is_zero() {
        1.0
    } else {
        (elapsed.as_secs_f64() / due.as_secs_f64()).min(1.0)
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to BAR"
    )]
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let full = (part * BAR as f64) as usize;
    format!(
        "[{}{}] renewal in {} s",
        "#".repeat(full),
        ".".repeat(BAR - full),
        left.as_secs()
    )
}
