//! `spec.suspend`: nothing is minted, and Ready keeps its meaning.

use super::*;

#[test]
fn nothing_is_minted_and_ready_ends_with_the_credential() {
    let mut world = World::ready(&[CONTOSO]);
    let expiry = world.status().expires_at.clone().unwrap().0;
    world.edit(|spec| spec.suspend = true);
    let look = world.look();
    assert_eq!(conditions(world.status()), ["Ready=True/Suspended"]);
    assert_eq!(world.status().refresh_at, None);
    assert_eq!(look.settled.wake_at, Some(expiry));
    let look = world.wake(&look, |_| Ok(LIFE));
    assert!(look.is_idle());
    assert_eq!(conditions(world.status()), ["Ready=False/Suspended"]);
    assert_eq!((look.settled.wake_at, look.note()), (None, None));
    assert_eq!(hosts(world.secret()), [CONTOSO], "kept: it harms nobody");
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_suspended_object_never_starts() {
    let mut world = World::of(&[CONTOSO]);
    world.edit(|spec| spec.suspend = true);
    let look = world.look();
    assert_eq!((look.minted(), &world.secret), (vec![], &None));
    assert_eq!(conditions(world.status()), ["Ready=False/Suspended"]);
    assert_eq!(look.settled.state, State::Suspended);
}

#[test]
fn failures_from_before_are_neither_shown_nor_forgotten() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    world.look_failing(unavailable());
    world.edit(|spec| spec.suspend = true);
    world.look();
    assert_eq!(conditions(world.status()), ["Ready=True/Suspended"]);
    assert_eq!(world.attempts[CONTOSO].failures, 1);
    world.restart();
    assert_eq!(
        world.look().settled.status,
        None,
        "a restart changes nothing"
    );
}
