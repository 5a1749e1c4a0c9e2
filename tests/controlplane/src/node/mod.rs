//! A real node: containerd and the kubelet, for pods that pull real images.
//!
//! ```text
//! test ──► Node ──stdin pipe──► controlplane node ──► unshare ──► controlplane node-programs ──► containerd ──► pods
//!                                 cleans up after        new process and                         kubelet
//!                                 everything is gone     mount namespaces
//! ```
//!
//! The programs live in process and mount namespaces of their own: when the first process in there ends, however it ends, the kernel
//! ends all others and drops every mount. What is left then is a folder and some empty control groups, which the process outside removes.
//! Pods use the machine's network: there is neither a network plugin nor a kube-proxy.

mod cgroups;
mod configuration;
pub mod image;
mod machine;
mod packages;
mod pause;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

pub use self::machine::{Machine, run, run_programs};
use self::packages::Packages;
use crate::{ControlPlane, supervised::Supervised};

/// What a node needs to be told.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The proxy through which containerd pulls.
    pub https_proxy: String,
    /// The certificate authority of the registries behind it, PEM.
    pub ca_file: PathBuf,
}

/// The one line that `controlplane node` prints, as JSON, when the node has registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReady {
    /// The node's name.
    pub name: String,
    /// The private folder that holds everything, logs included.
    pub dir: PathBuf,
    /// The process id of `unshare`; it ends when the last process of the node has.
    pub pid: u32,
}

/// A running node. Dropped, it ends with every pod on it; the same happens when this process dies.
#[derive(Debug)]
pub struct Node {
    supervised: Supervised,
    ready: NodeReady,
    packages: Packages,
}

impl Node {
    /// Why this machine cannot have a node, if it cannot.
    pub fn missing() -> Option<&'static str> {
        if !cfg!(target_os = "linux") {
            return Some("it needs Linux");
        }
        if !rustix::process::geteuid().is_root() {
            return Some("it needs root");
        }
        if !Packages::obtainable() {
            return Some("it needs Debian's apt-get and dpkg-deb");
        }
        None
    }

    /// Starts a node of `control_plane` and waits until it has registered.
    pub async fn start(control_plane: &ControlPlane, options: NodeOptions) -> Result<Self> {
        let name = format!("node-{:08x}", rand::random::<u32>());
        let arguments = [
            format!("--name={name}"),
            format!("--kubeconfig={}", control_plane.kubeconfig().display()),
            format!("--kubernetes-ca-file={}", control_plane.ca_file().display()),
            format!("--https-proxy={}", options.https_proxy),
            format!("--ca-file={}", options.ca_file.display()),
        ];
        spawn_blocking(move || {
            let packages = Packages::ensure()?;
            let (supervised, ready) = Supervised::start("node", &arguments)?;
            Ok(Self {
                supervised,
                ready,
                packages,
            })
        })
        .await?
    }

    /// What `spec.nodeName` of a pod on it says.
    pub fn name(&self) -> &str {
        &self.ready.name
    }

    /// The folder with everything in it, logs included.
    pub fn dir(&self) -> &Path {
        &self.ready.dir
    }

    /// A program that needs nothing else, for images: Debian's static busybox.
    pub fn busybox(&self) -> PathBuf {
        self.packages.busybox()
    }

    /// The process ids of the supervisor and of the node's outermost process.
    pub fn process_ids(&self) -> [u32; 2] {
        [self.supervised.pid(), self.ready.pid]
    }

    /// What the containers of a pod have written, one text for each file.
    pub fn logs(&self, namespace: &str, pod: &str) -> Vec<String> {
        let prefix = format!("{namespace}_{pod}_");
        let folders = files(&configuration::pod_logs(self.dir()));
        folders
            .iter()
            .filter(|folder| {
                let name = folder.file_name().unwrap_or_default();
                name.to_string_lossy().starts_with(&prefix)
            })
            .flat_map(|folder| files(folder))
            .flat_map(|container| files(&container))
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .collect()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
