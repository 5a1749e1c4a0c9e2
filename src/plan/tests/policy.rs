//! What an object may get. A refusal comes before any mint, and takes away what was given.

use super::*;
use crate::api::Attach;

const STALLED: [&str; 2] = [
    "Ready=False/ControllerIdentityNotAllowed",
    "Stalled=True/ControllerIdentityNotAllowed",
];

/// That the one write took away all but `left`, from just the Secret that was there.
fn assert_shrunk(world: &mut World, look: &Look, before: &Secret, left: &[&str]) {
    let [SecretWrite::Apply(applied)] = &look.writes[..] else {
        panic!("{:?}", look.writes)
    };
    assert_eq!(applied.metadata.uid, before.metadata.uid);
    assert_eq!(
        applied.metadata.resource_version,
        before.metadata.resource_version
    );
    assert_eq!(hosts(world.secret()), left);
    for host in left {
        assert_eq!(entry(world.secret(), host), entry(before, host));
    }
    assert_eq!(look.minted(), Vec::<&str>::new());
}

#[test]
fn a_namespace_that_the_policy_does_not_name_gets_nothing() {
    for namespace in ["other", "demo2", ""] {
        let mut world = World::of(&[CONTOSO]);
        world.object.metadata.namespace = Some(namespace.into());
        let look = world.look();
        assert!(look.is_idle(), "{namespace}");
        assert_eq!(conditions(world.status()), STALLED);
        assert_eq!(look.settled.wake_at, None);
        assert_eq!(world.status().identity, None);
        let told = message(world.status(), ConditionType::Ready);
        assert!(
            told.ends_with(&format!(
                "--allow-controller-identity {namespace}/{CONTOSO}"
            )),
            "{told}"
        );
    }
}

#[test]
fn a_policy_for_one_registry_is_none_for_another() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    world.settings.policy = Policy::new(vec![PolicyRule::new("demo", CONTOSO)]);
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    assert_eq!(conditions(world.status()), STALLED);
}

#[test]
fn a_revoked_entitlement_takes_its_entry_at_once() {
    for suspend in [false, true] {
        for (change, left, reason) in [
            (
                (|w| w.settings.policy = Policy::new(vec![PolicyRule::new("demo", FABRIKAM)]))
                    as fn(&mut World),
                &[FABRIKAM][..],
                "Ready=False/ControllerIdentityNotAllowed",
            ),
            (|w| w.forbid_everything(), &[], STALLED[0]),
            (
                |w| w.edit(|spec| drop(spec.registries.remove(0))),
                &[FABRIKAM],
                "Ready=True/",
            ),
            (
                |w| w.settings.clouds = Clouds::from_iter([]),
                &[],
                "Ready=False/RegistryNotAllowed",
            ),
        ] {
            let mut world = World::ready(&[CONTOSO, FABRIKAM]);
            let before = world.secret().clone();
            world.advance(secs(60));
            world.object.spec.suspend = suspend;
            change(&mut world);
            let look = world.look();
            assert_shrunk(&mut world, &look, &before, left);
            assert!(
                conditions(world.status())[0].starts_with(reason),
                "{:?}",
                world.status()
            );
        }
    }
}

#[test]
fn hostile_hosts_are_never_minted_for() {
    for server in [
        "evil.example",
        "azurecr.io.evil.example",
        "x.azurecr.io@evil",
        "https://x.azurecr.io/",
        "X.AzureCR.io",
        ".azurecr.io",
        "azurecr.io",
        "x.azurecr.io.",
        "azurecr.com",
        "x.data.azurecr.io",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "xn--cntoso-r9a.azurecr.io",
        "cont\u{3bf}so.azurecr.io",
        "x.azurecr.io:443",
        "x.azurecr.io/path",
        "",
    ] {
        let mut world = World::of(&[server, CONTOSO]);
        world.settings.policy = Policy::new(vec![PolicyRule::new("*", "*")]);
        assert_eq!(world.look().minted(), [CONTOSO], "{server}");
        assert_eq!(
            conditions(world.status()),
            [
                "Ready=False/RegistryNotAllowed",
                "Stalled=True/RegistryNotAllowed"
            ]
        );
        let told = message(world.status(), ConditionType::Ready);
        assert!(
            !["evil", "xn--", "amazon"]
                .iter()
                .any(|part| told.contains(part)),
            "{told}"
        );
    }
}

#[test]
fn a_cloud_that_is_not_enabled_is_refused_by_name() {
    let mut world = World::of(&["contoso.azurecr.cn", CONTOSO]);
    world.settings.clouds = Clouds::default();
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/RegistryNotAllowed"
    );
    let told = message(world.status(), ConditionType::Ready);
    assert!(
        told.contains("AzureChinaCloud") && told.contains("--clouds"),
        "{told}"
    );
}

#[test]
fn a_field_that_is_not_served_is_never_minted_for() {
    let attach = Attach {
        service_accounts: vec!["default".into()],
    };
    let mut fresh = World::of(&[CONTOSO]);
    fresh.edit(|spec| spec.attach = Some(attach.clone()));
    assert!(fresh.look().is_idle());
    assert_eq!(
        conditions(fresh.status()),
        [
            "Ready=False/FieldNotSupported",
            "Stalled=True/FieldNotSupported"
        ]
    );
    let mut held = World::ready(&[CONTOSO]);
    held.edit(|spec| spec.attach = Some(attach));
    held.advance(LIFE / 2);
    assert_eq!(held.look().minted(), Vec::<&str>::new());
    assert_eq!(hosts(held.secret()), [CONTOSO], "it narrows nothing");
    assert_eq!(conditions(held.status()), conditions(fresh.status()));
    held.advance(LIFE);
    assert_eq!(held.look().minted(), Vec::<&str>::new());
}
