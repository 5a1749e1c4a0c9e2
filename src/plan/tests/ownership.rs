//! Which Secrets are ours, and that no other is touched.

use super::*;

/// A Secret of our object's name that somebody else made.
fn foreign() -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": "acr", "namespace": "demo", "uid": "foreign", "resourceVersion": "7"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
    }))
    .unwrap()
}

fn with_owners(owners: Value) -> Secret {
    let mut secret = foreign();
    secret.metadata.owner_references = serde_json::from_value(owners).unwrap();
    secret
}

fn with_annotation(key: &str, value: &str) -> Secret {
    let mut secret = foreign();
    annotate(&mut secret, key, value);
    secret
}

/// Our owner reference but for one field.
fn owner_but(field: &str, value: &str) -> Value {
    let mut owner = our_owner();
    owner[field] = value.into();
    owner
}

#[test]
fn ownership_table() {
    let managed_by = {
        let mut secret = foreign();
        secret.metadata.labels = Some([(MANAGED_BY_LABEL.into(), "acrcred".into())].into());
        secret
    };
    let predecessor = owner_but("uid", "uid-0");
    for (what, secret, expected) in [
        (
            "owner reference",
            with_owners(json!([our_owner()])),
            Ownership::Ours,
        ),
        (
            "of another version",
            with_owners(json!([owner_but("apiVersion", "acrcred.dev/v2")])),
            Ownership::Ours,
        ),
        (
            "annotation only",
            with_annotation(OWNER_UID_ANNOTATION, "uid-1"),
            Ownership::Ours,
        ),
        (
            "among others",
            with_owners(json!([owner_but("name", "x"), predecessor, our_owner()])),
            Ownership::Ours,
        ),
        (
            "adoption",
            with_annotation(ADOPT_ANNOTATION, "acr"),
            Ownership::Adoptable,
        ),
        (
            "predecessor",
            with_owners(json!([predecessor])),
            Ownership::AwaitingDeletion,
        ),
        ("nothing", foreign(), Ownership::Foreign),
        ("a label", managed_by, Ownership::Foreign),
        (
            "another group",
            with_owners(json!([owner_but("apiVersion", "evil.dev/v1")])),
            Ownership::Foreign,
        ),
        (
            "a core kind",
            with_owners(json!([owner_but("apiVersion", "v1")])),
            Ownership::Foreign,
        ),
        (
            "another kind",
            with_owners(json!([owner_but("kind", "ClusterAcrCredential")])),
            Ownership::Foreign,
        ),
        (
            "another object",
            with_owners(json!([owner_but("name", "other")])),
            Ownership::Foreign,
        ),
        (
            "another's annotation",
            with_annotation(OWNER_UID_ANNOTATION, "uid-0"),
            Ownership::Foreign,
        ),
        (
            "another's adoption",
            with_annotation(ADOPT_ANNOTATION, "acr2"),
            Ownership::Foreign,
        ),
        (
            "an empty adoption",
            with_annotation(ADOPT_ANNOTATION, ""),
            Ownership::Foreign,
        ),
    ] {
        let world = World::of(&[CONTOSO]);
        let snapshot = Snapshot::of(&secret, &BTreeMap::new(), world.now);
        assert_eq!(
            snapshot.ownership(&world.object, world.now),
            expected,
            "{what}"
        );
    }
}

#[test]
fn an_object_without_uid_owns_nothing() {
    let mut world = World::of(&[CONTOSO]);
    world.object.metadata.uid = None;
    let secret = with_annotation(OWNER_UID_ANNOTATION, "");
    let snapshot = Snapshot::of(&secret, &BTreeMap::new(), world.now);
    assert_eq!(
        snapshot.ownership(&world.object, world.now),
        Ownership::Foreign
    );
}

#[test]
fn a_foreign_secret_is_never_written() {
    let both_lost = {
        let mut world = World::ready(&[CONTOSO]);
        let secret = world.secret();
        secret.metadata.owner_references = None;
        secret
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .remove(OWNER_UID_ANNOTATION);
        secret.clone()
    };
    for suspend in [false, true] {
        for secret in [foreign(), both_lost.clone()] {
            let mut world = World::of(&[CONTOSO]);
            world.object.spec.suspend = suspend;
            world.secret = Some(secret.clone());
            let look = world.look();
            assert!(look.is_idle());
            assert_eq!(
                conditions(world.status()),
                ["Ready=False/SecretNotOwned", "Stalled=True/SecretNotOwned"]
            );
            assert_eq!(look.note(), Some("SecretNotOwned"));
            assert_eq!(
                (world.status().secret_name.as_ref(), look.settled.wake_at),
                (None, None)
            );
            let told = message(world.status(), ConditionType::Ready);
            assert!(
                told.contains("kubectl annotate secret acr --namespace demo acrcred.dev/adopt=acr"),
                "{told}"
            );
            assert_eq!(world.secret, Some(secret), "untouched");
        }
    }
}

#[test]
fn a_secret_that_is_hidden_from_us_is_foreign() {
    let mut world = World::of(&[CONTOSO]);
    world.believed = Some(SecretState::Hidden);
    let look = world.look();
    assert!(look.is_idle());
    assert_eq!(conditions(world.status())[0], "Ready=False/SecretNotOwned");
}

#[test]
fn a_predecessors_secret_is_awaited_for_two_minutes() {
    let mut world = World::of(&[CONTOSO]);
    world.secret = Some(with_owners(json!([owner_but("uid", "uid-0")])));
    let mut look = world.look();
    let end = world.now + secs(120);
    while world.now < end {
        assert_eq!(
            conditions(world.status()),
            [
                "Ready=False/AwaitingSecretDeletion",
                "Reconciling=True/AwaitingSecretDeletion"
            ]
        );
        assert_eq!(look.settled.wake_at, Some(world.now + secs(5)));
        assert_eq!((look.minted(), look.writes.len()), (vec![], 0));
        look = world.wake(&look, |_| Ok(LIFE));
    }
    assert_eq!(conditions(world.status())[0], "Ready=False/SecretNotOwned");
    assert_eq!(look.settled.wake_at, None);

    world.secret = None;
    world.look();
    assert_eq!(
        conditions(world.status()),
        READY,
        "it was collected after all"
    );
}

#[test]
fn a_lost_half_of_the_ownership_is_repaired() {
    for lose in [
        (|secret: &mut Secret| secret.metadata.owner_references = None) as fn(&mut Secret),
        |secret| secret.metadata.owner_references = Some(vec![owner(owner_but("name", "other"))]),
        |secret| {
            secret.metadata.owner_references =
                Some(vec![owner(owner_but("apiVersion", "evil.dev/v1"))]);
        },
        |secret| {
            drop(
                secret
                    .metadata
                    .annotations
                    .as_mut()
                    .unwrap()
                    .remove(OWNER_UID_ANNOTATION),
            );
        },
        |secret| annotate(secret, OWNER_UID_ANNOTATION, "uid-0"),
        |secret| {
            drop(
                secret
                    .metadata
                    .labels
                    .as_mut()
                    .unwrap()
                    .remove(MANAGED_BY_LABEL),
            );
        },
    ] {
        let mut world = World::ready(&[CONTOSO]);
        let before = world.secret().clone();
        lose(world.secret());
        let look = world.look();
        assert_eq!((look.minted(), look.writes.len()), (vec![], 1));
        assert_eq!(look.settled.status, None);
        let after = world.secret().clone();
        assert_eq!(
            after.metadata.owner_references,
            before.metadata.owner_references
        );
        assert_eq!(after.metadata.annotations, before.metadata.annotations);
        assert_eq!(after.data, before.data);
    }
}

#[test]
fn beside_another_controller_we_are_an_owner_only() {
    let mut world = World::ready(&[CONTOSO]);
    let other = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d", "controller": true,
    });
    world.secret().metadata.owner_references = Some(vec![owner(other.clone())]);
    assert_eq!(world.look().writes.len(), 1);
    let mut ours = our_owner();
    ours.as_object_mut().unwrap().remove("controller");
    let owners = world.secret().metadata.owner_references.clone();
    assert_eq!(owners, Some(vec![owner(other), owner(ours)]));
}

#[test]
fn a_secret_is_adopted_with_the_first_credential_and_not_before() {
    let mut secret = with_annotation(ADOPT_ANNOTATION, "acr");
    let theirs =
        br#"{"auths":{"contoso.azurecr.io":{"auth":"dTpw"},"example.com":{"auth":"dTpw"}}}"#;
    set_payload(&mut secret, theirs);
    let mut world = World::of(&[CONTOSO]);
    world.secret = Some(secret.clone());
    let look = world.look_failing(no_role());
    assert_eq!(
        look.writes,
        [],
        "what works for its user is not taken for nothing"
    );
    let look = world.wake(&look, |_| Ok(LIFE));
    let [SecretWrite::Apply(applied)] = &look.writes[..] else {
        panic!("{:?}", look.writes)
    };
    assert_eq!(applied.metadata.uid, secret.metadata.uid);
    assert_eq!(
        applied.metadata.resource_version,
        secret.metadata.resource_version
    );
    assert_eq!(
        hosts(world.secret()),
        [CONTOSO],
        "the whole payload is ours"
    );
    assert_eq!(conditions(world.status()), READY);
    world
        .secret()
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .remove(ADOPT_ANNOTATION);
    assert_eq!(world.look().writes, [], "still ours");
}

#[test]
fn a_secret_that_cannot_be_written_is_reported_and_left() {
    for (change, reason) in [
        (
            (|secret| secret.immutable = Some(true)) as fn(&mut Secret),
            "SecretImmutable",
        ),
        (
            |secret| secret.type_ = Some("Opaque".into()),
            "SecretTypeMismatch",
        ),
    ] {
        let mut world = World::ready(&[CONTOSO]);
        change(world.secret());
        world.forbid_everything();
        let before = world.secret.clone();
        assert_eq!(world.look().writes, [], "{reason}");

        let mut world = World::ready(&[CONTOSO]);
        change(world.secret());
        world.advance(LIFE / 2);
        let look = world.look();
        assert!(look.is_idle(), "{reason}");
        assert_eq!(
            conditions(world.status()),
            [
                "Ready=True/Issued".to_owned(),
                format!("RefreshFailing=True/{reason}")
            ]
        );
        world.wake(&look, |_| Ok(LIFE));
        assert_eq!(
            conditions(world.status()),
            [
                format!("Ready=False/{reason}"),
                format!("Stalled=True/{reason}")
            ]
        );
        assert_eq!(world.secret.map(|s| s.data), before.map(|s| s.data));

        let mut adopted = with_annotation(ADOPT_ANNOTATION, "acr");
        change(&mut adopted);
        let mut world = World::of(&[CONTOSO]);
        world.secret = Some(adopted);
        assert_eq!(world.look().writes, []);
        assert_eq!(
            conditions(world.status())[0],
            format!("Ready=False/{reason}")
        );
    }
}
