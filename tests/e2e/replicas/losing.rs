//! A replica that loses the lease in the middle of its work, and one that follows it there.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use azure_emulator::fault::{Fault as AzureFault, Kind, Match as AzureMatch};
use azure_emulator::journal::Endpoint;
use controlplane::fault_proxy::{Fault, Match, Rule};
use serde_json::json;

use super::{Node, SHORT, replica};
use crate::harness::{REFRESH, Scene, manifest, run, soon};

#[test]
fn a_holder_that_is_cut_off_has_stopped_before_another_begins() {
    run(async {
        let scene = Scene::new("cut-off").await?;
        scene.allow_lease().await?;
        let contoso = scene.registry("contoso").await?;
        let proxy = scene.fault_proxy().await?;
        let cut = replica(&scene, "cut-off", SHORT, Some(&proxy));
        let cut = scene.start_tuned(cut).await?;
        cut.is_leader().await?;
        let other = scene.start_replica("other", SHORT).await?;
        // Its work outlasts its lease.
        let slow = Kind::Slow {
            headers_ms: 5_000,
            body_ms: 0,
        };
        let matching = AzureMatch::registry(&contoso.server);
        let fault = AzureFault::new(Endpoint::Exchange, matching, slow).times(1);
        scene.emulator.add_fault(fault);
        proxy.add(Rule::new(Match::any().on("leases"), Fault::Hang));
        let began = Instant::now();
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        soon("it stands by", async || {
            match (cut.leads(), other.leads()) {
                (true, true) => panic!("both lead"),
                (false, _) => Ok(()),
                state => Err(format!("{state:?}")),
            }
        })
        .await?;
        ensure!(began.elapsed() < SHORT, "it stopped too late");
        objects.ready("acr").await?;
        ensure!(other.leads(), "who else?");
        // The answer it did not wait for would have come by now.
        soon("the slow answer is over", async || {
            let over = began.elapsed() > Duration::from_millis(5_500);
            over.then_some(()).ok_or_else(|| "not yet".into())
        })
        .await?;
        ensure!(proxy.count(&Match::writes().on("secrets")) == 0, "it wrote");
        ensure!(scene.secret_writes().await?["acr"] == 1);
        Ok(())
    });
}

#[test]
fn whoever_leads_again_believes_the_status_where_another_has_written() {
    run(async {
        let scene = Scene::with_own_time("again").await?;
        scene.allow_lease().await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let proxy = scene.fault_proxy().await?;
        let first = replica(&scene, "first", SHORT, Some(&proxy));
        let first = scene.start_tuned(first).await?;
        first.is_leader().await?;
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;

        let second = scene.start_replica("second", SHORT).await?;
        let cut = proxy.add(Rule::new(Match::any().on("leases"), Fault::Hang));
        second.is_leader().await?;
        scene.advance(REFRESH);
        objects.another_token("acr", &contoso, &token).await?;
        objects.ready("acr").await?;
        proxy.remove(cut);
        second.stop().await?;
        first.is_leader().await?;
        objects
            .create_ready(&manifest("later", &[&contoso]))
            .await?;
        let exchanges = scene.journal(Endpoint::Exchange).len();
        ensure!(exchanges == 3, "{exchanges} exchanges");
        ensure!(scene.secret_writes().await?["acr"] == 2);
        first.stop().await
    });
}

#[test]
fn what_is_known_outlives_the_loss_of_the_lease() {
    run(async {
        let scene = Scene::with_own_time("kept").await?;
        scene.allow_lease().await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let objects = scene.objects();
        let proxy = scene.fault_proxy().await?;
        let acrcred = replica(&scene, "only", SHORT, Some(&proxy));
        let acrcred = scene.start_tuned(acrcred).await?;
        acrcred.is_leader().await?;
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let kept = objects.token("acr", &contoso).await?;
        let cut = proxy.add(Rule::new(Match::any().on("leases"), Fault::Hang));
        soon("it stands by", async || {
            if acrcred.leads() {
                Err("it leads".into())
            } else {
                Ok(())
            }
        })
        .await?;
        proxy.remove(cut);
        acrcred.is_leader().await?;
        // Without Azure: the token that stays is known.
        scene.emulator.update(|state| state.registries.clear())?;
        let shrunk = json!({"spec": {"registries": [{"server": contoso.server}]}});
        objects.change("acr", shrunk).await?;
        objects.ready("acr").await?;
        ensure!(objects.token("acr", &fabrikam).await?.is_none());
        ensure!(objects.token("acr", &contoso).await? == kept);
        let exchanges = scene.journal(Endpoint::Exchange).len();
        ensure!(exchanges == 2, "{exchanges} exchanges");
        acrcred.stop().await
    });
}

#[test]
fn what_a_predecessor_wrote_and_did_not_report_is_taken_over_with_one_write() {
    run(async {
        let scene = Scene::new("late-news").await?;
        scene.allow_lease().await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let duration = Duration::from_secs(5);
        let before = scene.fault_proxy().await?;
        let first = replica(&scene, "first", duration, Some(&before));
        let first = Node::start(&scene, first)?;
        first.acrcred.is_leader().await?;
        let after = scene.fault_proxy().await?;
        let second = replica(&scene, "second", duration, Some(&after));
        let second = scene.start_tuned(second).await?;
        // One object is told to the second before its term, the other within; the first gets no further than
        // the Secrets.
        let statuses = Match::writes().on("acrcredentials/status");
        before.add(Rule::new(statuses, Fault::Hang));
        let written = async |name: &str| {
            let what = format!("there is a Secret {name}");
            soon(&what, async || match objects.secrets.get_opt(name).await {
                Ok(Some(secret)) => Ok(secret.metadata.uid),
                other => Err(format!("{other:?}")),
            })
            .await
        };
        objects.create(&manifest("early", &[&contoso])).await?;
        let early = written("early").await?;
        after.silence_watches();
        objects.create(&manifest("late", &[&contoso])).await?;
        let late = written("late").await?;
        first.kill();
        second.is_leader().await?;
        objects.ready("early").await?;
        after.close_watches();
        objects.ready("late").await?;
        for (name, uid) in [("early", early), ("late", late)] {
            let secret = objects.secret(name).await?;
            ensure!(secret.metadata.uid == uid, "{name} was re-created");
            let crane = scene.crane(&objects.docker_config(name).await?)?;
            let image = format!("{}/team/app:v1", contoso.server);
            crane.pull(&image).await?;
        }
        let writes = scene.secret_writes().await?;
        ensure!(writes.values().all(|count| *count == 2), "{writes:?}");
        let exchanges = scene.journal(Endpoint::Exchange).len();
        ensure!(
            exchanges == 2,
            "{exchanges} exchanges, and each replica needs one token for both"
        );
        // How the second learns of them: what it creates is there already.
        let conflicts = scene.calls().await?.on("secrets");
        let conflicts = conflicts.matching(|call| call.code == 409);
        let are_creates = conflicts.count(|call| call.verb == "create") == conflicts.len();
        ensure!(conflicts.len() == 2 && are_creates, "{conflicts}");
        second.stop().await
    });
}
