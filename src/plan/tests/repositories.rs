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
pub(super) fn insufficient(asked: &[&str], missing: &[&str]) -> MintError {
    let granted = asked.iter().copied().filter(|name| !missing.contains(name));
    let now = Timestamp::UNIX_EPOCH;
    let token = tokens::limited_token(0, now, now, granted);
    let asked = Repositories::new(&of(asked)).unwrap();
    let granted = crate::credential::Granted::by(&token);
    asked.check(&granted).unwrap_err()
}

#[test]
fn what_is_minted_is_what_the_spec_says() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    limit(&mut world, Some(&["team/b", "team/a"]));
    let look = world.look();
    let scopes = look.plan.mints().map(|mint| &mint.entitlement.scope);
    let names: Vec<Vec<&str>> = scopes.map(|scope| scope.names().collect()).collect();
    assert_eq!(names, [vec!["team/a", "team/b"], vec![]]);
    assert_eq!(conditions(world.status()), READY);
    world.restart();
    assert!(world.look().is_idle());
}

#[test]
fn the_order_of_the_names_means_nothing() {
    let mut world = ready(Some(&["a", "b"]));
    limit(&mut world, Some(&["b", "a"]));
    let look = world.look();
    assert!(look.is_idle(), "{look:?}", look = look.writes);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_registry_wide_credential_has_the_digest_that_it_always_had() {
    let world = World::ready(&[CONTOSO]);
    let server = Clouds::default().login_server(CONTOSO).unwrap();
    let identity = crate::plan::identity::identity(&world.observed(None), &server).unwrap();
    let digest = |scope: &Scope| identity.digest(&server, scope);
    let before = crate::credential::Digest::of_parts([
        "https://login.microsoftonline.com",
        "22222222-2222-2222-2222-222222222222",
        "11111111-1111-1111-1111-111111111111",
        "https://containerregistry.azure.net",
        "system:serviceaccount:acrcred-system:acrcred",
        CONTOSO,
    ]);
    let limited = |names| Scope::Repositories(Repositories::new(&of(names)).unwrap());
    assert_eq!(digest(&Scope::Registry), before);
    assert_ne!(digest(&limited(&["a"])), before);
    assert_ne!(digest(&limited(&["a"])), digest(&limited(&["a", "b"])));
}

#[test]
fn what_is_wider_than_the_spec_goes_before_anything_is_minted() {
    for (from, to) in [
        (ALL, Some(&["a"][..])),
        (Some(&["a", "b"][..]), Some(&["a"][..])),
        (Some(&["a", "b"][..]), Some(&["b", "c"][..])),
        (Some(&["a"][..]), Some(&["a/b"][..])),
    ] {
        let mut world = ready(from);
        let before = world.secret().clone();
        limit(&mut world, to);
        let look = world.look();
        assert_eq!(look.minted(), Vec::<&str>::new(), "{from:?} {to:?}");
        assert_eq!(look.writes.len(), 1);
        assert_eq!(hosts(world.secret()), [FABRIKAM]);
        assert_eq!(entry(world.secret(), FABRIKAM), entry(&before, FABRIKAM));
        assert_eq!(
            conditions(world.status()),
            ["Ready=False/Progressing", "Reconciling=True/Progressing"]
        );
        assert_eq!(look.note(), None);
        assert_eq!(look.settled.wake_at, Some(world.now), "and is then minted");
        assert_eq!(world.wake(&look, |_| Ok(LIFE)).minted(), [CONTOSO]);
        assert_eq!(conditions(world.status()), READY);
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
            |w| w.federation = Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
            "Ready=False/InvalidIdentity",
        ),
        (
            |w| {
                w.look_failing(throttled(SignedDuration::from_mins(15)));
            },
            "Ready=False/Throttled",
        ),
    ];
    for (obstacle, condition) in obstacles {
        let mut world = ready(Some(&["a", "b"]));
        if condition.contains("Throttled") {
            world.advance(LIFE / 2);
        }
        obstacle(&mut world);
        limit(&mut world, Some(&["a"]));
        world.look();
        assert_eq!(hosts(world.secret()), [FABRIKAM], "{condition}");
        assert_eq!(conditions(world.status())[0], condition);
    }
}

#[test]
fn what_is_narrower_stays_until_there_is_a_wider_one() {
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
        assert_eq!(
            conditions(world.status()),
            [
                "Ready=True/Issued",
                "RefreshFailing=True/UpstreamUnavailable"
            ]
        );
        world.wake(&look, |_| Ok(LIFE));
        assert_ne!(entry(world.secret(), CONTOSO), before);
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn a_planted_token_that_is_wider_goes_at_once() {
    let mut world = ready(Some(&["a"]));
    let planted = tokens::token(666, Some(world.now), world.now + LIFE);
    let mut config = payload(world.secret());
    let wide = DockerConfig {
        tokens: [(CONTOSO.to_owned(), planted)].into(),
    };
    let wide: Value = serde_json::from_slice(&wide.encode()).unwrap();
    config["auths"][CONTOSO] = wide["auths"][CONTOSO].clone();
    set_payload(world.secret(), config.to_string());
    let look = world.look_failing(unavailable());
    assert_eq!(look.minted(), Vec::<&str>::new());
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
    assert_eq!(world.wake(&look, |_| Ok(LIFE)).minted(), [CONTOSO]);
}

#[test]
fn what_goes_does_not_wait_for_what_is_minted() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(LIFE / 2);
    world.settings.policy = Policy::new(vec![PolicyRule::new("demo", FABRIKAM)]);
    let look = world.look();
    assert_eq!((look.minted(), look.writes.len()), (vec![], 1));
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
    assert_eq!(world.wake(&look, |_| Ok(LIFE)).minted(), [FABRIKAM]);
}

#[test]
fn less_than_was_asked_for_is_named() {
    let asked = ["a", "b", "c"];
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&asked));
    let look = world.look_failing(insufficient(&asked, &["a", "c"]));
    assert_eq!(
        conditions(world.status()),
        [
            "Ready=False/InsufficientScope",
            "Reconciling=True/InsufficientScope"
        ]
    );
    let told = message(world.status(), ConditionType::Ready);
    assert!(told.ends_with("(not granted: a, c)"), "{told}");
    for role in ["AcrPull", "Container Registry Repository Reader", "az role"] {
        assert!(told.contains(role), "{told}");
    }
    world.wake(&look, |_| Ok(LIFE));
    let before = entry(world.secret(), CONTOSO);
    world.advance(LIFE / 2);
    world.look_failing(insufficient(&asked, &["b"]));
    assert_eq!(
        conditions(world.status()),
        ["Ready=True/Issued", "RefreshFailing=True/InsufficientScope"]
    );
    let told = message(world.status(), ConditionType::RefreshFailing);
    assert!(told.ends_with("(not granted: b)"), "{told}");
    assert_eq!(entry(world.secret(), CONTOSO), before);
}

#[test]
fn names_of_another_spec_are_not_told() {
    let asked = ["a", "b"];
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&asked));
    world.look_failing(insufficient(&asked, &["b"]));
    limit(&mut world, Some(&["a", "innocent"]));
    world.look_failing(throttled(secs(60)));
    limit(&mut world, Some(&["x", "y"]));
    world.attempts.values_mut().for_each(|attempt| {
        attempt.error = insufficient(&asked, &["b"]);
    });
    world.look();
    let told = message(world.status(), ConditionType::Ready);
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/InsufficientScope"
    );
    assert!(!told.contains("not granted"), "{told}");
}

#[test]
fn a_role_that_is_too_narrow_is_terminal_after_a_quarter_of_an_hour() {
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&["a"]));
    let end = world.now + SignedDuration::from_mins(16);
    let mut look = world.look_failing(insufficient(&["a"], &["a"]));
    while look.settled.wake_at.is_some_and(|at| at <= end) {
        look = world.wake(&look, |_| Err(insufficient(&["a"], &["a"])));
    }
    assert_eq!(
        conditions(world.status())[1],
        "Stalled=True/InsufficientScope"
    );
}

#[test]
fn more_than_was_asked_for_is_never_held() {
    let mut world = World::of(&[CONTOSO]);
    limit(&mut world, Some(&["a"]));
    let look = world.look_failing(MintError::new(Hop::Token, Cause::ExcessiveScope));
    assert_eq!(look.writes, []);
    assert_eq!(conditions(world.status())[0], "Ready=False/MalformedAnswer");
}

#[test]
fn names_that_the_schema_would_refuse_are_refused_without_being_repeated() {
    let many: Vec<String> = (0..65).map(|n| format!("r{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for names in [&[][..], &["*"], &["evil\n"], &["evil:tag"], &many] {
        let mut world = World::of(&[CONTOSO]);
        limit(&mut world, Some(names));
        assert!(world.look().is_idle(), "{names:?}");
        assert_eq!(
            conditions(world.status())[0],
            "Ready=False/FieldNotSupported"
        );
        let told = message(world.status(), ConditionType::Ready);
        assert!(!told.contains("evil"), "{told}");
    }
}
