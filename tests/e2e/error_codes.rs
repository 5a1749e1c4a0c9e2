//! Every failure of the catalogue that Azure can answer with, as the object's author reads of it.

use acrcred::api::{AcrCredential, Reason};
use acrcred::credential::{Class, Failure, Hop, When, catalogue};
use acrcred::plan;
use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{BodyKind, Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use futures::future::try_join_all;
use jiff::SignedDuration;

use crate::harness::{Objects, Scene, TestRegistry, condition, limited, manifest, run};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// Objects that share the codes, each with a tenant of its own.
const LANES: usize = 4;

/// One answer, and the row that it is read by.
#[derive(Clone, Copy)]
struct Answer {
    endpoint: Endpoint,
    status: u16,
    code: Option<u32>,
    row: &'static Failure,
}

impl Answer {
    fn fault(self, scene: &Scene, registry: &TestRegistry) -> Fault {
        let matching = match self.endpoint {
            Endpoint::Login => Match::tenant(&scene.tenant_id),
            _ => Match::registry(&registry.server),
        };
        let kind = Kind::Status {
            status: self.status,
            body: match self.code {
                None if self.endpoint == Endpoint::Login => BodyKind::Text,
                _ => BodyKind::Native,
            },
            code: self.code.map(|code| code.to_string()),
            text: None,
            reason: None,
            retry_after: None,
        };
        Fault::new(self.endpoint, matching, kind)
    }

    fn object(self, name: &str, registry: &TestRegistry) -> AcrCredential {
        match self.endpoint {
            Endpoint::Token => limited(name, registry, &["team/app"]),
            _ => manifest(name, &[registry]),
        }
    }

    /// As the message names it.
    fn label(self) -> String {
        match self.code {
            Some(code) => format!("(HTTP {}, AADSTS{code})", self.status),
            None => format!("(HTTP {})", self.status),
        }
    }
}

/// Each code and each status of the catalogue.
fn answers() -> Vec<Answer> {
    let of = |row: &'static Failure| -> Vec<Answer> {
        match row.when {
            When::Codes(codes) => codes
                .iter()
                .enumerate()
                .map(|(n, code)| Answer {
                    endpoint: Endpoint::Login,
                    // Entra was seen to answer either way.
                    status: [400, 401][n % 2],
                    code: Some(*code),
                    row,
                })
                .collect(),
            When::Status(hops, ranges) => hops
                .iter()
                .flat_map(|hop| {
                    let endpoint = match hop {
                        Hop::Exchange => Endpoint::Exchange,
                        Hop::Token => Endpoint::Token,
                        _ => Endpoint::Login,
                    };
                    ranges.iter().map(move |range| Answer {
                        endpoint,
                        status: *range.start(),
                        code: None,
                        row,
                    })
                })
                .collect(),
            When::Other(_) => Vec::new(),
        }
    };
    catalogue().flat_map(of).collect()
}

/// What the object says under a fault: reason, message, and whether somebody must act.
async fn told(
    objects: &Objects,
    name: &str,
    label: &str,
) -> Result<(AcrCredential, String, String)> {
    let has_label = |object: &AcrCredential| {
        condition(object, "Ready").is_some_and(|ready| ready.message.contains(label))
    };
    let object = objects.status(name, label, has_label).await?;
    let ready = condition(&object, "Ready").context("a condition")?;
    let (reason, message) = (ready.reason.clone(), ready.message.clone());
    Ok((object, reason, message))
}

async fn reads_as_the_catalogue_has_it(answers: Vec<Answer>) -> Result<usize> {
    let scene = Scene::with_own_time("codes").await?;
    let contoso = scene.registry("contoso").await?;
    let _acrcred = scene.start().await?;
    let objects = scene.objects();
    for answer in &answers {
        // No floor of the failure before, and no token from between two faults, stands in the way.
        scene.advance(2 * SignedDuration::from_hours(1));
        let fault = scene.emulator.add_fault(answer.fault(&scene, &contoso));
        let name = format!(
            "{:?}-{}-{}",
            answer.endpoint,
            answer.status,
            answer.code.unwrap_or_default()
        )
        .to_lowercase();
        objects.create(&answer.object(&name, &contoso)).await?;
        let (object, reason, message) = told(&objects, &name, &answer.label()).await?;
        let expected = plan::reason(answer.row.cause);
        ensure!(reason == expected.as_str(), "{name}: {message}");
        ensure!(
            message.contains(&answer.row.to_string()),
            "{name}: {message}"
        );
        let must_act = matches!(answer.row.class, Class::Terminal | Class::Awaited);
        let state = if must_act { "Stalled" } else { "Reconciling" };
        ensure!(
            condition(&object, state).is_some_and(|c| c.reason == reason)
                && object
                    .status
                    .as_ref()
                    .is_some_and(|s| s.conditions.len() == 2),
            "{name}: {:?}",
            object.status
        );
        objects.delete(&name).await?;
        scene.emulator.remove_fault(fault);
    }
    // The same way leads to a credential where nothing fails.
    scene.advance(2 * SignedDuration::from_hours(1));
    objects.create_ready(&manifest("fine", &[&contoso])).await?;
    Ok(answers.len())
}

#[test]
fn every_answer_of_azure_reads_as_the_catalogue_has_it() {
    run(async {
        let mut lanes: Vec<Vec<Answer>> = vec![Vec::new(); LANES];
        for (n, answer) in answers().into_iter().enumerate() {
            lanes[n % LANES].push(answer);
        }
        let seen = try_join_all(lanes.into_iter().map(reads_as_the_catalogue_has_it)).await?;
        let seen: usize = seen.into_iter().sum();
        assert!(seen > 60, "only {seen} answers in the catalogue");
        Ok(())
    });
}

/// Vector E25.
#[test]
fn two_refusals_that_differ_in_their_trace_ids_are_one_status() {
    run(async {
        let scene = Scene::with_own_time("traces").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let answer = answers()
            .into_iter()
            .find(|answer| answer.code == Some(700_213))
            .context("a row for 700213")?;
        scene.emulator.add_fault(answer.fault(&scene, &contoso));
        objects.create(&manifest("acr", &[&contoso])).await?;
        let (first, ..) = told(&objects, "acr", "AADSTS700213").await?;
        let asked = || scene.journal(Endpoint::Login).len();
        while asked() < 4 {
            let before = asked();
            scene.advance(MINUTE);
            crate::harness::soon("Entra is asked again", async || {
                (asked() > before)
                    .then_some(())
                    .ok_or_else(|| format!("{before}"))
            })
            .await?;
        }
        // Whoever sees the answer of another object's mint has seen the status that came of the one before.
        objects.create(&manifest("other", &[&contoso])).await?;
        told(&objects, "other", "AADSTS700213").await?;
        let (last, ..) = told(&objects, "acr", "AADSTS700213").await?;
        assert_eq!(first.status, last.status);
        assert_eq!(
            first.metadata.resource_version,
            last.metadata.resource_version
        );
        let writes = scene
            .calls()
            .await?
            .writes()
            .on("acrcredentials/status")
            .len();
        assert_eq!(writes, 2, "one status for each object");
        Ok(())
    });
}

/// Vectors E10 and E11: an hour is enough for a rotation of keys, or for an issuer to come back.
#[test]
fn keys_that_entra_cannot_get_or_use_are_somebodys_to_mend_after_an_hour() {
    run(async {
        let of = |code: u32| {
            answers()
                .into_iter()
                .find(|answer| answer.code == Some(code))
        };
        let cases = [
            (700_027, Reason::EntraRefused),
            (90_061, Reason::UpstreamUnavailable),
        ];
        let escalates = async |(code, reason): (u32, Reason)| -> Result<()> {
            let reason = reason.as_str();
            let scene = Scene::with_own_time("escalating").await?;
            let contoso = scene.registry("contoso").await?;
            let _acrcred = scene.start().await?;
            let objects = scene.objects();
            let fault = of(code).context("a row")?.fault(&scene, &contoso);
            let fault = scene.emulator.add_fault(fault);
            objects.create(&manifest("acr", &[&contoso])).await?;
            objects.has("acr", "Reconciling", "True", reason).await?;
            let asked = || scene.journal(Endpoint::Login).len();
            for minutes in [30, 28] {
                let before = asked();
                scene.advance(minutes * MINUTE);
                crate::harness::soon("Entra is asked again", async || {
                    (asked() > before)
                        .then_some(())
                        .ok_or_else(|| format!("{before}"))
                })
                .await?;
                objects.has("acr", "Reconciling", "True", reason).await?;
            }
            scene.advance(3 * MINUTE);
            objects.has("acr", "Stalled", "True", reason).await?;
            scene.emulator.remove_fault(fault);
            scene.advance(13 * MINUTE);
            objects.ready("acr").await?;
            Ok(())
        };
        try_join_all(cases.map(escalates)).await?;
        Ok(())
    });
}
