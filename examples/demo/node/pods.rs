//! Pods with the private image, and what the kubelet says of them.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use controlplane::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;

use super::{CREDENTIAL, NodeCast};
use crate::folder::Folder;
use crate::setup::ALLOWED;
use crate::story::Story;

/// The kubelet tries again 10 s after a failed pull, then 20 s, then 40 s.
const STARTS_WITHIN: Duration = Duration::from_secs(90);

/// Pods of namespace `demo`.
pub struct Pods<'a> {
    pub folder: &'a Folder,
    pub cast: &'a NodeCast,
}

impl Pods<'_> {
    /// Creates a pod that pulls with the Secret, each time it starts.
    pub async fn create(&self, story: &Story, name: &str) -> Result<()> {
        let (node, pinned) = (self.cast.node.name(), &self.cast.pinned);
        let image = pinned.split('@').next().unwrap_or_default();
        // There is no network plugin, so nobody calls the node ready.
        let manifest = format!(
            "\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  imagePullSecrets:
  - name: {CREDENTIAL}
  containers:
  - name: main
    image: {image}:v1
    imagePullPolicy: Always
  nodeName: {node}
  hostNetwork: true
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  tolerations:
  - operator: Exists
"
        );
        let file = self.folder.file(&format!("{name}.yaml"));
        fs::write(&file, &manifest)?;
        let apply = format!("apply -n {ALLOWED} -f {}", file.display());
        self.cast.cluster.run(story, &apply).await.map(drop)
    }

    /// Waits until its image cannot be pulled, and shows what the kubelet says.
    pub async fn is_refused(&self, story: &Story, name: &str) -> Result<()> {
        let said = eventually(STARTS_WITHIN, "the image is refused", async || {
            let pod = self.api().get(name).await;
            let pod = pod.map_err(|error| error.to_string())?;
            let statuses = pod.status.and_then(|status| status.container_statuses);
            let mut states = statuses.into_iter().flatten().filter_map(|one| one.state);
            let waiting = states.find_map(|state| state.waiting);
            match waiting.map(|waiting| (waiting.reason, waiting.message)) {
                Some((Some(reason), Some(message))) if reason == "ErrImagePull" => Ok(message),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        story.output(&format!("ErrImagePull: {said}"));
        let refused = ["401", "403", "authoriz", "denied"];
        ensure!(
            refused.iter().any(|word| said.contains(word)),
            "the pull failed, but not because it was refused"
        );
        Ok(())
    }

    /// Waits until it runs, and compares its image with the one that was pushed.
    pub async fn runs(&self, story: &Story, name: &str) -> Result<()> {
        let limit = STARTS_WITHIN.as_secs();
        let wait = format!("wait --for=condition=Ready pod/{name} -n {ALLOWED} --timeout={limit}s");
        self.cast.cluster.run(story, &wait).await?;
        let id = "-o jsonpath={.status.containerStatuses[0].imageID}";
        let get = format!("get pod {name} -n {ALLOWED} {id}");
        let id = self.cast.cluster.run(story, &get).await?;
        ensure!(id == self.cast.pinned, "{} was pushed", self.cast.pinned);
        Ok(())
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.cast.cluster.control_plane.admin(), ALLOWED)
    }
}
