//! `spec.suspend`: nothing is minted, and Ready keeps its meaning.

use super::*;

#[test]
fn nothing_is_minted_and_ready_ends_with_the_credential() {
    let mut world = World::ready(&[CONTOSO]);
    let expiry = world.status().expires_at.clone().unwrap().0;
    world.edit(|spec| spec.suspend = true);
    world.look();
    assert_eq!(conditions(world.status()), ["Ready=True/Suspended"]);
    assert_eq!(world.status().refresh_at, None);
    for look in world.pass(expiry - secs(1), |_| Ok(LIFE)) {
        assert!(
            look.mints.is_empty() && look.statuses.is_empty(),
            "{look:?}"
        );
    }
    let looks = world.pass(expiry, |_| Ok(LIFE));
    let last = looks.last().unwrap();
    assert!(last.mints.is_empty(), "{last:?}");
    assert_eq!(conditions(world.status()), ["Ready=False/Suspended"]);
    assert_eq!(last.event(), None);
    assert_eq!(hosts(world.secret()), [CONTOSO], "kept: it harms no pod");
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_suspended_object_never_starts() {
    let mut world = World::of(&[CONTOSO]);
    world.edit(|spec| spec.suspend = true);
    let look = world.look();
    assert_eq!((look.minted(), &world.api.secret), (vec![], &None));
    assert_eq!(conditions(world.status()), ["Ready=False/Suspended"]);
    assert_eq!(look.step.standing.unwrap().state, State::Suspended);
}

#[test]
fn failures_from_before_are_neither_shown_nor_forgotten() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    world.look_failing(unavailable());
    world.edit(|spec| spec.suspend = true);
    world.look();
    assert_eq!(conditions(world.status()), ["Ready=True/Suspended"]);
    let attempt = world.facts.registries[CONTOSO].attempt.as_ref();
    assert_eq!(attempt.unwrap().backoff.failures, 1);
    world.restart();
    assert!(world.look().is_idle(), "a restart changes nothing");
}

#[test]
fn a_mint_under_way_when_the_object_is_suspended_is_kept() {
    // It is not minted in vain: it is written, or waits until the object is resumed.
    let mut world = World::of(&[CONTOSO]);
    world.look_slowly(|_| None);
    world.edit(|spec| spec.suspend = true);
    world.look();
    world.mint_ends(CONTOSO, Ok(LIFE));
    world.pass(world.now + secs(3), |_| Ok(LIFE));
    world.edit(|spec| spec.suspend = false);
    let mut looks = vec![world.look()];
    looks.extend(world.pass(world.now + secs(3), |_| Ok(LIFE)));
    assert_eq!(looks.iter().flat_map(Look::minted).count(), 0);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_shrink_while_suspended_also_removes_sealed_entries() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.edit(|spec| spec.suspend = true);
    world.look();
    world.restart();
    world.edit(|spec| drop(spec.registries.remove(0)));
    let look = world.look();
    assert_eq!(
        (look.minted(), look.writes().len()),
        (vec![], 1),
        "{look:?}"
    );
    assert_eq!(hosts(world.secret()), Vec::<String>::new());
    assert_eq!(conditions(world.status()), ["Ready=False/Suspended"]);
    world.edit(|spec| spec.suspend = false);
    assert_eq!(world.look().minted(), [FABRIKAM]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_suspended_sealed_secret_is_verified_and_not_written() {
    let mut world = World::ready(&[CONTOSO]);
    world.edit(|spec| spec.suspend = true);
    world.look();
    world.restart();
    let before = world.secret().clone();
    let until = world.now + LIFE - secs(1);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert!(look.is_idle(), "{look:?}");
    }
    assert_eq!(*world.secret(), before);
}
