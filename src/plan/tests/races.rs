//! The Secret is another than was planned for, or the API server refuses it.

use super::*;

#[test]
fn a_secret_that_appeared_meanwhile_is_judged_as_it_is() {
    let ours = World::ready(&[CONTOSO]).secret;
    let mut foreign = ours.clone().unwrap();
    foreign.metadata.owner_references = None;
    foreign.metadata.annotations = None;
    for (there, expected) in [
        (ours, &["Ready=True/Issued"][..]),
        (
            Some(foreign),
            &["Ready=False/SecretNotOwned", "Stalled=True/SecretNotOwned"],
        ),
    ] {
        let mut world = World::of(&[CONTOSO]);
        world.believed = Some(SecretState::Absent);
        world.secret = there;
        let before = world.secret.clone();
        world.look();
        assert_eq!(conditions(world.status()), expected);
        if expected.len() > 1 {
            assert_eq!(world.secret, before, "untouched");
        }
    }
}

#[test]
fn a_secret_that_vanished_meanwhile_is_created_with_what_there_is_and_completed() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.believed = Some(world.observed(None).secret);
    world.secret = None;
    world.edit(|spec| spec.registries.push(world::registry(LITWARE)));
    let look = world.look();
    assert_eq!(look.minted(), [LITWARE]);
    assert_eq!(hosts(world.secret()), [LITWARE]);
    let look = world.wake(&look, |_| Ok(LIFE));
    assert_eq!(look.minted(), [CONTOSO, FABRIKAM]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_replaced_secret_is_not_seized() {
    let mut world = World::ready(&[CONTOSO]);
    world.believed = Some(world.observed(None).secret);
    let theirs = world.secret();
    theirs.metadata.uid = Some("another".into());
    theirs.metadata.owner_references = None;
    theirs.metadata.annotations = None;
    let theirs = world.secret.clone();
    world.advance(LIFE / 2);
    let look = world.look();
    assert_eq!((look.minted(), &look.writes), (vec![CONTOSO], &vec![]));
    assert_eq!(world.secret, theirs);
    assert_eq!(conditions(world.status())[0], "Ready=False/SecretNotOwned");
}

#[test]
fn a_refused_write_is_tried_again_after_some_minutes() {
    for world in [&mut World::of(&[CONTOSO]), &mut World::ready(&[CONTOSO])] {
        world.refuses_writes = true;
        world.advance(LIFE / 2);
        let had_one = world.secret.is_some();
        let mut look = world.look();
        for _ in 0..3 {
            assert_eq!(look.writes.len(), 1);
            let expected = if had_one {
                "RefreshFailing=True/Forbidden"
            } else {
                "Stalled=True/Forbidden"
            };
            assert_eq!(conditions(world.status())[1], expected);
            let wait = look.settled.wake_at.unwrap().duration_since(world.now);
            assert!((secs(480)..=secs(720)).contains(&wait), "{wait:?}");
            look = world.wake(&look, |_| Ok(LIFE));
            assert_eq!(look.settled.status, None);
        }
        world.refuses_writes = false;
        world.wake(&look, |_| Ok(LIFE));
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn nothing_is_minted_for_a_secret_that_cannot_be_read() {
    let world = World::of(&[CONTOSO]);
    let (reason, message) = (Reason::Forbidden, "no".to_owned());
    let observed = world.observed(Some(Refusal { reason, message }));
    let plan = plan(&observed, world.now);
    assert_eq!(plan.mints().count(), 0);
    let settled = settle(&observed, &plan, &Outcomes::new(), world.now);
    assert_eq!(settled.write, None);
    assert!(settled.wake_at.is_some_and(|at| at > world.now));
}
