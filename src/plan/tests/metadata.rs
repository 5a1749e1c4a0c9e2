//! Labels and annotations that users put on their Secret.

use super::*;
use crate::api::VELERO_LABEL;

const TEAM: &str = "team.example.com/";

fn world_with(labels: &[(&str, &str)], annotations: &[(&str, &str)], prefixes: &[&str]) -> World {
    let mut world = World::of(&[CONTOSO]);
    world.edit(|spec| spec.secret = Some(template(labels, annotations)));
    world.configure(|settings| {
        settings.secret_metadata_prefixes = prefixes.iter().map(|p| (*p).to_owned()).collect();
    });
    world
}

fn label<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret
        .metadata
        .labels
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

#[test]
fn keys_that_are_not_allowed_are_left_out_and_reported() {
    for prefixes in [&[][..], &["other.example.com/"]] {
        let mut world = world_with(&[("team.example.com/a", "1")], &[("note", "x")], prefixes);
        world.look();
        assert_eq!(label(world.secret(), "team.example.com/a"), None);
        assert_eq!(annotation(world.secret(), "note"), None);
        assert_eq!(conditions(world.status()), READY);
        let text = message(world.status(), ConditionType::Ready);
        let expected = "--secret-metadata-prefixes does not allow them: note, team.example.com/a.";
        assert!(text.ends_with(expected), "{text}");
    }
}

#[test]
fn allowed_keys_are_written_and_a_change_of_them_mints_nothing() {
    let (labels, annotations) = ([("team.example.com/a", "1")], [("team.example.com/b", "2")]);
    let mut world = world_with(&labels, &annotations, &[TEAM]);
    world.look();
    assert_eq!(label(world.secret(), "team.example.com/a"), Some("1"));
    assert_eq!(annotation(world.secret(), "team.example.com/b"), Some("2"));
    assert!(!message(world.status(), ConditionType::Ready).contains("Left out"));
    let before = world.secret().clone();
    world.edit(|spec| spec.secret = Some(template(&labels, &[("team.example.com/b", "3")])));
    let look = world.look();
    assert_eq!(
        (look.minted(), look.writes().len()),
        (vec![], 1),
        "{look:?}"
    );
    assert_eq!(annotation(world.secret(), "team.example.com/b"), Some("3"));
    assert_eq!(world.secret().data, before.data);
    assert_eq!(world.secret().metadata.uid, before.metadata.uid);
}

#[test]
fn our_own_keys_are_never_the_users() {
    let own = [
        (OWNER_ANNOTATION, "x"),
        ("acrcred.dev/refresh", "x"),
        ("acrcred.dev/new", "x"),
        (MANAGED_BY_LABEL, "x"),
    ];
    let mut world = world_with(&own, &own, &["a", ""]);
    world.look();
    assert_eq!(label(world.secret(), MANAGED_BY_LABEL), Some("acrcred"));
    assert_eq!(annotation(world.secret(), OWNER_ANNOTATION), Some("acr"));
    let metadata = &world.secret().metadata;
    let keys: Vec<&String> = metadata.labels.as_ref().unwrap().keys().collect();
    assert_eq!(keys, [MANAGED_BY_LABEL, VELERO_LABEL]);
    let keys: Vec<&String> = metadata.annotations.as_ref().unwrap().keys().collect();
    assert_eq!(keys, [OWNER_ANNOTATION]);
}

#[test]
fn a_user_may_include_the_secret_in_backups_if_allowed() {
    for (prefixes, expected) in [(&["velero.io/"][..], "false"), (&[], "true")] {
        let mut world = world_with(&[(VELERO_LABEL, "false")], &[], prefixes);
        world.look();
        assert_eq!(label(world.secret(), VELERO_LABEL), Some(expected));
    }
}

#[test]
fn one_write_removes_what_the_spec_no_longer_asks_for() {
    let keys = ["team.example.com/a", "team.example.com/b"];
    let pairs = keys.map(|key| (key, "1"));
    let mut world = world_with(&pairs, &pairs, &[TEAM]);
    world.look();
    let before = world.secret().clone();
    world.edit(|spec| spec.secret = Some(template(&pairs[1..], &pairs[..1])));
    let look = world.look();
    let [SecretCall::Replace(..)] = look.calls[..] else {
        panic!("{look:?}")
    };
    assert_eq!(look.minted(), Vec::<&str>::new());
    assert_eq!(label(world.secret(), keys[0]), None);
    assert_eq!(label(world.secret(), keys[1]), Some("1"));
    assert_eq!(annotation(world.secret(), keys[0]), Some("1"));
    assert_eq!(annotation(world.secret(), keys[1]), None);
    assert_eq!(world.secret().data, before.data);
}

#[test]
fn a_key_that_is_allowed_no_longer_is_removed() {
    let mut world = world_with(&[("team.example.com/a", "1")], &[], &[TEAM]);
    world.look();
    world.configure(|settings| settings.secret_metadata_prefixes.clear());
    let look = world.look();
    assert!(
        matches!(look.calls[..], [SecretCall::Replace(..)]),
        "{look:?}"
    );
    assert_eq!(label(world.secret(), "team.example.com/a"), None);
}

#[test]
fn the_next_resync_removes_what_another_client_added() {
    let mut world = World::ready(&[CONTOSO]);
    let before = world.secret().clone();
    world.api.change(|secret| {
        annotate(secret, "user.example.com/own", "x");
        secret.metadata.labels = None;
    });
    let until = world.now + secs(600);
    for look in world.pass(until, |_| Ok(LIFE)) {
        assert!(look.mints.is_empty(), "{look:?}");
    }
    assert_eq!(
        world.secret().metadata.annotations,
        before.metadata.annotations
    );
    assert_eq!(world.secret().metadata.labels, before.metadata.labels);
    assert_eq!(world.secret().data, before.data);
}

#[test]
fn what_the_api_server_would_refuse_is_left_out() {
    let long = "x".repeat(64);
    let long_prefix = format!("{}/a", "x".repeat(254));
    let longest = "x".repeat(63);
    let valid = [
        "a",
        "A.b_c-9",
        "example.com/a",
        "team.example.com/A_b",
        &longest,
    ];
    for key in valid {
        for value in ["", "v", "V.1_2-x", &"v".repeat(63)] {
            let mut world = world_with(&[(key, value)], &[(key, "any\n\u{e4} value")], &[""]);
            world.look();
            assert_eq!(label(world.secret(), key), Some(value), "{key}={value}");
            assert_eq!(
                annotation(world.secret(), key),
                Some("any\n\u{e4} value"),
                "{key}"
            );
        }
    }
    for key in [
        "",
        "/",
        "/a",
        "a/",
        "a/b/c",
        "-a",
        "a-",
        "a b",
        "\u{e4}",
        "a\n",
        "Upper.example.com/a",
        "-x.example.com/a",
        "x..y/a",
        "a_b/c",
        &long,
        &long_prefix,
    ] {
        let mut world = world_with(&[(key, "v")], &[], &[""]);
        world.look();
        assert_eq!(label(world.secret(), key), None, "{key}");
        let mut world = world_with(&[], &[(key, "v")], &[""]);
        world.look();
        // The prefix of an annotation's key may have capitals.
        let expected = key.starts_with("Upper").then_some("v");
        assert_eq!(annotation(world.secret(), key), expected, "{key}");
    }
    for value in ["-a", "a-", "a b", "a/b", "\u{e4}", "a\n", &long] {
        let mut world = world_with(&[("k", value)], &[], &[""]);
        world.look();
        assert_eq!(label(world.secret(), "k"), None, "{value}");
        let text = message(world.status(), ConditionType::Ready);
        assert!(text.ends_with("they are not valid: k."), "{text}");
    }
}

#[test]
fn a_hostile_key_does_not_fill_the_message() {
    let key = "x".repeat(100_000) + "\u{1b}[2J";
    let mut world = world_with(&[(&key, "v")], &[(&key, "v")], &[]);
    world.look();
    let text = message(world.status(), ConditionType::Ready);
    assert!(text.len() < 1_000 && !text.contains('\u{1b}'), "{text}");
}
