//! When a credential is refreshed, and that no object is woken for nothing.

use super::*;

/// When the only registry of a new object is due after its mint.
fn refresh_after(uid: &str, fraction: f64, life: SignedDuration) -> SignedDuration {
    let mut world = World::of(&[CONTOSO]);
    world.change(|object| object.metadata.uid = Some(uid.into()));
    world.configure(|settings| settings.refresh_fraction = fraction);
    let start = world.now;
    world.look_at(|_| Ok(life));
    let stored = world.facts.registries[CONTOSO]
        .stored
        .as_ref()
        .unwrap()
        .lifetime();
    let stated = world.status().expires_at.clone().unwrap().0;
    assert_eq!(stated, stored.end);
    world.until_minted(|_| Ok(life));
    world.now.duration_since(start)
}

#[test]
fn refreshed_at_a_fraction_of_the_life_less_up_to_a_tenth() {
    for (fraction, latest) in [(0.5, LIFE / 2), (0.8, LIFE * 8 / 10), (0.1, LIFE / 10)] {
        let waits: Vec<_> = (0..100)
            .map(|i| refresh_after(&format!("uid-{i}"), fraction, LIFE))
            .collect();
        let earliest = (latest - LIFE / 10).max(secs(10));
        let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!((earliest..=latest).contains(first), "{fraction}: {first:?}");
        assert!((earliest..=latest).contains(last), "{fraction}: {last:?}");
        assert!(
            *last - *first > LIFE * 8 / 100,
            "{fraction}: spread over the whole window"
        );
        assert_eq!(
            refresh_after("uid-7", fraction, LIFE),
            waits[7],
            "the same each time"
        );
    }
}

#[test]
fn short_lives_have_a_floor_and_endless_ones_end_within_a_day() {
    let century = SignedDuration::from_hours(24 * 365 * 100);
    let day = SignedDuration::from_hours(24);
    for (life, earliest, latest) in [
        (secs(1), secs(10), secs(10)),
        (secs(15), secs(10), secs(10)),
        (secs(100), secs(40), secs(50)),
        (day, day * 4 / 10, day / 2),
        (century, day * 4 / 10, day / 2),
    ] {
        let wait = refresh_after("uid-1", 0.5, life);
        assert!((earliest..=latest).contains(&wait), "{life:?}: {wait:?}");
    }
}

#[test]
fn an_expiry_in_the_year_9999_is_looked_at_again_within_a_day() {
    let exp: Timestamp = "9999-12-30T00:00:00Z".parse().unwrap();
    let now = World::of(&[]).now;
    let wait = refresh_after("uid-1", 0.5, exp.duration_since(now));
    assert!(wait <= SignedDuration::from_hours(12), "{wait:?}");
}

#[test]
fn a_wake_comes_exactly_when_the_refresh_is_due() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    for round in 0..20 {
        let due_at = world.status().refresh_at.clone().unwrap().0;
        let mut looks = world.pass(due_at - secs(1), |_| Ok(LIFE));
        looks.retain(|look| !look.mints.is_empty());
        assert!(looks.is_empty(), "round {round}: early");
        let look = world.until_minted(|_| Ok(LIFE));
        // The status shows whole seconds.
        assert!(
            world.now.duration_since(due_at) < secs(1),
            "round {round}: late"
        );
        assert_eq!(look.minted(), [CONTOSO, FABRIKAM]);
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn a_resync_is_a_write_that_changes_nothing() {
    let mut world = World::ready(&[CONTOSO]);
    let before = world.secret().clone();
    let due_at = world.status().refresh_at.clone().unwrap().0;
    let (mut writes, mut last) = (0, world.now);
    while world.now < due_at - secs(1) {
        let look = world.sleep(due_at - secs(1), |_| Ok(LIFE));
        assert!(
            look.mints.is_empty() && look.statuses.is_empty(),
            "{look:?}"
        );
        if !look.writes().is_empty() {
            let wait = world.now.duration_since(last);
            assert!((secs(480)..=secs(600)).contains(&wait), "{wait}");
            (writes, last) = (writes + 1, world.now);
        }
    }
    assert!((7..=10).contains(&writes), "{writes}");
    assert_eq!(*world.secret(), before, "the same version");
}

#[test]
fn a_renewal_wants_a_newer_credential_than_it_has() {
    for is_restarted in [false, true] {
        let mut world = World::ready(&[CONTOSO]);
        let issued_at = world.now;
        if is_restarted {
            world.restart();
        }
        let look = world.until_minted(|_| Ok(LIFE));
        assert_eq!(look.mints[0].newer_than, Some(issued_at));
    }
}

#[test]
fn a_token_of_a_second_is_dead_for_a_while_but_never_a_hot_loop() {
    let mut world = World::of(&[CONTOSO]);
    let start = world.now;
    world.look_at(|_| Ok(secs(1)));
    let looks = world.pass(start + secs(600), |_| Ok(secs(1)));
    let mints = looks.iter().flat_map(Look::minted).count();
    assert!((55..=61).contains(&mints), "{mints} in ten minutes");
}

#[test]
fn no_state_causes_a_hot_loop() {
    for (refuses_writes, has_secret) in [(false, false), (false, true), (true, true), (true, false)]
    {
        for error in [
            unavailable(),
            no_role(),
            unknown_tenant(),
            throttled(secs(0)),
        ] {
            let mut world = if has_secret {
                World::ready(&[CONTOSO])
            } else {
                World::of(&[CONTOSO])
            };
            if refuses_writes {
                world.api.refusal = Some(refused());
            }
            let end = world.now + SignedDuration::from_hours(6);
            let mut looks = 0;
            while world.now < end {
                world.now = world.step().wake_at.unwrap_or(world.now + secs(1));
                world.look_at(|_| if refuses_writes { Ok(LIFE) } else { Err(error) });
                looks += 1;
                assert!(
                    looks < 6 * 60 * 2,
                    "{error:?}, refused: {refuses_writes}, Secret: {has_secret}: {}",
                    world.now
                );
            }
        }
    }
}

#[test]
fn a_restart_mints_nothing_that_is_fresh_and_writes_nothing() {
    let millis = SignedDuration::from_millis;
    for (offset, after) in [
        (millis(0), secs(0)),
        (millis(0), secs(3_000)),
        (millis(300), secs(3_000)),
        (millis(700), secs(1)),
        (millis(999), secs(3_000)),
    ] {
        let mut world = World::of(&[CONTOSO, FABRIKAM]);
        world.advance(offset);
        world.look();
        let before = world.secret().clone();
        world.pass(world.now + after, |_| Ok(LIFE));
        world.restart();
        let look = world.look();
        assert!(
            look.is_idle() && look.calls.is_empty(),
            "{offset:?} {after:?}: {look:?}"
        );
        world.pass(world.now + secs(720), |_| Ok(LIFE));
        assert_eq!(*world.secret(), before);
    }
}

#[test]
fn a_restart_mints_at_once_what_expired_meanwhile() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE + secs(1));
    world.restart();
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_restart_does_not_move_the_next_refresh() {
    let mut world = World::ready(&[CONTOSO]);
    let due_at = world.status().refresh_at.clone().unwrap().0;
    world.advance(secs(2_000));
    world.restart();
    world.until_minted(|_| Ok(LIFE));
    assert!(world.now.duration_since(due_at).abs() < secs(1));
}

#[test]
fn a_forged_status_delays_a_refresh_by_less_than_a_life() {
    let time = |at| Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
    for (repositories, limit) in [(None, 195), (Some(vec!["a".to_owned()]), 80)] {
        let mut world = World::of(&[CONTOSO]);
        world.edit(|spec| spec.registries[0].repositories = repositories);
        world.look_at(|_| Ok(SignedDuration::from_mins(75)));
        let start = world.now;
        world.change(|object| {
            let row = &mut object.status.as_mut().unwrap().registries[0];
            row.issued_at = time(start + SignedDuration::from_hours(500));
            row.expires_at = time(start + SignedDuration::from_hours(1_000));
        });
        world.restart();
        world.look();
        let expiry = world.status().expires_at.clone().unwrap().0;
        assert!(
            expiry <= start + SignedDuration::from_mins(limit),
            "{expiry}"
        );
        world.until_minted(|_| Ok(LIFE));
        assert!(
            world.now <= start + SignedDuration::from_mins(limit / 2),
            "{}",
            world.now
        );
    }
}
