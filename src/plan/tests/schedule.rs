//! When a credential is refreshed, and that nobody is woken for nothing.

use super::*;

/// When the only registry of a new object is due after its mint.
fn refresh_after(uid: &str, fraction: f64, life: SignedDuration) -> SignedDuration {
    let mut world = World::of(&[CONTOSO]);
    world.object.metadata.uid = Some(uid.into());
    world.settings.refresh_fraction = fraction;
    world.look_at(|_| Ok(life));
    let status = world.status().clone();
    let expiry = status.expires_at.unwrap().0;
    let observed = world.observed(None);
    let lifetime = *world.known.values().next().unwrap();
    assert_eq!(expiry.as_second(), lifetime.end.as_second());
    crate::plan::schedule::refresh_at(&lifetime, &observed).duration_since(world.now)
}

#[test]
fn refreshed_at_a_fraction_of_the_life_less_up_to_a_tenth() {
    for (fraction, latest) in [(0.5, LIFE / 2), (0.8, LIFE * 8 / 10), (0.1, LIFE / 10)] {
        let waits: Vec<_> = (0..200)
            .map(|i| refresh_after(&format!("uid-{i}"), fraction, LIFE))
            .collect();
        let earliest = (latest - LIFE / 10).max(secs(10));
        let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!((earliest..=latest).contains(first), "{fraction}: {first:?}");
        assert!((earliest..=latest).contains(last), "{fraction}: {last:?}");
        assert!(
            *last - *first > LIFE * 8 / 100,
            "{fraction}: spread over the whole window"
        );
        assert_eq!(
            refresh_after("uid-7", fraction, LIFE),
            waits[7],
            "the same each time"
        );
    }
}

#[test]
fn short_lives_have_a_floor_and_endless_ones_end_within_a_day() {
    let century = SignedDuration::from_hours(24 * 365 * 100);
    let day = SignedDuration::from_hours(24);
    for (life, earliest, latest) in [
        (secs(1), secs(10), secs(10)),
        (secs(15), secs(10), secs(10)),
        (secs(100), secs(40), secs(50)),
        (day, day * 4 / 10, day / 2),
        (century, day * 4 / 10, day / 2),
    ] {
        let wait = refresh_after("uid-1", 0.5, life);
        assert!((earliest..=latest).contains(&wait), "{life:?}: {wait:?}");
    }
}

#[test]
fn an_expiry_in_the_year_9999_is_looked_at_again_within_a_day() {
    let exp: Timestamp = "9999-12-30T00:00:00Z".parse().unwrap();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut world = World::of(&[CONTOSO]);
    let look = world.look_at(|_| Ok(exp.duration_since(now)));
    let wait = look.settled.wake_at.unwrap().duration_since(now);
    assert!(wait <= SignedDuration::from_hours(12), "{wait:?}");
    world.advance(SignedDuration::from_hours(24));
    assert_eq!(world.plan().mints().count(), 1);
}

#[test]
fn a_wake_comes_exactly_when_the_refresh_is_due() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let mut look = world.look();
    for round in 0..20 {
        let wake_at = look.settled.wake_at.unwrap();
        world.now = wake_at - SignedDuration::from_nanos(1);
        assert_eq!(world.plan().mints().count(), 0, "round {round}: early");
        look = world.wake(&look, |_| Ok(LIFE));
        assert!(
            !look.minted().is_empty(),
            "round {round}: woken for nothing"
        );
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn a_renewal_wants_a_newer_credential_than_it_has() {
    let mut world = World::of(&[CONTOSO]);
    let minted_at = world.now;
    let look = world.look();
    world.now = look.settled.wake_at.unwrap();
    let plan = world.plan();
    assert_eq!(plan.mints().next().unwrap().newer_than, Some(minted_at));
}

#[test]
fn a_token_of_a_second_is_dead_for_a_while_but_never_a_hot_loop() {
    let mut world = World::of(&[CONTOSO]);
    let start = world.now;
    let mut look = world.look_at(|_| Ok(secs(1)));
    let mut mints = 1;
    while world.now < start + secs(600) {
        look = world.wake(&look, |_| Ok(secs(1)));
        mints += look.minted().len();
    }
    assert!((55..=61).contains(&mints), "{mints} in ten minutes");
}

#[test]
fn a_restart_mints_nothing_that_is_fresh_and_writes_nothing() {
    let millis = SignedDuration::from_millis;
    // How long the token was on its way, and how long after the mint we restart.
    for (on_its_way, after) in [
        (millis(0), secs(0)),
        (millis(0), secs(3_000)),
        (millis(300), secs(3_000)),
        (millis(700), secs(1)),
        (millis(2_900), secs(3_000)),
    ] {
        let mut world = World::of(&[CONTOSO, FABRIKAM]);
        world.look();
        age(&mut world, on_its_way);
        let before = world
            .look()
            .settled
            .status
            .unwrap_or(world.status().clone());
        world.advance(after);
        world.restart();
        let look = world.look();
        assert!(look.is_idle());
        assert_eq!(
            look.settled.status, None,
            "{on_its_way:?} {after:?}: was {before:?}"
        );
    }
}

/// As if the tokens had arrived later than they were issued.
fn age(world: &mut World, by: SignedDuration) {
    for lifetime in world.known.values_mut() {
        lifetime.start += by;
    }
    world.object.status = None;
    world.advance(by);
}

#[test]
fn a_restart_mints_at_once_what_expired_meanwhile() {
    let mut world = World::ready(&[CONTOSO]);
    world.restart();
    world.advance(LIFE + secs(1));
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_token_without_iat_does_not_grow_younger() {
    let mut world = World::ready(&[CONTOSO]);
    let exp = world.now + LIFE;
    let token = tokens::token(99, None, exp);
    let config = DockerConfig {
        tokens: [(CONTOSO.to_owned(), token.clone())].into(),
    };
    let mut minted: Value =
        serde_json::from_str(annotation(world.secret(), MINTED_ANNOTATION).unwrap()).unwrap();
    minted["registries"][CONTOSO]["token"] = token.digest().as_str().into();
    annotate(world.secret(), MINTED_ANNOTATION, &minted.to_string());
    set_payload(world.secret(), config.encode());
    let first = world.look();
    world.advance(secs(2_000));
    assert_eq!(world.look().settled.wake_at, first.settled.wake_at);
}
