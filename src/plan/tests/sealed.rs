//! After a restart: the tokens of what the Secret holds are not known, their lifetimes are.

use super::*;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// CONTOSO's credential lives for so long, FABRIKAM's for three hours, and acrcred has just restarted.
fn restarted(life: SignedDuration) -> World {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    world.look_at(|server| Ok(if server == CONTOSO { life } else { LIFE }));
    assert_eq!(conditions(world.status()), READY);
    world.restart();
    world
}

fn without_fabrikam(error: MintError) -> impl FnMut(&str) -> world::Answer + Copy {
    move |server| {
        if server == FABRIKAM {
            Err(error)
        } else {
            Ok(LIFE)
        }
    }
}

/// Looks as often as asked for until the Secret is written, and gives all that was minted until then.
fn until_written(world: &mut World, mut answer: impl FnMut(&str) -> world::Answer) -> Vec<String> {
    let end = world.now + LIFE;
    let mut minted = Vec::new();
    loop {
        let look = world.look_at(&mut answer);
        minted.extend(look.minted().into_iter().map(str::to_owned));
        if !look.writes().is_empty() {
            return minted;
        }
        assert!(world.now < end, "the Secret is never written");
        world.now = world.step().wake_at.unwrap();
    }
}

fn count(minted: &[String], server: &str) -> usize {
    minted.iter().filter(|minted| *minted == server).count()
}

/// The time of the next write of an object to which LITWARE was added just now.
fn written_after(world: &mut World, answer: impl FnMut(&str) -> world::Answer) -> SignedDuration {
    let start = world.now;
    world.edit(|spec| spec.registries.push(world::registry(LITWARE)));
    until_written(world, answer);
    world.now.duration_since(start)
}

#[test]
fn sealed_entries_are_minted_with_the_one_that_is_due() {
    let mut world = restarted(MINUTE * 60);
    let look = world.until_minted(|_| Ok(LIFE));
    assert_eq!(look.minted(), [CONTOSO, FABRIKAM]);
    assert_eq!((look.writes().len(), look.statuses.len()), (1, 1));
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_due_one_that_fails_costs_the_sealed_ones_no_mint() {
    let mut world = restarted(MINUTE * 60);
    let expiry = world.now + MINUTE * 60;
    let answer = |server: &str| {
        if server == CONTOSO {
            Err(unavailable())
        } else {
            Ok(LIFE)
        }
    };
    for look in world.pass(expiry - secs(1), answer) {
        assert!(
            look.minted().iter().all(|server| *server == CONTOSO),
            "{look:?}"
        );
        assert!(look.writes().is_empty());
    }
    assert_eq!(hosts(world.secret()), [CONTOSO, FABRIKAM]);
    let expected = [
        "Ready=True/Issued",
        "RefreshFailing=True/UpstreamUnavailable",
    ];
    assert_eq!(conditions(world.status()), expected);
}

#[test]
fn a_live_one_that_cannot_be_minted_holds_until_a_tenth_is_left() {
    for (life, reserve) in [(60, 6), (100, 10), (20, 5), (12, 5)] {
        let mut world = restarted(MINUTE * life);
        let expiry = world.now + MINUTE * life;
        let minted = until_written(&mut world, without_fabrikam(unavailable()));
        assert_eq!(expiry.duration_since(world.now), MINUTE * reserve, "{life}");
        assert_eq!(count(&minted, CONTOSO), 1, "it is in hand");
        assert_eq!(hosts(world.secret()), [CONTOSO]);
        let status = conditions(world.status());
        assert_eq!(status[0], "Ready=False/UpstreamUnavailable");
        assert_eq!(world.status().registries[0].reason, "Issued");
        world.until_minted(|_| Ok(LIFE));
        assert_eq!(conditions(world.status()), READY);
        assert!(world.holds_all());
    }
}

#[test]
fn while_it_holds_ready_stays_and_the_status_says_why() {
    let mut world = restarted(MINUTE * 60);
    let expiry = world.now + MINUTE * 60;
    world.pass(expiry - MINUTE * 7, without_fabrikam(no_role()));
    assert_eq!(hosts(world.secret()), [CONTOSO, FABRIKAM]);
    let expected = ["Ready=True/Issued", "RefreshFailing=True/RegistryRefused"];
    assert_eq!(conditions(world.status()), expected);
}

#[test]
fn a_held_write_goes_as_soon_as_the_last_one_is_minted() {
    let mut world = restarted(MINUTE * 60);
    let start = world.now;
    world.pass(start + MINUTE * 40, without_fabrikam(unavailable()));
    world.pass(start + MINUTE * 42, |_| Ok(LIFE));
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn what_is_absent_waits_60_seconds_from_the_first_answer() {
    for error in [unavailable(), no_role(), unknown_tenant()] {
        let mut world = restarted(LIFE);
        let answer = without_fabrikam(error);
        assert_eq!(written_after(&mut world, answer), MINUTE, "{error:?}");
        assert_eq!(hosts(world.secret()), [CONTOSO, LITWARE]);
    }
}

#[test]
fn what_is_absent_waits_for_no_answer_longer_than_10_minutes() {
    let mut world = restarted(LIFE);
    let start = world.now;
    world.edit(|spec| spec.registries.push(world::registry(LITWARE)));
    let answer = |server: &str| (server != FABRIKAM).then_some(Ok(LIFE));
    while world.look_slowly(answer).writes().is_empty() {
        world.now = world.step().wake_at.unwrap();
        assert!(
            world.now <= start + MINUTE * 10,
            "{}",
            world.now.duration_since(start)
        );
    }
    assert_eq!(world.now, start + MINUTE * 10);
    assert_eq!(hosts(world.secret()), [CONTOSO, LITWARE]);
}

#[test]
fn an_answer_that_comes_late_counts_from_then() {
    let mut world = restarted(LIFE);
    let start = world.now;
    world.edit(|spec| spec.registries.push(world::registry(LITWARE)));
    world.look_slowly(|server| (server != FABRIKAM).then_some(Ok(LIFE)));
    world.advance(secs(100));
    world.mint_ends(FABRIKAM, Err(unavailable()));
    until_written(&mut world, without_fabrikam(unavailable()));
    assert_eq!(world.now.duration_since(start), secs(160));
}

#[test]
fn a_request_to_wait_is_no_answer() {
    let mut world = restarted(LIFE);
    let answer = without_fabrikam(throttled(MINUTE * 15));
    assert_eq!(written_after(&mut world, answer), MINUTE * 10);
}

#[test]
fn an_answer_after_a_request_to_wait_counts_from_then() {
    let mut world = restarted(LIFE);
    let mut is_first = true;
    let after = written_after(&mut world, |server| match server {
        FABRIKAM if std::mem::take(&mut is_first) => Err(throttled(secs(300))),
        FABRIKAM => Err(unavailable()),
        _ => Ok(LIFE),
    });
    assert!((secs(360)..=secs(365)).contains(&after), "{after}");
}

#[test]
fn a_request_to_wait_after_an_answer_prolongs_nothing() {
    let mut world = restarted(LIFE);
    let mut is_first = true;
    let after = written_after(&mut world, |server| match server {
        FABRIKAM if std::mem::take(&mut is_first) => Err(unavailable()),
        FABRIKAM => Err(throttled(secs(900))),
        _ => Ok(LIFE),
    });
    assert_eq!(after, MINUTE);
}

#[test]
fn of_several_sealed_ones_the_last_answer_counts() {
    let mut world = World::of(&[CONTOSO, FABRIKAM, LITWARE]);
    world.look();
    world.restart();
    let start = world.now;
    world.edit(|spec| drop(spec.registries.remove(0)));
    world.look_slowly(|_| None);
    world.advance(secs(10));
    world.mint_ends(FABRIKAM, Err(unavailable()));
    world.look_slowly(|_| None);
    world.advance(secs(20));
    world.mint_ends(LITWARE, Err(unavailable()));
    until_written(&mut world, |_| Err(unavailable()));
    assert_eq!(world.now.duration_since(start), secs(90));
    assert_eq!(hosts(world.secret()), Vec::<String>::new());
}

#[test]
fn what_must_leave_waits_60_seconds_from_the_first_answer() {
    let mut world = restarted(LIFE);
    let start = world.now;
    world.edit(|spec| drop(spec.registries.remove(0)));
    until_written(&mut world, |_| Err(unavailable()));
    assert_eq!(world.now.duration_since(start), MINUTE);
    assert_eq!(hosts(world.secret()), Vec::<String>::new());
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/UpstreamUnavailable"
    );
}

#[test]
fn what_must_leave_leaves_at_once_where_the_rest_can_be_minted() {
    for narrows in [false, true] {
        let mut world = restarted(LIFE);
        world.edit(|spec| {
            if narrows {
                spec.registries[0].repositories = Some(vec!["a".into()]);
            } else {
                spec.registries.remove(0);
            }
        });
        world.look();
        assert!(world.holds_all());
        assert_eq!(
            hosts(world.secret()).len(),
            world.facts.object.spec.registries.len()
        );
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn an_expired_one_waits_60_seconds_for_a_live_one() {
    let mut world = restarted(MINUTE * 60);
    world.advance(MINUTE * 61);
    let start = world.now;
    let minted = until_written(&mut world, without_fabrikam(unavailable()));
    assert_eq!(world.now.duration_since(start), MINUTE);
    assert_eq!(count(&minted, CONTOSO), 1);
}

#[test]
fn an_expired_one_holds_nothing() {
    let mut world = restarted(MINUTE * 60);
    world.advance(MINUTE * 61);
    let answer = |server: &str| {
        if server == CONTOSO {
            Err(unavailable())
        } else {
            Ok(LIFE)
        }
    };
    world.look_at(answer);
    let start = world.now;
    world.edit(|spec| spec.registries.push(world::registry(LITWARE)));
    until_written(&mut world, answer);
    assert_eq!(world.now, start);
    assert_eq!(hosts(world.secret()), [FABRIKAM, LITWARE]);
}

/// Until the verification has found that another client changed the Secret.
fn doubtful(answer: impl FnMut(&str) -> world::Answer) -> World {
    let mut world = restarted(LIFE);
    world.api.change(|secret| annotate(secret, "theirs", "x"));
    let start = world.now;
    world.pass(start + MINUTE * 12, answer);
    world
}

#[test]
fn after_a_conflict_at_verification_all_are_minted() {
    let world = doubtful(|_| Ok(LIFE));
    assert!(world.holds_all());
    assert_eq!(annotation(world.secret(), "theirs"), None);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_doubtful_entry_keeps_ready_while_its_life_lasts() {
    let mut world = doubtful(|_| Err(unavailable()));
    let expected = [
        "Ready=True/Issued",
        "RefreshFailing=True/UpstreamUnavailable",
    ];
    assert_eq!(conditions(world.status()), expected);
    let expiry = world.status().expires_at.clone().unwrap().0;
    for look in world.pass(expiry - secs(1), |_| Err(unavailable())) {
        assert!(
            look.writes().is_empty() && look.statuses.is_empty(),
            "{look:?}"
        );
    }
    world.pass(expiry, |_| Err(unavailable()));
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/UpstreamUnavailable"
    );
    assert_eq!(
        hosts(world.secret()),
        [CONTOSO, FABRIKAM],
        "nothing is removed"
    );
}

#[test]
fn a_doubtful_entry_holds_nothing() {
    let world = doubtful(without_fabrikam(unavailable()));
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/UpstreamUnavailable"
    );
}

#[test]
fn a_label_alone_waits_for_the_next_rotation() {
    let mut world = restarted(LIFE);
    let due_at = world.status().refresh_at.clone().unwrap().0;
    world.configure(|settings| settings.secret_metadata_prefixes = vec![String::new()]);
    world.edit(|spec| spec.secret = Some(template(&[("team", "a")], &[])));
    for look in world.pass(due_at - secs(1), |_| Ok(LIFE)) {
        assert!(
            look.mints.is_empty() && look.writes().is_empty(),
            "{look:?}"
        );
    }
    assert_eq!(conditions(world.status()), READY);
    let label = |world: &World| {
        world
            .secret()
            .metadata
            .labels
            .as_ref()?
            .get("team")
            .cloned()
    };
    assert_eq!(label(&world), None);
    world.until_minted(|_| Ok(LIFE));
    assert_eq!(label(&world).as_deref(), Some("a"));
}

#[test]
fn a_conflict_with_a_newer_version_in_the_status_seals_again() {
    for status_is_first in [true, false] {
        let mut world = restarted(LIFE);
        // Another replica leads for a moment, and a refresh is asked for.
        let mut other = restarted(LIFE);
        other.advance(secs(100));
        other.change(|object| {
            let annotations = object.metadata.annotations.get_or_insert_default();
            annotations.insert(crate::api::REFRESH_ANNOTATION.into(), "a".into());
        });
        assert_eq!(other.look().writes().len(), 1);
        world.now = other.now;
        world.restart();
        world.api = other.api.clone();
        let status = other.facts.object.status.clone();
        if status_is_first {
            world.change(|object| object.status = status.clone());
        }
        let start = world.now;
        let mut is_verified = false;
        while world.now < start + secs(720) {
            world.now = world.step().wake_at.unwrap();
            let look = world.look();
            assert!(
                look.writes().is_empty() && look.statuses.is_empty(),
                "{look:?}"
            );
            let is_verify = matches!(look.calls[..], [SecretCall::Verify(_)]);
            if is_verify && !status_is_first && !is_verified {
                world.change(|object| object.status = status.clone());
            }
            is_verified |= is_verify;
        }
        assert!(is_verified);
        assert_eq!(world.secret(), other.secret());
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn a_forged_version_in_the_status_is_unknown() {
    let forged = [
        "0",
        "x",
        "-1",
        "",
        "+1",
        " 1",
        "1.0",
        "99999999999999999999999",
    ];
    for version in forged {
        let mut world = restarted(LIFE);
        world.change(|object| {
            let status = object.status.as_mut().unwrap();
            status.secret.as_mut().unwrap().resource_version = version.into();
        });
        world.restart();
        let start = world.now;
        for look in world.pass(start + secs(900), |_| Ok(LIFE)) {
            for call in &look.calls {
                let sent = call.secret().metadata.resource_version.as_deref();
                assert_ne!(sent, Some(version), "{call:?}");
            }
        }
        assert_eq!(conditions(world.status()), READY, "{version:?}");
        assert!(world.holds_all(), "{version:?}");
    }
}

#[test]
fn forged_rows_of_the_status_gain_nothing() {
    for forged in [
        "",
        "x",
        "controller:::",
        "serviceaccount:a:b",
        &"a".repeat(10_000),
    ] {
        let mut world = restarted(LIFE);
        world.change(|object| {
            let status = object.status.as_mut().unwrap();
            status.registries[0].issued_for = Some(forged.into());
        });
        world.restart();
        let look = world.look();
        assert_eq!(look.minted(), [CONTOSO, FABRIKAM], "{forged}");
        assert!(world.holds_all());
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn an_unrecorded_write_costs_one_mint_after_a_restart() {
    // The process ended between the write of the Secret and that of the status.
    let mut world = World::ready(&[CONTOSO]);
    world.advance(LIFE / 2);
    let status = world.facts.object.status.clone();
    world.look();
    world.change(|object| object.status = status);
    world.restart();
    let start = world.now;
    let looks = world.pass(start + secs(720), |_| Ok(LIFE));
    assert!(looks.iter().flat_map(Look::minted).count() <= 2);
    assert!(world.holds_all());
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn memory_stays_valid_while_the_status_names_our_version() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    // The lease is lost and won again; the watch delivers the object once more.
    world.change(|_| {});
    world.api.secret = None;
    let start = world.now;
    for look in world.pass(start + secs(600), |_| Ok(LIFE)) {
        assert!(look.mints.is_empty(), "{look:?}");
    }
    assert!(world.holds_all());
}

#[test]
fn deleting_the_status_keeps_known_tokens() {
    let mut world = World::ready(&[CONTOSO]);
    world.change(|object| object.status = None);
    let look = world.look();
    assert!(
        look.mints.is_empty() && look.writes().is_empty(),
        "{look:?}"
    );
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn entries_of_a_secret_that_was_re_created_while_it_could_not_be_written_are_issued_again() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.restart();
    world.api.change(|secret| secret.immutable = Some(true));
    world.advance(LIFE / 2);
    let until = world.now + secs(60);
    world.pass(until, |_| Ok(LIFE));
    let refused = ["Ready=True/Issued", "RefreshFailing=True/SecretImmutable"];
    assert_eq!(conditions(world.status()), refused);
    // Its user deletes it and creates another one of ours, empty.
    world.api.change(|secret| {
        secret.immutable = None;
        secret.metadata.uid = Some("another".into());
        secret.data = None;
    });
    let until = world.now + secs(700);
    world.pass(until, |_| Ok(LIFE));
    assert!(world.holds_all(), "{:?}", world.secret());
    assert_eq!(conditions(world.status()), READY);
}
