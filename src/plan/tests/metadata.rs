//! Labels and annotations that users put on their Secret.

use super::*;

const TEAM: &str = "team.example.com/";

fn world_with(labels: &[(&str, &str)], annotations: &[(&str, &str)], prefixes: &[&str]) -> World {
    let mut world = World::of(&[CONTOSO]);
    world.object.spec.secret = Some(template(labels, annotations));
    world.settings.secret_metadata_prefixes = prefixes.iter().map(|p| (*p).to_owned()).collect();
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
fn what_the_operator_does_not_allow_is_left_out_and_said() {
    for prefixes in [&[][..], &["other.example.com/"]] {
        let mut world = world_with(&[("team.example.com/a", "1")], &[("note", "x")], prefixes);
        world.look();
        assert_eq!(label(world.secret(), "team.example.com/a"), None);
        assert_eq!(annotation(world.secret(), "note"), None);
        assert_eq!(conditions(world.status()), READY);
        let told = message(world.status(), ConditionType::Ready);
        assert!(
            told.ends_with(
                "--secret-metadata-prefixes does not allow it: note, team.example.com/a"
            ),
            "{told}"
        );
    }
}

#[test]
fn what_the_operator_allows_is_written_and_kept() {
    let mut world = world_with(
        &[("team.example.com/a", "1")],
        &[("team.example.com/b", "2")],
        &[TEAM],
    );
    world.look();
    assert_eq!(label(world.secret(), "team.example.com/a"), Some("1"));
    assert_eq!(annotation(world.secret(), "team.example.com/b"), Some("2"));
    assert!(!message(world.status(), ConditionType::Ready).contains("left out"));
    annotate(world.secret(), "team.example.com/b", "edited");
    let look = world.look();
    assert_eq!((look.minted(), look.writes.len()), (vec![], 1));
    assert_eq!(annotation(world.secret(), "team.example.com/b"), Some("2"));
}

#[test]
fn our_own_keys_are_never_the_users() {
    let own = [
        (OWNER_UID_ANNOTATION, "x"),
        (MINTED_ANNOTATION, "x"),
        (ADOPT_ANNOTATION, "x"),
        (MANAGED_BY_LABEL, "x"),
    ];
    let mut world = world_with(&own, &own, &["a", ""]);
    world.look();
    assert_eq!(label(world.secret(), MANAGED_BY_LABEL), Some("acrcred"));
    assert_eq!(
        annotation(world.secret(), OWNER_UID_ANNOTATION),
        Some("uid-1")
    );
    assert_eq!(annotation(world.secret(), ADOPT_ANNOTATION), None);
    assert_eq!(world.secret().metadata.labels.as_ref().unwrap().len(), 1);
}

#[test]
fn what_is_asked_for_no_longer_is_removed_first() {
    let keys = ["team.example.com/a", "team.example.com/b"];
    let pairs = keys.map(|key| (key, "1"));
    let mut world = world_with(&pairs, &pairs, &[TEAM]);
    world.look();
    annotate(world.secret(), "user.example.com/own", "stays");
    let before = world.secret().clone();
    world.edit(|spec| spec.secret = Some(template(&pairs[1..], &pairs[..1])));
    let look = world.look();
    let [SecretWrite::Remove(removal), SecretWrite::Apply(_)] = &look.writes[..] else {
        panic!("{:?}", look.writes)
    };
    assert_eq!(Some(&removal.uid), before.metadata.uid.as_ref());
    assert_eq!(
        Some(&removal.resource_version),
        before.metadata.resource_version.as_ref()
    );
    assert_eq!(
        (&removal.labels[..], &removal.annotations[..]),
        (&[keys[0].to_owned()][..], &[keys[1].to_owned()][..])
    );
    assert_eq!(look.minted(), Vec::<&str>::new());
    assert_eq!(label(world.secret(), keys[0]), None);
    assert_eq!(label(world.secret(), keys[1]), Some("1"));
    assert_eq!(annotation(world.secret(), keys[0]), Some("1"));
    assert_eq!(annotation(world.secret(), keys[1]), None);
    assert_eq!(
        annotation(world.secret(), "user.example.com/own"),
        Some("stays")
    );
    assert_eq!(world.secret().data, before.data);
}

#[test]
fn what_the_operator_allows_no_longer_is_removed() {
    let mut world = world_with(&[("team.example.com/a", "1")], &[], &[TEAM]);
    world.look();
    world.settings.secret_metadata_prefixes.clear();
    let look = world.look();
    assert!(matches!(
        look.writes[..],
        [SecretWrite::Remove(_), SecretWrite::Apply(_)]
    ));
    assert_eq!(label(world.secret(), "team.example.com/a"), None);
}

#[test]
fn what_the_api_server_would_refuse_is_left_out() {
    let long = "x".repeat(64);
    let long_prefix = format!("{}/a", "x".repeat(254));
    let valid = [
        "a",
        "A.b_c-9",
        "example.com/a",
        "team.example.com/A_b",
        &"x".repeat(63),
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
        let told = message(world.status(), ConditionType::Ready);
        assert!(told.ends_with("no valid label or annotation: k"), "{told}");
    }
}

#[test]
fn a_hostile_key_does_not_fill_the_message() {
    let key = "x".repeat(100_000) + "\u{1b}[2J";
    let mut world = world_with(&[(&key, "v")], &[(&key, "v")], &[]);
    world.look();
    let told = message(world.status(), ConditionType::Ready);
    assert!(told.len() < 1_000 && !told.contains('\u{1b}'), "{told}");
}
