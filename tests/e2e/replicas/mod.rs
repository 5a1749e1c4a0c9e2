//! Replicas share the work: one does it, and when it ends, however it ends, another goes on.

mod losing;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::journal::Endpoint;
use controlplane::fault_proxy::FaultProxy;
use futures::future::try_join_all;
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams};
use rustix::process::{Signal, kill_process};
use tokio::task::block_in_place;

use crate::changes::Changes;
use crate::harness::{
    Acrcred, CONTROLLER, LEASE, Program, REFRESH, Scene, Tuning, condition, manifest, run, soon,
};

/// The default, for what must not depend on it.
const LONG: Duration = Duration::from_secs(15);
/// For what has to wait for its end.
const SHORT: Duration = Duration::from_secs(3);

/// A replica on a runtime of its own, which can be ended without a word, like a node.
struct Node {
    acrcred: Acrcred,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start(scene: &Scene, tuning: Tuning) -> Result<Self> {
        let runtime = tokio::runtime::Runtime::new()?;
        let starting = scene.start_tuned(tuning);
        Ok(Self {
            acrcred: block_in_place(|| runtime.block_on(starting))?,
            runtime,
        })
    }

    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// How a replica is started, perhaps behind a proxy to the API server.
fn replica(
    scene: &Scene,
    identity: &str,
    duration: Duration,
    proxy: Option<&FaultProxy>,
) -> Tuning {
    Tuning {
        lease: Some(scene.lease_options(identity, duration)),
        api_server: proxy.map(FaultProxy::url),
        ..Tuning::of(scene)
    }
}

#[test]
fn a_graceful_stop_hands_over_in_less_than_two_seconds() {
    run(async {
        let scene = Scene::new("hand-over").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let replica = || {
            Program::start_with(&scene, |command| {
                command
                    .arg("--leader-elect")
                    .env("POD_NAMESPACE", "acrcred-system")
                    .env("POD_NAME", "acrcred-0");
            })
        };
        let first = replica().await?;
        first.is_leader().await?;
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        // Ready although it stands by, or a rollout would never end.
        let second = replica().await?;
        ensure!(!second.leads().await?, "both lead");
        ensure!(
            second.get("/livez").await?.0 == 200,
            "standing by is no fault"
        );

        let stopped = Instant::now();
        let log = first.terminate().await?;
        second.is_leader().await?;
        let took = stopped.elapsed();
        ensure!(took < Duration::from_secs(2), "{took:?}");
        ensure!(log.contains("released the lease"), "{log}");

        objects
            .create_ready(&manifest("later", &[&contoso]))
            .await?;
        let calls = scene.calls().await?;
        let lists = calls.count(|call| call.verb == "list");
        ensure!(lists == 2, "each lists once, at its start: {calls}");
        let writes = calls.writes().count(|call| call.name == "acr");
        ensure!(writes == 2, "written again: {calls}");
        ensure!(calls.forbidden().is_empty(), "{}", calls.forbidden());
        let exchanges = scene.journal(Endpoint::Exchange).len();
        ensure!(exchanges == 2, "{exchanges} exchanges");
        second.terminate().await?;
        Ok(())
    });
}

#[test]
fn a_killed_process_is_followed_within_the_lease_duration() {
    run(async {
        let scene = Scene::new("killed-leader").await?;
        scene.allow_lease().await?;
        let replica = || {
            Program::start_with(&scene, |command| {
                command
                    .args(["--leader-elect", "--lease-duration", "3s"])
                    .env("POD_NAMESPACE", &scene.namespace)
                    .env("POD_NAME", "acrcred-0");
            })
        };
        let mut first = replica().await?;
        first.is_leader().await?;
        let second = replica().await?;
        let killed = Instant::now();
        kill_process(first.pid()?, Signal::KILL)?;
        second.is_leader().await?;
        let took = killed.elapsed();
        // And what a busy machine and this test's own looks add.
        ensure!(took < SHORT + Duration::from_millis(500), "{took:?}");
        first.ended().await?;
        let log = second.terminate().await?;
        ensure!(log.contains("became leader"), "{log}");
        Ok(())
    });
}

#[test]
fn what_falls_due_while_nobody_leads_is_refreshed_by_the_next() {
    run(async {
        let scene = Scene::with_own_time("due-meanwhile").await?;
        scene.allow_lease().await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let first = Node::start(&scene, replica(&scene, "first", SHORT, None))?;
        first.acrcred.is_leader().await?;
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let second = scene.start_replica("second", SHORT).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;

        first.kill();
        scene.advance(REFRESH);
        objects.another_token("acr", &contoso, &token).await?;
        ensure!(second.leads(), "who else?");
        ensure!(
            scene.transitions().await? == 2,
            "{:?}",
            scene.lease().await?
        );
        ensure!(scene.journal(Endpoint::Exchange).len() == 2);
        ensure!(scene.secret_writes().await?["acr"] == 2);
        second.stop().await
    });
}

#[test]
fn hand_overs_under_load_write_no_secret_twice() {
    run(async {
        let scene = Scene::with_own_time("hand-overs").await?;
        scene.allow_lease().await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let names: Vec<String> = (0..24).map(|number| format!("acr-{number}")).collect();
        let mut leader = scene.start_replica("replica-0", LONG).await?;
        leader.is_leader().await?;
        for (turn, names) in names.chunks(6).enumerate() {
            let next = scene
                .start_replica(&format!("replica-{}", turn + 1), LONG)
                .await?;
            // In the middle of it all.
            let registries = [&contoso];
            let created = names
                .iter()
                .map(async |name| objects.create(&manifest(name, &registries)).await);
            let (created, stopped) = tokio::join!(try_join_all(created), leader.stop());
            created?;
            stopped?;
            next.is_leader().await?;
            leader = next;
        }
        for name in &names {
            objects.ready(name).await?;
        }
        let changes = Changes::from_now(&scene).await?;
        let once = |writes: usize| {
            let expected = names.iter().map(|name| (name.clone(), writes));
            expected.collect()
        };
        let writes = scene.secret_writes().await?;
        ensure!(writes == once(1), "{writes:?}");

        let next = scene.start_replica("replica-last", LONG).await?;
        let first = objects.token("acr-0", &contoso).await?.context("a token")?;
        scene.advance(REFRESH);
        leader.stop().await?;
        for name in &names {
            objects.another_token(name, &contoso, &first).await?;
        }
        soon("nothing is due", async || match next.oldest_due() {
            late if late.is_zero() && next.leads() => Ok(()),
            late => Err(format!("{late:?}")),
        })
        .await?;
        // The resync, which the first leader may have begun, changes nothing.
        let writes = changes.of_secrets().await?;
        ensure!(writes == once(1), "{writes:?}");
        ensure!(scene.transitions().await? == 6);
        next.stop().await
    });
}

#[test]
fn clocks_ten_minutes_apart_change_nothing() {
    run(async {
        for (first, second) in [(10, 0), (0, 10)] {
            let scene = Scene::with_own_time("skew").await?;
            scene.allow_lease().await?;
            let contoso = scene.registry("contoso").await?;
            let replica = async |identity: &str, ahead: i64| {
                let clock = acrcred::process::Clock::adjustable();
                clock.advance(SignedDuration::from_mins(ahead));
                let tuning = Tuning {
                    lease: Some(scene.lease_options(identity, SHORT)),
                    clock: Some(clock),
                    ..Tuning::of(&scene)
                };
                scene.start_tuned(tuning).await
            };
            let leader = replica("first", first).await?;
            leader.is_leader().await?;
            let standby = replica("second", second).await?;
            // Long enough for the lease to end twice over, were it not renewed.
            let renewals = async || {
                let calls = scene.calls().await?.on("leases");
                anyhow::Ok(calls.count(|call| call.verb == "update" && call.code == 200))
            };
            soon("it is renewed", async || match renewals().await {
                Ok(count) if count >= 6 => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await?;
            ensure!(leader.leads() && !standby.leads(), "the lease was taken");
            let objects = scene.objects();
            objects.create_ready(&manifest("acr", &[&contoso])).await?;

            let stopped = Instant::now();
            leader.stop().await?;
            standby.is_leader().await?;
            ensure!(stopped.elapsed() < Duration::from_secs(2));
            objects
                .create_ready(&manifest("later", &[&contoso]))
                .await?;
            ensure!(scene.secret_writes().await?["acr"] == 1);
            ensure!(scene.transitions().await? == 2);
            standby.stop().await?;
        }
        Ok(())
    });
}

#[test]
fn without_the_right_to_the_lease_it_says_so_and_waits() {
    run(async {
        let scene = Scene::new("no-lease").await?;
        let contoso = scene.registry("contoso").await?;
        let program = Program::start_with(&scene, |command| {
            command
                .args(["--leader-elect", "--lease-duration", "3s"])
                .env("POD_NAMESPACE", &scene.namespace);
        })
        .await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        let log = soon("it says so", async || match program.log() {
            Ok(log) if log.contains("HTTP 403") => Ok(log),
            other => Err(format!("{other:?}")),
        })
        .await?;
        ensure!(log.contains("config/rbac"), "{log}");
        let untouched = objects.credentials.get("acr").await?;
        ensure!(condition(&untouched, "Ready").is_none(), "{untouched:?}");
        scene.allow_lease().await?;
        objects.ready("acr").await?;
        let log = program.terminate().await?;
        ensure!(log.matches("cannot hold the lease").count() == 1, "{log}");
        Ok(())
    });
}

#[test]
fn the_role_reaches_one_lease_and_no_other() {
    run(async {
        let scene = Scene::new("lease-role").await?;
        scene.allow_lease().await?;
        let acrcred = scene.start_replica("own", SHORT).await?;
        acrcred.is_leader().await?;
        let (namespace, name) = CONTROLLER;
        let plane = scene.control_plane;
        let client = plane.service_account_client(namespace, name).await?;
        let leases: Api<Lease> = Api::namespaced(client.clone(), &scene.namespace);
        leases.get(LEASE).await?;
        let everywhere: Api<Lease> = Api::namespaced(client, "kube-system");
        let delete = DeleteParams::default();
        for (what, refused) in [
            ("another name", leases.get("other").await.err()),
            ("a list", leases.list(&ListParams::default()).await.err()),
            ("a deletion", leases.delete(LEASE, &delete).await.err()),
            ("another namespace", everywhere.get(LEASE).await.err()),
        ] {
            let forbidden =
                matches!(&refused, Some(kube::Error::Api(status)) if status.is_forbidden());
            ensure!(forbidden, "{what}: {refused:?}");
        }
        acrcred.stop().await
    });
}

#[test]
fn alone_it_leads_and_asks_for_no_lease() {
    run(async {
        let scene = Scene::new("alone").await?;
        let contoso = scene.registry("contoso").await?;
        let program = Program::start_with(&scene, |command| {
            command.env("POD_NAMESPACE", &scene.namespace);
        })
        .await?;
        program.is_leader().await?;
        scene
            .objects()
            .create_ready(&manifest("acr", &[&contoso]))
            .await?;
        let calls = scene.calls().await?;
        ensure!(
            calls.on("leases").is_empty() && !calls.is_empty(),
            "{calls}"
        );
        program.terminate().await?;
        Ok(())
    });
}
