//! What acrcred promises, tried out.

use anyhow::{Context as _, Result, bail, ensure};
use controlplane::eventually;
use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::StatusCode;

use crate::Cast;
use crate::azure::{CONTOSO, FABRIKAM, NORTHWIND, Traffic};
use crate::cluster::{Cluster, SOON};
use crate::crane::Crane;
use crate::folder::Folder;
use crate::hand::{self, REGISTRY_AUDIENCE, RESOURCE_MANAGER_AUDIENCE};
use crate::setup::{ALLOWED, ELSEWHERE};
use crate::story::Story;

/// Name of the object that asks for all of two registries, and of its Secret.
pub const SAMPLE: &str = "acr";
const REFUSED: &str = "ControllerIdentityNotAllowed";
pub const REASON: &str = r#"{.status.conditions[?(@.type=="Ready")].reason}"#;
pub const MESSAGE: &str = r#"{.status.conditions[?(@.type=="Ready")].message}"#;

/// An object becomes a Secret.
pub async fn credential(story: &mut Story, cast: &Cast) -> Result<()> {
    story.step("Ask for a credential");
    let cluster = &cast.cluster;
    let sample = "apply -f config/samples/controller-identity.yaml";
    cluster.run(story, sample).await?;
    wait_ready(story, cast, SAMPLE).await?;
    cluster.run(story, "get acrcredentials -A").await?;
    let (name, place) = (SAMPLE, ALLOWED);
    cluster
        .run(story, &format!("get secret {name} -n {place}"))
        .await?;
    let expiry = "-o jsonpath={.status.expiresAt}";
    cluster
        .run(
            story,
            &format!("get acrcredential {name} -n {place} {expiry}"),
        )
        .await?;
    let expires_at = agreed_expiry(cast).await?;
    let left = from_now(expires_at)?;
    story.proved(&format!(
        "the Secret is there; it expires in {left:#}, and status and tokens agree"
    ));
    Ok(())
}

/// The expiry that both the status and the tokens in the Secret tell.
pub async fn agreed_expiry(cast: &Cast) -> Result<Timestamp> {
    // Between the two reads a rotation may happen.
    eventually(
        SOON,
        "status.expiresAt is what the tokens say",
        async || {
            let told = status_time(cast, "expiresAt")
                .await
                .map_err(|error| error.to_string())?;
            let secret = cast.cluster.the_pull_secret(ALLOWED, SAMPLE).await;
            let held = secret
                .and_then(|secret| secret.expires_at())
                .map_err(|error| error.to_string())?;
            if told == held {
                Ok(told)
            } else {
                Err(format!("{told} in status, {held} in the Secret"))
            }
        },
    )
    .await
}

/// A time in the sample's status.
pub async fn status_time(cast: &Cast, field: &str) -> Result<Timestamp> {
    let status = cast.cluster.status(ALLOWED, SAMPLE).await?;
    let time = status[field]
        .as_str()
        .with_context(|| format!("no status.{field}"))?;
    Ok(time.parse()?)
}

/// How long it is until then.
pub fn from_now(time: Timestamp) -> Result<SignedDuration> {
    Ok(time.duration_since(Timestamp::now()).round(Unit::Second)?)
}

/// What the Secret holds is enough to pull, and necessary.
pub async fn pulls(story: &mut Story, folder: &Folder, cast: &Cast) -> Result<()> {
    story.step("Pull, without credentials and then with the Secret");
    let nobody = Crane::new(
        folder,
        &cast.azure,
        &cast.cluster,
        "nobody",
        br#"{"auths":{}}"#,
    )?;
    for image in &cast.images {
        nobody.is_refused(story, image).await?;
    }
    story.proved("without credentials no image can be pulled");
    pull_with_the_secret(story, folder, cast).await?;
    story.proved("with nothing but the Secret crane logs in, lists the tags and pulls all");
    Ok(())
}

/// crane with the Secret's `.dockerconfigjson`, as it is now, and nothing else.
pub async fn pull_with_the_secret(story: &Story, folder: &Folder, cast: &Cast) -> Result<()> {
    story.command(&format!(
        "kubectl get secret {SAMPLE} -n {ALLOWED} -o jsonpath='{{.data.\\.dockerconfigjson}}' \
         | base64 -d > secret/config.json"
    ));
    let secret = cast.cluster.the_pull_secret(ALLOWED, SAMPLE).await?;
    let crane = Crane::new(
        folder,
        &cast.azure,
        &cast.cluster,
        "secret",
        &secret.docker_config,
    )?;
    for image in &cast.images {
        crane.list(story, image).await?;
        crane.pull(story, image).await?;
    }
    Ok(())
}

/// The negative control: with a token for Azure's Resource Manager the same identity gets less.
pub async fn audiences(story: &mut Story, cast: &Cast) -> Result<()> {
    story.step("Try the other audience by hand, as the same identity");
    let client = hand::client(cast)?;
    let mut table = vec![row("audience of the token", CONTOSO, FABRIKAM)];
    for audience in [REGISTRY_AUDIENCE, RESOURCE_MANAGER_AUDIENCE] {
        let token = hand::sign_in(story, cast, &client, audience).await?;
        let contoso = hand::exchange(story, &client, CONTOSO, &token).await?;
        let fabrikam = hand::exchange(story, &client, FABRIKAM, &token).await?;
        // Only contoso's authentication-as-arm is disabled.
        judge(CONTOSO, audience, contoso, audience == REGISTRY_AUDIENCE)?;
        judge(FABRIKAM, audience, fabrikam, true)?;
        table.push(row(audience, contoso.as_str(), fabrikam.as_str()));
    }
    story.output(&table.join("\n"));
    story.proved("a Resource Manager token is refused by contoso and accepted by fabrikam");
    Ok(())
}

fn row(audience: &str, contoso: &str, fabrikam: &str) -> String {
    format!("{audience:<40}{contoso:<22}{fabrikam}")
}

fn judge(server: &str, audience: &str, status: StatusCode, acceptable: bool) -> Result<()> {
    let due = if acceptable {
        StatusCode::OK
    } else {
        StatusCode::UNAUTHORIZED
    };
    ensure!(
        status == due,
        "{server} answered {status} to a token for {audience}, which it has to {}",
        if acceptable { "accept" } else { "refuse" }
    );
    Ok(())
}

/// Where the policy does not name the namespace, nothing is issued and nothing is asked.
pub async fn policy(story: &mut Story, cast: &Cast) -> Result<()> {
    story.step("Put the policy to the test");
    story.says(&format!(
        "The policy is {}; {NORTHWIND} has not been asked for.",
        crate::pod::POLICY
    ));
    let before = cast.azure.traffic();
    apply_northwind(story, cast, ELSEWHERE).await?;
    let refused = format!("--for=jsonpath={REASON}={REFUSED}");
    let refused = wait_for(
        story,
        &cast.cluster,
        ELSEWHERE,
        &[&refused, "acrcredential/northwind"],
    )
    .await;
    refused.context("the policy does not hold in namespace elsewhere")?;
    let message = format!("get acrcredential northwind -n {ELSEWHERE} -o jsonpath={MESSAGE}");
    cast.cluster.run(story, &message).await?;
    let secrets = cast.cluster.secrets(ELSEWHERE).await?;
    ensure!(
        secrets.is_empty(),
        "there are Secrets in {ELSEWHERE}: {}",
        secrets.join(", ")
    );
    tell_traffic(story, before, cast.azure.traffic());
    ensure!(
        cast.azure.traffic() == before,
        "the refused object led to requests"
    );
    story.proved(&format!(
        "in namespace {ELSEWHERE}: {REFUSED}, no Secret, and no request left"
    ));

    apply_northwind(story, cast, ALLOWED).await?;
    wait_ready(story, cast, "northwind").await?;
    tell_traffic(story, before, cast.azure.traffic());
    let exchanges = cast.azure.exchanges(NORTHWIND).len();
    ensure!(
        exchanges == 1,
        "{exchanges} exchanges at {NORTHWIND} instead of 1"
    );
    story.proved(&format!(
        "the same object in namespace {ALLOWED} is served, and costs one exchange"
    ));
    Ok(())
}

async fn apply_northwind(story: &Story, cast: &Cast, namespace: &str) -> Result<()> {
    let apply = format!("apply -f examples/demo/northwind.yaml -n {namespace}");
    cast.cluster.run(story, &apply).await.map(drop)
}

pub async fn wait_ready(story: &Story, cast: &Cast, which: &str) -> Result<()> {
    let arguments = ["--for=condition=Ready", "acrcredential", which];
    let ready = wait_for(story, &cast.cluster, ALLOWED, &arguments).await;
    ready.context("no credential in namespace demo")
}

/// `kubectl wait …`; when that is in vain, the error tells how the objects are instead.
pub async fn wait_for(
    story: &Story,
    cluster: &Cluster,
    namespace: &str,
    arguments: &[&str],
) -> Result<()> {
    let place = ["-n", namespace];
    let wait = [&["wait"], arguments, &place, &["--timeout=20s"]].concat();
    if cluster.kubectl(&wait).run(story).await.is_ok() {
        return Ok(());
    }
    let line = format!("{{.metadata.name}} is {REASON}: {MESSAGE}{{'\\n'}}");
    let lines = format!("jsonpath={{range .items[*]}}{line}{{end}}");
    let get = [&["get", "acrcredentials"][..], &place, &["-o", &lines]].concat();
    bail!("{}", cluster.kubectl(&get).run(story).await?)
}

fn tell_traffic(story: &Story, before: Traffic, after: Traffic) {
    story.output(&format!(
        "to Entra and {NORTHWIND}: {} requests and {} connections before, {} and {} after",
        before.requests, before.connections, after.requests, after.connections
    ));
}
