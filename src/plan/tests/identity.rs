//! Another `ServiceAccount`'s identity: where its parts come from, and what its end means.

use super::*;
use crate::api::ServiceAccountIdentity;
use crate::credential::Identity;

const CLIENT: &str = "33333333-3333-3333-3333-333333333333";
const OTHER_CLIENT: &str = "55555555-5555-5555-5555-555555555555";
const TENANT: &str = "44444444-4444-4444-4444-444444444444";

fn facts() -> ServiceAccountFacts {
    ServiceAccountFacts {
        uid: "puller-uid".into(),
        client_id: Some(CLIENT.into()),
        tenant_id: Some(TENANT.into()),
        audience: None,
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the world takes an answer or none"
)]
fn found(facts: ServiceAccountFacts) -> Result<ServiceAccountFacts, Cause> {
    Ok(facts)
}

#[expect(clippy::unnecessary_wraps, reason = "as the spec has it")]
fn puller() -> Option<ServiceAccountIdentity> {
    Some(ServiceAccountIdentity {
        service_account_name: "puller".into(),
        client_id: None,
        tenant_id: None,
    })
}

/// An object that names `puller`, in a namespace to which the policy gives nothing.
fn impersonating(account: Result<ServiceAccountFacts, Cause>) -> World {
    let mut world = World::of(&[CONTOSO]);
    world.forbid_everything();
    world.configure(|settings| settings.controller = None);
    world.learn(|cluster| cluster.own = Err(MintError::new(Hop::Assertion, Cause::NoAssertion)));
    world.edit(|spec| spec.identity = puller());
    world.service_account = account;
    world
}

fn ready() -> World {
    let mut world = impersonating(found(facts()));
    world.look();
    assert_eq!(conditions(world.status()), READY);
    world
}

fn minted_as(world: &mut World) -> Identity {
    let look = world.look_failing(unavailable());
    look.mints.last().expect("a mint").identity.clone()
}

/// Looks as often as asked for in one resync interval: a `ServiceAccount` is read again by then.
fn resync(world: &mut World) -> Vec<Look> {
    let until = world.now + world.facts.cluster.resync_interval;
    world.pass(until, |_| Ok(LIFE))
}

#[test]
fn ids_of_the_object_come_before_those_of_the_service_account() {
    let mut world = impersonating(found(facts()));
    let identity = minted_as(&mut world);
    assert_eq!(identity.client_id.as_str(), CLIENT);
    assert_eq!(identity.tenant_id.as_str(), TENANT);
    assert_eq!(identity.subject.name, "system:serviceaccount:demo:puller");
    assert_eq!(identity.subject.service_account_uid, "puller-uid");
    assert_eq!(identity.subject.audience, "api://AzureCRTokenExchange");

    world.edit(|spec| {
        let named = spec.identity.as_mut().unwrap();
        named.client_id = Some(OTHER_CLIENT.into());
        named.tenant_id = Some("contoso.onmicrosoft.com".into());
    });
    let identity = minted_as(&mut world);
    assert_eq!(identity.client_id.as_str(), OTHER_CLIENT);
    assert_eq!(identity.tenant_id.as_str(), "contoso.onmicrosoft.com");
}

#[test]
fn the_tenant_has_a_default_and_the_client_id_has_none() {
    let mut account = facts();
    account.tenant_id = None;
    let mut world = impersonating(found(account.clone()));
    world.configure(|settings| settings.default_tenant_id = Some(TENANT.parse().unwrap()));
    assert_eq!(minted_as(&mut world).tenant_id.as_str(), TENANT);
    // Not even where the controller has one.
    account.client_id = None;
    let mut world = impersonating(found(account));
    let own = "11111111-1111-1111-1111-111111111111".parse().unwrap();
    world.configure(|settings| settings.controller = Some((own, TENANT.parse().unwrap())));
    let look = world.look();
    assert!(look.mints.is_empty(), "{look:?}");
    let expected = [
        "Ready=False/ClientIdMissing",
        "Stalled=True/ClientIdMissing",
    ];
    assert_eq!(conditions(world.status()), expected);
}

#[test]
fn a_service_account_picks_among_the_allowed_audiences() {
    let wanting = |audience: &str| {
        let mut account = facts();
        account.audience = Some(audience.into());
        impersonating(found(account))
    };
    let identity = minted_as(&mut wanting("api://AzureADTokenExchange"));
    assert_eq!(identity.subject.audience, "api://AzureADTokenExchange");
    let mut world = wanting("https://kubernetes.default.svc");
    assert!(world.look().mints.is_empty());
    assert_eq!(
        conditions(world.status())[1],
        "Stalled=True/InvalidIdentity"
    );
    let text = message(world.status(), ConditionType::Ready);
    assert!(text.contains("--impersonation-audiences"), "{text}");
    assert!(!text.contains("kubernetes.default"), "{text}");
}

#[test]
fn acrcreds_own_service_account_cannot_be_named() {
    // Whichever way its name is known, and also while the token file cannot be read.
    let own_claims = |world: &mut World, name: &str| {
        let mut claims = World::of(&[]).facts.cluster.own.clone();
        claims.as_mut().unwrap().subject.name = name.into();
        world.learn(|cluster| cluster.own = claims);
    };
    let puller = "system:serviceaccount:demo:puller";
    let other = "system:serviceaccount:acrcred-system:acrcred";
    for (claims, user, may) in [
        (Some(puller), None, false),
        (Some(puller), Some(other), false),
        (None, Some(puller), false),
        (Some(other), Some(puller), false),
        (Some(other), None, true),
        (None, Some(other), true),
        (Some(other), Some(other), true),
    ] {
        let mut world = impersonating(found(facts()));
        world.learn(|cluster| cluster.own_user = user.map(str::to_owned));
        if let Some(claims) = claims {
            own_claims(&mut world, claims);
        }
        let look = world.look();
        assert_eq!(!look.mints.is_empty(), may, "{claims:?} {user:?}");
        if !may {
            let expected = ["Ready=False/Forbidden", "Stalled=True/Forbidden"];
            assert_eq!(conditions(world.status()), expected);
        }
    }
}

#[test]
fn without_its_own_name_acrcred_uses_no_service_account() {
    let mut world = impersonating(found(facts()));
    world.learn(|cluster| cluster.own_user = None);
    let start = world.now;
    for look in world.pass(start + secs(600), |_| Ok(LIFE)) {
        assert!(look.mints.is_empty() && look.calls.is_empty(), "{look:?}");
    }
    let own = "system:serviceaccount:acrcred-system:acrcred";
    world.learn(|cluster| cluster.own_user = Some(own.into()));
    let start = world.now;
    world.until_minted(|_| Ok(LIFE));
    assert!(
        world.now <= start + secs(72),
        "{}",
        world.now.duration_since(start)
    );
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn an_unknown_own_name_takes_nothing_away() {
    let mut world = ready();
    world.learn(|cluster| cluster.own_user = None);
    world.restart();
    let start = world.now;
    for look in world.pass(start + secs(1_800), |_| Ok(LIFE)) {
        assert!(
            look.mints.is_empty() && look.writes().is_empty(),
            "{look:?}"
        );
    }
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    assert_eq!(conditions(world.status())[0], READY[0]);
}

#[test]
fn a_broken_identity_mints_nothing_until_it_is_repaired() {
    let with = |change: fn(&mut ServiceAccountFacts)| {
        let mut account = facts();
        change(&mut account);
        found(account)
    };
    let (missing, forbidden) = (Cause::NoServiceAccount, Cause::ImpersonationForbidden);
    for (account, kind, reason) in [
        (Err(missing), "Reconciling", "ServiceAccountNotFound"),
        (Err(forbidden), "Stalled", "Forbidden"),
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
        (Err(Cause::ApiServer), "Reconciling", "UpstreamUnavailable"),
    ] {
        let mut world = impersonating(account.clone());
        let mut last = world.look();
        assert!(last.mints.is_empty(), "{account:?}");
        let expected = [
            format!("Ready=False/{reason}"),
            format!("{kind}=True/{reason}"),
        ];
        assert_eq!(conditions(world.status()), expected, "{account:?}");
        let text = message(world.status(), ConditionType::Ready);
        assert!(!text.contains("../x") && text.contains("puller"), "{text}");
        // Read again after a second at first, then once a minute, and reported no more.
        for _ in 0..12 {
            let before = world.now;
            last = world.wake(&last, |_| Ok(LIFE));
            let wait = world.now.duration_since(before);
            assert!(wait <= secs(72), "{account:?} {wait}");
            assert!(last.is_idle(), "{account:?} {last:?}");
        }
        world.service_account = found(facts());
        let start = world.now;
        world.until_minted(|_| Ok(LIFE));
        assert!(world.now <= start + secs(72), "{account:?}");
        assert_eq!(conditions(world.status()), READY, "{account:?}");
    }
}

#[test]
fn credentials_of_an_identity_leave_with_it() {
    let unannotated = ServiceAccountFacts {
        client_id: None,
        ..facts()
    };
    for is_suspended in [false, true] {
        for account in [Err(Cause::NoServiceAccount), found(unannotated.clone())] {
            let mut world = ready();
            if is_suspended {
                world.edit(|spec| spec.suspend = true);
                world.look();
            }
            world.service_account = account;
            for look in resync(&mut world) {
                assert!(look.mints.is_empty(), "{look:?}");
            }
            assert_eq!(hosts(world.secret()), Vec::<String>::new());
            assert!(conditions(world.status())[0].starts_with("Ready=False/"));
        }
    }
}

#[test]
fn an_account_that_cannot_be_read_takes_nothing_away() {
    for account in [Err(Cause::ApiServer), Err(Cause::ImpersonationForbidden)] {
        let mut world = ready();
        world.service_account = account.clone();
        for look in resync(&mut world) {
            assert!(
                look.mints.is_empty() && look.statuses.is_empty(),
                "{look:?}"
            );
        }
        assert_eq!(conditions(world.status()), READY);
        world.advance(LIFE / 2);
        world.look();
        assert_eq!(hosts(world.secret()), [CONTOSO]);
        let status = conditions(world.status());
        assert_eq!(status[0], READY[0]);
        let is_reported = status.len() == 2 && status[1].starts_with("RefreshFailing=True");
        assert!(is_reported, "{account:?}: {status:?}");
    }
}

#[test]
fn an_account_is_read_before_each_mint() {
    let mut world = ready();
    world.advance(LIFE / 2);
    // Removed a moment ago.
    world.service_account = Err(Cause::NoServiceAccount);
    let look = world.look();
    assert_eq!((look.minted(), look.reads), (vec![], 1), "{look:?}");
    assert_eq!(hosts(world.secret()), Vec::<String>::new());
}

#[test]
fn another_client_id_is_minted_for_and_another_uid_is_not() {
    let mut world = ready();
    let mut account = facts();
    account.uid = "re-created".into();
    world.service_account = found(account.clone());
    for look in resync(&mut world) {
        assert!(look.mints.is_empty(), "{look:?}");
    }
    account.client_id = Some(OTHER_CLIENT.into());
    world.service_account = found(account);
    let looks = resync(&mut world);
    let minted: Vec<&str> = looks.iter().flat_map(Look::minted).collect();
    assert_eq!(minted, [CONTOSO]);
}

#[test]
fn a_resync_reads_the_account_once_and_a_rotation_does_too() {
    let mut world = ready();
    let reads: usize = resync(&mut world).iter().map(|look| look.reads).sum();
    assert_eq!(reads, 1);
    world.advance(LIFE / 2);
    let look = world.look();
    assert_eq!((look.minted(), look.reads), (vec![CONTOSO], 1));
}

#[test]
fn the_federated_credential_is_shown_before_anything_works() {
    let mut world = impersonating(found(facts()));
    world.look_failing(MintError::entra(401, &[700_213], None));
    let identity = world.status().identity.clone().expect("an identity");
    assert_eq!(identity.issuer, None, "no assertion was seen yet");
    assert_eq!(identity.subject, "system:serviceaccount:demo:puller");
    assert_eq!(identity.audience, "api://AzureCRTokenExchange");
    assert_eq!(
        (&*identity.tenant_id, &*identity.client_id),
        (TENANT, CLIENT)
    );
    let text = message(world.status(), ConditionType::Ready);
    assert!(
        text.contains("subject system:serviceaccount:demo:puller"),
        "{text}"
    );
}

#[test]
fn the_learnt_issuer_is_shown_and_outlives_a_restart() {
    let mut world = impersonating(found(facts()));
    world.learn(|cluster| cluster.issuer = Some("https://learnt.example/".into()));
    world.look();
    let issuer = |world: &World| world.status().identity.as_ref().unwrap().issuer.clone();
    assert_eq!(issuer(&world).as_deref(), Some("https://learnt.example/"));
    world.learn(|cluster| cluster.issuer = None);
    world.restart();
    for look in resync(&mut world) {
        assert!(look.is_idle(), "{look:?}");
    }
    assert_eq!(issuer(&world).as_deref(), Some("https://learnt.example/"));
}

#[test]
fn credentials_of_the_controller_do_not_outlive_the_policy() {
    for (is_allowed, left) in [(true, &[CONTOSO][..]), (false, &[])] {
        for is_restarted in [false, true] {
            let mut world = World::ready(&[CONTOSO]);
            if !is_allowed {
                world.forbid_everything();
            }
            world.service_account = found(facts());
            world.edit(|spec| spec.identity = puller());
            if is_restarted {
                world.restart();
            }
            // What replaces it cannot be had.
            world.look_failing(unavailable());
            assert_eq!(hosts(world.secret()), left, "{is_allowed} {is_restarted}");
        }
    }
}

#[test]
fn a_former_identitys_credential_stays_until_replaced() {
    let mut world = World::ready(&[CONTOSO]);
    let before = entry(world.secret(), CONTOSO);
    world.service_account = found(facts());
    world.edit(|spec| spec.identity = puller());
    let look = world.look_failing(unavailable());
    assert_eq!(entry(world.secret(), CONTOSO), before);
    let expected = [
        "Ready=True/Issued",
        "RefreshFailing=True/UpstreamUnavailable",
    ];
    assert_eq!(conditions(world.status()), expected);
    world.wake(&look, |_| Ok(LIFE));
    assert_ne!(entry(world.secret(), CONTOSO), before);
    assert_eq!(conditions(world.status()), READY);
}
