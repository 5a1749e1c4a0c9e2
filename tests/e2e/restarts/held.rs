//! After a restart a write needs a new token for every entry that stays. One that cannot be had holds the others back, as
//! long as they can wait.

use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{BodyKind, Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use jiff::SignedDuration;

use crate::changes::Changes;
use crate::harness::{Acrcred, Scene, TestRegistry, manifest, run, soon};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// The life of contoso's tokens; those of fabrikam last three hours.
const LIFE: SignedDuration = SignedDuration::from_mins(120);

struct Held {
    scene: Scene,
    contoso: TestRegistry,
    fabrikam: TestRegistry,
    /// The tokens that were there before the restart.
    before: (String, String),
    changes: Changes,
    _acrcred: Acrcred,
}

impl Held {
    /// acrcred was restarted, contoso's token is due, a new one has been issued, and fabrikam answers with failures.
    async fn set(name: &str) -> Result<Self> {
        let scene = Scene::with_own_time(name).await?;
        let set = |registry: &mut azure_emulator::registry::Registry| {
            registry.refresh_token_lifetime_s = Some(LIFE.as_secs());
        };
        let contoso = scene.registry_in("azurecr.io", "contoso", set).await?;
        let fabrikam = scene.registry("fabrikam").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        acrcred.stop().await?;
        let token = async |registry| {
            let token = objects.token("acr", registry).await?;
            token.context("a token")
        };
        let before = (token(&contoso).await?, token(&fabrikam).await?);
        let down = Kind::Status {
            status: 503,
            body: BodyKind::Text,
            code: None,
            text: None,
            reason: None,
            retry_after: None,
        };
        let matching = Match::registry(&fabrikam.server);
        scene
            .emulator
            .add_fault(Fault::new(Endpoint::Exchange, matching, down));
        let changes = Changes::from_now(&scene).await?;
        let acrcred = scene.start().await?;
        // By now half of contoso's life is over, and less than half of fabrikam's.
        scene.advance(61 * MINUTE);
        objects
            .has("acr", "RefreshFailing", "True", "UpstreamUnavailable")
            .await?;
        let held = Self {
            scene,
            contoso,
            fabrikam,
            before,
            changes,
            _acrcred: acrcred,
        };
        held.was_issued(2).await?;
        Ok(held)
    }

    /// How often a registry has issued a token.
    fn exchanges(&self, registry: &TestRegistry) -> usize {
        let journal = self.scene.journal(Endpoint::Exchange);
        let of_it = journal
            .iter()
            .filter(|entry| entry.host == registry.server && entry.fault.is_none());
        of_it.count()
    }

    async fn was_issued(&self, times: usize) -> Result<()> {
        soon("contoso has issued a token", async || {
            match self.exchanges(&self.contoso) {
                count if count == times => Ok(()),
                count => Err(count.to_string()),
            }
        })
        .await
    }

    async fn tokens(&self) -> Result<(Option<String>, Option<String>)> {
        let objects = self.scene.objects();
        let contoso = objects.token("acr", &self.contoso).await?;
        Ok((contoso, objects.token("acr", &self.fabrikam).await?))
    }

    /// That nothing was written since the restart.
    async fn nothing_is_lost(&self) -> Result<()> {
        let (contoso, fabrikam) = self.before.clone();
        ensure!(
            self.tokens().await? == (Some(contoso), Some(fabrikam)),
            "a token is gone"
        );
        let changed = self.changes.of_secrets().await?;
        ensure!(changed.is_empty(), "{changed:?}");
        Ok(())
    }

    /// Lets fabrikam be asked again.
    async fn passes(&self, minutes: i64) -> Result<()> {
        for _ in 0..minutes {
            let asked = self.scene.journal(Endpoint::Exchange).len();
            self.scene.advance(MINUTE);
            soon("fabrikam is asked", async || {
                let now = self.scene.journal(Endpoint::Exchange).len();
                // The last attempt may have been judged only after the time was turned.
                self.scene.advance(SignedDuration::from_secs(1));
                (now > asked).then_some(()).ok_or_else(|| now.to_string())
            })
            .await?;
        }
        Ok(())
    }
}

#[test]
fn what_is_due_waits_for_what_cannot_be_issued_and_both_are_one_write() {
    run(async {
        let held = Held::set("held").await?;
        held.passes(5).await?;
        held.nothing_is_lost().await?;
        held.scene.emulator.clear_faults();
        held.scene.advance(70 * MINUTE / 60);
        let (contoso, fabrikam) = &held.before;
        soon("both are new", async || match held.tokens().await {
            Ok((Some(one), Some(other))) if one != *contoso && other != *fabrikam => Ok(()),
            Ok(_) => Err("not yet".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await?;
        held.scene.objects().ready("acr").await?;
        let changed = held.changes.of_secrets().await?;
        ensure!(changed["acr"] == 1, "{changed:?}");
        let counts = (
            held.exchanges(&held.contoso),
            held.exchanges(&held.fabrikam),
        );
        ensure!(counts == (2, 2), "{counts:?}");
        Ok(())
    });
}

#[test]
fn what_is_due_waits_no_longer_than_until_a_tenth_of_its_life_is_left() {
    run(async {
        let held = Held::set("reserve").await?;
        let objects = held.scene.objects();
        // A tenth is left at 108 minutes.
        held.scene.advance(43 * MINUTE);
        held.passes(1).await?;
        held.nothing_is_lost().await?;
        let (contoso, fabrikam) = held.before.clone();
        held.scene.advance(4 * MINUTE);
        objects
            .another_token("acr", &held.contoso, &contoso)
            .await?;
        // What cannot be issued is not in the new Secret, and the status says so.
        ensure!(objects.token("acr", &held.fabrikam).await?.is_none());
        objects
            .has("acr", "Ready", "False", "UpstreamUnavailable")
            .await?;
        let crane = held.scene.crane(&objects.docker_config("acr").await?)?;
        let image = |registry: &TestRegistry| format!("{}/team/app:v1", registry.server);
        crane.pull(&image(&held.contoso)).await?;
        held.scene.emulator.clear_faults();
        held.scene.advance(2 * MINUTE);
        objects.ready("acr").await?;
        let now = objects.token("acr", &held.fabrikam).await?;
        ensure!(now.context("a token")? != fabrikam);
        let crane = held.scene.crane(&objects.docker_config("acr").await?)?;
        crane.pull(&image(&held.contoso)).await?;
        crane.pull(&image(&held.fabrikam)).await?;
        Ok(())
    });
}
