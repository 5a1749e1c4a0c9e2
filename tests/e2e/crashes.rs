//! The program is killed at each of its writes: before the API server hears of it, before the answer
//! comes, and after. Started again, it ends where it would have ended, and does nothing twice.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::journal::Endpoint;
use controlplane::Calls;
use controlplane::fault_proxy::{Fault, FaultProxy, Match, Moment, Rule};
use futures::future::try_join_all;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Program, Scene, TestRegistry, manifest, run, soon};

const DOCKER_CONFIG: &str = "kubernetes.io/dockerconfigjson";
/// A token of three hours is due for its refresh by then.
const REFRESH: SignedDuration = SignedDuration::from_mins(100);

/// Which of acrcred's writes is its last, counted from 0, and when in it the end comes.
#[derive(Clone, Copy, Debug)]
struct Death {
    write: usize,
    moment: Moment,
}

/// What both runs cost together. Writes are those of the Secret and the status, refused ones too.
struct Cost {
    exchanges: usize,
    writes: usize,
}

struct Stage {
    scene: Scene,
    contoso: TestRegistry,
    foreign: Secret,
}

impl Death {
    /// What both runs cost, where `exchanges` and `writes` are those of a run without a death.
    fn cost(self, exchanges: usize, writes: usize) -> Cost {
        match (self.write, self.moment) {
            // Nothing was written: only the token is lost.
            (0, Moment::BeforeForwarding) => Cost {
                exchanges: exchanges + 1,
                writes,
            },
            // The Secret was written and the status does not say so: a write that meets it, and one that replaces it.
            (0, _) | (_, Moment::BeforeForwarding) => Cost {
                exchanges: exchanges + 1,
                writes: writes + 2,
            },
            (_, Moment::AfterCommit | Moment::AfterAnswer) => Cost { exchanges, writes },
        }
    }
}

impl Stage {
    async fn set(scene: Scene) -> Result<Self> {
        let contoso = scene.registry("contoso").await?;
        let foreign =
            json!({"metadata": {"name": "foreign"}, "stringData": {"password": "hunter2"}});
        let foreign = serde_json::from_value(foreign)?;
        let secrets = scene.objects().secrets;
        let foreign = secrets.create(&PostParams::default(), &foreign).await?;
        Ok(Self {
            scene,
            contoso,
            foreign,
        })
    }

    /// Runs the program until it dies; `provoke` makes it write.
    async fn dies(
        &self,
        death: Death,
        provoke: impl AsyncFnOnce(&FaultProxy) -> Result<()>,
    ) -> Result<()> {
        let proxy = self.scene.fault_proxy().await?;
        let pid: Arc<OnceLock<Pid>> = Arc::default();
        let target = pid.clone();
        let kill = Arc::new(move || {
            if let Some(pid) = target.get() {
                let _ = kill_process(*pid, Signal::KILL);
            }
        });
        let writes = || Match::writes().by("acrcred");
        let last = Rule::new(writes(), Fault::Call(death.moment, kill)).after(death.write);
        let last = proxy.add(last.times(1));
        // What it still asks for in the moment before its death is not heard.
        proxy.add(Rule::new(writes(), Fault::Hang).after(death.write));
        let mut program = Program::spawn(&self.scene, &proxy.url()).await?;
        pid.set(program.pid()?).ok();
        provoke(&proxy).await?;
        let status = program
            .ended()
            .await
            .with_context(|| format!("{death:?}"))?;
        ensure!(
            status.signal() == Some(9) && proxy.hits(last) == 1,
            "{death:?}: {status}"
        );
        ensure!(!program.log()?.contains("panicked"), "{}", program.log()?);
        Ok(())
    }

    /// Starts the program again and checks everything that must hold.
    async fn revives(&self, death: Death, cost: Cost) -> Result<()> {
        let Self {
            scene,
            contoso,
            foreign,
        } = self;
        let objects = scene.objects();
        let before = objects.secrets.get_opt("acr").await?;
        let program = Program::start(scene).await?;
        soon("it has done what is left", async || {
            match self.writes().await {
                Ok(writes) if writes.len() >= cost.writes => Ok(()),
                Ok(writes) => Err(writes.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .with_context(|| format!("{death:?}: {}", program.log().unwrap_or_default()))?;
        objects.ready("acr").await?;
        // Another object shows that it works, and has had the time for more than it should do.
        let control = scene.registry("control").await?;
        objects
            .create_ready(&manifest("control", &[&control]))
            .await?;

        let secrets = objects.secrets.list(&ListParams::default()).await?.items;
        let ours = secrets
            .iter()
            .filter(|secret| secret.type_.as_deref() == Some(DOCKER_CONFIG));
        ensure!(ours.count() == 2, "{death:?}: {} Secrets", secrets.len());
        let after = objects.secret("acr").await?;
        if let Some(before) = before {
            ensure!(
                after.metadata.uid == before.metadata.uid,
                "{death:?}: another Secret"
            );
        }
        let now = objects.secret("foreign").await?;
        ensure!(
            fingerprint(&now) == fingerprint(foreign),
            "{death:?}: a foreign Secret changed"
        );
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane
            .pull(&format!("{}/team/app:v1", contoso.server))
            .await?;

        let exchanges = self.exchanges();
        ensure!(
            exchanges == cost.exchanges,
            "{death:?}: {exchanges} exchanges"
        );
        let writes = self.writes().await?;
        ensure!(writes.len() == cost.writes, "{death:?}: {writes}");
        let stated = objects.credentials.get("acr").await?;
        let stated = stated.status.and_then(|status| status.secret);
        let stated = stated.map(|secret| (Some(secret.uid), Some(secret.resource_version)));
        let stored = (after.metadata.uid, after.metadata.resource_version);
        ensure!(stated == Some(stored), "{death:?}: {stated:?}");
        let calls = scene.calls().await?;
        ensure!(calls.forbidden().is_empty(), "{}", calls.forbidden());
        let log = program.terminate().await?;
        ensure!(!log.contains("panicked"), "{log}");
        Ok(())
    }

    /// What acrcred wrote, or tried to.
    async fn writes(&self) -> Result<Calls> {
        let calls = self.scene.calls().await?.writes();
        Ok(calls.matching(|call| call.name == "acr"))
    }

    /// How often a token of the object's registry was asked for.
    fn exchanges(&self) -> usize {
        let journal = self.scene.journal(Endpoint::Exchange);
        journal
            .iter()
            .filter(|entry| entry.host == self.contoso.server)
            .count()
    }
}

async fn watching(proxy: &FaultProxy) -> Result<()> {
    soon("it watches", async || match proxy.open_watches() {
        0 => Err("no watch".into()),
        _ => Ok(()),
    })
    .await
}

fn fingerprint(secret: &Secret) -> Value {
    let metadata = &secret.metadata;
    json!([
        metadata.uid,
        metadata.resource_version,
        metadata.managed_fields,
        secret.data
    ])
}

/// Every death in two writes.
fn everywhere<F: Future<Output = Result<()>>>(test: fn(Death) -> F) {
    let moments = [
        Moment::BeforeForwarding,
        Moment::AfterCommit,
        Moment::AfterAnswer,
    ];
    let deaths = (0..2).flat_map(|write| moments.map(|moment| Death { write, moment }));
    run(async {
        try_join_all(deaths.map(test)).await?;
        Ok(())
    });
}

#[test]
fn killed_at_each_write_of_the_first_issue() {
    everywhere(first_issue);
}

async fn first_issue(death: Death) -> Result<()> {
    let stage = Stage::set(Scene::new("killed-first").await?).await?;
    let objects = stage.scene.objects();
    let object = manifest("acr", &[&stage.contoso]);
    stage
        .dies(death, async |proxy| {
            watching(proxy).await?;
            objects.create(&object).await.map(drop)
        })
        .await?;
    stage.revives(death, death.cost(1, 2)).await
}

#[test]
fn killed_at_each_write_of_a_rotation() {
    everywhere(rotation);
}

async fn rotation(death: Death) -> Result<()> {
    let stage = Stage::set(Scene::with_own_time("killed-rotation").await?).await?;
    // Issued in the past, so that the program, which knows real time only, finds it due.
    stage.scene.advance(-REFRESH);
    let acrcred = stage.scene.start().await?;
    let objects = stage.scene.objects();
    objects
        .create_ready(&manifest("acr", &[&stage.contoso]))
        .await?;
    acrcred.stop().await?;
    stage.scene.advance(REFRESH);
    let token = objects.token("acr", &stage.contoso).await?;
    stage.dies(death, async |_| Ok(())).await?;
    stage.revives(death, death.cost(2, 4)).await?;
    ensure!(
        objects.token("acr", &stage.contoso).await? != token,
        "{death:?}: the old token"
    );
    Ok(())
}

#[test]
fn killed_at_each_write_of_a_shrink() {
    everywhere(shrink);
}

async fn shrink(death: Death) -> Result<()> {
    let stage = Stage::set(Scene::new("killed-shrink").await?).await?;
    let fabrikam = stage.scene.registry("fabrikam").await?;
    let acrcred = stage.scene.start().await?;
    let objects = stage.scene.objects();
    objects
        .create_ready(&manifest("acr", &[&stage.contoso, &fabrikam]))
        .await?;
    acrcred.stop().await?;
    let shrunk = json!({"spec": {"registries": [{"server": stage.contoso.server}]}});
    stage
        .dies(death, async |proxy| {
            watching(proxy).await?;
            objects.change("acr", shrunk).await.map(drop)
        })
        .await?;
    stage.revives(death, death.cost(2, 4)).await?;
    ensure!(
        objects.token("acr", &fabrikam).await?.is_none(),
        "{death:?}: it did not shrink"
    );
    let kept = objects
        .token("acr", &stage.contoso)
        .await?
        .context("a token")?;
    stage.scene.emulator.verify_token(&kept)?;
    Ok(())
}
