//! Everything stays up, for the user to play with.

use std::time::Duration;

use anyhow::Result;
use controlplane::Tool;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::Cast;
use crate::checkout;
use crate::cluster::Cluster;
use crate::folder::Folder;
use crate::shell::quoted;
use crate::stop::Stop;
use crate::story::Story;

/// The federated token lives an hour.
const RENEWAL: Duration = Duration::from_mins(30);
/// How it ends.
pub const FAREWELL: &str = " \nCtrl-C ends it all and leaves nothing behind.";
const CHECK: Duration = Duration::from_secs(1);

/// Shows what to type, and keeps acrcred's tokens fresh until a signal comes.
pub async fn until_stopped(
    story: &mut Story,
    folder: &Folder,
    cast: &mut Cast,
    stop: &mut Stop,
) -> Result<()> {
    story.step("Your turn");
    invite(story, folder, &cast.cluster)?;
    let logs = [folder.acrcreds_log(), folder.emulators_log()];
    let logs = logs.map(|log| quoted(&log.display().to_string()));
    story.says(&format!("  tail -f {}", logs.join(" ")));
    story.says(FAREWELL);
    let mut renewal = interval_at(Instant::now() + RENEWAL, RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut check = interval(CHECK);
    loop {
        tokio::select! {
            _ = stop.requested() => return Ok(()),
            _ = check.tick() => cast.pod.check()?,
            _ = renewal.tick() => {
                // The next one comes long before the token expires.
                if let Err(error) = cast.pod.renew_tokens(&cast.cluster).await {
                    story.says(&format!("acrcred's tokens could not be renewed: {error:#}"));
                }
            }
        }
    }
}

/// Says how to reach the cluster.
pub fn invite(story: &Story, folder: &Folder, cluster: &Cluster) -> Result<()> {
    let tools = cluster.control_plane.tools();
    let acrcred = checkout::program("acrcred")?;
    let bin = folder.link(&[tools.path(Tool::Kubectl), tools.path(Tool::Crane), &acrcred])?;
    let path = |path: &std::path::Path| quoted(&path.display().to_string());
    story.says("Everything keeps running. In another terminal:\n ");
    story.says(&format!(
        "  export KUBECONFIG={} PATH={}:\"$PATH\"",
        path(cluster.kubeconfig()),
        path(&bin)
    ));
    story.says("  kubectl get acrcredentials --all-namespaces --watch");
    Ok(())
}
