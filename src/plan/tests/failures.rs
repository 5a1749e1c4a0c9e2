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

#[test]
fn a_registry_that_never_worked_makes_the_object_unready_and_harms_no_other() {
    let mut world = World::of(&[CONTOSO, FABRIKAM, LITWARE]);
    let look = world.look_at(only_failing(FABRIKAM, no_role()));
    assert_eq!(hosts(world.secret()), [CONTOSO, LITWARE]);
    assert_eq!(
        conditions(world.status()),
        [
            "Ready=False/RegistryRefused",
            "Reconciling=True/RegistryRefused"
        ]
    );
    let reasons: Vec<&str> = world
        .status()
        .registries
        .iter()
        .map(|r| r.reason.as_str())
        .collect();
    assert_eq!(reasons, ["Issued", "RegistryRefused", "Issued"]);
    let told = message(world.status(), ConditionType::Ready);
    assert!(
        told.starts_with("fabrikam.azurecr.io: Token exchange (HTTP 401)"),
        "{told}"
    );
    let look = world.wake(&look, |_| Ok(LIFE));
    assert_eq!(look.minted(), [FABRIKAM]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_failed_refresh_keeps_ready_until_the_old_credential_expires() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    let before = world.secret().clone();
    until_due(&mut world);
    let mut look = world.look_at(only_failing(CONTOSO, unavailable()));
    assert_eq!(
        conditions(world.status()),
        [
            "Ready=True/Issued",
            "RefreshFailing=True/UpstreamUnavailable"
        ]
    );
    assert_eq!(
        entry(world.secret(), CONTOSO),
        entry(&before, CONTOSO),
        "the old one stays"
    );
    assert_ne!(entry(world.secret(), FABRIKAM), entry(&before, FABRIKAM));
    let expiry = world.status().expires_at.clone().unwrap().0;
    let mut writes = 0;
    while world.now < expiry {
        look = world.wake(&look, only_failing(CONTOSO, unavailable()));
        writes += usize::from(look.settled.status.is_some() && world.now < expiry);
        assert_eq!(
            hosts(world.secret()),
            [CONTOSO, FABRIKAM],
            "nothing is removed"
        );
    }
    assert_eq!(world.now, expiry, "looked at exactly then");
    assert_eq!(
        conditions(world.status()),
        [
            "Ready=False/UpstreamUnavailable",
            "Reconciling=True/UpstreamUnavailable"
        ]
    );
    assert!(
        writes <= 1,
        "{writes} status writes, of which one for the other's rotation"
    );
}

#[test]
fn equal_failures_are_one_status_and_one_event() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let mut look = world.look_failing(no_role());
    assert_eq!(look.note(), Some("RegistryRefused"));
    for failures in 2..10 {
        look = world.wake(&look, |_| Err(no_role()));
        assert_eq!((&look.settled.status, look.note()), (&None, None));
        let most = world
            .attempts
            .values()
            .map(|attempt| attempt.failures)
            .max();
        assert!(most.is_some_and(|most| most <= failures), "{most:?}");
    }
}

#[test]
fn the_class_of_a_failure_tells_who_must_act() {
    let minutes = SignedDuration::from_mins;
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
        (no_role(), minutes(16), "Stalled=True/RegistryRefused"),
        (
            MintError::entra(401, &[700_213], None),
            minutes(14),
            "Reconciling=True/FederationMismatch",
        ),
        (
            MintError::entra(401, &[700_213], None),
            minutes(16),
            "Stalled=True/FederationMismatch",
        ),
        (
            MintError::entra(401, &[700_027], None),
            minutes(59),
            "Reconciling=True/EntraRefused",
        ),
        (
            MintError::entra(401, &[700_027], None),
            minutes(63),
            "Stalled=True/EntraRefused",
        ),
        (
            MintError::entra(400, &[90_061], None),
            minutes(63),
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
        let mut look = world.look_failing(error);
        while look.settled.wake_at.is_some_and(|at| at <= end) {
            look = world.wake(&look, |_| Err(error));
        }
        assert_eq!(
            conditions(world.status())[1],
            expected,
            "{error:?} after {after:?}"
        );
    }
}

#[test]
fn a_role_gets_a_quarter_of_an_hour_to_spread_also_after_an_outage() {
    let mut world = World::of(&[CONTOSO]);
    let mut look = world.look_failing(unavailable());
    let end = world.now + SignedDuration::from_hours(1);
    while world.now < end {
        look = world.wake(&look, |_| Err(unavailable()));
    }
    look = world.wake(&look, |_| Err(no_role()));
    assert_eq!(
        conditions(world.status())[1],
        "Reconciling=True/RegistryRefused"
    );
    assert!(
        look.settled.wake_at.unwrap() <= world.now + secs(90),
        "{look:?}",
        look = look.settled
    );
    let end = world.now + SignedDuration::from_mins(17);
    while world.now < end {
        look = world.wake(&look, |_| Err(no_role()));
    }
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
    let told = message(world.status(), ConditionType::Ready);
    assert!(told.contains("authentication-as-arm"), "{told}");
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
    for row in catalogue() {
        let mut world = World::of(&["contoso-a1b2c3d4e5f6g7h8.azurecr.io"]);
        world.federation.as_mut().unwrap().issuer =
            "https://westeurope.oic.prod-aks.azure.com/11111111-1111-1111-1111-111111111111/22222222-2222-2222-2222-222222222222/".into();
        world.look_failing(failure(row));
        let state = match row.class {
            Class::Terminal | Class::Awaited => "Stalled",
            _ => "Reconciling",
        };
        let reason = reason(row.cause);
        assert_eq!(
            conditions(world.status()),
            [
                format!("Ready=False/{reason}"),
                format!("{state}=True/{reason}")
            ]
        );
        let told = message(world.status(), ConditionType::Ready);
        assert!(told.contains(&row.to_string()), "{told}");
        assert!(told.len() <= 600, "{}: {told}", told.len());
    }
}

#[test]
fn what_somebody_must_mend_is_named_before_what_passes() {
    let errors = |asked: &str| match asked {
        CONTOSO => Err(unavailable()),
        FABRIKAM => Err(unknown_tenant()),
        _ => Ok(LIFE),
    };
    let mut world = World::of(&[CONTOSO, FABRIKAM, LITWARE]);
    world.look_at(errors);
    assert_eq!(
        conditions(world.status()),
        [
            "Ready=False/InvalidIdentity",
            "Stalled=True/InvalidIdentity"
        ]
    );
}

#[test]
fn entra_is_told_what_it_must_trust() {
    let mut world = World::of(&[CONTOSO]);
    world.look_failing(MintError::entra(401, &[700_213], None));
    let told = message(world.status(), ConditionType::Ready);
    assert!(
        told.contains("issuer https://issuer.example/, subject system:serviceaccount:"),
        "{told}"
    );
}

#[test]
fn events_tell_of_transitions_into_trouble_only() {
    let mut world = World::of(&[CONTOSO]);
    assert_eq!(world.look().note(), None, "success");
    until_due(&mut world);
    assert_eq!(world.look().note(), None, "rotation");
    until_due(&mut world);
    let failing = world.look_failing(unavailable());
    assert_eq!(failing.note(), Some("UpstreamUnavailable"));
    let failing = world.wake(&failing, |_| Err(unavailable()));
    assert_eq!(failing.note(), None, "still failing");
    world.advance(LIFE);
    let expired = world.look_failing(unavailable());
    assert_eq!(
        expired.note(),
        Some("UpstreamUnavailable"),
        "expired: pulls fail now"
    );
    assert_eq!(world.wake(&expired, |_| Ok(LIFE)).note(), None, "mended");
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn last_transition_time_moves_only_with_the_status() {
    let mut world = World::of(&[CONTOSO]);
    let since = world.now;
    world.look_failing(unavailable());
    world.advance(secs(600));
    world.look_failing(no_role());
    assert_eq!(
        world.status().conditions[0].last_transition_time.0,
        since,
        "another reason"
    );
    world.advance(secs(600));
    world.look();
    assert_eq!(
        world.status().conditions[0].last_transition_time.0,
        world.now,
        "another status"
    );
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
            let minted = world.look_failing(error).minted().len();
            assert!(second > 0 || minted == 1, "at once");
            mints += minted;
        }
        assert!(mints <= 5 * 7, "{error:?}: {mints} in five minutes");
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
    let look = world.look_failing(unknown_tenant());
    world.wake(&look, |_| Ok(LIFE));
    assert_eq!(world.attempts, Attempts::new());
    until_due(&mut world);
    world.look_failing(unknown_tenant());
    assert_eq!(world.attempts[CONTOSO].failures, 1);
}

#[test]
fn a_mint_that_nobody_answered_counts_as_failed() {
    let world = World::of(&[CONTOSO]);
    let settled = settle(
        &world.observed(None),
        &world.plan(),
        &Outcomes::new(),
        world.now,
    );
    assert_eq!(settled.attempts.len(), 1);
    assert!(settled.wake_at.is_some_and(|at| at > world.now));
}
