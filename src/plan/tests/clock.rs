//! The wall clock is set wrong and right again.

use super::*;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn set_clock(world: &mut World, by: SignedDuration) {
    world.now += by;
    let now = world.now;
    world.learn(|cluster| cluster.rebase(now));
}

/// By a clock that is a day ahead, what Azure issues has expired on arrival.
fn expired() -> MintError {
    MintError::new(Hop::Entra, Cause::ExpiredOnArrival)
}

fn ready() -> World {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(600));
    world.look();
    world
}

#[test]
fn a_clock_that_is_a_day_ahead_for_a_while_costs_nothing() {
    for error in [
        expired(),
        unknown_tenant(),
        throttled(secs(900)),
        unavailable(),
    ] {
        for is_restarted in [false, true] {
            let mut world = ready();
            let before = world.secret().data.clone();
            set_clock(&mut world, DAY);
            if is_restarted {
                world.restart();
            }
            world.look_failing(error);
            let until = world.now + secs(300);
            world.pass(until, |_| Err(error));
            let status = conditions(world.status());
            assert!(status[0].starts_with("Ready=False"), "{status:?}");
            assert_eq!(world.secret().data, before, "nothing is removed");
            set_clock(&mut world, -DAY);
            let start = world.now;
            world.look();
            world.pass(start + secs(60), |_| Ok(LIFE));
            assert_eq!(
                conditions(world.status()),
                READY,
                "{error:?} {is_restarted}"
            );
            assert_eq!(hosts(world.secret()), [CONTOSO, FABRIKAM]);
            // The next rotation is in time.
            let issued_at = World::of(&[]).now;
            world.until_minted(|_| Ok(LIFE));
            assert!(world.now <= issued_at + LIFE * 6 / 10, "{}", world.now);
            assert_eq!(conditions(world.status()), READY);
        }
    }
}

#[test]
fn failures_that_a_wrong_clock_dated_are_forgotten() {
    let mut world = World::of(&[CONTOSO]);
    set_clock(&mut world, DAY);
    world.look_failing(unknown_tenant());
    set_clock(&mut world, -DAY);
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn failed_writes_that_a_wrong_clock_dated_are_forgotten() {
    for has_secret in [false, true] {
        let mut world = if has_secret {
            ready()
        } else {
            World::of(&[CONTOSO, FABRIKAM])
        };
        set_clock(&mut world, DAY);
        world.api.refusal = Some(refused());
        world.look();
        world.api.refusal = None;
        set_clock(&mut world, -DAY);
        let start = world.now;
        world.look();
        world.pass(start + secs(60), |_| Ok(LIFE));
        assert_eq!(conditions(world.status()), READY, "{has_secret}");
        assert!(world.holds_all());
    }
}

#[test]
fn what_was_issued_by_a_wrong_clock_is_refreshed_in_time() {
    // A clock that is ahead by less than a life: tokens come, and seem to end early.
    let mut world = ready();
    let ahead = SignedDuration::from_hours(2);
    set_clock(&mut world, ahead);
    world.look();
    assert_eq!(conditions(world.status()), READY);
    set_clock(&mut world, -ahead);
    let start = world.now;
    world.look();
    world.until_minted(|_| Ok(LIFE));
    assert!(world.now <= start + LIFE / 2, "{}", world.now);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_clock_set_back_delays_no_refresh_beyond_a_life() {
    for by in [secs(6), secs(3_600), DAY] {
        for is_restarted in [false, true] {
            let mut world = ready();
            set_clock(&mut world, -by);
            if is_restarted {
                world.restart();
            }
            let start = world.now;
            let look = world.look();
            assert!(
                look.mints.is_empty() && look.writes().is_empty(),
                "{look:?}"
            );
            assert_eq!(conditions(world.status()), READY);
            world.until_minted(|_| Ok(LIFE));
            assert!(world.now <= start + LIFE / 2, "{by}: {}", world.now);
            assert!(hosts(world.secret()).len() == 2);
        }
    }
}

#[test]
fn a_step_of_the_clock_while_a_mint_is_under_way_does_no_harm() {
    for by in [DAY, -DAY] {
        let mut world = World::of(&[CONTOSO, FABRIKAM]);
        world.look_slowly(|server| (server == CONTOSO).then_some(Ok(LIFE)));
        set_clock(&mut world, by);
        world.mint_ends(FABRIKAM, Ok(LIFE));
        let start = world.now;
        world.look();
        world.pass(start + secs(3), |_| Ok(LIFE));
        assert_eq!(conditions(world.status()), READY, "{by}");
        assert!(world.holds_all(), "{by}");
    }
}

#[test]
fn a_step_of_the_clock_while_a_write_is_held_does_no_harm() {
    let mut world = ready();
    world.restart();
    let answer = |server: &str| {
        if server == FABRIKAM {
            Err(unavailable())
        } else {
            Ok(LIFE)
        }
    };
    world.edit(|spec| spec.registries.push(world::registry(LITWARE)));
    world.look_at(answer);
    set_clock(&mut world, -DAY);
    let start = world.now;
    world.look_at(answer);
    world.pass(start + secs(70), answer);
    assert_eq!(hosts(world.secret()), [CONTOSO, LITWARE]);
}

#[test]
fn a_refresh_that_a_wrong_clock_dated_is_served() {
    let mut world = ready();
    set_clock(&mut world, DAY);
    world.change(|object| {
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(crate::api::REFRESH_ANNOTATION.into(), "a".into());
    });
    world.look_failing(expired());
    set_clock(&mut world, -DAY);
    let start = world.now;
    let mut looks = vec![world.look()];
    looks.extend(world.pass(start + secs(60), |_| Ok(LIFE)));
    assert_eq!(looks.iter().flat_map(Look::minted).count(), 2);
    assert_eq!(world.status().last_handled_refresh.as_deref(), Some("a"));
}
