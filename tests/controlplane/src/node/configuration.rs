//! The configuration files of containerd and the kubelet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::json;

use super::{machine::Machine, packages::Packages, pause};

pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

pub(super) fn pod_logs(dir: &Path) -> PathBuf {
    dir.join("pod-logs")
}

/// Where containerd keeps what runs; a folder for each container, named like its control groups.
pub(super) fn tasks(dir: &Path) -> PathBuf {
    dir.join("containerd/state/io.containerd.runtime.v2.task/k8s.io")
}

pub(super) fn containerd_file(dir: &Path) -> PathBuf {
    dir.join("containerd.toml")
}

pub(super) fn kubelet_file(dir: &Path) -> PathBuf {
    dir.join("kubelet.yaml")
}

pub(super) fn write_containerd(dir: &Path, packages: &Packages) -> Result<()> {
    let at = |name: &str| dir.join(name).display().to_string();
    let configuration = format!(
        r#"version = 2
root = {root:?}
state = {state:?}
[grpc]
  address = {socket:?}
[ttrpc]
  address = {ttrpc:?}
[plugins."io.containerd.internal.v1.opt"]
  path = {opt:?}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {pause:?}
  # Without the right to lower it (CAP_SYS_RESOURCE), as in a container, runc fails otherwise.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = {runc:?}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni:?}
    conf_dir = {cni:?}
"#,
        root = at("containerd/root"),
        state = at("containerd/state"),
        socket = socket(dir).display().to_string(),
        ttrpc = at("containerd.ttrpc"),
        opt = at("containerd/opt"),
        pause = pause::NAME,
        runc = packages.runc().display().to_string(),
        cni = at("cni"),
    );
    Ok(fs::write(containerd_file(dir), configuration)?)
}

pub(super) fn write_kubelet(dir: &Path, machine: &Machine, port: u16) -> Result<()> {
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": port,
        "healthzPort": 0,
        // Nobody has a certificate of that authority, so nobody on this machine can ask the kubelet for anything.
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": machine.kubernetes_ca_file},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "failCgroupV1": false,
        "resolvConf": "",
        "containerRuntimeEndpoint": format!("unix://{}", socket(dir).display()),
        "podLogsDir": pod_logs(dir),
        "volumePluginDir": dir.join("volume-plugins"),
        // A developer's disk that is nearly full is no reason to evict pods or to remove images.
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        // How soon it tries again, and sees new content of a mounted ConfigMap: a minute would make tests wait.
        "syncFrequency": "5s",
    });
    let text = serde_saphyr::to_string(&configuration)?;
    Ok(fs::write(kubelet_file(dir), text)?)
}
