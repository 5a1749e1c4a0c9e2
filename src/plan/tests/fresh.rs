//! From nothing to a Secret that is as it should be.

use super::*;

#[test]
fn each_cloud_has_its_authority_and_all_the_same_audience() {
    for (server, authority) in [
        ("contoso.azurecr.io", "https://login.microsoftonline.com"),
        (
            "contoso-a1b2.azurecr.io",
            "https://login.microsoftonline.com",
        ),
        (
            "contoso.eastus.geo.azurecr.io",
            "https://login.microsoftonline.com",
        ),
        ("contoso.azurecr.us", "https://login.microsoftonline.us"),
        ("contoso.azurecr.cn", "https://login.chinacloudapi.cn"),
    ] {
        let world = World::of(&[server]);
        let plan = world.plan();
        let mints: Vec<&Mint> = plan.mints().collect();
        let [mint] = mints[..] else {
            panic!("{server}: {plan:?}")
        };
        let identity = &mint.identity;
        assert_eq!(mint.entitlement.server.as_str(), server);
        assert_eq!(identity.authority.as_str(), authority, "{server}");
        assert_eq!(
            identity.audience.scope(),
            "https://containerregistry.azure.net/.default"
        );
        assert_eq!(
            identity.client_id.as_str(),
            "11111111-1111-1111-1111-111111111111"
        );
        assert_eq!(
            identity.tenant_id.as_str(),
            "22222222-2222-2222-2222-222222222222"
        );
        assert_eq!(
            Ok(&identity.subject),
            world.federation.as_ref().map(|f| &f.subject)
        );
        assert_eq!(mint.newer_than, None);
    }
}

#[test]
fn a_custom_cloud_has_an_authority_and_an_audience_of_its_own() {
    let mut world = World::of(&["contoso.azurecr.pr", CONTOSO]);
    let custom = EnabledCloud {
        suffix: "azurecr.pr".parse().unwrap(),
        authority: Authority::custom("https://login.cloud.private/").unwrap(),
        audience: Audience::new("https://management.cloud.private"),
    };
    world.settings.clouds = Clouds::from_iter([custom, Cloud::AzurePublicCloud.into()]);
    let plan = world.plan();
    let mints = plan.mints().map(|mint| &mint.identity);
    let asked: Vec<_> = mints
        .map(|i| (i.authority.host(), i.audience.as_str()))
        .collect();
    assert_eq!(
        asked,
        [
            ("login.cloud.private", "https://management.cloud.private"),
            ("login.microsoftonline.com", Audience::CONTAINER_REGISTRY)
        ]
    );
    world.look();
    let told = world
        .status()
        .registries
        .iter()
        .map(|r| r.audience.as_deref());
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        [
            Some("https://management.cloud.private"),
            Some(Audience::CONTAINER_REGISTRY)
        ]
    );
}

#[test]
fn the_first_credential_creates_the_secret() {
    let mut world = World::of(&[CONTOSO]);
    let look = world.look();
    let [SecretWrite::Create(secret)] = &look.writes[..] else {
        panic!("{:?}", look.writes)
    };
    let metadata = &secret.metadata;
    assert_eq!(
        secret.type_.as_deref(),
        Some("kubernetes.io/dockerconfigjson")
    );
    assert_eq!(metadata.name.as_deref(), Some("acr"));
    assert_eq!(metadata.namespace.as_deref(), Some("demo"));
    assert_eq!((&metadata.uid, &metadata.resource_version), (&None, &None));
    let labels = metadata.labels.clone().unwrap_or_default();
    assert_eq!(
        labels,
        [(MANAGED_BY_LABEL.to_owned(), "acrcred".to_owned())].into()
    );
    assert_eq!(metadata.owner_references, Some(vec![owner(our_owner())]));
    assert_eq!(annotation(secret, OWNER_UID_ANNOTATION), Some("uid-1"));
    let auth = &payload(secret)["auths"][CONTOSO];
    let token = Token::new(auth["password"].as_str().unwrap_or_default().to_owned());
    assert_eq!(auth["username"], "00000000-0000-0000-0000-000000000000");
    let minted: Value =
        serde_json::from_str(annotation(secret, MINTED_ANNOTATION).unwrap()).unwrap();
    let mint = look.plan.mints().next().unwrap();
    let expected = json!({"v": 1, "registries": {CONTOSO: {
        "for": mint.digest().as_str(),
        "token": token.digest().as_str(),
    }}});
    assert_eq!(minted, expected);
}

#[test]
fn the_secret_has_the_name_that_the_spec_gives_it() {
    let mut world = World::of(&[CONTOSO]);
    world.edit(|spec| {
        let named = SecretTemplate {
            name: Some("pull".into()),
            ..SecretTemplate::default()
        };
        spec.secret = Some(named);
    });
    world.look();
    assert_eq!(world.secret().metadata.name.as_deref(), Some("pull"));
    assert_eq!(world.status().secret_name.as_deref(), Some("pull"));
}

#[test]
fn once_written_the_status_says_so_and_nothing_is_left_to_do() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look();
    let status = world.status().clone();
    let time = |at: Timestamp| Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
    let whole = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap();
    let wake_at = look.settled.wake_at.unwrap();
    assert_eq!(conditions(&status), READY);
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.conditions[0].observed_generation, Some(1));
    assert_eq!(status.secret_name.as_deref(), Some("acr"));
    assert_eq!(status.expires_at, time(world.now + LIFE));
    assert_eq!(status.refresh_at, time(whole(wake_at)));
    assert_eq!(status.last_refresh_at, time(world.now));
    let identity = status.identity.clone().unwrap();
    assert_eq!(identity.issuer.as_deref(), Some("https://issuer.example/"));
    assert_eq!(
        identity.subject,
        "system:serviceaccount:acrcred-system:acrcred"
    );
    for (registry, server) in status.registries.iter().zip([CONTOSO, FABRIKAM]) {
        assert_eq!(
            (registry.server.as_str(), registry.reason.as_str()),
            (server, "Issued")
        );
        assert_eq!(
            registry.audience.as_deref(),
            Some(Audience::CONTAINER_REGISTRY)
        );
        assert_eq!(registry.expires_at, time(world.now + LIFE));
    }
    let again = world.look();
    assert!(again.is_idle());
    assert_eq!(again.settled.status, None);
    assert_eq!(again.settled.wake_at, Some(wake_at));
}

#[test]
fn without_a_credential_there_is_no_secret() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look_failing(unavailable());
    assert_eq!(look.writes, []);
    assert_eq!(world.secret, None);
    assert_eq!(world.status().secret_name, None);
}

#[test]
fn a_controller_without_identity_mints_nothing_and_says_so() {
    let no_assertion = MintError::new(Hop::Assertion, Cause::NoAssertion);
    for break_it in [
        |world: &mut World| world.settings.controller = None,
        |world: &mut World| {
            world.federation = Err(MintError::new(Hop::Assertion, Cause::NoAssertion));
        },
    ] {
        let mut world = World::of(&[CONTOSO]);
        break_it(&mut world);
        let look = world.look();
        let entitlement = Entitlement {
            server: Clouds::default().login_server(CONTOSO).unwrap(),
            scope: Scope::Registry,
        };
        let failed = Decision::Fail(entitlement, no_assertion);
        assert_eq!(look.plan.registries, [(CONTOSO.to_owned(), failed)]);
        assert_eq!(
            conditions(world.status()),
            [
                "Ready=False/InvalidIdentity",
                "Reconciling=True/InvalidIdentity"
            ]
        );
    }
}

#[test]
fn one_rotation_leaves_the_other_token_alone() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(60));
    let before = world.secret().clone();
    world.edit(|spec| spec.registries[1] = world::registry(LITWARE));
    let look = world.look();
    assert_eq!(look.minted(), Vec::<&str>::new(), "what must go goes first");
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    let look = world.wake(&look, |_| Ok(LIFE));
    assert_eq!(look.minted(), [LITWARE], "only what changed is minted");
    let [SecretWrite::Apply(_)] = look.writes[..] else {
        panic!("{:?}", look.writes)
    };
    let after = world.secret().clone();
    assert_eq!(hosts(&after), [CONTOSO, LITWARE]);
    assert_eq!(entry(&after, CONTOSO), entry(&before, CONTOSO));
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(world.status().observed_generation, Some(2));

    let look = world.wake(&look, |_| Ok(LIFE));
    assert_eq!(look.minted(), [CONTOSO], "the older of the two is due");
    assert_ne!(entry(world.secret(), CONTOSO), entry(&before, CONTOSO));
    assert_eq!(entry(world.secret(), LITWARE), entry(&after, LITWARE));
}

#[test]
fn another_identity_mints_anew_and_another_replica_does_not() {
    for (change, mints) in [
        (
            (|w| w.ask_for("https://management.azure.com")) as fn(&mut World),
            true,
        ),
        (
            |w| {
                w.settings.controller.as_mut().unwrap().1 =
                    "contoso.onmicrosoft.com".parse().unwrap();
            },
            true,
        ),
        (
            |w| w.federation.as_mut().unwrap().subject.name = "system:serviceaccount:a:b".into(),
            true,
        ),
        (
            |w| w.federation.as_mut().unwrap().subject.service_account_uid = "new".into(),
            false,
        ),
        (|w| w.settings.refresh_fraction = 0.6, false),
        (|w| w.restart(), false),
    ] {
        let mut world = World::ready(&[CONTOSO]);
        world.advance(secs(60));
        change(&mut world);
        assert_eq!(!world.look().minted().is_empty(), mints);
    }
}
