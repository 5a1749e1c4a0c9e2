//! Which Secrets are ours, and that no other is touched.

use super::*;
use crate::api::REFRESH_ANNOTATION;

const FOREIGN: [&str; 2] = ["Ready=False/SecretNotOwned", "Stalled=True/SecretNotOwned"];

/// A Secret of our object's name that another client made.
fn foreign() -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": "acr", "namespace": "demo", "uid": "foreign"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
    }))
    .unwrap()
}

fn with_annotation(key: &str, value: &str) -> Secret {
    let mut secret = foreign();
    annotate(&mut secret, key, value);
    secret
}

fn with_owner(field: &str, value: &str) -> Secret {
    let mut reference = our_owner();
    reference[field] = value.into();
    let mut secret = foreign();
    secret.metadata.owner_references = Some(vec![owner(reference)]);
    secret
}

/// An object whose Secret was there before it, three seconds later.
fn beside(secret: Secret) -> (World, Vec<Look>) {
    let mut world = World::of(&[CONTOSO]);
    world.api.store(secret);
    let looks = three_seconds(&mut world);
    (world, looks)
}

fn three_seconds(world: &mut World) -> Vec<Look> {
    let look = world.look();
    let mut looks = world.pass(world.now + secs(3), |_| Ok(LIFE));
    looks.insert(0, look);
    looks
}

fn hand_over(world: &mut World) {
    world
        .api
        .change(|secret| annotate(secret, OWNER_ANNOTATION, "acr"));
}

#[test]
fn only_the_owner_annotation_makes_a_secret_ours() {
    let managed_by = {
        let mut secret = foreign();
        secret.metadata.labels = Some([(MANAGED_BY_LABEL.into(), "acrcred".into())].into());
        secret
    };
    let other_type = {
        let mut secret = with_annotation(OWNER_ANNOTATION, "acr");
        secret.type_ = Some("Opaque".into());
        secret
    };
    for (what, secret, is_ours) in [
        (
            "the annotation",
            with_annotation(OWNER_ANNOTATION, "acr"),
            true,
        ),
        ("nothing", foreign(), false),
        ("a label", managed_by, false),
        (
            "another object's annotation",
            with_annotation(OWNER_ANNOTATION, "acr2"),
            false,
        ),
        (
            "an empty annotation",
            with_annotation(OWNER_ANNOTATION, ""),
            false,
        ),
        (
            "an annotation of before",
            with_annotation("acrcred.dev/adopt", "acr"),
            false,
        ),
        ("an owner reference", with_owner("name", "acr"), false),
        ("another type", other_type, false),
    ] {
        let (world, looks) = beside(secret.clone());
        if is_ours {
            assert_eq!(conditions(world.status()), READY, "{what}");
            assert_eq!(
                world.secret().metadata.uid.as_deref(),
                Some("foreign"),
                "{what}"
            );
            assert_eq!(
                hosts(world.secret()),
                [CONTOSO],
                "the whole payload is ours"
            );
        } else {
            assert_eq!(conditions(world.status()), FOREIGN, "{what}");
            assert_eq!(
                *world.secret().data.as_ref().unwrap(),
                secret.data.unwrap(),
                "{what}"
            );
            assert_eq!(looks.iter().flat_map(Look::minted).count(), 1, "{what}");
        }
    }
}

#[test]
fn a_foreign_secret_stays_untouched_and_is_reported_once() {
    let (mut world, looks) = beside(foreign());
    let before = world.secret().clone();
    assert_eq!(conditions(world.status()), FOREIGN);
    let events: Vec<_> = looks.iter().filter_map(Look::event).collect();
    assert_eq!(events, ["SecretNotOwned"]);
    assert_eq!(world.status().secret, None);
    let until = world.now + SignedDuration::from_hours(2);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert!(look.is_idle() && look.events.is_empty(), "{look:?}");
    }
    assert_eq!(*world.secret(), before);
}

#[test]
fn a_foreign_secret_is_retried_after_5_s_to_10_min() {
    let (mut world, _) = beside(foreign());
    let start = world.now;
    // Found out a second after the start.
    let mut tries = vec![start - secs(2)];
    while world.now < start + SignedDuration::from_hours(2) {
        world.now = world.step().wake_at.unwrap();
        let look = world.look();
        if !look.calls.is_empty() {
            assert!(
                matches!(look.calls[..], [SecretCall::Find { .. }]),
                "{look:?}"
            );
            tries.push(world.now);
        }
    }
    let waits = tries
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]).as_secs());
    let waits: Vec<i64> = waits.collect();
    assert!((4..=6).contains(&waits[0]), "{waits:?}");
    let is_growing = waits.windows(2).take(6).all(|pair| pair[0] < pair[1]);
    assert!(
        is_growing && waits.iter().all(|wait| *wait <= 720),
        "{waits:?}"
    );
    assert!(*waits.last().unwrap() >= 480, "{waits:?}");
}

#[test]
fn a_secret_that_is_handed_over_is_taken_at_the_next_retry() {
    let (mut world, _) = beside(foreign());
    hand_over(&mut world);
    let look = world.sleep(world.now + secs(60), |_| Ok(LIFE));
    assert!(world.now.duration_since(world.facts.cluster.since) <= secs(8));
    assert_eq!(look.minted(), Vec::<&str>::new(), "the one in hand is used");
    assert_eq!(conditions(world.status()), READY);
    assert_eq!(world.secret().metadata.uid.as_deref(), Some("foreign"));
    assert_eq!(
        world.secret().metadata.owner_references,
        Some(vec![owner(our_owner())])
    );
    assert!(world.holds_all());
}

#[test]
fn a_refresh_annotation_or_a_new_spec_takes_it_at_once() {
    type Ask = fn(&mut World);
    let asks: [Ask; 2] = [
        |world| {
            world.change(|object| {
                let annotations = object.metadata.annotations.get_or_insert_default();
                annotations.insert(REFRESH_ANNOTATION.into(), "a".into());
            });
        },
        |world| world.edit(|spec| spec.registries.push(world::registry(FABRIKAM))),
    ];
    for ask in asks {
        let (mut world, _) = beside(foreign());
        let until = world.now + SignedDuration::from_mins(40);
        world.pass(until, |_| Ok(LIFE));
        hand_over(&mut world);
        assert!(world.look().is_idle(), "the next retry is minutes away");
        ask(&mut world);
        world.look();
        assert_eq!(conditions(world.status()), READY);
        assert!(world.holds_all());
    }
}

#[test]
fn a_foreign_secret_that_is_deleted_makes_room() {
    let (mut world, _) = beside(foreign());
    world.api.secret = None;
    let look = world.sleep(world.now + secs(60), |_| Ok(LIFE));
    let [SecretCall::Find { .. }, SecretCall::Create(_)] = look.calls[..] else {
        panic!("{look:?}")
    };
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_secret_that_changes_hands_is_left_and_its_successor_taken() {
    let mut world = World::ready(&[CONTOSO]);
    world
        .api
        .change(|secret| annotate(secret, OWNER_ANNOTATION, "other"));
    let before = world.secret().clone();
    let until = world.now + secs(660);
    world.pass(until, |_| Ok(LIFE));
    assert_eq!(conditions(world.status()), FOREIGN);
    assert_eq!(*world.secret(), before);
    hand_over(&mut world);
    let until = world.now + secs(720);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert!(
            look.mints.is_empty(),
            "what was known is written again: {look:?}"
        );
    }
    assert_eq!(conditions(world.status()), READY);
    assert!(world.holds_all());
}

/// The same object, created once more, without a status.
fn re_create(world: &mut World) {
    let mut object = (*world.facts.object).clone();
    object.metadata.uid = Some("uid-2".into());
    object.status = None;
    let (settings, cluster) = (world.facts.settings.clone(), world.facts.cluster.clone());
    world.facts = Facts::new(settings, cluster, std::sync::Arc::new(object), world.now);
}

#[test]
fn a_re_created_object_takes_its_secret_over_within_seconds() {
    let mut world = World::ready(&[CONTOSO]);
    let uid = world.secret().metadata.uid.clone();
    re_create(&mut world);
    three_seconds(&mut world);
    assert_eq!(conditions(world.status()), READY);
    let metadata = &world.secret().metadata;
    assert_eq!(metadata.uid, uid);
    let owners = metadata.owner_references.as_ref().unwrap();
    assert_eq!((owners.len(), owners[0].uid.as_str()), (1, "uid-2"));
}

#[test]
fn a_restored_backup_is_taken_over_within_seconds() {
    // Object and Secret come back with new UIDs, the status may come back too.
    for with_status in [false, true] {
        let mut world = World::ready(&[CONTOSO, FABRIKAM]);
        let status = world.facts.object.status.clone();
        let mut restored = world.secret().clone();
        restored.metadata.uid = Some("restored".into());
        restored.metadata.owner_references = None;
        world.api.store(restored);
        re_create(&mut world);
        if with_status {
            world.change(|object| object.status = status);
            world.restart();
        }
        world.advance(LIFE / 2);
        three_seconds(&mut world);
        assert_eq!(conditions(world.status()), READY, "{with_status}");
        assert!(world.holds_all(), "{with_status}");
        assert_eq!(world.secret().metadata.uid.as_deref(), Some("restored"));
    }
}

#[test]
fn an_immutable_secret_is_reported_as_ours_or_as_foreign() {
    let mut world = World::ready(&[CONTOSO]);
    world.api.change(|secret| secret.immutable = Some(true));
    let before = world.secret().clone();
    let until = world.now + secs(660);
    world.pass(until, |_| Ok(LIFE));
    let expected = ["Ready=True/Issued", "RefreshFailing=True/SecretImmutable"];
    assert_eq!(conditions(world.status()), expected);
    let until = world.now + LIFE;
    world.pass(until, |_| Ok(LIFE));
    let expected = [
        "Ready=False/SecretImmutable",
        "Stalled=True/SecretImmutable",
    ];
    assert_eq!(conditions(world.status()), expected);
    assert_eq!(*world.secret(), before);
    // Its user deletes it.
    world.api.secret = None;
    let until = world.now + secs(720);
    world.pass(until, |_| Ok(LIFE));
    assert_eq!(conditions(world.status()), READY);

    let mut secret = foreign();
    secret.immutable = Some(true);
    assert_eq!(conditions(beside(secret).0.status()), FOREIGN);
}

#[test]
fn lost_metadata_is_repaired_without_a_mint() {
    let lose: [fn(&mut Secret); 4] = [
        |secret| secret.metadata.owner_references = None,
        |secret| secret.metadata.owner_references.as_mut().unwrap()[0].name = "other".into(),
        |secret| secret.metadata.labels = None,
        |secret| secret.data = None,
    ];
    for lose in lose {
        let mut world = World::ready(&[CONTOSO]);
        let before = world.secret().clone();
        world.api.change(lose);
        // A watch, where it is allowed, reports it.
        let version = world.secret().metadata.resource_version.clone();
        assert!(world.facts.secret_changed(version.as_deref(), None));
        let look = world.look();
        assert_eq!(
            (look.minted(), look.writes().len()),
            (vec![], 1),
            "{look:?}"
        );
        let after = world.secret();
        assert_eq!(
            after.metadata.owner_references,
            before.metadata.owner_references
        );
        assert_eq!(after.metadata.labels, before.metadata.labels);
        assert_eq!(after.data, before.data);
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn where_owner_references_are_guarded_the_secret_has_none() {
    let mut world = World::of(&[CONTOSO]);
    world.api.guards_owners = true;
    world.api.store(with_annotation(OWNER_ANNOTATION, "acr"));
    three_seconds(&mut world);
    assert_eq!(conditions(world.status()), READY);
    assert_eq!(world.secret().metadata.owner_references, None);
    assert!(world.holds_all());
    let text = message(world.status(), ConditionType::Ready);
    assert!(
        text.contains("deleting this object does not delete the Secret"),
        "{text}"
    );
    // Later writes are as good.
    let look = world.until_minted(|_| Ok(LIFE));
    assert_eq!(look.writes().len(), 1, "{look:?}");
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_guarded_reference_to_another_owner_is_waited_for() {
    let mut world = World::ready(&[CONTOSO]);
    world.api.guards_owners = true;
    re_create(&mut world);
    for look in three_seconds(&mut world) {
        let is_write = |call: &SecretCall| matches!(call, SecretCall::Replace(..));
        assert!(!look.calls.iter().any(is_write), "{look:?}");
    }
    let expected = [
        "Ready=False/SecretWriteFailed",
        "Stalled=True/SecretWriteFailed",
    ];
    assert_eq!(conditions(world.status()), expected);
    let wait = world.step().wake_at.unwrap().duration_since(world.now);
    assert!(
        (secs(1)..=secs(4)).contains(&wait),
        "5 s after the first answer: {wait}"
    );
    // The garbage collector deletes the Secret of the former object.
    world.api.secret = None;
    world.sleep(world.now + secs(60), |_| Ok(LIFE));
    assert_eq!(conditions(world.status()), READY);
    assert_eq!(
        world
            .secret()
            .metadata
            .owner_references
            .as_ref()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn the_secret_is_taken_over_once_a_guarded_reference_is_removed() {
    let mut world = World::ready(&[CONTOSO]);
    world.api.guards_owners = true;
    re_create(&mut world);
    three_seconds(&mut world);
    world
        .api
        .change(|secret| secret.metadata.owner_references = None);
    world.sleep(world.now + secs(60), |_| Ok(LIFE));
    assert_eq!(conditions(world.status()), READY);
    assert_eq!(world.secret().metadata.owner_references, None);
}
