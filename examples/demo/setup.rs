//! From nothing to an acrcred that is ready: programs, parts, images, installation.

use anyhow::{Context as _, Result, ensure};
use controlplane::{Tool, Tools};
use serde_json::json;
use tokio::process::Command;

use crate::azure::{Azure, CONTOSO, FABRIKAM, NORTHWIND, PUSHER};
use crate::checkout;
use crate::cluster::Cluster;
use crate::crane::Crane;
use crate::folder::Folder;
use crate::image::{self, Image};
use crate::pod::{self, Files, Pod};
use crate::shell::Line;
use crate::story::Story;

/// The namespace of `config/samples`, which the policy names.
pub const ALLOWED: &str = "demo";
/// A namespace that it does not name.
pub const ELSEWHERE: &str = "elsewhere";
/// The repository that the demo has in each registry.
pub const HELLO: &str = "team/hello";
/// One that `config/samples/repositories.yaml` names.
pub const PAYMENTS: &str = "payments/api";
const TAG: &str = "v1";

/// The pinned tools that the story needs.
pub const TOOLS: [Tool; 6] = [
    Tool::Etcd,
    Tool::KubeApiserver,
    Tool::KubeControllerManager,
    Tool::Kubectl,
    Tool::Registry,
    Tool::Crane,
];

/// Builds what is not yet built; cargo has built acrcred and the emulator before this program.
pub async fn build(story: &mut Story, tools: &[Tool]) -> Result<()> {
    story.step("Build what it needs");
    let acrcred = Command::new(checkout::program("acrcred")?);
    Line::new("acrcred", acrcred, &["--version"])
        .run(story)
        .await?;
    let needed = tools.to_vec();
    tokio::task::spawn_blocking(move || Tools::ensure(&needed)).await??;
    let versions = tools
        .iter()
        .map(|tool| format!("{tool} {}", tool.version()));
    story.output(&versions.collect::<Vec<_>>().join("\n"));
    story.proved("acrcred is built, and the pinned Go tools are in their cache");
    Ok(())
}

/// Starts everything that is not acrcred, on loopback.
pub async fn start(story: &mut Story, folder: &Folder) -> Result<(Cluster, Azure)> {
    story.step("Start the parts");
    story.says(&format!(
        "All files are in {}, all listeners on loopback.",
        folder.path().display()
    ));
    let cluster = Cluster::start(folder).await?;
    let issuer = cluster.control_plane.issuer();
    ensure!(
        issuer.starts_with("https://") && issuer.ends_with('/'),
        "the issuer is {issuer}"
    );
    cluster
        .kubectl(&["get", "--raw", "/readyz"])
        .run(story)
        .await?;
    story.says(&format!(
        "Tokens of its ServiceAccounts are issued by {issuer}"
    ));
    story.proved("etcd, kube-apiserver and kube-controller-manager are ready");

    let azure = Azure::start(folder, &cluster).await?;
    story.says(&format!(
        "Azure is at the production names behind HTTPS_PROXY={},",
        azure.proxy()
    ));
    story.says(&format!(
        "with certificates that SSL_CERT_FILE={} vouches for.",
        azure.ca_file()
    ));
    story.proved("the emulator of Entra and the registries is ready");
    Ok((cluster, azure))
}

/// Puts an image into both registries.
pub async fn push(
    story: &mut Story,
    folder: &Folder,
    azure: &Azure,
    cluster: &Cluster,
) -> Result<Vec<Image>> {
    story.step("Push small private images to two registries");
    let (username, password) = PUSHER;
    let entry = json!({"username": username, "password": password});
    let config = json!({"auths": {CONTOSO: entry, FABRIKAM: entry}}).to_string();
    let crane = Crane::new(folder, azure, cluster, "pusher", config.as_bytes())?;
    let mut images = Vec::new();
    for (server, repository) in [(CONTOSO, HELLO), (FABRIKAM, HELLO), (CONTOSO, PAYMENTS)] {
        let layer = image::write_layer(folder, server, repository)?;
        let mut image = Image {
            server,
            repository,
            tag: TAG,
            digest: String::new(),
        };
        image.digest = crane.push(story, &layer, &image.reference()).await?;
        images.push(image);
    }
    for server in [CONTOSO, FABRIKAM] {
        let arm_auth = azure
            .arm_auth(server)
            .context("a registry that does not exist")?;
        story.proved(&format!(
            "{server} has its images (authentication-as-arm: {arm_auth:?})"
        ));
    }
    Ok(images)
}

/// Installs acrcred and starts it with the rights of its `ServiceAccount`.
pub async fn install(
    story: &mut Story,
    folder: &Folder,
    azure: &Azure,
    cluster: &Cluster,
) -> Result<Pod> {
    story.step("Install acrcred");
    let crd = "crd/acrcredentials.acrcred.dev";
    cluster.run(story, "apply -k config/crd").await?;
    cluster
        .run(story, &format!("wait --for=condition=Established {crd}"))
        .await?;
    cluster.run(story, "apply -k config/rbac").await?;
    cluster.run(story, "apply -k config/policy").await?;
    for namespace in [ALLOWED, ELSEWHERE] {
        cluster
            .run(story, &format!("create namespace {namespace}"))
            .await?;
    }
    let files = Files::write(folder, cluster).await?;
    cluster.fenced(pod::ACCOUNT, ALLOWED).await?;
    story.proved("CRD, RBAC and admission policy are those of config/");

    check_rights(story, cluster, &files).await?;
    let pod = Pod::start(story, folder, azure, files).await?;
    ensure!(
        azure.exchanges(NORTHWIND).is_empty(),
        "it asks for credentials that nobody wants"
    );
    story.proved(&format!("acrcred is ready: http://{}/readyz", pod.admin()));
    Ok(pod)
}

/// It may do what its role says and nothing else, whatever the administrator may.
async fn check_rights(story: &mut Story, cluster: &Cluster, files: &Files) -> Result<()> {
    story.says("Seen with the kubeconfig that acrcred gets:");
    let as_acrcred = format!("--kubeconfig={}", files.kubeconfig().display());
    let who = format!("auth whoami {as_acrcred} -o jsonpath={{.status.userInfo.username}}");
    let user = cluster.run(story, &who).await?;
    ensure!(user == pod::subject(), "acrcred would be {user}");

    let list = ["get", "secrets", "--all-namespaces", &as_acrcred];
    let refusal = cluster.kubectl(&list).refusal(story).await?;
    let refusal = refusal.context("acrcred may read everybody's Secrets")?;
    ensure!(
        refusal.contains("(Forbidden)"),
        "Secrets cannot be read, but for another reason"
    );

    let create = [
        "create",
        "secret",
        "generic",
        "foreign",
        "-n",
        ALLOWED,
        "--dry-run=server",
    ];
    let create = [&create[..], &[&as_acrcred]].concat();
    let refusal = cluster.kubectl(&create).refusal(story).await?;
    let refusal = refusal.context("acrcred may create Secrets that are not its own")?;
    ensure!(
        refusal.contains("acrcred-secrets"),
        "a foreign Secret was refused, but not by the admission policy"
    );
    story.proved("it is no administrator: it gets no Secrets, and writes only its own kind");
    Ok(())
}
