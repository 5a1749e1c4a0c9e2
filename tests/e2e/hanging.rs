//! A registry that never answers holds up nothing of the same object but itself.

use std::time::{Duration, Instant};

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use jiff::SignedDuration;
use serde_json::json;

use crate::harness::{Objects, Scene, TestRegistry, condition, manifest, run, soon};

/// What is promised to the other registries.
const PROMPT: Duration = Duration::from_secs(3);

impl Scene {
    /// From now on, the registry answers no exchange.
    fn hangs(&self, registry: &TestRegistry) {
        let never = Kind::Slow {
            headers_ms: 600_000,
            body_ms: 0,
        };
        let matching = Match::registry(&registry.server);
        let fault = Fault::new(Endpoint::Exchange, matching, never);
        self.emulator.add_fault(fault);
    }

    /// A registry that nobody asked before, so that a connection shows a request.
    fn silent(&self) -> Result<TestRegistry> {
        let hanging = self.empty_registry("azurecr.io", "hanging", |_| {})?;
        self.assign_role(&hanging)?;
        self.hangs(&hanging);
        Ok(hanging)
    }
}

fn registries(registries: &[&TestRegistry]) -> serde_json::Value {
    let servers = registries.iter().map(|r| json!({"server": r.server}));
    json!({"spec": {"registries": servers.collect::<Vec<_>>()}})
}

/// Waits until the Secret holds a token for `registry`, or until it does not.
async fn holds(objects: &Objects, registry: &TestRegistry, expected: bool) -> Result<()> {
    soon("the Secret's entries are right", async || {
        let secret = objects.secrets.get_opt("acr").await;
        if !matches!(secret, Ok(Some(_))) {
            return Err("no Secret".to_owned());
        }
        match objects.token("acr", registry).await {
            Ok(token) if token.is_some() == expected => Ok(()),
            other => Err(format!("{:?}", other.map(|token| token.is_some()))),
        }
    })
    .await
}

fn ready(object: &AcrCredential) -> Option<(&str, &str)> {
    let ready = condition(object, "Ready")?;
    Some((&ready.status, &ready.reason))
}

#[test]
fn a_registry_that_hangs_delays_neither_the_entry_nor_the_removal_of_another() {
    run(async {
        let scene = Scene::new("hanging").await?;
        let contoso = scene.registry("contoso").await?;
        let hanging = scene.silent()?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        // The policy was checked, and the Entra token is there.
        objects
            .create_ready(&manifest("control", &[&contoso]))
            .await?;

        let began = Instant::now();
        objects
            .create(&manifest("acr", &[&hanging, &contoso]))
            .await?;
        holds(&objects, &contoso, true).await?;
        ensure!(began.elapsed() < PROMPT, "{:?}", began.elapsed());

        let began = Instant::now();
        objects.change("acr", registries(&[&hanging])).await?;
        holds(&objects, &contoso, false).await?;
        ensure!(began.elapsed() < PROMPT, "{:?}", began.elapsed());

        // All the time, the other was waited for.
        ensure!(scene.connects_to(&hanging.server) > 0);
        let answered = scene.journal(Endpoint::Exchange);
        let answered = answered
            .iter()
            .filter(|entry| entry.host == hanging.server && entry.status != 0);
        assert_eq!(answered.count(), 0, "it has answered");
        let object = objects.credentials.get("acr").await?;
        ensure!(
            condition(&object, "Stalled").is_none(),
            "{:?}",
            object.status
        );
        Ok(())
    });
}

#[test]
fn suspension_and_expiry_are_reported_while_a_registry_hangs() {
    run(async {
        let scene = Scene::with_own_time("hangs-meanwhile").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        scene.hangs(&contoso);
        let logins = || scene.journal(Endpoint::Login).len();
        let before = logins();
        scene.advance(SignedDuration::from_mins(100));
        // The Entra token is too old by then, so a sign-in comes before the exchange.
        soon("it is asked for the refresh", async || match logins() {
            now if now > before => Ok(()),
            now => Err(format!("{now} sign-ins")),
        })
        .await?;

        let began = Instant::now();
        objects
            .change("acr", json!({"spec": {"suspend": true}}))
            .await?;
        objects.has("acr", "Ready", "True", "Suspended").await?;
        ensure!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        objects
            .change("acr", json!({"spec": {"suspend": false}}))
            .await?;
        objects.ready("acr").await?;

        let began = Instant::now();
        scene.advance(SignedDuration::from_mins(85));
        let expired = objects
            .status("acr", "its expiry is reported", |object| {
                ready(object).is_some_and(|(status, _)| status == "False")
            })
            .await?;
        ensure!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        ensure!(
            condition(&expired, "Reconciling").is_some(),
            "{:?}",
            expired.status
        );
        ensure!(
            objects.token("acr", &contoso).await? == Some(token),
            "it was refreshed"
        );
        Ok(())
    });
}
