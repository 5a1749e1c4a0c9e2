//! Credentials that are limited to repositories: narrowed at once, widened when there is a wider one.

use super::*;
use crate::credential::Repositories;

const ALL: Option<&[&str]> = None;

fn of(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn limit(world: &mut World, repositories: Option<&[&str]>) {
    world.edit(|spec| spec.registries[0].repositories = repositories.map(of));
}

/// With a credential for CONTOSO, limited or not, and one for all of FABRIKAM.
fn ready(repositories: Option<&[&str]>) -> World {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    limit(&mut world, repositories);
    world.look();
    assert_eq!(conditions(world.status()), READY);
    world.advance(secs(60));
    world
}

/// That `missing` of `asked` was not granted.
fn insufficient(asked: &[&str], missing: &[&str]) -> MintError {
    let granted = asked.iter().copied().filter(|name| !missing.contains(name));
    let now = Timestamp::UNIX_EPOCH;
    let token = tokens::limited_token(0, now, now, granted);
    let asked = Repositories::new(&of(asked)).unwrap();
    asked.check(&token).unwrap_err()
}

#[test]
fn what_is_minted_is_what_the_spec_says() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    limit(&mut world, Some(&["team/b", "team/a"]));
    let limited = SignedDuration::from_mins(75);
    let look = world.look_at(|server| Ok(if server == CONTOSO { limited } else { LIFE }));
    let scopes = look.mints.iter().map(|mint| &mint.scope);
    let names: Vec<Vec<&str>> = scopes.map(|scope| scope.names().collect()).collect();
    assert_eq!(names, [vec!["team/a", "team/b"], vec![]]);
    assert_eq!(conditions(world.status()), READY);
    world.restart();
    let look = world.look();
    assert!(look.is_idle(), "{look:?}");
}

#[test]
fn the_order_of_the_names_means_nothing() {
    for is_restarted in [false, true] {
        let mut world = ready(Some(&["a", "b"]));
        if is_restarted {
            world.restart();
        }
        limit(&mut world, Some(&["b", "a"]));
        let look = world.look();
        assert!(look.mints.is_empty() && look.calls.is_empty(), "{look:?}");
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn a_wider_credential_leaves_before_a_narrower_one_comes() {
    for (from, to) in [
        (ALL, Some(&["a"][..])),
        (Some(&["a", "b"][..]), Some(&["a"][..])),
        (Some(&["a", "b"][..]), Some(&["b", "c"][..])),
        (Some(&["a"][..]), Some(&["a/b"][..])),
    ] {
        let mut world = ready(from);
        let before = world.secret().clone();
        limit(&mut world, to);
        // A mint that takes long delays nothing.
        let look = world.look_slowly(|_| None);
        assert_eq!(look.minted(), [CONTOSO], "{from:?} {to:?}");
        assert_eq!(look.writes().len(), 1);
        assert_eq!(hosts(world.secret()), [FABRIKAM]);
        assert_eq!(entry(world.secret(), FABRIKAM), entry(&before, FABRIKAM));
        let expected = ["Ready=False/Progressing", "Reconciling=True/Progressing"];
        assert_eq!(conditions(world.status()), expected);
        assert_eq!(look.event(), None);
        world.mint_ends(CONTOSO, Ok(LIFE));
        world.look();
        assert_eq!(conditions(world.status()), READY);
        assert!(world.holds_all());
    }
}

#[test]
fn narrowing_waits_for_nothing() {
    type Obstacle = fn(&mut World);
    let obstacles: [(Obstacle, &str); 4] = [
        (
            |w| w.edit(|spec| spec.suspend = true),
            "Ready=False/Suspended",
        ),
        (
            |w| {
                w.edit(|spec| {
                    spec.attach = Some(crate::api::Attach {
                        service_accounts: vec!["a".into()],
                    });
                });
            },
            "Ready=False/FieldNotSupported",
        ),
        (
            |w| {
                let none = Err(MintError::new(Hop::Assertion, Cause::NoAssertion));
                w.learn(|cluster| cluster.own = none);
            },
            "Ready=False/InvalidIdentity",
        ),
        (
            |w| {
                w.advance(LIFE / 2);
                w.look_failing(throttled(SignedDuration::from_mins(15)));
            },
            "Ready=False/Throttled",
        ),
    ];
    for (obstacle, condition) in obstacles {
        let mut world = ready(Some(&["a", "b"]));
        obstacle(&mut world);
        limit(&mut world, Some(&["a"]));
        world.look();
        assert_eq!(hosts(world.secret()), [FABRIKAM], "{condition}");
        assert_eq!(conditions(world.status())[0], condition);
    }
}

#[test]
fn a_narrower_credential_stays_until_there_is_a_wider_one() {
    for (from, to) in [
        (&["a"][..], ALL),
        (&["a"][..], Some(&["a", "b"][..])),
        (&["a", "b"][..], Some(&["c", "b", "a"][..])),
    ] {
        let mut world = ready(Some(from));
        let before = entry(world.secret(), CONTOSO);
        limit(&mut world, to);
        let look = world.look_failing(unavailable());
        assert_eq!(look.minted(), [CONTOSO], "{from:?} {to:?}");
        assert_eq!(entry(world.secret(), CONTOSO), before);
        let expected = [
            "Ready=True/Issued",
            "RefreshFailing=True/UpstreamUnavailable",
        ];
        assert_eq!(conditions(world.status()), expected);
        world.until_minted(|_| Ok(LIFE));
        assert_ne!(entry(world.secret(), CONTOSO), before);
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn what_leaves_does_not_wait_for_what_is_minted() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(LIFE / 2);
    let rule = format!("demo/{FABRIKAM}").parse().unwrap();
    world.configure(|settings| settings.policy = Policy(vec![rule]));
    let look = world.look_slowly(|_| None);
    assert_eq!((look.minted(), look.writes().len()), (vec![FABRIKAM], 1));
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
    world.mint_ends(FABRIKAM, Ok(LIFE));
    assert_eq!(world.look().writes().len(), 1);
}

#[test]
fn repositories_that_were_not_granted_are_named() {
    let asked = ["a", "b", "c"];
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&asked));
    world.look_failing(insufficient(&asked, &["a", "c"]));
    let expected = [
        "Ready=False/InsufficientScope",
        "Reconciling=True/InsufficientScope",
    ];
    assert_eq!(conditions(world.status()), expected);
    let text = message(world.status(), ConditionType::Ready);
    assert!(text.ends_with("(not granted: a, c)"), "{text}");
    for role in ["AcrPull", "Container Registry Repository Reader", "az role"] {
        assert!(text.contains(role), "{text}");
    }
    world.until_minted(|_| Ok(LIFE));
    let before = entry(world.secret(), CONTOSO);
    world.advance(LIFE / 2);
    world.look_failing(insufficient(&asked, &["b"]));
    let expected = ["Ready=True/Issued", "RefreshFailing=True/InsufficientScope"];
    assert_eq!(conditions(world.status()), expected);
    let text = message(world.status(), ConditionType::RefreshFailing);
    assert!(text.ends_with("(not granted: b)"), "{text}");
    assert_eq!(entry(world.secret(), CONTOSO), before);
}

#[test]
fn names_of_another_spec_are_not_shown() {
    let asked = ["a", "b"];
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&asked));
    world.look_failing(insufficient(&asked, &["b"]));
    limit(&mut world, Some(&["x", "y"]));
    // No attempt yet for this spec.
    world.look_slowly(|_| None);
    world.pass(world.now + secs(3), |_| Ok(LIFE));
    let text = message(world.status(), ConditionType::Ready);
    assert!(!text.contains("not granted"), "{text}");
}

#[test]
fn a_role_that_is_too_narrow_is_terminal_after_15_minutes() {
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&["a"]));
    let end = world.now + SignedDuration::from_mins(17);
    world.look_failing(insufficient(&["a"], &["a"]));
    world.pass(end, |_| Err(insufficient(&["a"], &["a"])));
    assert_eq!(
        conditions(world.status())[1],
        "Stalled=True/InsufficientScope"
    );
}

#[test]
fn a_credential_for_more_than_was_asked_for_is_never_held() {
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&["a"]));
    let look = world.look_failing(MintError::new(Hop::Token, Cause::ExcessiveScope));
    assert!(look.calls.is_empty());
    assert_eq!(conditions(world.status())[0], "Ready=False/MalformedAnswer");
}

#[test]
fn invalid_names_are_refused_without_being_repeated() {
    let many: Vec<String> = (0..65).map(|n| format!("r{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for names in [&[][..], &["*"], &["evil\n"], &["evil:tag"], &many] {
        let mut world = World::of(&[CONTOSO]);
        limit(&mut world, Some(names));
        let look = world.look();
        assert!(look.mints.is_empty() && look.calls.is_empty(), "{names:?}");
        assert_eq!(
            conditions(world.status())[0],
            "Ready=False/FieldNotSupported"
        );
        let text = message(world.status(), ConditionType::Ready);
        assert!(!text.contains("evil"), "{text}");
    }
}

#[test]
fn what_a_credential_is_issued_for_reads_the_same_forever() {
    // Another text would make every new process of another version mint everything.
    let mut world = World::of(&[CONTOSO]);
    world.look();
    let stated = |world: &World| world.status().registries[0].issued_for.clone().unwrap();
    let identity = "controller:305dac6e7d9055ad2430743a7aa82642";
    let expected = format!("{identity}:e3b0c44298fc1c149afbf4c8996fb924");
    assert_eq!(stated(&world), expected);
    limit(&mut world, Some(&["a"]));
    world.look();
    let of_one = stated(&world);
    limit(&mut world, Some(&["a", "b"]));
    world.look();
    assert!(of_one.starts_with(identity) && stated(&world).starts_with(identity));
    assert!(of_one != stated(&world) && of_one != expected);
}
