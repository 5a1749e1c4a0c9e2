//! Whatever happens, in whatever order: [`World`] checks what must hold at every look.

use super::repositories::insufficient;
use super::*;

/// `SplitMix64`: the same sequence for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let sides = u64::try_from(of.len()).unwrap();
        of[usize::try_from(self.roll(sides)).unwrap()].clone()
    }

    fn answer(&mut self) -> world::Answer {
        self.pick(&[
            Ok(LIFE),
            Ok(LIFE),
            Ok(secs(1)),
            Ok(secs(30)),
            Ok(SignedDuration::from_hours(90_000)),
            Err(unavailable()),
            Err(no_role()),
            Err(unknown_tenant()),
            Err(throttled(secs(90))),
            Err(MintError::new(Hop::Entra, Cause::ExpiredOnArrival)),
            Err(MintError::new(Hop::Token, Cause::ExcessiveScope)),
            Err(insufficient(&["a", "b"], &["b"])),
        ])
    }
}

const EVENTS: [fn(&mut World, &mut Dice); 26] = [
    |w, _| w.restart(),
    |w, _| w.secret = None,
    |w, _| w.edit(|spec| spec.suspend = !spec.suspend),
    |w, _| w.forbid_everything(),
    |w, _| w.settings.policy = Policy::new(vec![PolicyRule::new("demo", "*")]),
    |w, _| w.settings.policy = Policy::new(vec![PolicyRule::new("*", "contoso*")]),
    |w, _| w.refuses_writes = !w.refuses_writes,
    |w, _| w.believed = Some(w.observed(None).secret),
    |w, _| w.federation = Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
    |w, _| w.federation = World::of(&[]).federation,
    |w, _| {
        w.edit(|spec| {
            spec.identity = match spec.identity {
                Some(_) => None,
                None => Some(crate::api::ServiceAccountIdentity {
                    service_account_name: "puller".into(),
                    client_id: None,
                    tenant_id: None,
                }),
            };
        });
    },
    |w, dice| {
        let account = |client_id: &str| {
            ServiceAccountState::Found(Box::new(ServiceAccountFacts {
                uid: "u".into(),
                client_id: Some(client_id.into()),
                tenant_id: Some("contoso.com".into()),
                audience: None,
            }))
        };
        w.service_account = dice.pick(&[
            ServiceAccountState::Unread,
            ServiceAccountState::Missing,
            ServiceAccountState::Forbidden,
            account("33333333-3333-3333-3333-333333333333"),
            account("../x"),
        ]);
    },
    |w, dice| {
        let now = w.now;
        let value = dice.pick(&["a", "b", "c", "!"]);
        let annotations = w.object.metadata.annotations.get_or_insert_default();
        annotations.insert(crate::api::REFRESH_ANNOTATION.into(), value.into());
        w.refresh = RefreshRequest::of(&w.object, w.refresh.as_ref(), |_| now);
    },
    |w, _| w.ask_for("https://management.azure.com"),
    |w, _| {
        w.edit(|spec| {
            spec.attach = Some(crate::api::Attach {
                service_accounts: vec![],
            });
        });
    },
    |w, _| w.edit(|spec| spec.attach = None),
    |w, dice| {
        let server = dice.pick(&[CONTOSO, FABRIKAM, LITWARE, "evil.example", "x.azurecr.cn"]);
        let position = w
            .object
            .spec
            .registries
            .iter()
            .position(|r| r.server == server);
        w.edit(|spec| match position {
            Some(position) => drop(spec.registries.remove(position)),
            None => spec.registries.push(world::registry(server)),
        });
    },
    |w, dice| {
        let names = dice.pick(&[None, Some(&["a"][..]), Some(&["b"]), Some(&["a", "b"])]);
        w.edit(|spec| {
            if let Some(registry) = spec.registries.first_mut() {
                let names = names.map(|names| names.iter().map(ToString::to_string));
                registry.repositories = names.map(Iterator::collect);
            }
        });
    },
    |w, _| w.edit(|spec| spec.secret = Some(template(&[("a", "1"), ("b!", "2")], &[("c", "3")]))),
    |w, _| w.edit(|spec| spec.secret = None),
    |w, dice| w.settings.secret_metadata_prefixes = dice.pick(&[vec![], vec![String::new()]]),
    |w, dice| {
        on_secret(w, |secret| {
            set_payload(secret, dice.pick(&["", "x", r#"{"auths":{"a":{}}}"#]));
        });
    },
    |w, _| on_secret(w, |secret| secret.metadata.owner_references = None),
    |w, _| on_secret(w, |secret| secret.metadata.annotations = None),
    |w, _| on_secret(w, |secret| annotate(secret, ADOPT_ANNOTATION, "acr")),
    |w, dice| {
        on_secret(w, |secret| {
            secret.immutable = dice.pick(&[None, Some(true)]);
        });
    },
];

fn on_secret(world: &mut World, edit: impl FnOnce(&mut Secret)) {
    if let Some(secret) = &mut world.secret {
        edit(secret);
        let version = secret.metadata.resource_version.get_or_insert_default();
        version.push('x');
    }
}

/// All obstacles gone, but for failures that are remembered.
fn heal(world: &mut World) {
    let fresh = World::of(&[CONTOSO]);
    world.settings = fresh.settings;
    world.federation = fresh.federation;
    world.refuses_writes = false;
    world.believed = None;
    world.secret = None;
    world.edit(|spec| *spec = fresh.object.spec);
}

#[test]
fn whatever_happens_the_rules_hold_and_it_heals() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let mut world = World::of(&[CONTOSO, FABRIKAM]);
        let mut look = world.look_at(|_| dice.answer());
        for _ in 0..40 {
            if dice.roll(2) == 0 {
                let event = dice.pick(&EVENTS);
                event(&mut world, &mut dice);
            }
            match (dice.roll(4), look.settled.wake_at) {
                (0, _) => {}
                (1, Some(wake_at)) => world.now = world.now.max(wake_at),
                _ => {
                    let step = dice.pick(&[1, 10, 60, 600, 5_000, 20_000]);
                    world.advance(secs(step));
                }
            }
            look = world.look_at(|_| dice.answer());
        }
        heal(&mut world);
        look = world.look();
        for _ in 0..3 {
            if look.settled.wake_at.is_some() && conditions(world.status()) != READY {
                look = world.wake(&look, |_| Ok(LIFE));
            }
        }
        assert_eq!(conditions(world.status()), READY, "seed {seed}");
    }
}

#[test]
fn nothing_ever_makes_it_hasty() {
    for error in [
        unavailable(),
        no_role(),
        unknown_tenant(),
        throttled(secs(0)),
    ] {
        for (refuses_writes, held) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut world = if held {
                World::ready(&[CONTOSO])
            } else {
                World::of(&[CONTOSO])
            };
            world.refuses_writes = refuses_writes;
            let start = world.now;
            let mut look = world.look_failing(error);
            let mut looks = 0;
            while world.now < start + SignedDuration::from_hours(6) {
                look = world.wake(
                    &look,
                    |_| if refuses_writes { Ok(LIFE) } else { Err(error) },
                );
                looks += 1;
            }
            assert!(
                looks < 6 * 60 * 2,
                "{error:?}, {refuses_writes}: {looks} looks in six hours"
            );
        }
    }
}
