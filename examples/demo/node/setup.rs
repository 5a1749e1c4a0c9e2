//! From nothing to an acrcred that runs as a pod.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use controlplane::Options;
use controlplane::node::image::{self, Stage};
use controlplane::node::{Node, NodeOptions};
use serde_json::json;

use super::{CREDENTIAL, NodeCast};
use crate::azure::{Azure, CLIENT, NORTHWIND, PUBLIC, PUSHER, TENANT};
use crate::checkout;
use crate::cluster::Cluster;
use crate::crane::Crane;
use crate::folder::Folder;
use crate::pod;
use crate::setup::ALLOWED;
use crate::story::Story;

const PRIVATE_IMAGE: &str = "team/hello:v1";
const ACRCRED_IMAGE: &str = "acrcred:demo";
const TRUSTED_CA: &str = "trusted-ca";
const CA_KEY: &str = "ca-bundle.crt";

/// Control plane, Azure, node, and the images of both.
pub async fn start(story: &mut Story, folder: &Folder) -> Result<NodeCast> {
    story.step("Start the parts, a real node among them");
    story.says(&format!(
        "All files are in {}, or in the node's folder beside it.",
        folder.path().display()
    ));
    let cluster = Cluster::start_with(folder, Options::for_nodes()).await?;
    story.proved("etcd, kube-apiserver, kube-controller-manager and kube-scheduler are ready");
    let azure = Azure::start(folder, &cluster).await?;
    story.proved("the emulator of Entra and the registries is ready");
    let options = NodeOptions {
        https_proxy: azure.proxy(),
        ca_file: azure.ca_file().into(),
    };
    let node = Node::start(&cluster.control_plane, options).await?;
    cluster.run(story, "get nodes").await?;
    story.says("NotReady: there is no network plugin; pods here use the machine's network.");
    story.proved("containerd and the kubelet run, and the node has registered");

    let mut cast = NodeCast {
        node,
        azure,
        cluster,
        pinned: String::new(),
    };
    cast.pinned = push(story, folder, &cast).await?;
    Ok(cast)
}

/// Pushes acrcred's own image, as its Dockerfile has it, and a private one. Returns the private one, by digest.
async fn push(story: &mut Story, folder: &Folder, cast: &NodeCast) -> Result<String> {
    story.step("Push acrcred's image and a private one");
    let (username, password) = PUSHER;
    let entry = json!({"username": username, "password": password});
    let config = json!({"auths": {NORTHWIND: entry, PUBLIC: entry}}).to_string();
    let (azure, cluster) = (&cast.azure, &cast.cluster);
    let crane = Crane::new(folder, azure, cluster, "pusher", config.as_bytes())?;

    let dockerfile = fs::read_to_string(checkout::root().join("Dockerfile"))?;
    let stage = Stage::last_of(&dockerfile)?;
    let program = image::program(&checkout::target()?);
    stage.write_layer(&program, &folder.file("acrcred.tar"))?;
    let name = format!("{PUBLIC}/{ACRCRED_IMAGE}");
    let start = (stage.entrypoint.join(","), stage.user);
    crane.assemble(story, "acrcred.tar", &name, &start).await?;
    let size = fs::metadata(&program)?.len();
    story.proved(&format!(
        "acrcred's image has what the Dockerfile says: a static program of {} MB, and certificates",
        size / 1_000_000
    ));

    let root = folder.folder("waits")?;
    copy_program(&cast.node.busybox(), &root.join("busybox"))?;
    image::write_layer(&root, &folder.file("waits.tar"))?;
    let name = format!("{NORTHWIND}/{PRIVATE_IMAGE}");
    let start = (
        "/busybox,sleep,infinity".to_owned(),
        "65532:65532".to_owned(),
    );
    let digest = crane.assemble(story, "waits.tar", &name, &start).await?;
    story.proved("the private image is a program that waits");
    let (repository, _) = name.rsplit_once(':').context("a tag")?;
    Ok(format!("{repository}@{digest}"))
}

/// The folder is its owner's alone, but in the image everybody may run the program.
fn copy_program(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    let folder = to.parent().context("a folder")?;
    Ok(fs::set_permissions(
        folder,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// Installs the chart, and waits until acrcred's pod is ready.
pub async fn install(story: &mut Story, folder: &Folder, cast: &NodeCast) -> Result<()> {
    story.step("Install acrcred with Helm");
    let cluster = &cast.cluster;
    let (namespace, account) = pod::ACCOUNT;
    for name in [namespace, ALLOWED] {
        let create = format!("create namespace {name}");
        cluster.run(story, &create).await?;
        let account = format!("wait --for=create serviceaccount/default -n {name} --timeout=30s");
        cluster.run(story, &account).await?;
    }
    let bundle = format!("{CA_KEY}={}", cast.azure.ca_file());
    let create = format!("create configmap {TRUSTED_CA} -n {namespace} --from-file={bundle}");
    cluster.run(story, &create).await?;

    let file = folder.file("values.yaml");
    let values = values(cast)?;
    fs::write(&file, &values)?;
    story.says("values.yaml:");
    story.output(&values);
    let file = file.display().to_string();
    let install = [
        "install",
        account,
        "charts/acrcred",
        "--namespace",
        namespace,
    ];
    let install = [&install[..], &["--values", &file]].concat();
    cast.helm(&install)?.run(story).await?;
    let rollout = format!("rollout status deployment/acrcred -n {namespace} --timeout=50s");
    cluster.run(story, &rollout).await?;
    let pods = format!("get pods -n {namespace} -o wide");
    cluster.run(story, &pods).await?;
    cluster.fenced(pod::ACCOUNT, ALLOWED).await?;
    story.proved(&format!(
        "acrcred runs as a pod from its image, and serves objects such as {CREDENTIAL}"
    ));
    Ok(())
}

/// What an operator would set for a node without network plugin, `kube-proxy` and public certificates.
fn values(cast: &NodeCast) -> Result<String> {
    let url = cast.cluster.control_plane.url();
    let address = url.trim_start_matches("https://");
    let (host, port) = address.rsplit_once(':').context("a port")?;
    let (proxy, policy, admin) = (cast.azure.proxy(), pod::POLICY, pod::free_port()?);
    let (repository, tag) = ACRCRED_IMAGE.split_once(':').context("a tag")?;
    Ok(format!(
        "\
clientId: {CLIENT}
tenantId: {TENANT}
allowControllerIdentity: [\"{policy}\"]
image:
  repository: {PUBLIC}/{repository}
  tag: {tag}
replicaCount: 1
proxy:
  httpsProxy: {proxy}
caBundle:
  configMap: {TRUSTED_CA}
hostNetwork: true
dnsPolicy: Default
adminPort: {admin}
tolerations:
- operator: Exists
extraEnv:
- name: KUBERNETES_SERVICE_HOST
  value: \"{host}\"
- name: KUBERNETES_SERVICE_PORT
  value: \"{port}\"
"
    ))
}
