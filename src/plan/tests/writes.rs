//! When credentials in hand are written, and which never are.

use super::*;
use crate::api::ServiceAccountIdentity;

/// CONTOSO is issued at once, FABRIKAM's mint hangs.
fn hanging() -> World {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look_slowly(|server| (server == CONTOSO).then_some(Ok(LIFE)));
    assert_eq!(
        (look.minted(), look.writes().len()),
        (vec![CONTOSO, FABRIKAM], 0)
    );
    world
}

/// Looks as often as asked for until `until`; mints hang.
fn pass_hanging(world: &mut World, until: Timestamp) -> Vec<Look> {
    let mut looks = Vec::new();
    while world.now < until {
        world.now = world.step().wake_at.unwrap_or(until).min(until);
        looks.push(world.look_slowly(|_| None));
    }
    looks
}

fn writes(looks: &[Look]) -> usize {
    looks.iter().map(|look| look.writes().len()).sum()
}

#[test]
fn a_registry_that_hangs_delays_the_others_by_2_seconds() {
    let mut world = hanging();
    let start = world.now;
    let looks = pass_hanging(&mut world, start + SignedDuration::from_millis(1_999));
    assert_eq!(writes(&looks), 0);
    pass_hanging(&mut world, start + secs(2));
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    pass_hanging(&mut world, start + secs(3));
    let expected = ["Ready=False/Progressing", "Reconciling=True/Progressing"];
    assert_eq!(conditions(world.status()), expected);
    assert_eq!(world.status().registries[0].reason, "Issued");
}

#[test]
fn a_removed_entry_leaves_at_once_while_another_registry_hangs() {
    let mut world = World::ready(&[CONTOSO, LITWARE]);
    world.edit(|spec| spec.registries.push(world::registry(FABRIKAM)));
    world.look_slowly(|_| None);
    world.edit(|spec| drop(spec.registries.remove(0)));
    let look = world.look_slowly(|_| None);
    assert_eq!(look.writes().len(), 1);
    assert_eq!(hosts(world.secret()), [LITWARE]);
}

#[test]
fn mints_that_end_within_2_seconds_are_one_write() {
    let mut world = hanging();
    world.advance(SignedDuration::from_millis(1_500));
    world.mint_ends(FABRIKAM, Ok(LIFE));
    let look = world.look();
    assert_eq!((look.writes().len(), look.statuses.len()), (1, 1));
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_failure_within_2_seconds_ends_the_wait() {
    let mut world = hanging();
    world.advance(SignedDuration::from_millis(500));
    world.mint_ends(FABRIKAM, Err(unavailable()));
    let look = world.look_slowly(|_| None);
    assert_eq!(look.writes().len(), 1);
    assert_eq!(hosts(world.secret()), [CONTOSO]);
}

#[test]
fn a_mint_that_ends_later_is_written_at_once() {
    let mut world = hanging();
    let start = world.now;
    pass_hanging(&mut world, start + secs(60));
    world.mint_ends(FABRIKAM, Ok(LIFE));
    assert_eq!(world.look().writes().len(), 1);
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn the_2_seconds_begin_with_the_first_success() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    world.look_slowly(|_| None);
    let start = world.now;
    pass_hanging(&mut world, start + secs(30));
    world.mint_ends(CONTOSO, Ok(LIFE));
    assert_eq!(world.look_slowly(|_| None).writes().len(), 0);
    pass_hanging(&mut world, start + secs(32));
    assert_eq!(hosts(world.secret()), [CONTOSO]);
}

#[test]
fn a_hanging_rotation_keeps_the_old_entry_and_ready() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    let before = entry(world.secret(), FABRIKAM);
    world.advance(LIFE / 2);
    world.look_slowly(|server| (server == CONTOSO).then_some(Ok(LIFE)));
    let until = world.now + secs(10);
    pass_hanging(&mut world, until);
    assert_eq!(entry(world.secret(), FABRIKAM), before);
    assert_eq!(conditions(world.status()), READY);
    assert!(world.holds_all());
}

#[test]
fn a_credential_in_hand_is_not_minted_again_before_it_is_due() {
    for has_secret in [true, false] {
        let mut world = World::of(&[CONTOSO]);
        if has_secret {
            world = World::ready(&[CONTOSO]);
            world.advance(LIFE / 2);
        }
        world.api.refusal = Some(refused());
        let start = world.now;
        let mut looks = vec![world.look()];
        looks.extend(world.pass(start + LIFE * 4 / 10 - secs(1), |_| Ok(LIFE)));
        assert_eq!(
            looks.iter().flat_map(Look::minted).count(),
            1,
            "Secret: {has_secret}"
        );
        let looks = world.pass(start + LIFE / 2, |_| Ok(LIFE));
        assert_eq!(
            looks.iter().flat_map(Look::minted).count(),
            1,
            "it is due then"
        );
    }
}

#[test]
fn a_restart_of_the_api_server_costs_no_mint() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(LIFE / 2);
    world.api.refusal = Some(refused());
    assert_eq!(world.look().minted(), [CONTOSO, FABRIKAM]);
    let start = world.now;
    world.pass(start + secs(300), |_| Ok(LIFE));
    world.api.refusal = None;
    let looks = world.pass(start + secs(373), |_| Ok(LIFE));
    assert_eq!(looks.iter().flat_map(Look::minted).count(), 0);
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

fn limit(world: &mut World, names: &[&str]) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    world.edit(|spec| spec.registries[0].repositories = Some(names));
}

#[test]
fn a_credential_in_hand_that_fits_no_longer_is_dropped() {
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, &["a", "b"]);
    world.api.refusal = Some(refused());
    world.look();
    world.api.refusal = None;
    limit(&mut world, &["a"]);
    let look = world.look();
    assert_eq!(look.minted(), [CONTOSO]);
    world.pass(world.now + secs(3), |_| Ok(LIFE));
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_result_for_an_earlier_spec_is_dropped() {
    let mut world = World::of(&[CONTOSO]);
    world.look_slowly(|_| None);
    let old = world.under_way.remove(0);
    limit(&mut world, &["a"]);
    let look = world.look_slowly(|_| None);
    assert_eq!(look.minted(), [CONTOSO], "the old mint blocks nothing");
    let credential = world.credential(LIFE, &old.scope);
    world.facts.minted(&old, Some(Ok(credential)), world.now);
    let look = world.look_slowly(|_| None);
    assert!(look.mints.is_empty() && look.calls.is_empty(), "{look:?}");
    world.mint_ends(CONTOSO, Ok(LIFE));
    assert_eq!(world.look().writes().len(), 1);
    assert!(world.holds_all());
}

#[test]
fn an_old_result_does_not_replace_the_one_in_hand() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    world.look_slowly(|_| None);
    let old = world.under_way.remove(0);
    limit(&mut world, &["a"]);
    world.look_slowly(|_| None);
    world.mint_ends(CONTOSO, Ok(LIFE));
    let credential = world.credential(LIFE, &old.scope);
    world.facts.minted(&old, Some(Ok(credential)), world.now);
    let until = world.now + secs(5);
    let looks = pass_hanging(&mut world, until);
    assert_eq!(
        looks.iter().flat_map(Look::minted).count(),
        0,
        "one is in hand"
    );
    assert_eq!(hosts(world.secret()), [CONTOSO]);
}

#[test]
fn a_result_for_a_removed_registry_is_dropped() {
    let mut world = hanging();
    world.edit(|spec| drop(spec.registries.remove(1)));
    world.look();
    world.mint_ends(FABRIKAM, Ok(LIFE));
    world.look();
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    assert_eq!(world.facts.registries.len(), 1);
}

#[test]
fn a_credential_in_hand_does_not_outlive_the_policy() {
    let mut world = hanging();
    world.forbid_everything();
    let start = world.now;
    world.pass(start + secs(10), |_| Ok(LIFE));
    assert_eq!(world.api.secret, None);
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/ControllerIdentityNotAllowed"
    );
}

#[test]
fn a_spec_that_changes_all_the_time_starts_few_mints() {
    let mut world = World::of(&[CONTOSO]);
    let mut mints = 0;
    for name in 0..50 {
        limit(&mut world, &[&format!("a{name}")]);
        mints += world.look_slowly(|_| None).mints.len();
    }
    assert_eq!(mints, 4);
    while !world.under_way.is_empty() {
        world.mint_ends(CONTOSO, Ok(LIFE));
    }
    world.look();
    assert_eq!(conditions(world.status()), READY);
    assert!(world.holds_all());
}

#[test]
fn an_identity_unknown_for_a_moment_costs_no_credential() {
    let mut world = World::of(&[CONTOSO]);
    let own = world.facts.cluster.own.clone();
    world.api.refusal = Some(refused());
    world.look();
    world.learn(|cluster| cluster.own = Err(MintError::new(Hop::Assertion, Cause::NoAssertion)));
    let start = world.now;
    world.pass(start + secs(60), |_| Ok(LIFE));
    world.api.refusal = None;
    world.learn(|cluster| cluster.own = own);
    let looks = world.pass(start + secs(140), |_| Ok(LIFE));
    assert_eq!(looks.iter().flat_map(Look::minted).count(), 0);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn without_any_name_of_its_own_acrcred_mints_nothing() {
    let puller = ServiceAccountIdentity {
        service_account_name: "puller".into(),
        client_id: Some("33333333-3333-3333-3333-333333333333".into()),
        tenant_id: Some("22222222-2222-2222-2222-222222222222".into()),
    };
    for identity in [None, Some(puller)] {
        let mut world = World::of(&[CONTOSO]);
        world.service_account = Ok(ServiceAccountFacts::default());
        world.edit(|spec| spec.identity = identity);
        world.learn(|cluster| {
            cluster.own = Err(MintError::new(Hop::Assertion, Cause::NoAssertion));
            cluster.own_user = None;
        });
        let start = world.now;
        for look in world.pass(start + secs(1_800), |_| Ok(LIFE)) {
            assert!(look.mints.is_empty() && look.calls.is_empty(), "{look:?}");
        }
    }
}

#[test]
fn first_mint_and_rotation_take_two_api_calls() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look();
    assert_eq!(
        (look.calls.len(), look.statuses.len(), look.reads),
        (1, 1, 0)
    );
    let look = world.until_minted(|_| Ok(LIFE));
    assert_eq!(
        (look.calls.len(), look.statuses.len(), look.reads),
        (1, 1, 0)
    );
}
