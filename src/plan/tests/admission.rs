//! The admission policy that protects Secrets: acrcred writes nothing before it knows that it is in force.

use super::*;

const MISSING: [&str; 2] = [
    "Ready=False/PolicyNotInForce",
    "Stalled=True/PolicyNotInForce",
];

fn set(world: &mut World, state: PolicyState) {
    world.learn(|cluster| cluster.policy.state = state);
}

fn after_a_minute(world: &mut World) -> Vec<Look> {
    let start = world.now;
    let mut looks = vec![world.look()];
    looks.extend(world.pass(start + secs(60), |_| Ok(LIFE)));
    looks
}

#[test]
fn without_the_policy_nothing_is_minted_or_written() {
    let mut world = World::of(&[CONTOSO]);
    set(&mut world, PolicyState::Missing);
    let looks = after_a_minute(&mut world);
    assert!(
        looks
            .iter()
            .all(|look| look.mints.is_empty() && look.calls.is_empty())
    );
    assert_eq!(conditions(world.status()), MISSING);
    let text = message(world.status(), ConditionType::Ready);
    assert!(text.contains("policies.install=true"), "{text}");
    let events: Vec<&str> = looks.iter().filter_map(Look::event).collect();
    assert_eq!(events, ["PolicyNotInForce"]);
    set(&mut world, PolicyState::InForce);
    world.look();
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_policy_that_is_removed_keeps_ready_until_the_expiry() {
    let mut world = World::ready(&[CONTOSO]);
    let expiry = world.now + LIFE;
    set(&mut world, PolicyState::Missing);
    world.look();
    let expected = ["Ready=True/Issued", "RefreshFailing=True/PolicyNotInForce"];
    assert_eq!(conditions(world.status()), expected);
    for look in world.pass(expiry - secs(1), |_| Ok(LIFE)) {
        assert!(look.is_idle() && look.calls.is_empty(), "{look:?}");
    }
    world.pass(expiry, |_| Ok(LIFE));
    assert_eq!(conditions(world.status()), MISSING);
    set(&mut world, PolicyState::InForce);
    world.look();
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_shrink_waits_for_the_policy() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    set(&mut world, PolicyState::Missing);
    world.edit(|spec| drop(spec.registries.remove(0)));
    let looks = after_a_minute(&mut world);
    assert!(looks.iter().all(|look| look.calls.is_empty()));
    assert_eq!(hosts(world.secret()), [CONTOSO, FABRIKAM]);
    set(&mut world, PolicyState::InForce);
    world.look();
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn while_the_policy_is_unknown_nothing_is_written_or_reported() {
    let mut world = World::of(&[CONTOSO]);
    set(&mut world, PolicyState::Unknown);
    let looks = after_a_minute(&mut world);
    assert!(looks.iter().all(|look| look.calls.is_empty()));
    assert!(looks[0].step.checks_policy);
    assert_eq!(world.api.secret, None);
    assert_eq!(world.facts.object.status, None);
    assert_eq!(looks.iter().flat_map(Look::minted).count(), 1);
    // What is in hand is then written.
    set(&mut world, PolicyState::InForce);
    let look = world.look();
    assert_eq!((look.minted(), look.writes().len()), (vec![], 1));
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn an_unknown_policy_changes_nothing_for_a_ready_object() {
    let mut world = World::ready(&[CONTOSO]);
    let before = world.secret().clone();
    let due_at = world.status().refresh_at.clone().unwrap().0;
    set(&mut world, PolicyState::Unknown);
    for look in world.pass(due_at - secs(1), |_| Ok(LIFE)) {
        assert!(look.is_idle() && look.calls.is_empty(), "{look:?}");
    }
    world.pass(due_at + secs(600), |_| Ok(LIFE));
    assert_eq!(*world.secret(), before);
    assert_eq!(conditions(world.status()), READY);
}

/// Why the last checks failed.
fn obstacle() -> Problem {
    let message = "admission webhook down.example fails";
    Problem::passing(Reason::SecretWriteFailed, message)
}

#[test]
fn a_check_that_cannot_be_made_is_reported() {
    let mut world = World::of(&[CONTOSO]);
    world.learn(|cluster| {
        cluster.policy.state = PolicyState::Unknown;
        cluster.policy.obstacle = Some(obstacle());
    });
    after_a_minute(&mut world);
    assert_eq!(
        conditions(world.status())[1],
        "Reconciling=True/SecretWriteFailed"
    );
    assert!(message(world.status(), ConditionType::Ready).contains("down.example"));
    assert_eq!(world.api.secret, None);
}

#[test]
fn a_failed_check_after_a_good_one_changes_nothing() {
    let mut world = World::ready(&[CONTOSO]);
    world.learn(|cluster| cluster.policy.obstacle = Some(obstacle()));
    assert!(world.look().is_idle());
    world.until_minted(|_| Ok(LIFE));
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn an_object_that_waits_for_a_check_says_why_it_fails() {
    let mut world = World::ready(&[CONTOSO]);
    world.checks_policy = false;
    let secret = world.api.secret.as_mut().unwrap();
    secret.metadata.resource_version = Some("999999".into());
    world.advance(secs(600));
    world.look();
    world.advance(secs(2));
    let look = world.look();
    assert!(look.step.checks_policy, "a takeover needs a recent check");
    assert_eq!(conditions(world.status()), READY, "one may still succeed");
    world.learn(|cluster| cluster.policy.obstacle = Some(obstacle()));
    world.look();
    assert_eq!(
        conditions(world.status()),
        ["Ready=True/Issued", "RefreshFailing=True/SecretWriteFailed"]
    );
}

#[test]
fn a_rotation_needs_no_recent_check() {
    let mut world = World::ready(&[CONTOSO]);
    world.checks_policy = false;
    world.advance(LIFE / 2);
    let look = world.look();
    assert_eq!(look.minted(), [CONTOSO]);
    assert!(world.holds_all() && !look.step.checks_policy);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_takeover_needs_a_check_of_the_last_minute() {
    let mut world = World::ready(&[CONTOSO]);
    world.checks_policy = false;
    world.advance(LIFE / 2);
    // Replaced by a foreign one: only the policy keeps acrcred from it.
    let mut foreign = world.secret().clone();
    foreign.metadata.uid = Some("another".into());
    foreign.metadata.annotations = None;
    world.api.store(foreign.clone());
    let look = world.look();
    let start = world.now;
    world.now = look.step.wake_at.unwrap();
    for _ in 0..3 {
        world.now += secs(1);
        let look = world.look();
        assert!(look.calls.is_empty() && look.step.checks_policy, "{look:?}");
    }
    world.learn(|cluster| cluster.policy.checked_at = Some(start));
    let looks = after_a_minute(&mut world);
    assert!(looks.iter().any(|look| !look.calls.is_empty()));
    assert_eq!(conditions(world.status())[0], "Ready=False/SecretNotOwned");
    assert_eq!(world.secret().metadata.annotations, None);
}
