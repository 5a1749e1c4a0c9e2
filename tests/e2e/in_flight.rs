//! What changes while a token is being fetched or a Secret being written: the object as it is now counts, not as it was.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{Fault as AzureFault, Kind, Match as AzureMatch};
use azure_emulator::journal::Endpoint;
use controlplane::fault_proxy::{Fault, Match, Rule, Verb};
use jiff::SignedDuration;
use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::{REFRESH, Scene, TestRegistry, Tuning, manifest, run, soon};
use crate::history::History;

/// Long enough for a change to arrive meanwhile.
const SLOW: u64 = 4_000;

impl Scene {
    /// The next exchange of a registry takes its time.
    fn slow_down(&self, registry: &TestRegistry) {
        let slow = Kind::Slow {
            headers_ms: SLOW,
            body_ms: 0,
        };
        let matching = AzureMatch::registry(&registry.server);
        let fault = AzureFault::new(Endpoint::Exchange, matching, slow);
        self.emulator.add_fault(fault.times(1));
    }

    /// How many exchanges of a registry have ended with a token.
    fn granted(&self, registry: &TestRegistry) -> usize {
        let exchanges = self.journal(Endpoint::Exchange);
        let of = |entry: &&azure_emulator::journal::Entry| {
            entry.host == registry.server && entry.status == 200
        };
        exchanges.iter().filter(of).count()
    }

    async fn is_asked(&self, registry: &TestRegistry) -> Result<()> {
        soon("its exchange is under way", async || {
            match (self.connects_to(&registry.server), self.granted(registry)) {
                (1.., 0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    async fn is_answered(&self, registry: &TestRegistry) -> Result<()> {
        soon("the slow exchange has ended", async || {
            match self.granted(registry) {
                0 => Err("not yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await
    }
}

#[test]
fn a_registry_that_leaves_the_spec_while_its_token_is_fetched_never_gets_into_the_secret() {
    run(async {
        let scene = Scene::new("left-in-flight").await?;
        let contoso = scene.registry("contoso").await?;
        // Without an image, so that nobody but acrcred asks it.
        let fabrikam = scene.empty_registry("azurecr.io", "fabrikam", |_| {})?;
        scene.assign_role(&fabrikam)?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let history = History::from_now(&scene).await?;
        scene.slow_down(&fabrikam);
        objects
            .create(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        scene.is_asked(&fabrikam).await?;
        let registries = |registries: &[&TestRegistry]| {
            let servers = registries.iter().map(|r| json!({"server": r.server}));
            json!({"spec": {"registries": servers.collect::<Vec<_>>()}})
        };
        objects.change("acr", registries(&[&contoso])).await?;
        ensure!(scene.granted(&fabrikam) == 0, "it was not in flight");
        scene.is_answered(&fabrikam).await?;
        objects.ready("acr").await?;
        // What comes after it has been dealt with.
        let control = manifest("control", &[&contoso]);
        objects.create_ready(&control).await?;
        assert_eq!(
            history.servers("acr").await?,
            std::slice::from_ref(&contoso.server)
        );

        // The positive control: in the spec again, it gets there.
        objects
            .change("acr", registries(&[&contoso, &fabrikam]))
            .await?;
        objects.ready("acr").await?;
        assert_eq!(history.servers("acr").await?.len(), 2);
        Ok(())
    });
}

#[test]
fn an_object_that_is_deleted_while_its_token_is_fetched_gets_no_secret() {
    run(async {
        let scene = Scene::new("deleted-in-flight").await?;
        let contoso = scene.registry("contoso").await?;
        let fabrikam = scene.empty_registry("azurecr.io", "fabrikam", |_| {})?;
        scene.assign_role(&fabrikam)?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let history = History::from_now(&scene).await?;
        scene.slow_down(&fabrikam);
        objects.create(&manifest("acr", &[&fabrikam])).await?;
        scene.is_asked(&fabrikam).await?;
        objects.delete("acr").await?;
        ensure!(scene.granted(&fabrikam) == 0, "it was not in flight");
        scene.is_answered(&fabrikam).await?;
        objects
            .create_ready(&manifest("control", &[&contoso]))
            .await?;
        let versions = history.versions().await?;
        let names: Vec<&str> = versions.iter().map(|version| &*version.name).collect();
        assert_eq!(names, ["control"]);
        let asked = scene.calls().await?.on("secrets").writes();
        ensure!(asked.count(|call| call.name == "acr") == 0, "{asked}");

        // The positive control: the next object of that name gets one.
        objects.create_ready(&manifest("acr", &[&fabrikam])).await?;
        assert_eq!(history.servers("acr").await?, [fabrikam.server]);
        Ok(())
    });
}

#[test]
fn a_secret_that_is_orphaned_while_it_is_being_written_keeps_no_owner_and_stays() {
    run(async {
        let scene = Scene::with_own_time("orphaned-in-flight").await?;
        let contoso = scene.registry("contoso").await?;
        let proxy = scene.fault_proxy().await?;
        let mut tuning = Tuning::of(&scene);
        tuning.api_server = Some(proxy.url());
        let acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        objects
            .create_ready(&manifest("collected", &[&contoso]))
            .await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;

        let writes = Match::of(Verb::Update).on("secrets");
        let late = proxy.add(Rule::new(writes.named("acr"), Fault::Late).times(1));
        scene.advance(REFRESH);
        soon("a write is under way", async || match proxy.hits(late) {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        })
        .await?;
        let history = History::from_now(&scene).await?;
        let orphan = DeleteParams::orphan();
        objects.credentials.delete("acr", &orphan).await?;
        soon("the object is gone", async || {
            match objects.credentials.get_opt("acr").await {
                Ok(None) => Ok(()),
                other => Err(format!("{:?}", other.map(|_| ()))),
            }
        })
        .await?;
        assert_eq!(proxy.deliver().await?, [409], "it came too late");
        // acrcred has given the answer up and would write again.
        soon("its deadline has passed", async || {
            let seen = proxy.seen();
            let sent = seen
                .iter()
                .rfind(|seen| seen.name == "acr" && seen.verb == Verb::Update);
            match sent.map(|sent| sent.at.elapsed()) {
                Some(passed) if passed > Duration::from_secs(12) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        for _ in 0..3 {
            scene.advance(SignedDuration::from_mins(11));
            acrcred.catches_up().await?;
        }
        // The positive control: the garbage collector works, and so does acrcred.
        objects.delete("collected").await?;
        objects.collected("collected").await?;
        objects
            .create_ready(&manifest("control", &[&contoso]))
            .await?;
        let versions = history.versions().await?;
        let mut of_acr = versions.iter().filter(|version| version.name == "acr");
        ensure!(of_acr.all(|version| !version.has_owner), "{versions:?}");
        let kept = objects.secret("acr").await?;
        ensure!(
            kept.metadata
                .owner_references
                .unwrap_or_default()
                .is_empty()
        );
        ensure!(objects.token("acr", &contoso).await? == Some(token));
        Ok(())
    });
}
