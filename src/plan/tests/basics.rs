//! From nothing to a Secret, through rotations, restarts and losses.

use super::*;

#[test]
fn the_first_look_mints_creates_the_secret_and_writes_one_status() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look();
    assert_eq!(look.minted(), [CONTOSO, FABRIKAM]);
    assert!(
        matches!(look.calls[..], [SecretCall::Create(_)]),
        "{look:?}"
    );
    assert_eq!(look.statuses.len(), 1);
    assert_eq!(conditions(world.status()), READY);
    assert!(world.holds_all());
    let again = world.look();
    assert!(again.is_idle(), "{again:?}");
}

#[test]
fn a_rotation_is_one_write_and_one_status() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    let mut rotations = 0;
    let end = world.now + LIFE * 4;
    while world.now < end {
        let look = world.sleep(end, |_| Ok(LIFE));
        if look.mints.is_empty() {
            continue;
        }
        rotations += 1;
        assert!(
            matches!(look.calls[..], [SecretCall::Replace(..)]),
            "{look:?}"
        );
        assert_eq!(look.statuses.len(), 1);
        assert!(world.holds_all());
    }
    assert!((7..=10).contains(&rotations), "{rotations}");
}

#[test]
fn a_restart_with_everything_fresh_does_nothing_for_a_minute_and_then_verifies() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(600));
    world.restart();
    let start = world.now;
    let look = world.look();
    assert!(look.is_idle() && look.calls.is_empty(), "{look:?}");
    let mut verified = false;
    while world.now < start + secs(11 * 60) {
        let wake_at = world.step().wake_at.unwrap();
        world.now = wake_at;
        let look = world.look();
        assert!(look.is_idle(), "{look:?}");
        if let [SecretCall::Verify(_)] = look.calls[..] {
            assert!(
                world.now >= start + secs(60),
                "{}",
                world.now.duration_since(start)
            );
            verified = true;
        }
    }
    assert!(verified);
}
