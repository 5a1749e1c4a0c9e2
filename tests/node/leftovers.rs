//! A node leaves nothing behind, whichever way it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use controlplane::node::{Node, NodeOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::pods::Pods;
use crate::stage::{Stage, run};

const GONE_WITHIN: Duration = Duration::from_secs(20);

/// A second node with a pod on it.
async fn node_with_a_pod(stage: &Stage, namespace: &str) -> Result<Node> {
    let control_plane = stage.scene.control_plane;
    let node = Node::start(
        control_plane,
        NodeOptions {
            https_proxy: stage.scene.emulator.proxy_url(),
            ca_file: stage.scene.emulator.ca_file().to_owned(),
        },
    )
    .await?;
    let pods = Pods::new(control_plane.admin(), namespace, node.name());
    pods.create_with("sleeps", "acrcred.test/pause:1", "Never", None)
        .await?;
    pods.runs("sleeps").await?;
    Ok(node)
}

/// The containers of a node, which name its control groups too.
fn containers(dir: &Path) -> Vec<String> {
    let tasks = dir.join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    let entries = fs::read_dir(tasks).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn control_groups(containers: &[String]) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = controllers.map(|entry| entry.path()).chain([root.into()]);
    hierarchies
        .flat_map(|hierarchy| {
            let groups = containers.iter();
            groups
                .map(move |id| hierarchy.join("k8s.io").join(id))
                .collect::<Vec<_>>()
        })
        .filter(|group| group.exists())
        .collect()
}

/// Processes whose command line names the node's folder.
fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&dir))
        .collect()
}

async fn nothing_is_left(dir: &Path, containers: &[String]) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&dir.display().to_string()), "{mounts}");
    controlplane::eventually(GONE_WITHIN, "nothing is left", async || {
        let (processes, groups) = (processes(dir), control_groups(containers));
        if processes.is_empty() && groups.is_empty() && !dir.exists() {
            Ok(())
        } else {
            Err(format!(
                "{processes:?}, {groups:?}, folder: {}",
                dir.exists()
            ))
        }
    })
    .await
}

#[test]
fn nothing_is_left_of_a_node_that_ends() {
    run(async |stage| {
        let namespace = stage.scene.control_plane.create_namespace("ends").await?;
        let node = node_with_a_pod(stage, &namespace).await?;
        let dir = node.dir().to_owned();
        let containers = containers(&dir);
        // The positive controls: a sandbox and a container, and what they hold.
        assert_eq!(containers.len(), 2);
        assert!(!control_groups(&containers).is_empty());
        assert!(!processes(&dir).is_empty());
        tokio::task::spawn_blocking(move || drop(node)).await?;
        nothing_is_left(&dir, &containers).await
    });
}

#[test]
fn nothing_is_left_of_a_node_whose_first_process_is_killed() {
    run(async |stage| {
        let namespace = stage.scene.control_plane.create_namespace("killed").await?;
        let node = node_with_a_pod(stage, &namespace).await?;
        let dir = node.dir().to_owned();
        let containers = containers(&dir);
        let [_, unshare] = node.process_ids();
        let unshare = Pid::from_raw(i32::try_from(unshare)?);
        kill_process(unshare.expect("a process id"), Signal::KILL)?;
        nothing_is_left(&dir, &containers).await
    });
}
