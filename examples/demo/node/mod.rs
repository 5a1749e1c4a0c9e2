//! The same on a real node: acrcred as a pod that the chart installs, and pods that wait for its Secret.

mod pods;
mod setup;

use anyhow::{Context as _, Result, ensure};
use controlplane::node::Node;
use controlplane::{Tool, Tools};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use crate::azure::{Azure, NORTHWIND};
use crate::cluster::Cluster;
use crate::folder::Folder;
use crate::proofs;
use crate::secret::PullSecret;
use crate::setup::{ALLOWED, TOOLS, build};
use crate::shell::Line;
use crate::stop::Stop;
use crate::story::Story;
use crate::{Ending, play, pod};

use self::pods::Pods;

/// The object, and its Secret.
const CREDENTIAL: &str = "northwind";
/// What asks for a new token before it is time.
const REFRESH: &str = "demo";

/// Everything that runs. The fields are dropped in this order.
pub struct NodeCast {
    node: Node,
    azure: Azure,
    cluster: Cluster,
    /// The private image, by digest.
    pinned: String,
}

/// Tells the whole story, up to the end of everything.
pub async fn tell(
    story: &mut Story,
    folder: &Folder,
    once: bool,
    stop: &mut Stop,
) -> Result<Ending> {
    if let Some(reason) = Node::missing() {
        anyhow::bail!("there can be no node here: {reason}");
    }
    let mut cast = None;
    let told = tokio::select! {
        told = perform(story, folder, &mut cast) => told,
        signal = stop.requested() => return Ok(Ending::Interrupted(signal)),
    };
    if let (Err(_), Some(cast)) = (&told, &cast) {
        // The story's own error is the one to tell.
        let _ = cast.keep_acrcreds_log(folder).await;
    }
    told?;
    let cast = cast.context("a story without a cast")?;
    if !once {
        story.step("Your turn");
        play::invite(story, folder, &cast.cluster)?;
        story.says(play::FAREWELL);
        stop.requested().await;
    }
    end(story, folder, cast).await?;
    Ok(Ending::Told)
}

async fn perform(story: &mut Story, folder: &Folder, cast: &mut Option<NodeCast>) -> Result<()> {
    let of_node = [Tool::KubeScheduler, Tool::Kubelet, Tool::Helm];
    build(story, &[&TOOLS[..], &of_node].concat()).await?;
    let cast = cast.insert(setup::start(story, folder).await?);
    setup::install(story, folder, cast).await?;
    early(story, folder, cast).await?;
    let before = outage(story, folder, cast).await?;
    rotation(story, folder, cast, &before).await
}

/// A pod that is there before its Secret.
async fn early(story: &mut Story, folder: &Folder, cast: &NodeCast) -> Result<()> {
    story.step("Start a pod before there is a Secret");
    let pods = Pods { folder, cast };
    pods.create(story, "early").await?;
    pods.is_refused(story, "early").await?;
    story.proved("without the Secret the registry refuses the image");

    apply_credential(story, cast).await?;
    pods.runs(story, "early").await?;
    story.proved("it started by itself, and runs the image that was pushed");
    Ok(())
}

async fn apply_credential(story: &Story, cast: &NodeCast) -> Result<()> {
    let apply = format!("apply -f examples/demo/northwind.yaml -n {ALLOWED}");
    cast.cluster.run(story, &apply).await?;
    let wait =
        format!("wait --for=condition=Ready acrcredential/{CREDENTIAL} -n {ALLOWED} --timeout=30s");
    cast.cluster.run(story, &wait).await?;
    Ok(())
}

/// Pods start while Azure mints nothing. Returns the Secret that they start with.
async fn outage(story: &mut Story, folder: &Folder, cast: &NodeCast) -> Result<PullSecret> {
    story.step("Let Entra and the registry's token service fail");
    let broken = cast.azure.break_down(NORTHWIND);
    story.says("Both answer 503 to whoever wants a token.");
    let ask =
        format!("annotate acrcredential {CREDENTIAL} -n {ALLOWED} acrcred.dev/refresh={REFRESH}");
    cast.cluster.run(story, &ask).await?;
    let failing = r#"--for=jsonpath={.status.conditions[?(@.type=="RefreshFailing")].status}=True"#;
    wait_for(story, cast, failing).await?;
    let list = format!("get acrcredentials -n {ALLOWED}");
    cast.cluster.run(story, &list).await?;
    let pods = Pods { folder, cast };
    pods.create(story, "outage").await?;
    pods.runs(story, "outage").await?;
    let cluster = &cast.cluster;
    let secret = cluster.the_pull_secret(ALLOWED, CREDENTIAL).await?;
    drop(broken);
    story.proved("the refresh fails, the token lives, and a pod starts");
    Ok(secret)
}

/// A pod that pulls again after the token was replaced.
async fn rotation(
    story: &mut Story,
    folder: &Folder,
    cast: &NodeCast,
    before: &PullSecret,
) -> Result<()> {
    story.step("Let Azure come back, and start another Pod that pulls again");
    let cluster = &cast.cluster;
    let handled = format!("--for=jsonpath={{.status.lastHandledRefresh}}={REFRESH}");
    wait_for(story, cast, &handled).await?;
    let after = cluster.the_pull_secret(ALLOWED, CREDENTIAL).await?;
    ensure!(after.has_rotated_since(before), "the token is the old one");
    ensure!(after.uid == before.uid, "the Secret was re-created");
    story.proved("same Secret, new token");

    let pods = Pods { folder, cast };
    pods.create(story, "rotated").await?;
    pods.runs(story, "rotated").await?;
    story.proved("a pod with imagePullPolicy Always pulls with the new token");
    Ok(())
}

async fn wait_for(story: &Story, cast: &NodeCast, what: &str) -> Result<()> {
    let object = format!("acrcredential/{CREDENTIAL}");
    proofs::wait_for(story, &cast.cluster, ALLOWED, &[what, &object]).await
}

/// Takes the credential away, then acrcred, then everything.
async fn end(story: &mut Story, folder: &Folder, cast: NodeCast) -> Result<()> {
    story.step("Take it away");
    let cluster = &cast.cluster;
    let delete = format!("delete acrcredential {CREDENTIAL} -n {ALLOWED}");
    cluster.run(story, &delete).await?;
    let gone = format!("wait --for=delete secret/{CREDENTIAL} -n {ALLOWED} --timeout=60s");
    cluster.run(story, &gone).await?;
    let pods = Pods {
        folder,
        cast: &cast,
    };
    pods.create(story, "late").await?;
    pods.is_refused(story, "late").await?;
    story.proved("with the object its Secret went, and no further pod pulls");

    let (namespace, _) = pod::ACCOUNT;
    let uninstall = ["uninstall", "acrcred", "--namespace", namespace, "--wait"];
    cast.helm(&uninstall)?.run(story).await?;
    cluster
        .run(story, "get crd acrcredentials.acrcred.dev")
        .await?;
    story.proved("the release is gone, the definition stays");

    let NodeCast {
        node,
        azure,
        cluster,
        ..
    } = cast;
    tokio::task::spawn_blocking(move || drop(node)).await?;
    drop(azure);
    drop(cluster);
    story.proved("node, emulator, registries and control plane have ended");
    Ok(())
}

// === impl NodeCast ===

impl NodeCast {
    /// `helm …` as administrator, typed in the checkout.
    fn helm(&self, arguments: &[&str]) -> Result<Line> {
        let mut command = tokio::process::Command::new(helm()?);
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        Ok(Line::new("helm", command, arguments).at(crate::checkout::root()))
    }

    /// Keeps what acrcred's pods wrote, for the end of a story that fails.
    async fn keep_acrcreds_log(&self, folder: &Folder) -> Result<()> {
        let (namespace, _) = pod::ACCOUNT;
        let pods: Api<Pod> = Api::namespaced(self.cluster.control_plane.admin(), namespace);
        let pods = pods.list(&ListParams::default()).await?;
        let names = pods.into_iter().filter_map(|pod| pod.metadata.name);
        let logs = names.flat_map(|name| self.node.logs(namespace, &name));
        let log = logs.collect::<Vec<_>>().join("\n");
        Ok(std::fs::write(folder.acrcreds_log(), log)?)
    }
}

fn helm() -> Result<std::path::PathBuf> {
    Ok(Tools::ensure(&[Tool::Helm])?.path(Tool::Helm).to_owned())
}
