//! A write that the API server receives late, or twice: what was removed meanwhile stays away, and no token is replaced by an
//! older one.

use std::time::Duration;

use acrcred::process::LeaseOptions;
use anyhow::{Context as _, Result, ensure};
use azure_emulator::journal::Endpoint;
use controlplane::fault_proxy::{Fault, FaultProxy, Match, Rule, RuleId, Verb};
use jiff::SignedDuration;
use serde_json::json;

use crate::harness::{Acrcred, Objects, REFRESH, Scene, TestRegistry, Tuning, manifest, run, soon};
use crate::history::History;
use crate::idling::Apart;

/// The API server ends a request after a minute at the latest.
const LATEST: SignedDuration = SignedDuration::from_secs(66);
const RESYNC: SignedDuration = SignedDuration::from_mins(11);

/// acrcred behind a proxy that holds requests back.
struct Held {
    scene: Scene,
    proxy: FaultProxy,
    acrcred: Acrcred,
    objects: Objects,
    contoso: TestRegistry,
    fabrikam: TestRegistry,
}

fn posts() -> Match {
    Match::of(Verb::Create).on("secrets")
}

fn puts() -> Match {
    Match::of(Verb::Update).on("secrets")
}

fn registries(registries: &[&TestRegistry]) -> serde_json::Value {
    let servers = registries.iter().map(|r| json!({"server": r.server}));
    json!({"spec": {"registries": servers.collect::<Vec<_>>()}})
}

impl Held {
    async fn start(name: &str) -> Result<Self> {
        let scene = Scene::with_own_time(name).await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let proxy = scene.fault_proxy().await?;
        let mut tuning = Tuning::of(&scene);
        tuning.api_server = Some(proxy.url());
        let acrcred = scene.start_tuned(tuning).await?;
        Ok(Self {
            objects: scene.objects(),
            scene,
            proxy,
            acrcred,
            contoso,
            fabrikam,
        })
    }

    /// The next of these requests meets the fault.
    fn next(&self, matching: Match, fault: Fault) -> RuleId {
        self.proxy.add(Rule::new(matching, fault).times(1))
    }

    async fn is_held(&self) -> Result<()> {
        soon("a request is held back", async || match self.proxy.held() {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        })
        .await
    }

    /// Waits until the Secret holds just these registries.
    async fn holds(&self, expected: &[&TestRegistry]) -> Result<()> {
        soon("the Secret's entries are right", async || {
            let mut held = Vec::new();
            if !matches!(self.objects.secrets.get_opt("acr").await, Ok(Some(_))) {
                return Err("no Secret".to_owned());
            }
            for registry in [&self.contoso, &self.fabrikam] {
                let token = self.objects.token("acr", registry).await;
                if token.map_err(|error| error.to_string())?.is_some() {
                    held.push(&registry.server);
                }
            }
            let expected: Vec<_> = expected.iter().map(|registry| &registry.server).collect();
            (held == expected)
                .then_some(())
                .ok_or_else(|| format!("{held:?}"))
        })
        .await
    }

    /// Lets everything happen that is due within an hour, and compares the Secret.
    async fn stays_as_it_is(&self) -> Result<()> {
        let before = self.objects.secret("acr").await?.data;
        let history = History::from_now(&self.scene).await?;
        for _ in 0..3 {
            self.scene.advance(RESYNC);
            self.acrcred.catches_up().await?;
        }
        let control = manifest("control", &[&self.contoso]);
        self.objects.create_ready(&control).await?;
        // The mark of a repeated write may go.
        let versions = history.versions().await?;
        let of_acr = versions.iter().filter(|version| version.name == "acr");
        ensure!(of_acr.count() <= 1, "{versions:?}");
        ensure!(self.objects.secret("acr").await?.data == before);
        Ok(())
    }
}

#[test]
fn an_update_that_arrives_late_brings_no_removed_entry_and_no_older_token_back() {
    run(async {
        let held = Held::start("late-put").await?;
        let Held {
            scene,
            proxy,
            objects,
            contoso,
            fabrikam,
            ..
        } = &held;
        objects
            .create_ready(&manifest("acr", &[contoso, fabrikam]))
            .await?;
        let first = objects.token("acr", contoso).await?.context("a token")?;
        held.next(puts(), Fault::Late);
        scene.advance(REFRESH);
        held.is_held().await?;
        objects.change("acr", registries(&[contoso])).await?;
        // After 10 s it is given up, and the object as it is now is written.
        held.holds(&[contoso]).await?;
        objects.ready("acr").await?;
        let second = objects.token("acr", contoso).await?.context("a token")?;
        ensure!(first != second, "not rotated");
        // Newer than what is held back.
        scene.advance(REFRESH);
        let third = objects.another_token("acr", contoso, &second).await?;

        assert_eq!(proxy.deliver().await?, [409]);
        held.holds(&[contoso]).await?;
        ensure!(objects.token("acr", contoso).await? == Some(third));
        objects.ready("acr").await?;
        held.stays_as_it_is().await?;
        Ok(())
    });
}

#[test]
fn an_update_that_arrives_before_its_repetition_leaves_no_removed_entry() {
    run(async {
        let held = Held::start("late-first").await?;
        let Held {
            scene,
            proxy,
            objects,
            contoso,
            fabrikam,
            ..
        } = &held;
        objects
            .create_ready(&manifest("acr", &[contoso, fabrikam]))
            .await?;
        let history = History::from_now(scene).await?;
        held.next(puts(), Fault::Late);
        scene.advance(REFRESH);
        held.is_held().await?;
        objects.change("acr", registries(&[contoso])).await?;
        // acrcred still waits for the answer that it will not get.
        assert_eq!(proxy.deliver().await?, [200]);
        held.holds(&[contoso]).await?;
        objects.ready("acr").await?;
        let versions = history.versions().await?;
        let lengths: Vec<usize> = versions
            .iter()
            .map(|version| version.tokens.len())
            .collect();
        assert_eq!(lengths, [2, 1]);
        ensure!(
            versions[0].tokens[&contoso.server] == versions[1].tokens[&contoso.server],
            "another token without need"
        );
        held.stays_as_it_is().await?;
        Ok(())
    });
}

#[test]
fn an_update_that_arrives_twice_has_its_effect_once() {
    run(async {
        let held = Held::start("twice").await?;
        let Held {
            scene,
            proxy,
            objects,
            contoso,
            fabrikam,
            ..
        } = &held;
        objects
            .create_ready(&manifest("acr", &[contoso, fabrikam]))
            .await?;
        let first = objects.token("acr", contoso).await?.context("a token")?;
        let both = [
            held.next(posts(), Fault::Twice),
            held.next(puts(), Fault::Twice),
        ];
        let mut second = manifest("second", &[contoso]);
        second.metadata.labels = None;
        objects.create_ready(&second).await?;
        scene.advance(REFRESH);
        let rotated = objects.another_token("acr", contoso, &first).await?;
        soon("both are kept", async || match proxy.held() {
            2 => Ok(()),
            count => Err(format!("{count}")),
        })
        .await?;
        assert_eq!(both.map(|rule| proxy.hits(rule)), [1, 1]);
        objects.change("acr", registries(&[contoso])).await?;
        held.holds(&[contoso]).await?;
        scene.advance(REFRESH);
        let newest = objects.another_token("acr", contoso, &rotated).await?;
        assert_eq!(proxy.deliver().await?, [409, 409]);
        held.holds(&[contoso]).await?;
        ensure!(objects.token("acr", contoso).await? == Some(newest));
        held.stays_as_it_is().await?;
        Ok(())
    });
}

#[test]
fn a_creation_that_arrives_late_brings_no_removed_entry_back() {
    run(async {
        let held = Held::start("late-post").await?;
        let Held {
            scene,
            proxy,
            objects,
            contoso,
            fabrikam,
            ..
        } = &held;
        let history = History::from_now(scene).await?;
        held.next(posts(), Fault::Late);
        objects
            .create(&manifest("acr", &[contoso, fabrikam]))
            .await?;
        held.is_held().await?;
        objects.change("acr", registries(&[contoso])).await?;
        objects.ready("acr").await?;
        assert_eq!(proxy.deliver().await?, [409]);
        assert_eq!(
            history.servers("acr").await?,
            std::slice::from_ref(&contoso.server)
        );
        held.stays_as_it_is().await?;
        Ok(())
    });
}

#[test]
fn a_creation_that_arrives_when_nothing_may_be_held_any_more_is_emptied() {
    run(async {
        let held = Held::start("late-nothing").await?;
        let Held {
            scene,
            proxy,
            objects,
            contoso,
            fabrikam,
            ..
        } = &held;
        // A registry without the role: nothing is ever held for it.
        let closed = scene.empty_registry("azurecr.io", "closed", |_| {})?;
        held.next(posts(), Fault::Late);
        objects.create(&manifest("acr", &[fabrikam])).await?;
        held.is_held().await?;
        objects.change("acr", registries(&[&closed])).await?;
        objects
            .has("acr", "Reconciling", "True", "RegistryRefused")
            .await?;
        ensure!(objects.secrets.get_opt("acr").await?.is_none());
        assert_eq!(proxy.deliver().await?, [201], "the name was free");
        held.holds(&[fabrikam]).await?;
        // acrcred looks when no late write can come any more.
        scene.advance(LATEST);
        held.holds(&[]).await?;

        // The same with an object that is gone: the Secret goes as well.
        held.next(posts(), Fault::Late);
        objects.create(&manifest("gone", &[contoso])).await?;
        held.is_held().await?;
        objects.delete("gone").await?;
        assert_eq!(proxy.deliver().await?, [201], "the name was free");
        objects.collected("gone").await?;
        Ok(())
    });
}

/// Short enough for a test, and longer than a call may take.
const LEASE: Duration = Duration::from_secs(15);

#[test]
fn an_old_leader_that_wakes_up_overwrites_nothing_of_the_new_one() {
    run(async {
        let scene = Scene::with_own_time("old-leader").await?;
        scene.allow_lease().await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let proxy = scene.fault_proxy().await?;
        let lease = |identity: &str| -> LeaseOptions { scene.lease_options(identity, LEASE) };
        let old = Apart::start(
            &scene,
            Tuning {
                lease: Some(lease("old")),
                api_server: Some(proxy.url()),
                ..Tuning::of(&scene)
            },
        )?;
        old.acrcred().is_leader().await?;
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let first = objects.token("acr", &contoso).await?.context("a token")?;
        let new = scene.start_replica("new", LEASE).await?;

        // Frozen in the middle of a rotation: nothing that it says is heard any more, and it hears nothing.
        let writes = proxy.add(Rule::new(Match::writes(), Fault::Late));
        let reads = proxy.add(Rule::new(Match::any(), Fault::Hang));
        proxy.silence_watches();
        scene.advance(REFRESH);
        soon("its write is under way", async || {
            match proxy.count(&puts().named("acr")) {
                0 => Err("not yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await?;
        controlplane::eventually(3 * LEASE, "another leads", async || {
            new.leads()
                .then_some(())
                .ok_or_else(|| "not yet".to_owned())
        })
        .await?;
        let second = objects.another_token("acr", &contoso, &first).await?;
        objects.ready("acr").await?;
        // One more, so that all that the old one holds is older.
        scene.advance(REFRESH);
        let third = objects.another_token("acr", &contoso, &second).await?;
        objects.ready("acr").await?;

        let history = History::from_now(&scene).await?;
        proxy.remove(writes);
        proxy.remove(reads);
        let codes = proxy.deliver().await?;
        ensure!(codes.contains(&409), "{codes:?}");
        proxy.break_watches();
        // It leads again, and has its work done.
        new.stop().await?;
        controlplane::eventually(3 * LEASE, "it leads again", async || {
            old.acrcred()
                .leads()
                .then_some(())
                .ok_or_else(|| "not yet".to_owned())
        })
        .await?;
        for _ in 0..3 {
            scene.advance(RESYNC);
            old.acrcred().catches_up().await?;
        }
        objects
            .create_ready(&manifest("control", &[&contoso]))
            .await?;
        let versions = history.versions().await?;
        let of_acr = versions.iter().filter(|version| version.name == "acr");
        for version in of_acr {
            let token = &version.tokens[&contoso.server];
            ensure!(
                *token != first && *token != second,
                "an older token came back"
            );
        }
        ensure!(objects.token("acr", &contoso).await? == Some(third.clone()));
        // The positive control: what it writes when it is due is newer.
        let exchanges = scene.journal(Endpoint::Exchange).len();
        scene.advance(REFRESH);
        objects.another_token("acr", &contoso, &third).await?;
        ensure!(scene.journal(Endpoint::Exchange).len() > exchanges);
        Ok(())
    });
}
