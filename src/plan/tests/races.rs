//! The Secret is another than acrcred believes, or the API server refuses it.

use super::*;

/// Looks as often as asked for in three seconds.
fn three_seconds(world: &mut World) -> Vec<Look> {
    let look = world.look();
    let mut looks = world.pass(world.now + secs(3), |_| Ok(LIFE));
    looks.insert(0, look);
    looks
}

fn reported(world: &mut World) {
    let version = world
        .api
        .secret
        .as_ref()
        .map(|secret| secret.metadata.resource_version.clone());
    world
        .facts
        .secret_changed(version.flatten().as_deref(), None);
}

#[test]
fn a_secret_that_appeared_meanwhile_is_judged_as_it_is() {
    let ours = World::ready(&[CONTOSO]).api.secret.unwrap();
    let mut foreign = ours.clone();
    foreign.metadata.owner_references = None;
    foreign.metadata.annotations = None;
    for (secret, expected) in [
        (ours, &["Ready=True/Issued"][..]),
        (
            foreign,
            &["Ready=False/SecretNotOwned", "Stalled=True/SecretNotOwned"],
        ),
    ] {
        let mut world = World::of(&[CONTOSO]);
        world.api.store(secret);
        let before = world.secret().clone();
        three_seconds(&mut world);
        assert_eq!(conditions(world.status()), expected);
        if expected.len() > 1 {
            assert_eq!(*world.secret(), before, "untouched");
        }
    }
}

#[test]
fn a_deleted_secret_is_created_again_without_a_mint() {
    for is_watched in [true, false] {
        let mut world = World::ready(&[CONTOSO, FABRIKAM]);
        let before = world.secret().data.clone();
        world.api.secret = None;
        if is_watched {
            assert!(world.facts.secret_changed(None, None));
        } else {
            world.advance(secs(600));
        }
        let look = world.look();
        assert_eq!(look.minted(), Vec::<&str>::new());
        assert!(
            matches!(look.calls.last(), Some(SecretCall::Create(_))),
            "{look:?}"
        );
        assert_eq!(world.secret().data, before);
        assert_eq!(conditions(world.status()), READY);
        let stated = &world.status().secret.as_ref().unwrap().uid;
        assert_eq!(Some(stated), world.secret().metadata.uid.as_ref());
    }
}

#[test]
fn a_secret_that_vanished_meanwhile_is_created_with_all() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.api.secret = None;
    world.edit(|spec| spec.registries.push(world::registry(LITWARE)));
    let look = world.look();
    assert_eq!(look.minted(), [LITWARE]);
    assert!(matches!(
        look.calls[..],
        [SecretCall::Replace(..), SecretCall::Create(_)]
    ));
    assert_eq!(hosts(world.secret()), [CONTOSO, FABRIKAM, LITWARE]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_replaced_secret_is_not_overwritten() {
    let mut world = World::ready(&[CONTOSO]);
    let mut theirs = world.secret().clone();
    theirs.metadata.uid = Some("another".into());
    theirs.metadata.owner_references = None;
    theirs.metadata.annotations = None;
    world.api.store(theirs);
    let theirs = world.secret().clone();
    world.advance(LIFE / 2);
    let minted: Vec<_> = three_seconds(&mut world);
    assert_eq!(
        minted.iter().flat_map(Look::minted).collect::<Vec<_>>(),
        [CONTOSO]
    );
    assert_eq!(*world.secret(), theirs);
    assert_eq!(conditions(world.status())[0], "Ready=False/SecretNotOwned");
}

#[test]
fn a_failed_write_is_tried_again_within_a_minute() {
    for has_secret in [true, false] {
        let mut world = World::of(&[CONTOSO]);
        if has_secret {
            world = World::ready(&[CONTOSO]);
            world.advance(LIFE / 2);
        }
        world.api.refusal = Some(refused());
        let looks = three_seconds(&mut world);
        assert_eq!(looks.iter().flat_map(Look::minted).count(), 1);
        let expected = if has_secret {
            ["Ready=True/Issued", "RefreshFailing=True/SecretWriteFailed"]
        } else {
            [
                "Ready=False/SecretWriteFailed",
                "Stalled=True/SecretWriteFailed",
            ]
        };
        assert_eq!(conditions(world.status()), expected);
        let (mut tries, mut last) = (0, world.now);
        let end = world.now + SignedDuration::from_mins(20);
        while world.now < end {
            world.now = world.step().wake_at.unwrap();
            let look = world.look();
            assert!(
                look.mints.is_empty() && look.statuses.is_empty(),
                "{look:?}"
            );
            if !look.calls.is_empty() {
                assert!(world.now.duration_since(last) <= secs(73), "{}", world.now);
                (tries, last) = (tries + 1, world.now);
            }
        }
        assert!(
            (15..40).contains(&tries),
            "{tries} in 20 minutes, Secret: {has_secret}"
        );
        world.api.refusal = None;
        let start = world.now;
        let looks = world.pass(start + secs(73), |_| Ok(LIFE));
        assert_eq!(
            looks.iter().flat_map(Look::minted).count(),
            0,
            "one is in hand"
        );
        assert_eq!(conditions(world.status()), READY);
        assert!(world.holds_all());
    }
}

#[test]
fn while_the_secret_cannot_be_written_the_status_reports_expiry() {
    let mut world = World::ready(&[CONTOSO]);
    let expiry = world.status().expires_at.clone().unwrap().0;
    world.advance(LIFE / 2);
    world.api.refusal = Some(refused());
    world.look();
    while world.now < expiry {
        world.now = world.step().wake_at.unwrap().min(expiry);
        world.look();
    }
    let expected = [
        "Ready=False/SecretWriteFailed",
        "Stalled=True/SecretWriteFailed",
    ];
    assert_eq!(conditions(world.status()), expected);
}

#[test]
fn a_namespace_that_is_going_is_no_problem_to_report() {
    let mut world = World::of(&[CONTOSO]);
    world.api.refusal = Some(SecretAnswer::NamespaceGone);
    let start = world.now;
    let looks = world.pass(start + secs(600), |_| Ok(LIFE));
    let minted = looks.iter().flat_map(Look::minted).count();
    assert!(minted <= 1, "{minted}");
    assert!(looks.iter().all(|look| look.events.is_empty()));
}

#[test]
fn a_terminating_secret_is_completed_and_created_again_at_once() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    let before = world.secret().clone();
    world.api.change(terminate);
    let until = world.now + secs(600);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert!(look.mints.is_empty(), "{look:?}");
    }
    let after = world.secret();
    assert_eq!(after.metadata.deletion_timestamp, None);
    assert_ne!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.data, before.data);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn the_put_that_completes_a_deletion_is_followed_by_a_create() {
    let mut world = World::ready(&[CONTOSO]);
    world.api.change(terminate);
    reported(&mut world);
    let look = world.look();
    assert!(look.mints.is_empty());
    let [.., SecretCall::Replace(..), SecretCall::Create(_)] = look.calls[..] else {
        panic!("{look:?}")
    };
    assert!(world.holds_all());
}

#[test]
fn a_sealed_secret_that_is_terminating_is_created_again() {
    let mut world = World::ready(&[CONTOSO]);
    world.restart();
    world.api.change(terminate);
    let until = world.now + secs(720);
    world.pass(until, |_| Ok(LIFE));
    assert_eq!(world.secret().metadata.deletion_timestamp, None);
    assert_eq!(conditions(world.status()), READY);
    assert!(world.holds_all());
}

fn terminate(secret: &mut Secret) {
    let at: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at);
    secret.metadata.deletion_timestamp = Some(at);
    secret.metadata.finalizers = Some(vec!["example.com/x".into()]);
}

/// What a write that timed out would have stored is stored: the request arrives after all.
fn arrives(world: &mut World, look: &Look) {
    let refusal = world.api.refusal.take();
    let call = look
        .calls
        .iter()
        .rfind(|call| call.write().is_some())
        .unwrap();
    world.api.answer(call);
    world.api.refusal = refusal;
}

/// An object with a registry more than its Secret has, if there is one, whose write times out.
fn timed_out(has_secret: bool) -> (World, SecretCall) {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    if has_secret {
        world = World::ready(&[FABRIKAM]);
        world.edit(|spec| spec.registries.insert(0, world::registry(CONTOSO)));
    }
    world.api.refusal = Some(refused());
    let look = world.look();
    world.api.refusal = None;
    let call = look.calls.iter().rfind(|call| call.write().is_some());
    (world, call.unwrap().clone())
}

fn remove_contoso(world: &mut World) {
    world.edit(|spec| {
        spec.registries
            .retain(|registry| registry.server == FABRIKAM);
    });
}

/// What holds at the end of an API server's patience, and of the two seconds after it.
fn until_given_up(world: &mut World, late: Option<&SecretCall>) {
    let start = world.now;
    world.pass(start + secs(30), |_| Ok(LIFE));
    if let Some(call) = late {
        world.api.answer(call);
    }
    world.pass(start + secs(90), |_| Ok(LIFE));
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_timed_out_write_of_a_removed_registry_is_written_over() {
    for has_secret in [false, true] {
        for is_removed_at_once in [false, true] {
            let (mut world, call) = timed_out(has_secret);
            world.api.answer(&call);
            if is_removed_at_once {
                remove_contoso(&mut world);
            }
            world.look();
            remove_contoso(&mut world);
            until_given_up(&mut world, None);
        }
    }
}

#[test]
fn a_timed_out_post_that_commits_late_puts_nothing_back() {
    let (mut world, call) = timed_out(false);
    remove_contoso(&mut world);
    until_given_up(&mut world, Some(&call));
}

#[test]
fn a_timed_out_put_that_commits_late_puts_nothing_back() {
    let (mut world, call) = timed_out(true);
    remove_contoso(&mut world);
    // This write changes nothing, so that the version stays, and the late one fits.
    until_given_up(&mut world, Some(&call));
}

#[test]
fn a_timed_out_first_write_for_the_only_registry_is_undone() {
    let mut world = World::of(&[CONTOSO]);
    world.api.refusal = Some(refused());
    let look = world.look();
    arrives(&mut world, &look);
    world.api.refusal = None;
    world.forbid_everything();
    let start = world.now;
    world.pass(start + secs(120), |_| Ok(LIFE));
    assert_eq!(hosts(world.secret()), Vec::<String>::new());
}

#[test]
fn a_timed_out_write_that_arrived_is_found_and_not_minted_again() {
    let mut world = World::of(&[CONTOSO]);
    world.api.refusal = Some(refused());
    let look = world.look();
    arrives(&mut world, &look);
    let before = world.secret().data.clone();
    world.api.refusal = None;
    let start = world.now;
    for look in world.pass(start + secs(30), |_| Ok(LIFE)) {
        assert!(look.mints.is_empty(), "{look:?}");
    }
    assert_eq!(world.secret().data, before);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_late_or_repeated_write_has_no_effect() {
    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    let look = world.look();
    let late = look.calls[0].clone();
    world.advance(LIFE / 2);
    world.look();
    let before = world.secret().clone();
    assert_eq!(world.api.answer(&late), SecretAnswer::Conflict);
    assert_eq!(*world.secret(), before);
}

#[test]
fn another_replicas_write_is_taken_over_as_sealed() {
    // Both lead for a moment; the other one writes first.
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(LIFE / 2);
    let mut other = World::ready(&[CONTOSO, FABRIKAM]);
    other.advance(LIFE / 2);
    other.look();
    world.api = other.api.clone();
    let look = world.look();
    assert!(
        matches!(look.calls[..], [SecretCall::Replace(..)]),
        "{look:?}"
    );
    // Its status comes a moment later.
    let status = other.facts.object.status.clone();
    world.change(|object| object.status = status);
    let before = world.secret().clone();
    let until = world.now + secs(600);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert!(look.is_idle(), "{look:?}");
    }
    assert_eq!(*world.secret(), before);
    assert_eq!(conditions(world.status()), READY);
}
