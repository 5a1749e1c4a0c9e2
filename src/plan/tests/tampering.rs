//! Somebody edits our Secret.

use super::*;

fn edited(secret: &mut Secret, edit: impl FnOnce(&mut Value)) {
    let mut config = payload(secret);
    edit(&mut config);
    set_payload(secret, config.to_string());
}

/// A well-formed entry with a live token that we did not mint.
fn plant(world: &mut World, host: &str) {
    let planted = tokens::token(666, Some(world.now), world.now + LIFE);
    let secret = world.secret();
    let data = secret.data.as_ref().unwrap()[".dockerconfigjson"].0.clone();
    let mut config = DockerConfig::decode(&data).unwrap();
    config.tokens.insert(host.to_owned(), planted);
    set_payload(secret, config.encode());
}

#[test]
fn a_token_of_another_digest_is_replaced_at_once_and_kept_until_then() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    let before = world.secret().clone();
    world.advance(secs(60));
    plant(&mut world, CONTOSO);
    let planted = entry(world.secret(), CONTOSO);
    let look = world.look_failing(unavailable());
    assert_eq!(look.minted(), [CONTOSO]);
    assert_eq!(
        conditions(world.status()),
        [
            "Ready=False/UpstreamUnavailable",
            "Reconciling=True/UpstreamUnavailable"
        ],
        "it does not count as live"
    );
    assert_eq!(entry(world.secret(), CONTOSO), planted, "better than none");
    world.wake(&look, |_| Ok(LIFE));
    assert_ne!(entry(world.secret(), CONTOSO), planted);
    assert_eq!(entry(world.secret(), FABRIKAM), entry(&before, FABRIKAM));
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_forged_minted_annotation_gains_nothing() {
    for forged in [
        "",
        "{}",
        "null",
        "[]",
        "\u{0}",
        r#"{"v":2}"#,
        r#"{"v":1,"registries":{"contoso.azurecr.io":{"for":"","token":""}}}"#,
        r#"{"v":1,"registries":{"contoso.azurecr.io":{"for":"x","token":"y"}}}"#,
        r#"{"v":1,"labels":["app.kubernetes.io/managed-by"],"annotations":["acrcred.dev/minted","acrcred.dev/owner-uid"]}"#,
    ] {
        let mut world = World::ready(&[CONTOSO]);
        let before = world.secret().clone();
        annotate(world.secret(), MINTED_ANNOTATION, forged);
        let look = world.look();
        assert_eq!(look.minted(), [CONTOSO], "{forged}");
        assert!(
            !look
                .writes
                .iter()
                .any(|write| matches!(write, SecretWrite::Remove(_))),
            "{forged}"
        );
        assert_eq!(
            annotation(world.secret(), OWNER_UID_ANNOTATION),
            Some("uid-1")
        );
        assert_eq!(world.secret().metadata.labels, before.metadata.labels);
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn a_removed_minted_annotation_mints_anew() {
    let mut world = World::ready(&[CONTOSO]);
    world
        .secret()
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .remove(MINTED_ANNOTATION);
    assert_eq!(world.look().minted(), [CONTOSO]);
}

#[test]
fn an_edited_entry_is_minted_anew() {
    for (field, value) in [
        ("username", "somebody"),
        ("password", "x"),
        ("auth", "eDp4"),
        ("auth", ""),
    ] {
        let mut world = World::ready(&[CONTOSO]);
        edited(world.secret(), |config| {
            config["auths"][CONTOSO][field] = value.into();
        });
        let look = world.look();
        assert_eq!(look.minted(), [CONTOSO], "{field}");
        assert_eq!(conditions(world.status()), READY);
        assert_eq!(
            payload(world.secret())["auths"][CONTOSO]
                .as_object()
                .unwrap()
                .len(),
            3
        );
    }
}

#[test]
fn what_we_would_not_write_is_removed_without_a_mint() {
    let cases: [fn(&mut World); 4] = [
        |w| {
            edited(w.secret(), |config| {
                config["auths"]["example.com"] = json!({"auth": "dTpw"});
            });
        },
        |w| edited(w.secret(), |config| config["credsStore"] = "evil".into()),
        |w| {
            edited(w.secret(), |config| {
                config["auths"][CONTOSO]["identitytoken"] = "x".into();
            });
        },
        |w| plant(w, FABRIKAM),
    ];
    for (case, tamper) in cases.iter().enumerate() {
        let mut world = World::ready(&[CONTOSO]);
        let before = world.secret().data.clone();
        tamper(&mut world);
        let look = world.look();
        assert_eq!((look.minted(), look.writes.len()), (vec![], 1), "{case}");
        assert_eq!(world.secret().data, before, "{case}");
        assert_eq!(look.settled.status, None);
    }
}

#[test]
fn garbage_is_replaced() {
    for garbage in [
        "",
        "{}",
        "[]",
        "\u{0}\u{1}",
        r#"{"auths":{"contoso.azurecr.io":null}}"#,
    ] {
        let mut world = World::ready(&[CONTOSO]);
        set_payload(world.secret(), garbage);
        let look = world.look();
        assert_eq!(
            (look.minted(), look.writes.len()),
            (vec![CONTOSO], 1),
            "{garbage}"
        );
        assert_eq!(conditions(world.status()), READY);
    }
    let mut world = World::ready(&[CONTOSO]);
    world.secret().data = None;
    assert_eq!(world.look().minted(), [CONTOSO], "no payload at all");
}

#[test]
fn a_deleted_secret_is_created_anew() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.secret = None;
    let look = world.look();
    assert_eq!(look.minted(), [CONTOSO, FABRIKAM]);
    assert!(matches!(look.writes[..], [SecretWrite::Create(_)]));
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn an_unminted_entry_stays_unminted_while_suspended() {
    let mut world = World::ready(&[CONTOSO]);
    world.edit(|spec| spec.suspend = true);
    plant(&mut world, CONTOSO);
    assert_eq!(world.look().minted(), Vec::<&str>::new());
    assert_eq!(conditions(world.status()), ["Ready=False/Suspended"]);
}
