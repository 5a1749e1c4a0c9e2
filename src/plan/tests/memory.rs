//! What a restart forgets must not show, and what is remembered has limits.

use std::sync::Arc;

use super::*;

fn due_and_failing() -> World {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(LIFE / 2);
    world.look_failing(no_role());
    world
}

#[test]
fn a_restart_while_a_refresh_fails_writes_no_status() {
    let mut world = due_and_failing();
    world.restart();
    for look in world.pass(world.now + secs(60), |_| Err(no_role())) {
        assert!(
            look.statuses.is_empty() && look.events.is_empty(),
            "{look:?}"
        );
    }
}

#[test]
fn a_restart_beside_a_foreign_secret_writes_no_status() {
    let mut world = World::of(&[CONTOSO]);
    let mut foreign = World::ready(&[CONTOSO]).secret().clone();
    foreign.metadata.annotations = None;
    world.api.store(foreign);
    world.look();
    let until = world.now + secs(60);
    world.pass(until, |_| Ok(LIFE));
    assert_eq!(conditions(world.status())[0], "Ready=False/SecretNotOwned");
    world.restart();
    let start = world.now;
    let mut looks = vec![world.look()];
    looks.extend(world.pass(start + secs(60), |_| Ok(LIFE)));
    for look in &looks {
        assert!(
            look.statuses.is_empty() && look.events.is_empty(),
            "{look:?}"
        );
    }
    assert!(looks.iter().flat_map(Look::minted).count() <= 1);
}

#[test]
fn after_a_restore_of_etcd_a_list_is_believed_although_its_versions_are_lower() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    let mut old = (*world.facts.object).clone();
    old.metadata.resource_version = Some("1".into());
    old.spec.registries.truncate(1);
    let old = Arc::new(old);
    assert!(!world.facts.seen(old.clone(), false, world.now), "an event");
    assert!(world.facts.seen(old.clone(), true, world.now), "a list");
    assert!(!world.facts.seen(old, true, world.now), "no news");
    world.look();
    assert_eq!(hosts(world.secret()), [CONTOSO]);
}

#[test]
fn a_restart_with_refused_owner_references_writes_no_status() {
    let mut world = World::ready(&[CONTOSO]);
    world.api.guards_owners = true;
    world
        .api
        .change(|secret| secret.metadata.owner_references = None);
    let start = world.now;
    world.pass(start + secs(600), |_| Ok(LIFE));
    assert!(message(world.status(), ConditionType::Ready).contains("does not delete the Secret"));
    world.restart();
    let start = world.now;
    for look in world.pass(start + secs(720), |_| Ok(LIFE)) {
        assert!(look.is_idle(), "{look:?}");
    }
    assert!(message(world.status(), ConditionType::Ready).contains("does not delete the Secret"));
}

#[test]
fn a_deleted_sealed_secret_is_found_and_created_again() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.restart();
    world.api.secret = None;
    let start = world.now;
    let looks = world.pass(start + secs(720), |_| Ok(LIFE));
    assert_eq!(looks.iter().flat_map(Look::minted).count(), 2);
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn our_own_lost_answers_are_not_blamed_on_another_client() {
    let mut world = World::ready(&[CONTOSO]);
    for _ in 0..4 {
        let due_at = world.status().refresh_at.clone().unwrap().0;
        world.pass(due_at - secs(1), |_| Ok(LIFE));
        world.advance(secs(2));
        world.api.refusal = Some(refused());
        let look = world.look();
        world.api.refusal = None;
        // The write arrived, its answer was lost.
        let call = look.calls.last().unwrap();
        assert!(matches!(world.api.answer(call), SecretAnswer::Stored(_)));
        let start = world.now;
        world.pass(start + secs(120), |_| Ok(LIFE));
        assert!(world.holds_all());
    }
    let text = message(world.status(), ConditionType::Ready);
    assert!(!text.contains("Another client"), "{text}");
}

#[test]
fn an_expired_credential_in_hand_is_not_written() {
    let mut world = World::of(&[CONTOSO]);
    let mut foreign = World::ready(&[CONTOSO]).secret().clone();
    foreign.metadata.annotations = None;
    world.api.store(foreign);
    world.look();
    let until = world.now + LIFE * 2;
    world.pass(until, |_| Ok(LIFE));
    world
        .api
        .change(|secret| annotate(secret, OWNER_ANNOTATION, "acr"));
    let until = world.now + secs(720);
    while conditions(world.status()) != READY {
        world.now = world.step().wake_at.unwrap();
        let look = world.look();
        for write in look.writes() {
            let life = write.entries[CONTOSO].credential.lifetime;
            assert!(life.is_live(world.now), "written after its end");
        }
        assert!(world.now < until);
    }
    assert!(world.holds_all());
}

#[test]
fn a_retry_after_of_the_api_server_is_a_floor() {
    let mut world = World::ready(&[CONTOSO]);
    world.api.refusal = Some(SecretAnswer::Failed {
        problem: Some(Problem {
            reason: Reason::SecretWriteFailed,
            message: "busy".into(),
            needs_action: false,
        }),
        retry_after: secs(120),
    });
    world.edit(|spec| spec.registries.push(world::registry(FABRIKAM)));
    assert_eq!(world.look().calls.len(), 1);
    let start = world.now;
    for second in 1..120 {
        world.now = start + secs(second);
        world.edit(|spec| spec.suspend = false);
        assert!(world.look().calls.is_empty(), "{second}");
    }
    world.api.refusal = None;
    world.pass(start + secs(121), |_| Ok(LIFE));
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_status_that_cannot_be_written_is_retried_within_a_minute() {
    let mut world = World::of(&[CONTOSO]);
    let mut look = Look::default();
    let (mut tries, mut waits) = (0, Vec::new());
    while tries < 12 {
        let step = world.decide();
        for mint in &step.mints {
            let credential = world.credential(LIFE, &mint.scope);
            world.facts.minted(mint, Some(Ok(credential)), world.now);
        }
        match step.call {
            Some(Call::WriteStatus(_)) => {
                tries += 1;
                world.facts.status_failed(SignedDuration::ZERO, world.now);
            }
            Some(call) => world.carry_out(call, &mut look),
            None if !step.mints.is_empty() => {}
            None => {
                let wake_at = step.wake_at.unwrap();
                waits.push(wake_at.duration_since(world.now).as_secs());
                world.now = wake_at;
            }
        }
    }
    assert!(
        waits[0] <= 1 && waits.iter().all(|wait| *wait <= 72),
        "{waits:?}"
    );
    assert!(waits.iter().any(|wait| *wait >= 30), "{waits:?}");
    let until = world.now + secs(73);
    world.pass(until, |_| Ok(LIFE));
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_status_that_the_api_server_changes_is_written_once() {
    let mut world = World::of(&[CONTOSO]);
    let mut look = Look::default();
    let mut statuses = 0;
    for version in 100..140 {
        let step = world.decide();
        for mint in &step.mints {
            let credential = world.credential(LIFE, &mint.scope);
            world.facts.minted(mint, Some(Ok(credential)), world.now);
        }
        match step.call {
            Some(Call::WriteStatus(write)) => {
                statuses += 1;
                // A schema of another version drops a field.
                let mut object = (*world.facts.object).clone();
                let mut stored = write.status.clone();
                stored.last_refresh_at = None;
                object.status = Some(stored);
                object.metadata.resource_version = Some(version.to_string());
                world
                    .facts
                    .status_written(write.status, Arc::new(object), world.now);
            }
            Some(call) => world.carry_out(call, &mut look),
            None => {}
        }
    }
    assert_eq!(statuses, 1);
}

#[test]
fn an_old_version_of_the_object_is_ignored() {
    let mut world = World::ready(&[CONTOSO]);
    let old = world.facts.object.clone();
    world.edit(|spec| spec.registries = vec![world::registry(FABRIKAM)]);
    world.look();
    assert!(!world.facts.seen(old, false, world.now));
    assert!(world.look().is_idle());
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
}

#[test]
fn what_is_remembered_of_removed_registries_has_a_limit() {
    let mut world = World::of(&[CONTOSO]);
    for name in 0..300 {
        world.edit(|spec| spec.registries = vec![world::registry(&format!("r{name}.azurecr.io"))]);
        world.look_failing(unknown_tenant());
        assert!(
            world.facts.registries.len() <= 66,
            "{}",
            world.facts.registries.len()
        );
    }
}

#[test]
fn a_forged_status_of_many_rows_does_not_fill_the_memory() {
    let mut world = World::ready(&[CONTOSO]);
    world.change(|object| {
        let rows = &mut object.status.as_mut().unwrap().registries;
        for name in 0..10_000 {
            let mut row = rows[0].clone();
            row.server = format!("r{name}.azurecr.io");
            rows.push(row);
        }
    });
    world.restart();
    assert!(world.facts.registries.len() <= 64);
    let start = world.now;
    world.look();
    world.pass(start + secs(3), |_| Ok(LIFE));
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    assert_eq!(world.status().registries.len(), 1);
}
