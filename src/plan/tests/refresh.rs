//! The annotation `acrcred.dev/refresh`.

use super::*;
use crate::api::REFRESH_ANNOTATION;

fn annotate_object(world: &mut World, value: &str) {
    let annotations = world.object.metadata.annotations.get_or_insert_default();
    annotations.insert(REFRESH_ANNOTATION.into(), value.into());
}

/// What the controller does with the annotation before it plans.
fn see(world: &mut World) {
    let now = world.now;
    if let Some(request) = RefreshRequest::of(&world.object, world.refresh.as_ref(), |_| now) {
        world.refresh = Some(request);
    }
}

#[test]
fn a_new_value_replaces_every_credential_once() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(60));
    annotate_object(&mut world, "2026-11-23T10:00:00+01:00");
    see(&mut world);
    assert_eq!(world.look().minted(), [CONTOSO, FABRIKAM]);
    let handled = Some("2026-11-23T10:00:00+01:00");
    assert_eq!(world.status().last_handled_refresh.as_deref(), handled);
    see(&mut world);
    assert!(world.look().is_idle());
    // Nor after a restart.
    world.restart();
    world.refresh = None;
    see(&mut world);
    assert!(world.look().is_idle());
    assert_eq!(world.status().last_handled_refresh.as_deref(), handled);
}

#[test]
fn a_shared_credential_serves_only_if_it_came_after_the_request() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(300));
    annotate_object(&mut world, "now");
    see(&mut world);
    let plan = world.plan();
    let mint = plan.mints().next().expect("a mint");
    assert_eq!(mint.received_after, Some(world.now));
}

#[test]
fn it_is_served_when_every_registry_is_and_failures_are_retried_in_their_time() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(60));
    annotate_object(&mut world, "a");
    see(&mut world);
    let last = world.look_at(|server| {
        if server == CONTOSO {
            Ok(LIFE)
        } else {
            Err(unavailable())
        }
    });
    assert_eq!(world.status().last_handled_refresh, None);
    see(&mut world);
    let last = world.wake(&last, |_| Ok(LIFE));
    assert_eq!(last.minted(), [FABRIKAM], "the other one is new already");
    assert_eq!(world.status().last_handled_refresh.as_deref(), Some("a"));
}

#[test]
fn it_starts_a_backoff_anew_but_not_before_a_retry_after() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    world.look_failing(unknown_tenant());
    annotate_object(&mut world, "a");
    see(&mut world);
    assert_eq!(world.look().minted(), [CONTOSO], "ten minutes early");

    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    world.look_failing(throttled(secs(90)));
    annotate_object(&mut world, "a");
    see(&mut world);
    assert!(world.look().is_idle());
    world.advance(secs(91));
    assert_eq!(world.look().minted(), [CONTOSO]);
}

#[test]
fn a_value_that_changes_all_the_time_is_served_once_a_minute() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    let mut minted = 0;
    for second in 0..180 {
        annotate_object(&mut world, &second.to_string());
        see(&mut world);
        world.advance(secs(1));
        minted += world.look().minted().len();
    }
    assert!((1..=4).contains(&minted), "{minted}");
}

#[test]
fn a_value_that_is_removed_and_set_again_is_served_no_more_often() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    let mut minted = 0;
    for second in 0..180 {
        if second % 2 == 0 {
            annotate_object(&mut world, &second.to_string());
        } else {
            world.object.metadata.annotations = None;
        }
        see(&mut world);
        world.advance(secs(1));
        minted += world.look().minted().len();
    }
    assert!((1..=4).contains(&minted), "{minted}");
}

#[test]
fn of_values_that_change_in_a_moment_the_last_is_served_within_a_minute() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    for value in ["a", "b", "c"] {
        annotate_object(&mut world, value);
        see(&mut world);
        world.look();
    }
    let told = |world: &World| world.status().last_handled_refresh.clone();
    assert_eq!(told(&world).as_deref(), Some("a"), "at once");
    world.advance(secs(61));
    see(&mut world);
    world.look();
    assert_eq!(told(&world).as_deref(), Some("c"));
}

#[test]
fn a_suspended_object_is_not_refreshed_and_a_strange_value_is_told() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(secs(60));
    annotate_object(&mut world, "a");
    see(&mut world);
    world.object.spec.suspend = true;
    assert!(world.look().is_idle());
    assert_eq!(world.status().last_handled_refresh, None);

    for value in ["", "a b", "a\u{1b}[31m", &"x".repeat(65)] {
        let mut world = World::ready(&[CONTOSO]);
        annotate_object(&mut world, value);
        see(&mut world);
        assert_eq!(world.refresh, None);
        assert!(world.look().is_idle());
        let told = &world.status().conditions[0].message;
        assert!(told.contains("acrcred.dev/refresh"), "{told}");
        assert!(value.is_empty() || !told.contains(value), "{told}");
    }
}
