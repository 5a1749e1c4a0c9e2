//! Another `ServiceAccount`'s identity: where its parts come from, and what its end means.

use super::*;
use crate::api::ServiceAccountIdentity;

const CLIENT: &str = "33333333-3333-3333-3333-333333333333";
const TENANT: &str = "44444444-4444-4444-4444-444444444444";

fn facts() -> ServiceAccountFacts {
    ServiceAccountFacts {
        uid: "puller-uid".into(),
        client_id: Some(CLIENT.into()),
        tenant_id: Some(TENANT.into()),
        audience: None,
    }
}

fn found(facts: ServiceAccountFacts) -> ServiceAccountState {
    ServiceAccountState::Found(Box::new(facts))
}

/// An object that names `puller`, in a namespace to which the policy gives nothing.
fn impersonating(account: ServiceAccountState) -> World {
    let mut world = World::of(&[CONTOSO]);
    world.forbid_everything();
    world.settings.controller = None;
    world.federation = Err(MintError::new(Hop::Assertion, Cause::NoAssertion));
    world.object.spec.identity = Some(ServiceAccountIdentity {
        service_account_name: "puller".into(),
        client_id: None,
        tenant_id: None,
    });
    world.service_account = account;
    world
}

fn minted_as(world: &World) -> Identity {
    let plan = world.plan();
    let mint = plan.mints().next().expect("a mint");
    mint.identity.clone()
}

#[test]
fn the_service_account_says_who_is_asked_as_and_the_object_says_it_louder() {
    let mut world = impersonating(found(facts()));
    let identity = minted_as(&world);
    assert_eq!(identity.client_id.as_str(), CLIENT);
    assert_eq!(identity.tenant_id.as_str(), TENANT);
    assert_eq!(identity.subject.name, "system:serviceaccount:demo:puller");
    assert_eq!(identity.subject.service_account_uid, "puller-uid");
    assert_eq!(identity.subject.audience, "api://AzureCRTokenExchange");

    let named = world.object.spec.identity.as_mut().unwrap();
    named.client_id = Some("55555555-5555-5555-5555-555555555555".into());
    named.tenant_id = Some("contoso.onmicrosoft.com".into());
    let identity = minted_as(&world);
    assert!(identity.client_id.as_str().starts_with("5555"));
    assert_eq!(identity.tenant_id.as_str(), "contoso.onmicrosoft.com");
}

#[test]
fn the_tenant_has_a_default_and_the_client_id_has_none() {
    let mut account = facts();
    account.tenant_id = None;
    let mut world = impersonating(found(account.clone()));
    world.settings.default_tenant_id = Some(TENANT.parse().unwrap());
    assert_eq!(minted_as(&world).tenant_id.as_str(), TENANT);
    // Not even where the controller has one.
    let own = "11111111-1111-1111-1111-111111111111".parse().unwrap();
    world.settings.controller = Some((own, TENANT.parse().unwrap()));
    account.client_id = None;
    world.service_account = found(account);
    assert!(world.look().is_idle());
    assert_eq!(
        conditions(world.status()),
        [
            "Ready=False/ClientIdMissing",
            "Stalled=True/ClientIdMissing"
        ]
    );
}

#[test]
fn a_service_account_picks_among_the_audiences_that_the_operator_allows() {
    let wanting = |audience: &str| {
        let mut account = facts();
        account.audience = Some(audience.into());
        impersonating(found(account))
    };
    let identity = minted_as(&wanting("api://AzureADTokenExchange"));
    assert_eq!(identity.subject.audience, "api://AzureADTokenExchange");
    let mut world = wanting("https://kubernetes.default.svc");
    assert!(world.look().is_idle());
    assert_eq!(
        conditions(world.status())[1],
        "Stalled=True/InvalidIdentity"
    );
    let told = &world.status().conditions[0].message;
    assert!(told.contains("--impersonation-audiences"), "{told}");
    assert!(!told.contains("kubernetes.default"), "{told}");
}

#[test]
fn the_controllers_own_service_account_cannot_be_named() {
    let mut world = impersonating(found(facts()));
    world.federation = World::of(&[CONTOSO]).federation;
    assert_eq!(minted_as(&world).client_id.as_str(), CLIENT);
    let own = world.federation.as_mut().unwrap();
    own.subject.name = "system:serviceaccount:demo:puller".into();
    assert!(world.look().is_idle());
    assert_eq!(conditions(world.status())[1], "Stalled=True/Forbidden");
}

#[test]
fn nothing_is_asked_for_with_a_broken_identity_and_it_heals() {
    let with = |change: fn(&mut ServiceAccountFacts)| {
        let mut account = facts();
        change(&mut account);
        found(account)
    };
    for (account, kind, reason) in [
        (
            ServiceAccountState::Missing,
            "Reconciling",
            "ServiceAccountNotFound",
        ),
        (ServiceAccountState::Forbidden, "Stalled", "Forbidden"),
        (with(|a| a.client_id = None), "Stalled", "ClientIdMissing"),
        (
            with(|a| a.client_id = Some("../x".into())),
            "Stalled",
            "InvalidIdentity",
        ),
        (
            with(|a| a.client_id = Some("contoso.com".into())),
            "Stalled",
            "InvalidIdentity",
        ),
        (
            with(|a| a.tenant_id = Some("../x".into())),
            "Stalled",
            "InvalidIdentity",
        ),
        (with(|a| a.tenant_id = None), "Stalled", "InvalidIdentity"),
    ] {
        let mut world = impersonating(account.clone());
        let mut last = world.look();
        assert!(last.is_idle(), "{account:?}");
        let expected = [
            format!("Ready=False/{reason}"),
            format!("{kind}=True/{reason}"),
        ];
        assert_eq!(conditions(world.status()), expected, "{account:?}");
        let told = &world.status().conditions[0].message;
        assert!(!told.contains("../x") && told.contains("puller"), "{told}");
        // Looked at again after a second at first, then once a minute, and told no more.
        for _ in 0..12 {
            let before = world.now;
            last = world.wake(&last, |_| Ok(LIFE));
            let wait = world.now.duration_since(before);
            assert!(wait <= secs(72), "{account:?} {wait}");
            assert_eq!(last.settled.status, None, "{account:?}");
        }
        world.service_account = found(facts());
        world.wake(&last, |_| Ok(LIFE));
        assert_eq!(conditions(world.status()), READY, "{account:?}");
    }
}

#[test]
fn what_an_identity_got_goes_with_it() {
    let unannotated = ServiceAccountFacts {
        client_id: None,
        ..facts()
    };
    for is_suspended in [false, true] {
        for account in [ServiceAccountState::Missing, found(unannotated.clone())] {
            let mut world = impersonating(found(facts()));
            world.look();
            assert_eq!(hosts(world.secret()), [CONTOSO]);
            world.object.spec.suspend = is_suspended;
            world.service_account = account;
            let look = world.look();
            assert!(look.minted().is_empty());
            assert_eq!(hosts(world.secret()), Vec::<String>::new());
            assert!(conditions(world.status())[0].starts_with("Ready=False/"));
        }
    }
}

#[test]
fn what_cannot_be_read_for_the_moment_takes_nothing_away() {
    for account in [ServiceAccountState::Forbidden, ServiceAccountState::Unread] {
        let mut world = impersonating(found(facts()));
        world.look();
        world.service_account = account;
        assert!(world.look().is_idle());
        assert_eq!(conditions(world.status()), READY);
        world.advance(LIFE / 2);
        world.look();
        assert_eq!(hosts(world.secret()), [CONTOSO]);
        assert!(conditions(world.status())[0].starts_with("Ready=True"));
        assert!(conditions(world.status())[1].starts_with("RefreshFailing"));
    }
}

#[test]
fn another_client_id_is_minted_for_at_once_and_a_new_uid_is_not() {
    let mut world = impersonating(found(facts()));
    world.look();
    let mut account = facts();
    account.uid = "re-created".into();
    world.service_account = found(account.clone());
    assert!(world.look().is_idle());
    account.client_id = Some("55555555-5555-5555-5555-555555555555".into());
    world.service_account = found(account);
    assert_eq!(world.look().minted(), [CONTOSO]);
}

#[test]
fn the_status_says_what_entra_must_trust_before_anything_worked() {
    let mut world = impersonating(found(facts()));
    world.look_failing(MintError::entra(401, &[700_213], None));
    let identity = world.status().identity.clone().expect("the facts");
    assert_eq!(identity.issuer, None, "no assertion was seen yet");
    assert_eq!(identity.subject, "system:serviceaccount:demo:puller");
    assert_eq!(identity.audience, "api://AzureCRTokenExchange");
    assert_eq!(
        (&*identity.tenant_id, &*identity.client_id),
        (TENANT, CLIENT)
    );
    let told = &world.status().conditions[0].message;
    assert!(
        told.contains("subject system:serviceaccount:demo:puller"),
        "{told}"
    );
}

#[test]
fn what_the_controller_minted_does_not_outlive_the_policy_under_another_identity() {
    for (is_allowed, left) in [(true, &[CONTOSO][..]), (false, &[])] {
        let mut world = World::ready(&[CONTOSO]);
        if !is_allowed {
            world.forbid_everything();
        }
        world.service_account = found(facts());
        world.edit(|spec| {
            spec.identity = Some(ServiceAccountIdentity {
                service_account_name: "puller".into(),
                client_id: None,
                tenant_id: None,
            });
        });
        // What replaces it cannot be had.
        world.look_failing(unavailable());
        assert_eq!(hosts(world.secret()), left, "{is_allowed}");
    }
}
