//! The pinned programs that tests run against, built from Go modules on first use and cached.
//!
//! A binary found in `KUBEBUILDER_ASSETS` is taken as it is. Anything else is built from `tools/MODULE` and kept under the
//! user's cache directory, keyed by everything that goes into it, so that `cargo clean` or a fresh clone costs nothing.

mod build;
mod progress;

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result};

pub(crate) use self::{build::lock, progress::say};

/// A pinned program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The store behind the API server.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// Garbage collection, namespaces and default `ServiceAccount`s.
    KubeControllerManager,
    /// Chooses a node for each pod.
    KubeScheduler,
    /// Runs the pods of one node.
    Kubelet,
    /// The command line client; also renders kustomizations.
    Kubectl,
    /// The CNCF distribution registry.
    Registry,
    /// Pulls and pushes images without a daemon.
    Crane,
    /// Judges alerting rules.
    Promtool,
    /// Installs charts, version 4.
    Helm,
    /// The same, version 3: many still have it.
    Helm3,
}

/// A folder under `tools/`: one Go module, which may hold several programs.
#[derive(Debug)]
struct Module {
    folder: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// The dependency whose version is the version of the programs.
    pinned: &'static str,
    /// Where the program expects to be told its version, if it does not read it from its build information.
    version_variable: Option<&'static str>,
    /// Build tags, separated by commas.
    tags: &'static str,
}

macro_rules! module {
    ($folder:literal, $pinned:literal, $variable:expr) => {
        Module {
            folder: $folder,
            go_mod: include_str!(concat!("../tools/", $folder, "/go.mod")),
            go_sum: include_str!(concat!("../tools/", $folder, "/go.sum")),
            pinned: $pinned,
            version_variable: $variable,
            tags: "",
        }
    };
}

// Without the variable the API server calls itself v0.0.0, and version checks of charts fail.
static KUBERNETES: Module = module!(
    "kubernetes",
    "k8s.io/kubernetes",
    Some("k8s.io/component-base/version.gitVersion")
);
static ETCD: Module = module!("etcd", "go.etcd.io/etcd/server/v3", None);
static REGISTRY: Module = module!("registry", "github.com/distribution/distribution/v3", None);
static CRANE: Module = module!("crane", "github.com/google/go-containerregistry", None);
// The tag leaves out service discovery, which rules do not need and which is most of the build.
static PROMETHEUS: Module = Module {
    tags: "remove_all_sd",
    ..module!("prometheus", "github.com/prometheus/prometheus", None)
};

// Without the variable they know their minor version only.
static HELM: Module = module!(
    "helm",
    "helm.sh/helm/v4",
    Some("helm.sh/helm/v4/internal/version.version")
);
static HELM_3: Module = module!(
    "helm3",
    "helm.sh/helm/v3",
    Some("helm.sh/helm/v3/internal/version.version")
);

impl Tool {
    /// Every program.
    pub const ALL: [Self; 11] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::Kubectl,
        Self::Registry,
        Self::Crane,
        Self::Promtool,
        Self::Helm,
        Self::Helm3,
    ];
    /// The programs that [`ControlPlane`](crate::ControlPlane) keeps running; the scheduler only if it is asked for.
    pub const CONTROL_PLANE: [Self; 3] =
        [Self::Etcd, Self::KubeApiserver, Self::KubeControllerManager];

    /// The program's file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
            Self::Registry => "registry",
            Self::Crane => "crane",
            Self::Promtool => "promtool",
            Self::Helm => "helm",
            Self::Helm3 => "helm3",
        }
    }

    /// The version that this repository pins, such as `v1.35.4`. A binary from `KUBEBUILDER_ASSETS` may be another.
    pub fn version(self) -> &'static str {
        self.module().version()
    }

    fn module(self) -> &'static Module {
        match self {
            Self::Etcd => &ETCD,
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubelet
            | Self::Kubectl => &KUBERNETES,
            Self::Registry => &REGISTRY,
            Self::Crane => &CRANE,
            Self::Promtool => &PROMETHEUS,
            Self::Helm => &HELM,
            Self::Helm3 => &HELM_3,
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Self::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Registry => "github.com/distribution/distribution/v3/cmd/registry",
            Self::Crane => "github.com/google/go-containerregistry/cmd/crane",
            Self::Promtool => "github.com/prometheus/prometheus/cmd/promtool",
            Self::Helm => "helm.sh/helm/v4/cmd/helm",
            Self::Helm3 => "helm.sh/helm/v3/cmd/helm",
        }
    }

    /// The prebuilt binary in `KUBEBUILDER_ASSETS`, if there is one.
    fn prebuilt(self) -> Option<PathBuf> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").filter(|path| !path.is_empty())?;
        Some(PathBuf::from(assets).join(self.name())).filter(|path| path.is_file())
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Module {
    fn source(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tools")
            .join(self.folder)
    }

    fn version(&self) -> &'static str {
        self.directive(self.pinned)
    }

    /// The Go release that the module asks for, such as `1.26.0`.
    fn go_release(&self) -> &'static str {
        self.directive("go")
    }

    /// What follows `word` on its line of `go.mod`: a version, both for `go` and for a required module.
    fn directive(&self, word: &str) -> &'static str {
        self.go_mod
            .lines()
            .map(|line| line.trim().trim_start_matches("require "))
            .find_map(|line| {
                line.strip_prefix(word)?
                    .strip_prefix(' ')?
                    .split_whitespace()
                    .next()
            })
            .unwrap_or("unknown")
    }
}

/// Where the programs are. One that is neither in `KUBEBUILDER_ASSETS` nor in the cache is built when it is first asked
/// for, with progress on stderr; that takes minutes.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    paths: [OnceLock<PathBuf>; Tool::ALL.len()],
}

impl Tools {
    /// Finds or builds `tools` now. Blocks; with everything built, it reads a few small files and asks `go` for its
    /// version.
    pub fn ensure(tools: &[Tool]) -> Result<Self> {
        let (found, mut workshop) = (Self::default(), build::Workshop::default());
        for &tool in tools {
            let path = tool.prebuilt().map_or_else(|| workshop.built(tool), Ok)?;
            let _ = found.paths[tool as usize].set(path);
        }
        Ok(found)
    }

    /// The path of a program.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn path(&self, tool: Tool) -> &Path {
        self.paths[tool as usize].get_or_init(|| {
            let built = Self::ensure(&[tool]);
            let built = built.unwrap_or_else(|error| panic!("{tool} cannot be built: {error:#}"));
            built.path(tool).to_owned()
        })
    }
}

/// Where built programs are kept; created if it does not exist.
pub(crate) fn cache() -> Result<PathBuf> {
    let variable = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let path = variable("ACRCRED_TOOLS_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("acrcred/tools")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/acrcred/tools")))
        .context("set ACRCRED_TOOLS_CACHE, XDG_CACHE_HOME or HOME, so that built tools have a place to be kept")?;
    fs::create_dir_all(&path)
        .with_context(|| format!("cannot create the cache of built tools, {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_names_its_version_and_its_go_release() {
        for tool in Tool::ALL {
            assert!(
                tool.version().starts_with('v'),
                "{tool}: {}",
                tool.version()
            );
            assert!(
                tool.module().go_release().starts_with("1."),
                "{tool}: {}",
                tool.module().go_release()
            );
            assert!(
                tool.module().go_mod.contains(tool.package()),
                "{tool} is not in the tool directive of its go.mod"
            );
        }
    }
}
