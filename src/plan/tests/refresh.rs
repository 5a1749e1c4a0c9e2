//! The annotation `acrcred.dev/refresh`.

use super::*;
use crate::api::REFRESH_ANNOTATION;

fn ask(world: &mut World, value: &str) {
    world.change(|object| {
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(REFRESH_ANNOTATION.into(), value.into());
    });
}

fn handled(world: &World) -> Option<&str> {
    world.status().last_handled_refresh.as_deref()
}

#[test]
fn a_new_value_replaces_every_credential_once() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(60));
    let value = "2026-11-23T10:00:00+01:00";
    ask(&mut world, value);
    let look = world.look();
    assert_eq!(look.minted(), [CONTOSO, FABRIKAM]);
    assert_eq!((look.writes().len(), look.statuses.len()), (1, 1));
    assert_eq!(handled(&world), Some(value));
    assert!(world.look().is_idle());
    // Nor after a restart.
    world.restart();
    let until = world.now + secs(900);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert!(look.is_idle(), "{look:?}");
    }
    assert_eq!(handled(&world), Some(value));
}

#[test]
fn a_shared_credential_serves_only_if_it_came_after_the_request() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(300));
    ask(&mut world, "now");
    let look = world.look();
    assert_eq!(look.mints[0].received_after, Some(world.now));
}

#[test]
fn a_refresh_is_handled_once_every_registry_is() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(60));
    ask(&mut world, "a");
    world.look_at(|server| {
        if server == CONTOSO {
            Ok(LIFE)
        } else {
            Err(unavailable())
        }
    });
    assert_eq!(handled(&world), None);
    let look = world.until_minted(|_| Ok(LIFE));
    assert_eq!(look.minted(), [FABRIKAM], "the other one is new already");
    world.pass(world.now + secs(3), |_| Ok(LIFE));
    assert_eq!(handled(&world), Some("a"));
}

#[test]
fn a_refresh_resets_a_backoff_but_not_a_retry_after() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    world.look_failing(unknown_tenant());
    ask(&mut world, "a");
    assert_eq!(world.look().minted(), [CONTOSO], "ten minutes early");

    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    world.look_failing(throttled(secs(90)));
    ask(&mut world, "a");
    assert!(world.look().mints.is_empty());
    world.advance(secs(91));
    assert_eq!(world.look().minted(), [CONTOSO]);
}

#[test]
fn a_value_that_changes_all_the_time_is_served_once_a_minute() {
    for is_removed_between in [false, true] {
        let mut world = World::ready(&[CONTOSO]);
        world.advance(secs(60));
        let mut minted = 0;
        for second in 0..180 {
            if is_removed_between && second % 2 == 1 {
                world.change(|object| object.metadata.annotations = None);
            } else {
                ask(&mut world, &second.to_string());
            }
            world.advance(secs(1));
            minted += world.look().mints.len();
        }
        assert!((1..=4).contains(&minted), "{minted}");
    }
}

#[test]
fn the_last_of_several_values_is_served_within_a_minute() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    for value in ["a", "b", "c"] {
        ask(&mut world, value);
        world.look();
    }
    assert_eq!(handled(&world), Some("a"), "at once");
    world.pass(world.now + secs(64), |_| Ok(LIFE));
    assert_eq!(handled(&world), Some("c"));
}

#[test]
fn a_suspended_object_is_not_refreshed_until_it_is_resumed() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    world.edit(|spec| spec.suspend = true);
    world.look();
    ask(&mut world, "a");
    assert!(world.look().is_idle());
    assert_eq!(handled(&world), None);
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(handled(&world), Some("a"));
}

#[test]
fn a_value_that_cannot_be_used_has_no_effect_and_is_reported() {
    for value in ["", "a b", "a\u{1b}[31m", &"x".repeat(65)] {
        let mut world = World::ready(&[CONTOSO]);
        ask(&mut world, value);
        assert!(world.look().mints.is_empty());
        assert_eq!(world.facts.refresh, None);
        let text = message(world.status(), ConditionType::Ready);
        assert!(text.contains("acrcred.dev/refresh"), "{text}");
        assert!(value.is_empty() || !text.contains(value), "{text}");
    }
}

#[test]
fn a_refresh_also_replaces_sealed_credentials_in_one_write() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.restart();
    ask(&mut world, "a");
    let look = world.look();
    assert_eq!(
        (look.minted(), look.writes().len()),
        (vec![CONTOSO, FABRIKAM], 1)
    );
    assert_eq!(handled(&world), Some("a"));
    assert!(world.holds_all());
}

#[test]
fn a_request_made_just_before_a_restart_is_not_lost() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    ask(&mut world, "a");
    world.restart();
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(handled(&world), Some("a"));
}

#[test]
fn a_request_that_is_withdrawn_before_it_is_served_is_dropped() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    ask(&mut world, "a");
    // The positive control: it is open, and only the registry keeps it from being served.
    let look = world.look_failing(unavailable());
    assert_eq!(look.minted(), [CONTOSO]);
    world.change(|object| {
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.remove(REFRESH_ANNOTATION);
    });
    let until = world.now + secs(300);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert_eq!(look.minted(), [""; 0], "{look:?}");
    }
    assert_eq!(handled(&world), None);
    assert_eq!(conditions(world.status()), READY);
}
