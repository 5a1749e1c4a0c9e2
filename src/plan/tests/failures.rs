//! One registry fails among many; how failures read, and when they are tried again.

use super::*;

/// All succeed but `server`.
fn only_failing(server: &'static str, error: MintError) -> impl FnMut(&str) -> world::Answer {
    move |asked| {
        if asked == server {
            Err(error)
        } else {
            Ok(LIFE)
        }
    }
}

/// Until `server`'s credential is due.
fn until_due(world: &mut World) {
    world.advance(LIFE / 2);
}

/// Until the next attempt, which fails.
fn fail_again(world: &mut World, error: MintError) -> Look {
    world.until_minted(|_| Err(error))
}

fn failures(world: &World) -> u32 {
    let attempt = world.facts.registries[CONTOSO].attempt.as_ref();
    attempt.map_or(0, |attempt| attempt.backoff.failures)
}

#[test]
fn a_registry_that_never_worked_harms_no_other() {
    let mut world = World::of(&[CONTOSO, FABRIKAM, LITWARE]);
    world.look_at(only_failing(FABRIKAM, no_role()));
    assert_eq!(hosts(world.secret()), [CONTOSO, LITWARE]);
    let expected = [
        "Ready=False/RegistryRefused",
        "Reconciling=True/RegistryRefused",
    ];
    assert_eq!(conditions(world.status()), expected);
    let rows = world.status().registries.iter();
    let reasons: Vec<&str> = rows.map(|row| row.reason.as_str()).collect();
    assert_eq!(reasons, ["Issued", "RegistryRefused", "Issued"]);
    let text = message(world.status(), ConditionType::Ready);
    assert!(
        text.starts_with("fabrikam.azurecr.io: Token exchange (HTTP 401)"),
        "{text}"
    );
    let look = world.until_minted(|_| Ok(LIFE));
    assert_eq!(look.minted(), [FABRIKAM]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_failed_refresh_keeps_ready_until_the_expiry() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    let before = world.secret().clone();
    until_due(&mut world);
    world.look_at(only_failing(CONTOSO, unavailable()));
    let expected = [
        "Ready=True/Issued",
        "RefreshFailing=True/UpstreamUnavailable",
    ];
    assert_eq!(conditions(world.status()), expected);
    assert_eq!(
        entry(world.secret(), CONTOSO),
        entry(&before, CONTOSO),
        "the old one stays"
    );
    assert_ne!(entry(world.secret(), FABRIKAM), entry(&before, FABRIKAM));
    let expiry = world.status().expires_at.clone().unwrap().0;
    let looks = world.pass(expiry - secs(1), only_failing(CONTOSO, unavailable()));
    let writes = looks
        .iter()
        .filter(|look| !look.statuses.is_empty())
        .count();
    assert!(
        writes <= 1,
        "{writes} status writes, of which one for the other's rotation"
    );
    assert_eq!(conditions(world.status()), expected);
    world.pass(expiry, only_failing(CONTOSO, unavailable()));
    assert_eq!(
        hosts(world.secret()),
        [CONTOSO, FABRIKAM],
        "nothing is removed"
    );
    let expected = [
        "Ready=False/UpstreamUnavailable",
        "Reconciling=True/UpstreamUnavailable",
    ];
    assert_eq!(conditions(world.status()), expected);
}

#[test]
fn equal_failures_are_one_status_and_one_event() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look_failing(no_role());
    assert_eq!(
        (look.statuses.len(), look.event()),
        (1, Some("RegistryRefused"))
    );
    for count in 2..10 {
        let look = fail_again(&mut world, no_role());
        assert!(
            look.statuses.is_empty() && look.events.is_empty(),
            "{look:?}"
        );
        assert!(failures(&world) <= count);
    }
}

#[test]
fn failures_that_differ_in_http_status_are_one_status() {
    let mut world = World::ready(&[CONTOSO]);
    until_due(&mut world);
    let look = world.look_failing(MintError::entra(503, &[], None));
    assert_eq!((look.statuses.len(), look.events.len()), (1, 1));
    for status in [500, 502, 504, 503, 500] {
        let look = fail_again(&mut world, MintError::entra(status, &[], None));
        assert!(
            look.statuses.is_empty() && look.events.is_empty(),
            "{status}: {look:?}"
        );
    }
    let text = message(world.status(), ConditionType::RefreshFailing);
    assert!(text.contains("HTTP 503"), "{text}");
}

#[test]
fn the_class_of_a_failure_says_who_must_act() {
    let minutes = SignedDuration::from_mins;
    let no_federation = MintError::entra(401, &[700_213], None);
    let stale_keys = MintError::entra(401, &[700_027], None);
    for (error, after, expected) in [
        (unknown_tenant(), minutes(0), "Stalled=True/InvalidIdentity"),
        (
            unavailable(),
            minutes(0),
            "Reconciling=True/UpstreamUnavailable",
        ),
        (
            unavailable(),
            minutes(60),
            "Reconciling=True/UpstreamUnavailable",
        ),
        (
            throttled(minutes(15)),
            minutes(60),
            "Reconciling=True/Throttled",
        ),
        (no_role(), minutes(14), "Reconciling=True/RegistryRefused"),
        (no_role(), minutes(17), "Stalled=True/RegistryRefused"),
        (
            no_federation,
            minutes(14),
            "Reconciling=True/FederationMismatch",
        ),
        (
            no_federation,
            minutes(17),
            "Stalled=True/FederationMismatch",
        ),
        (stale_keys, minutes(59), "Reconciling=True/EntraRefused"),
        (stale_keys, minutes(63), "Stalled=True/EntraRefused"),
        (
            MintError::entra(400, &[90_061], None),
            minutes(66),
            "Stalled=True/UpstreamUnavailable",
        ),
        (
            MintError::entra(400, &[], None),
            minutes(0),
            "Stalled=True/EntraRefused",
        ),
        (
            MintError::new(Hop::Exchange, Cause::Malformed),
            minutes(60),
            "Reconciling=True/MalformedAnswer",
        ),
    ] {
        let mut world = World::of(&[CONTOSO]);
        let end = world.now + after;
        world.look_failing(error);
        world.pass(end, |_| Err(error));
        assert_eq!(
            conditions(world.status())[1],
            expected,
            "{error:?} after {after:?}"
        );
    }
}

#[test]
fn after_an_outage_a_role_still_gets_15_minutes_to_spread() {
    let mut world = World::of(&[CONTOSO]);
    let end = world.now + SignedDuration::from_hours(1);
    world.look_failing(unavailable());
    world.pass(end, |_| Err(unavailable()));
    let start = world.now;
    fail_again(&mut world, no_role());
    assert_eq!(
        conditions(world.status())[1],
        "Reconciling=True/RegistryRefused"
    );
    assert!(world.now <= start + secs(90));
    let end = world.now + SignedDuration::from_mins(17);
    world.pass(end, |_| Err(no_role()));
    assert_eq!(
        conditions(world.status())[1],
        "Stalled=True/RegistryRefused"
    );
}

#[test]
fn resource_manager_tokens_that_a_registry_refuses_are_named() {
    let mut world = World::of(&[CONTOSO]);
    world.ask_for("https://management.azure.com/");
    world.look_failing(no_role());
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/ArmAuthenticationDisabled"
    );
    let text = message(world.status(), ConditionType::Ready);
    assert!(text.contains("authentication-as-arm"), "{text}");
}

/// A failure as the row of the catalogue describes it.
fn failure(row: &Failure) -> MintError {
    let mut error = MintError::new(Hop::Entra, row.cause);
    match row.when {
        When::Codes(codes) => error = MintError::entra(400, codes, None),
        When::Status(hops, ranges) => {
            error.hop = *hops.last().unwrap();
            error.status = Some(*ranges[0].start());
        }
        When::Other(_) => {}
    }
    error
}

#[test]
fn every_failure_reads_as_the_catalogue_has_it() {
    let issuer = "https://westeurope.oic.prod-aks.azure.com/11111111-1111-1111-1111-111111111111/22222222-2222-2222-2222-222222222222/";
    for row in catalogue() {
        let mut world = World::of(&["contoso-a1b2c3d4e5f6g7h8.azurecr.io"]);
        world.learn(|cluster| cluster.own.as_mut().unwrap().issuer = issuer.into());
        world.look_failing(failure(row));
        let state = match row.class {
            Class::Terminal | Class::Awaited => "Stalled",
            _ => "Reconciling",
        };
        let reason = reason(row.cause);
        if reason == Reason::Progressing {
            assert_eq!(
                world.facts.object.status, None,
                "a new object is in progress anyway"
            );
            continue;
        }
        let expected = [
            format!("Ready=False/{reason}"),
            format!("{state}=True/{reason}"),
        ];
        assert_eq!(conditions(world.status()), expected);
        let text = message(world.status(), ConditionType::Ready);
        assert!(text.contains(&row.to_string()), "{text}");
        assert!(text.len() <= 600, "{}: {text}", text.len());
    }
}

#[test]
fn what_needs_a_person_is_named_before_what_passes() {
    let errors = |asked: &str| match asked {
        CONTOSO => Err(unavailable()),
        FABRIKAM => Err(unknown_tenant()),
        _ => Ok(LIFE),
    };
    let mut world = World::of(&[CONTOSO, FABRIKAM, LITWARE]);
    world.look_at(errors);
    let expected = [
        "Ready=False/InvalidIdentity",
        "Stalled=True/InvalidIdentity",
    ];
    assert_eq!(conditions(world.status()), expected);
}

#[test]
fn a_federation_mismatch_shows_what_was_presented() {
    let mut world = World::of(&[CONTOSO]);
    world.look_failing(MintError::entra(401, &[700_213], None));
    let text = message(world.status(), ConditionType::Ready);
    let expected = "issuer https://issuer.example/, subject system:serviceaccount:";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn events_report_transitions_into_trouble_only() {
    let mut world = World::of(&[CONTOSO]);
    assert_eq!(world.look().event(), None, "success");
    until_due(&mut world);
    assert_eq!(world.look().event(), None, "rotation");
    until_due(&mut world);
    assert_eq!(
        world.look_failing(unavailable()).event(),
        Some("UpstreamUnavailable")
    );
    assert_eq!(
        fail_again(&mut world, unavailable()).event(),
        None,
        "still failing"
    );
    world.advance(LIFE);
    let expired = world.look_failing(unavailable());
    assert_eq!(
        expired.event(),
        Some("UpstreamUnavailable"),
        "expired: pulls fail now"
    );
    assert_eq!(world.until_minted(|_| Ok(LIFE)).event(), None, "recovery");
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn last_transition_time_moves_only_with_the_status() {
    let mut world = World::of(&[CONTOSO]);
    let since = world.now;
    let changed_at = |world: &World| world.status().conditions[0].last_transition_time.0;
    world.look_failing(unavailable());
    world.advance(secs(600));
    world.look_failing(no_role());
    assert_eq!(changed_at(&world), since, "another reason");
    world.advance(secs(600));
    world.look();
    assert_eq!(changed_at(&world), world.now, "another status");
}

#[test]
fn a_changed_spec_is_tried_at_once_but_once_a_minute_at_most() {
    for error in [unavailable(), unknown_tenant()] {
        let mut world = World::of(&[CONTOSO]);
        world.look_failing(error);
        let mut mints = 0;
        for second in 0..300 {
            world.advance(secs(1));
            world.edit(|spec| spec.secret = Some(template(&[], &[("x", "y")])));
            let minted = world.look_failing(error).mints.len();
            assert!(second > 0 || minted == 1, "at once");
            mints += minted;
        }
        assert!(mints <= 5 * 7, "{error:?}: {mints} in five minutes");
    }
}

#[test]
fn a_registry_that_is_removed_and_added_again_keeps_its_backoff() {
    for error in [unavailable(), unknown_tenant(), throttled(secs(600))] {
        let mut world = World::ready(&[FABRIKAM]);
        world.edit(|spec| spec.registries.insert(0, world::registry(CONTOSO)));
        world.look_failing(error);
        let mut mints = 0;
        for second in 0..300 {
            world.advance(secs(1));
            world.edit(|spec| {
                if second % 2 == 0 {
                    drop(spec.registries.remove(0));
                } else {
                    spec.registries.insert(0, world::registry(CONTOSO));
                }
            });
            mints += world.look_failing(error).mints.len();
        }
        let most = if error.cause == Cause::Throttled {
            0
        } else {
            5 * 7
        };
        assert!(mints <= most, "{error:?}: {mints} in five minutes");
    }
}

#[test]
fn no_change_of_the_spec_gets_past_a_retry_after() {
    let mut world = World::of(&[CONTOSO]);
    world.look_failing(throttled(secs(300)));
    world.advance(secs(299));
    world.edit(|_| {});
    assert_eq!(world.look().minted(), Vec::<&str>::new());
    world.advance(secs(1));
    world.edit(|_| {});
    assert_eq!(world.look().minted(), [CONTOSO]);
}

#[test]
fn a_success_forgets_the_failures() {
    let mut world = World::of(&[CONTOSO]);
    world.look_failing(unknown_tenant());
    world.until_minted(|_| Ok(LIFE));
    assert_eq!(world.facts.registries[CONTOSO].attempt, None);
    until_due(&mut world);
    world.look_failing(unknown_tenant());
    assert_eq!(failures(&world), 1);
}

#[test]
fn a_cancelled_mint_is_no_failure_and_is_started_again() {
    let mut world = World::of(&[CONTOSO]);
    world.look_slowly(|_| None);
    let mint = world.under_way.remove(0);
    world.facts.minted(&mint, None, world.now);
    let look = world.look();
    assert_eq!(look.minted(), [CONTOSO]);
    assert!(look.events.is_empty());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_failure_of_what_is_wanted_no_longer_leaves_no_backoff() {
    let mut world = World::of(&[CONTOSO]);
    world.look_slowly(|_| None);
    let old = world.under_way.remove(0);
    world.ask_for("https://management.azure.com/");
    world.look_slowly(|_| None);
    world
        .facts
        .minted(&old, Some(Err(unknown_tenant())), world.now);
    assert_eq!(failures(&world), 0);
    world.mint_ends(CONTOSO, Err(unavailable()));
    let start = world.now;
    world.until_minted(|_| Ok(LIFE));
    assert!(world.now <= start + secs(2));
    assert_eq!(conditions(world.status()), READY);
}
