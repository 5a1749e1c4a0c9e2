//! What a team asks for beyond the simplest: an identity of its own, and a credential that reaches less.

use anyhow::{Context as _, Result, ensure};
use azure_emulator::journal::Entry;

use crate::Cast;
use crate::azure::{CONTOSO, TEAM_CLIENT};
use crate::cluster::TOKEN_POLICY;
use crate::crane::Crane;
use crate::folder::Folder;
use crate::image::Image;
use crate::pod;
use crate::proofs::{MESSAGE, REASON, wait_for, wait_ready};
use crate::setup::{ALLOWED, PAYMENTS};
use crate::story::Story;

/// The object of `config/samples/service-account-identity.yaml`, and its Secret.
const TEAM: &str = "payments";
/// The object of `config/samples/repositories.yaml`, and its Secret.
const IMAGES: &str = "payments-images";

/// A team's `ServiceAccount` gets the credential, once the operator lets acrcred stand in for it.
pub async fn own(story: &mut Story, folder: &Folder, cast: &Cast) -> Result<()> {
    story.step("Use a team's own identity");
    let cluster = &cast.cluster;
    let sample = "apply -f config/samples/service-account-identity.yaml";
    cluster.run(story, sample).await?;
    let forbidden = format!("--for=jsonpath={REASON}=Forbidden");
    let object = format!("acrcredential/{TEAM}");
    let refused = wait_for(story, cluster, ALLOWED, &[&forbidden, &object]).await;
    refused.context("acrcred needs no right to stand in for a ServiceAccount")?;
    let message = format!("get acrcredential {TEAM} -n {ALLOWED} -o jsonpath={MESSAGE}");
    cluster.run(story, &message).await?;
    story.proved("without the operator's consent it is refused, and says who has to do what");

    cluster.run(story, "apply -k config/impersonation").await?;
    let bind = format!("apply -n {ALLOWED} -k config/impersonation/namespace");
    cluster.run(story, &bind).await?;
    fenced(story, cast).await?;
    story.proved("acrcred may make tokens of this namespace's ServiceAccounts, for Entra only");

    // It would try again by itself, minutes later.
    let ask = format!("annotate acrcredential {TEAM} -n {ALLOWED} acrcred.dev/refresh=now");
    cluster.run(story, &ask).await?;
    wait_ready(story, cast, TEAM).await?;
    let secret = cluster.the_pull_secret(ALLOWED, TEAM).await?;
    let exchanges = cast.azure.exchanges(CONTOSO);
    let theirs = |entry: &Entry| entry.client_id.as_deref() == Some(TEAM_CLIENT);
    ensure!(
        exchanges.iter().any(theirs),
        "the credential was minted for somebody else"
    );
    let crane = Crane::new(folder, &cast.azure, cluster, "team", &secret.docker_config)?;
    crane.pull(story, image(cast, PAYMENTS)?).await?;
    story.proved(&format!(
        "a credential of identity {TEAM_CLIENT}, and it pulls"
    ));
    Ok(())
}

/// The policy that limits those tokens is in force: acrcred gets none that the API server would take.
async fn fenced(story: &Story, cast: &Cast) -> Result<()> {
    let cluster = &cast.cluster;
    cluster.tokens_fenced(pod::ACCOUNT, ALLOWED).await?;
    let as_acrcred = format!("--kubeconfig={}", cast.pod.kubeconfig().display());
    let create = format!("create token puller -n {ALLOWED} --duration=10m {as_acrcred}");
    let create: Vec<_> = create.split_whitespace().collect();
    let refusal = cluster.kubectl(&create).refusal(story).await?;
    let refusal = refusal.context("acrcred may make tokens for the API server")?;
    ensure!(
        refusal.contains(TOKEN_POLICY),
        "such a token was refused, but not by the admission policy"
    );
    Ok(())
}

/// A credential for two repositories pulls these and nothing else.
pub async fn repositories(story: &mut Story, folder: &Folder, cast: &Cast) -> Result<()> {
    story.step("Ask for two repositories and nothing else");
    let cluster = &cast.cluster;
    let sample = "apply -f config/samples/repositories.yaml";
    cluster.run(story, sample).await?;
    wait_ready(story, cast, IMAGES).await?;
    let secret = cluster.the_pull_secret(ALLOWED, IMAGES).await?;
    let (azure, config) = (&cast.azure, &secret.docker_config);
    let crane = Crane::new(folder, azure, cluster, "repositories", config)?;
    crane.pull(story, image(cast, PAYMENTS)?).await?;
    let other = cast.images.iter().find(|image| image.server == CONTOSO);
    crane.is_refused(story, other.context("no image")?).await?;
    story.proved("it pulls payments/api, and is refused another repository of the same registry");
    Ok(())
}

fn image<'a>(cast: &'a Cast, repository: &str) -> Result<&'a Image> {
    let mut images = cast.images.iter();
    let found = images.find(|image| image.repository == repository);
    found.with_context(|| format!("no image in {repository}"))
}
