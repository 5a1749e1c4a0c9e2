//! Azure fails, in every way that it was seen to: the old credential stays, the status tells the truth,
//! the calls are few, and it converges when the fault ends.

use anyhow::{Context as _, Result};
use azure_emulator::fault::{BodyKind, CANARY, Fault, Kind, Match, Spoil};
use azure_emulator::journal::Endpoint;
use futures::future::try_join_all;
use jiff::SignedDuration;

use crate::changes::Changes;
use crate::harness::{Scene, condition, limited, manifest, note, run};

/// A fault, the hop it hits, and the reason under which its users read of it.
type Case = (Endpoint, Kind, &'static str);

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// In ten minutes: seven attempts while the delay doubles, then one a minute, all a fifth sooner at worst.
const CALLS: usize = 20;

fn status(status: u16, body: BodyKind) -> Kind {
    Kind::Status {
        status,
        body,
        code: None,
        text: None,
        reason: None,
        retry_after: None,
    }
}

/// The fault as the table of `docs/reliability.md` has it.
fn in_words(kind: &Kind) -> String {
    match kind {
        Kind::Status { status, body, .. } => format!("HTTP {status}, body {body:?}"),
        Kind::Reset {
            after_headers: true,
        } => "connection closed after the headers".into(),
        Kind::Reset { .. } => "connection closed before an answer".into(),
        Kind::Malformed { how } => format!("answer spoilt: {how:?}"),
        Kind::Huge { bytes } => format!("answer of {} MiB", bytes >> 20),
        Kind::Redirect { status, .. } => format!("redirect {status} to another host"),
        other => other.name().into(),
    }
}

async fn old_credential_survives((endpoint, kind, reason): Case) -> Result<()> {
    let name = format!("{endpoint:?}/{kind:?}");
    let kind_name = in_words(&kind);
    let scene = Scene::with_own_time("fault").await?;
    let contoso = scene.registry("contoso").await?;
    let _acrcred = scene.start().await?;
    let objects = scene.objects();
    let object = match endpoint {
        Endpoint::Token => limited("acr", &contoso, &["team/app"]),
        _ => manifest("acr", &[&contoso]),
    };
    objects.create_ready(&object).await?;
    let token = objects.token("acr", &contoso).await?.context("a token")?;
    let writes = scene.calls().await?.writes().len();
    let changes = Changes::from_now(&scene).await?;

    let matching = match endpoint {
        Endpoint::Login => Match::tenant(&scene.tenant_id),
        _ => Match::registry(&contoso.server),
    };
    let fault = scene
        .emulator
        .add_fault(Fault::new(endpoint, matching, kind));
    // All tokens are due by then: an app's Entra token lives an hour to an hour and a half, a limited token
    // 75 minutes.
    let due = if endpoint == Endpoint::Token { 45 } else { 100 };
    scene.advance(due * MINUTE);
    let object = objects
        .has("acr", "RefreshFailing", "True", reason)
        .await
        .context(name.clone())?;
    assert_eq!(
        condition(&object, "Ready").map(|c| c.status.as_str()),
        Some("True"),
        "{name}"
    );
    let before = scene.journal(endpoint).len();
    for _ in 0..10 {
        scene.advance(MINUTE);
        objects
            .has("acr", "RefreshFailing", "True", reason)
            .await
            .context(name.clone())?;
    }
    let calls = scene.journal(endpoint).len() - before;
    assert!(calls <= CALLS, "{name}: {calls} calls");
    assert_eq!(
        objects.token("acr", &contoso).await?.as_ref(),
        Some(&token),
        "{name}"
    );
    let written = scene.calls().await?;
    let statuses = written.writes().on("acrcredentials/status").len();
    assert!(
        statuses <= 3,
        "{name}: equal failures are one status write, not {statuses}"
    );
    // The regular write of what is there already, which time that is turned brings along, changes nothing.
    let resyncs = |call: &controlplane::Call| call.resource == "secrets" && call.verb == "update";
    let others = written.writes().matching(|call| !resyncs(call));
    assert!(others.len() - writes <= 3, "{name}: {others}");
    assert_eq!(changes.of_secrets().await?, [].into(), "{name}");

    scene.emulator.remove_fault(fault);
    // What a person must correct is retried every ten minutes, all else every minute.
    let step = if reason == "EntraRefused" {
        13 * MINUTE
    } else {
        SignedDuration::from_secs(80)
    };
    scene.advance(step);
    objects
        .another_token("acr", &contoso, &token)
        .await
        .context(name.clone())?;
    let object = objects.ready("acr").await.context(name.clone())?;
    let healed =
        |object: &acrcred::api::AcrCredential| condition(object, "RefreshFailing").is_none();
    if !healed(&object) {
        objects
            .status("acr", "RefreshFailing is over", healed)
            .await
            .context(name.clone())?;
    }
    let connects = scene.emulator.connects();
    assert!(
        !connects.iter().any(|connect| connect.host == CANARY),
        "{name}: a redirect was followed"
    );
    note(
        "faults",
        &format!(
            "| {endpoint:?} | {kind_name} | `{reason}` | {calls} | {} | {} s |\n",
            statuses - 1,
            step.as_secs()
        ),
    );
    Ok(())
}

fn survive(cases: Vec<Case>) {
    run(async {
        try_join_all(cases.into_iter().map(old_credential_survives)).await?;
        Ok(())
    });
}

/// Entra and registries behind a load balancer answer now this, now that.
#[test]
fn an_upstream_that_alternates_between_server_errors_is_one_status_write() {
    run(async {
        let scene = Scene::with_own_time("alternates").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("old", &[&contoso])).await?;
        for endpoint in [Endpoint::Login, Endpoint::Exchange] {
            let statuses = async |name: &str| {
                let written = scene.calls().await?.writes().on("acrcredentials/status");
                anyhow::Ok(written.count(|call| call.name == name))
            };
            let before = statuses("old").await?;
            let new = format!("new-{endpoint:?}").to_lowercase();
            for (number, code) in [500, 502, 503, 504].into_iter().cycle().take(9).enumerate() {
                let matching = match endpoint {
                    Endpoint::Login => Match::tenant(&scene.tenant_id),
                    _ => Match::registry(&contoso.server),
                };
                // Until the next one: each object meets it, and none meets another.
                let fault = Fault::new(endpoint, matching, Kind::status(code));
                let fault = scene.emulator.add_fault(fault);
                let seen = |code| {
                    let entries = scene.journal(endpoint).into_iter();
                    entries.filter(|entry| entry.status == code).count()
                };
                let met = seen(code);
                if number == 0 {
                    scene.advance(100 * MINUTE);
                    objects.create(&manifest(&new, &[&contoso])).await?;
                } else {
                    scene.advance(SignedDuration::from_secs(75));
                }
                crate::harness::soon("it is met", async || match seen(code) {
                    now if now > met => Ok(()),
                    now => Err(format!("{code}: {now}")),
                })
                .await?;
                for (name, kind) in [("old", "RefreshFailing"), (&new, "Reconciling")] {
                    objects
                        .has(name, kind, "True", "UpstreamUnavailable")
                        .await?;
                }
                scene.emulator.remove_fault(fault);
            }
            assert_eq!(statuses("old").await? - before, 1, "{endpoint:?}");
            assert_eq!(statuses(&new).await?, 1, "{endpoint:?}");
            // The positive control: its end is another one.
            scene.advance(SignedDuration::from_secs(75));
            objects.ready("old").await?;
            objects.ready(&new).await?;
            objects
                .status("old", "the refresh works again", |object| {
                    condition(object, "RefreshFailing").is_none()
                })
                .await?;
            assert_eq!(statuses("old").await? - before, 2, "{endpoint:?}");
            assert_eq!(statuses(&new).await?, 2, "{endpoint:?}");
            objects.delete(&new).await?;
        }
        Ok(())
    });
}

#[test]
fn error_answers() {
    survive(vec![
        (
            Endpoint::Login,
            status(503, BodyKind::Html),
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Login,
            status(500, BodyKind::Native),
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Login,
            status(400, BodyKind::Empty),
            "EntraRefused",
        ),
        (
            Endpoint::Exchange,
            status(503, BodyKind::Html),
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Exchange,
            status(401, BodyKind::Echo),
            "RegistryRefused",
        ),
        (
            Endpoint::Exchange,
            status(403, BodyKind::Native),
            "RegistryRefused",
        ),
        (
            Endpoint::Exchange,
            status(404, BodyKind::Text),
            "MalformedAnswer",
        ),
        (
            Endpoint::Token,
            status(503, BodyKind::Html),
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Token,
            status(401, BodyKind::Echo),
            "InsufficientScope",
        ),
        (
            Endpoint::Token,
            status(403, BodyKind::Native),
            "RegistryRefused",
        ),
        (
            Endpoint::Token,
            Kind::Throttle {
                retry_after: Some(60),
                http_date: false,
                json: false,
            },
            "Throttled",
        ),
    ]);
}

#[test]
fn broken_connections() {
    survive(vec![
        (
            Endpoint::Login,
            Kind::Reset {
                after_headers: false,
            },
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Login,
            Kind::Reset {
                after_headers: true,
            },
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Exchange,
            Kind::Reset {
                after_headers: false,
            },
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Exchange,
            Kind::Reset {
                after_headers: true,
            },
            "UpstreamUnavailable",
        ),
        (
            Endpoint::Token,
            Kind::Reset {
                after_headers: false,
            },
            "UpstreamUnavailable",
        ),
    ]);
}

#[test]
fn answers_that_are_not_what_the_protocol_says() {
    let spoilt = |how| Kind::Malformed { how };
    let huge = || Kind::Huge { bytes: 11 << 20 };
    let redirect = |status| Kind::Redirect {
        status,
        location: format!("https://{CANARY}/leak"),
    };
    survive(vec![
        (Endpoint::Login, spoilt(Spoil::Truncated), "MalformedAnswer"),
        (Endpoint::Login, spoilt(Spoil::Array), "MalformedAnswer"),
        (
            Endpoint::Login,
            spoilt(Spoil::MissingToken),
            "MalformedAnswer",
        ),
        (
            Endpoint::Login,
            spoilt(Spoil::ExpiresAsText),
            "MalformedAnswer",
        ),
        (Endpoint::Login, huge(), "MalformedAnswer"),
        (Endpoint::Login, redirect(307), "MalformedAnswer"),
        (
            Endpoint::Exchange,
            spoilt(Spoil::Truncated),
            "MalformedAnswer",
        ),
        (
            Endpoint::Exchange,
            spoilt(Spoil::EmptyToken),
            "MalformedAnswer",
        ),
        (
            Endpoint::Exchange,
            spoilt(Spoil::TokenAsNumber),
            "MalformedAnswer",
        ),
        (Endpoint::Exchange, spoilt(Spoil::NotJwt), "MalformedAnswer"),
        (Endpoint::Exchange, spoilt(Spoil::NoExp), "MalformedAnswer"),
        (Endpoint::Exchange, huge(), "MalformedAnswer"),
        (Endpoint::Exchange, redirect(308), "MalformedAnswer"),
        (Endpoint::Token, spoilt(Spoil::Truncated), "MalformedAnswer"),
        (Endpoint::Token, spoilt(Spoil::NotJwt), "MalformedAnswer"),
        (
            Endpoint::Token,
            spoilt(Spoil::ExtraRepository),
            "MalformedAnswer",
        ),
        (Endpoint::Token, huge(), "MalformedAnswer"),
        (Endpoint::Token, redirect(307), "MalformedAnswer"),
    ]);
}
