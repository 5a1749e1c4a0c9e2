//! Another client edits our Secret. acrcred does not read it, and writes over it at the next resync.

use super::*;

type Tamper = fn(&mut Secret);

const EDITS: [(&str, Tamper); 8] = [
    ("another password", |secret| {
        edited(secret, |config| {
            config["auths"][CONTOSO]["password"] = "tampered".into();
        });
    }),
    ("another user", |secret| {
        edited(secret, |config| {
            config["auths"][CONTOSO]["username"] = "x".into();
        });
    }),
    ("another host", |secret| {
        edited(secret, |config| {
            config["auths"]["example.com"] = json!({"auth": "dTpw"});
        });
    }),
    ("a program", |secret| {
        edited(secret, |config| config["credsStore"] = "evil".into());
    }),
    ("no entry", |secret| {
        edited(secret, |config| {
            drop(config["auths"].as_object_mut().unwrap().remove(CONTOSO));
        });
    }),
    ("garbage", |secret| set_payload(secret, "\u{0}\u{1}")),
    ("no data", |secret| secret.data = None),
    ("another key", |secret| {
        secret
            .data
            .as_mut()
            .unwrap()
            .insert("x".into(), k8s_openapi::ByteString(vec![1]));
    }),
];

fn edited(secret: &mut Secret, edit: impl FnOnce(&mut Value)) {
    let mut config = payload(secret);
    edit(&mut config);
    set_payload(secret, config.to_string());
}

fn report(world: &mut World, by: &str) {
    let version = world.secret().metadata.resource_version.clone();
    // It is no news while a repair is held back.
    world
        .facts
        .secret_changed(version.as_deref(), Some(by.into()));
}

#[test]
fn an_edit_is_written_over_at_the_next_resync_without_a_mint() {
    for (what, edit) in EDITS {
        let mut world = World::ready(&[CONTOSO, FABRIKAM]);
        let before = world.secret().clone();
        world.api.change(edit);
        let start = world.now;
        for look in world.pass(start + secs(600), |_| Ok(LIFE)) {
            assert!(look.mints.is_empty(), "{what}: {look:?}");
        }
        let after = world.secret();
        assert_eq!(after.data, before.data, "{what}");
        assert_eq!(after.metadata.uid, before.metadata.uid, "{what}");
        assert_eq!(conditions(world.status()), READY, "{what}");
    }
}

#[test]
fn an_edit_of_a_sealed_secret_is_found_and_all_is_minted() {
    for (what, edit) in EDITS {
        let mut world = World::ready(&[CONTOSO, FABRIKAM]);
        world.restart();
        world.api.change(edit);
        let start = world.now;
        let looks = world.pass(start + secs(720), |_| Ok(LIFE));
        let minted: Vec<&str> = looks.iter().flat_map(Look::minted).collect();
        assert_eq!(minted, [CONTOSO, FABRIKAM], "{what}");
        assert!(world.holds_all(), "{what}");
        assert_eq!(
            payload(world.secret()).as_object().unwrap().len(),
            1,
            "{what}"
        );
        assert_eq!(conditions(world.status()), READY, "{what}");
    }
}

#[test]
fn a_watch_reports_an_edit_and_it_is_written_over_at_once() {
    for (what, edit) in EDITS {
        let mut world = World::ready(&[CONTOSO]);
        let before = world.secret().data.clone();
        world.api.change(edit);
        report(&mut world, "kubectl");
        let look = world.look();
        assert_eq!((look.minted(), look.writes().len()), (vec![], 1), "{what}");
        assert_eq!(world.secret().data, before, "{what}");
        assert_eq!(look.event(), None);
    }
}

#[test]
fn a_watch_event_of_our_own_write_or_an_older_one_is_no_news() {
    let mut world = World::ready(&[CONTOSO]);
    let old = world.secret().metadata.resource_version.clone();
    world.until_minted(|_| Ok(LIFE));
    let own = world.secret().metadata.resource_version.clone();
    for version in [old, own] {
        assert!(
            !world
                .facts
                .secret_changed(version.as_deref(), Some("acrcred".into()))
        );
        assert!(world.look().is_idle());
    }
}

/// Another client changes the Secret again every second, and a watch reports it; how often it was repaired.
fn fight(world: &mut World, seconds: i64) -> usize {
    let mut repairs = 0;
    for _ in 0..seconds {
        world.api.change(|secret| annotate(secret, "theirs", "x"));
        report(world, "evil-operator");
        repairs += world.look().writes().len();
        world.advance(secs(1));
    }
    repairs
}

#[test]
fn repairs_of_a_secret_that_changes_all_the_time_are_damped() {
    let mut world = World::ready(&[CONTOSO]);
    let repairs = fight(&mut world, 60);
    assert_eq!(repairs, 3);
    let text = message(world.status(), ConditionType::Ready);
    assert!(
        text.contains("keeps changing this Secret (last: evil-operator)"),
        "{text}"
    );
    assert_eq!(conditions(world.status()), READY);
    let repairs = fight(&mut world, 1_800);
    assert!((2..=12).contains(&repairs), "{repairs} in half an hour");
    // A rotation is not held up.
    let look = world.until_minted(|_| Ok(LIFE));
    assert_eq!(look.writes().len(), 1);
    assert!(world.holds_all());
}

#[test]
fn a_damped_repair_comes_at_the_resync() {
    let mut world = World::ready(&[CONTOSO]);
    fight(&mut world, 30);
    assert_eq!(annotation(world.secret(), "theirs"), Some("x"));
    let start = world.now;
    world.pass(start + secs(600), |_| Ok(LIFE));
    assert_eq!(annotation(world.secret(), "theirs"), None);
}

#[test]
fn what_must_leave_is_not_held_up_by_the_damping() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    fight(&mut world, 30);
    world.edit(|spec| drop(spec.registries.remove(0)));
    assert_eq!(world.look().writes().len(), 1);
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
}

#[test]
fn the_message_about_another_client_ends_when_it_stops() {
    let mut world = World::ready(&[CONTOSO]);
    fight(&mut world, 30);
    assert!(message(world.status(), ConditionType::Ready).contains("keeps changing this Secret"));
    let start = world.now;
    world.pass(start + LIFE * 2, |_| Ok(LIFE));
    let text = message(world.status(), ConditionType::Ready);
    assert!(!text.contains("keeps changing this Secret"), "{text}");
}

#[test]
fn an_edit_each_day_is_no_conflict() {
    let mut world = World::ready(&[CONTOSO]);
    for _ in 0..4 {
        world.api.change(|secret| annotate(secret, "theirs", "x"));
        report(&mut world, "kubectl");
        assert!(!world.look().writes().is_empty());
        let until = world.now + SignedDuration::from_hours(24);
        world.pass(until, |_| Ok(LIFE));
    }
    let text = message(world.status(), ConditionType::Ready);
    assert!(!text.contains("keeps changing this Secret"), "{text}");
}

#[test]
fn a_name_of_a_client_does_not_fill_the_message() {
    let mut world = World::ready(&[CONTOSO]);
    for _ in 0..5 {
        world.api.change(|secret| annotate(secret, "theirs", "x"));
        report(&mut world, &format!("{}\u{1b}[2J", "x".repeat(10_000)));
        world.look();
        world.advance(secs(1));
    }
    let text = message(world.status(), ConditionType::Ready);
    assert!(text.len() < 1_000 && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn an_edit_while_suspended_is_written_over_without_a_mint() {
    let mut world = World::ready(&[CONTOSO]);
    world.edit(|spec| spec.suspend = true);
    world.look();
    let before = world.secret().data.clone();
    world.api.change(|secret| secret.data = None);
    let start = world.now;
    for look in world.pass(start + secs(600), |_| Ok(LIFE)) {
        assert!(look.mints.is_empty());
    }
    assert_eq!(world.secret().data, before);
    assert_eq!(conditions(world.status()), ["Ready=True/Suspended"]);
}

#[test]
fn a_watch_event_that_comes_before_the_answer_of_our_write_is_no_change() {
    let mut world = World::ready(&[CONTOSO]);
    for (extra, is_change) in [(0, false), (1, true)] {
        world.advance(LIFE / 2);
        let mint = world.decide().mints.remove(0);
        let credential = world.credential(LIFE, &mint.scope);
        world.facts.minted(&mint, Some(Ok(credential)), world.now);
        let Some(Call::Secret(call)) = world.decide().call else {
            panic!("nothing is written");
        };
        let answer = world.api.answer(&call);
        let SecretAnswer::Stored(version) = &answer else {
            panic!("{answer:?}");
        };
        let reported = (version.number() + extra).to_string();
        let by = Some("another".into());
        world.facts.secret_changed(Some(&reported), by);
        world.facts.secret_answered(*call, answer, world.now);
        world.facts.tidy(world.now);
        assert_eq!(world.facts.secret.is_dirty, is_change, "{extra}");
        assert!(world.facts.secret.repairs.is_empty());
    }
}
