//! What the tests share: a control plane with a scheduler, a node, Azure, and acrcred installed as a pod.

use std::io::Write as _;

use anyhow::{Result, ensure};
use controlplane::node::{Node, NodeOptions};
use controlplane::{ControlPlane, Options};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::harness::{self, CONTROLLER, Objects, Scene, TestRegistry};
use crate::images::{self, Image};
use crate::install::{self, Installation};
use crate::pods::Pods;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

/// Lives as long as the run.
pub struct Stage {
    /// Its tenant and identity are acrcred's own; its clock is the machine's.
    pub scene: Scene,
    pub node: Node,
    pub acrcred: Image,
}

/// A story's namespace and private image.
pub struct Story {
    pub registry: TestRegistry,
    pub image: Image,
    pub objects: Objects,
    pub pods: Pods,
}

impl Story {
    /// A pod that pulls with the Secret runs, and its image is the one that was pushed.
    pub async fn starts(&self, name: &str) -> Result<()> {
        self.pods.create(name, &self.image, Some("acr")).await?;
        let runs = self.pods.runs(name).await?;
        ensure!(runs == self.image.pinned, "{runs} runs");
        Ok(())
    }
}

/// Runs a test on the shared stage, or says why there is none.
pub fn run(test: impl AsyncFnOnce(&'static Stage) -> Result<()>) {
    if let Some(reason) = Node::missing() {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        // Not eprintln, which the test harness would swallow.
        let _ = writeln!(std::io::stderr(), "skipped: no node: {reason} ({name})");
        harness::note("skipped", &format!("{name}: no node: {reason}\n"));
        return;
    }
    harness::run(async {
        let stage = STAGE.get_or_try_init(Stage::start).await?;
        test(stage).await
    });
}

impl Stage {
    async fn start() -> Result<Self> {
        // Without anything of ours: the chart brings it all.
        let control_plane = ControlPlane::start(Options::for_nodes()).await?;
        let (namespace, _) = CONTROLLER;
        let object = json!({"metadata": {"name": namespace}});
        let namespaces: Api<Namespace> = Api::all(control_plane.admin());
        let namespace = serde_json::from_value(object)?;
        namespaces
            .create(&PostParams::default(), &namespace)
            .await?;
        let control_plane: &'static ControlPlane = Box::leak(Box::new(control_plane));
        let scene = Scene::with_control_plane(control_plane, "stage").await?;
        let node = Node::start(
            control_plane,
            NodeOptions {
                https_proxy: scene.emulator.proxy_url(),
                ca_file: scene.emulator.ca_file().to_owned(),
            },
        )
        .await?;
        let registry = scene.empty_registry("azurecr.io", "acrcred", |registry| {
            registry.anonymous_pull = true;
        })?;
        let acrcred = images::push_acrcred(&scene, &registry).await?;
        let stage = Self {
            scene,
            node,
            acrcred,
        };
        install::install(&stage, &Installation::shared(&stage)).await?;
        Ok(stage)
    }

    /// A namespace with nothing in it, and a registry with an image that acrcred's identity may pull.
    pub async fn story(&self, name: &str) -> Result<Story> {
        let namespace = self.scene.control_plane.create_namespace(name).await?;
        let registry = self.scene.empty_registry("azurecr.io", name, |_| {})?;
        self.scene.assign_role(&registry)?;
        let image = images::push_app(&self.scene, &registry, &self.node.busybox()).await?;
        let client = self.scene.control_plane.admin();
        Ok(Story {
            registry,
            image,
            objects: Objects::new(client.clone(), &namespace),
            pods: Pods::new(client, &namespace, self.node.name()),
        })
    }
}
