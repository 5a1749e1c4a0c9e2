//! What an object may get. A refusal comes before any mint, and takes away what was given.

use super::*;
use crate::api::Attach;

const STALLED: [&str; 2] = [
    "Ready=False/ControllerIdentityNotAllowed",
    "Stalled=True/ControllerIdentityNotAllowed",
];

fn allow(world: &mut World, rule: &str) {
    world.configure(|settings| settings.policy = Policy(vec![rule.parse().unwrap()]));
}

/// That the one write took away all but `left`, from just the Secret that was there.
fn assert_shrunk(world: &World, look: &Look, before: &Secret, left: &[&str]) {
    let [SecretCall::Replace(write)] = &look.calls[..] else {
        panic!("{look:?}")
    };
    let (sent, stored) = (&write.secret.metadata, &before.metadata);
    assert_eq!(
        (&sent.uid, &sent.resource_version),
        (&stored.uid, &stored.resource_version)
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
        world.change(|object| object.metadata.namespace = Some(namespace.into()));
        let look = world.look();
        assert!(
            look.mints.is_empty() && look.calls.is_empty(),
            "{namespace}"
        );
        assert_eq!(conditions(world.status()), STALLED);
        assert_eq!(world.status().identity, None);
        let text = message(world.status(), ConditionType::Ready);
        let expected = format!("--allow-controller-identity {namespace}/{CONTOSO}");
        assert!(text.ends_with(&expected), "{text}");
    }
}

#[test]
fn a_policy_for_one_registry_is_none_for_another() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    allow(&mut world, &format!("demo/{CONTOSO}"));
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    assert_eq!(conditions(world.status()), STALLED);
}

#[test]
fn a_revoked_entitlement_takes_its_entry_at_once() {
    type Change = fn(&mut World);
    let cases: [(Change, &[&str], &str); 4] = [
        (
            |w| allow(w, &format!("demo/{FABRIKAM}")),
            &[FABRIKAM],
            STALLED[0],
        ),
        (World::forbid_everything, &[], STALLED[0]),
        (
            |w| w.edit(|spec| drop(spec.registries.remove(0))),
            &[FABRIKAM],
            "Ready=True/",
        ),
        (
            |w| w.configure(|settings| settings.clouds = Clouds::from_iter([])),
            &[],
            "Ready=False/RegistryNotAllowed",
        ),
    ];
    for suspend in [false, true] {
        for (change, left, reason) in cases {
            let mut world = World::ready(&[CONTOSO, FABRIKAM]);
            let before = world.secret().clone();
            world.advance(secs(60));
            world.edit(|spec| spec.suspend = suspend);
            world.look();
            change(&mut world);
            let look = world.look();
            assert_shrunk(&world, &look, &before, left);
            let status = conditions(world.status());
            assert!(status[0].starts_with(reason), "{status:?}");
        }
    }
}

#[test]
fn a_registry_that_is_being_removed_is_still_in_the_status() {
    // A new process must know what the Secret holds.
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.api.refusal = Some(refused());
    world.edit(|spec| drop(spec.registries.remove(0)));
    world.look();
    let rows: Vec<&str> = world
        .status()
        .registries
        .iter()
        .map(|row| row.server.as_str())
        .collect();
    assert_eq!(rows, [FABRIKAM, CONTOSO]);
    world.restart();
    world.api.refusal = None;
    world.look();
    assert_eq!(hosts(world.secret()), [FABRIKAM]);
    assert_eq!(world.status().registries.len(), 1);
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
        allow(&mut world, "*/*");
        assert_eq!(world.look().minted(), [CONTOSO], "{server}");
        assert_eq!(hosts(world.secret()), [CONTOSO]);
        let expected = [
            "Ready=False/RegistryNotAllowed",
            "Stalled=True/RegistryNotAllowed",
        ];
        assert_eq!(conditions(world.status()), expected);
        let text = message(world.status(), ConditionType::Ready);
        let parts = ["evil", "xn--", "amazon"];
        assert!(!parts.iter().any(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn a_cloud_that_is_not_enabled_is_refused_by_name() {
    let mut world = World::of(&["contoso.azurecr.cn", CONTOSO]);
    world.configure(|settings| settings.clouds = Clouds::default());
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(
        conditions(world.status())[0],
        "Ready=False/RegistryNotAllowed"
    );
    let text = message(world.status(), ConditionType::Ready);
    assert!(
        text.contains("AzureChinaCloud") && text.contains("--clouds"),
        "{text}"
    );
}

#[test]
fn an_object_with_an_unsupported_field_is_never_minted_for() {
    let attach = || {
        Some(Attach {
            service_accounts: vec!["default".into()],
        })
    };
    let mut fresh = World::of(&[CONTOSO]);
    fresh.edit(|spec| spec.attach = attach());
    let look = fresh.look();
    assert!(look.mints.is_empty() && look.calls.is_empty(), "{look:?}");
    let expected = [
        "Ready=False/FieldNotSupported",
        "Stalled=True/FieldNotSupported",
    ];
    assert_eq!(conditions(fresh.status()), expected);
    let mut held = World::ready(&[CONTOSO]);
    held.edit(|spec| spec.attach = attach());
    let until = held.now + LIFE * 2;
    for look in held.pass(until, |_| Ok(LIFE)) {
        assert!(look.mints.is_empty(), "{look:?}");
    }
    assert_eq!(hosts(held.secret()), [CONTOSO], "it narrows nothing");
    assert_eq!(conditions(held.status()), expected);
}
