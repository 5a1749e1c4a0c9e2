//! From nothing to a Secret that is as it should be.

use super::*;
use crate::api::VELERO_LABEL;

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
        let step = world.step();
        let [mint] = &step.mints[..] else {
            panic!("{server}: {step:?}")
        };
        let identity = &mint.identity;
        assert_eq!(mint.server.as_str(), server);
        assert_eq!(mint.server.authority().as_str(), authority, "{server}");
        let scope = mint.server.audience().scope();
        assert_eq!(scope, "https://containerregistry.azure.net/.default");
        assert_eq!(
            identity.client_id.as_str(),
            "11111111-1111-1111-1111-111111111111"
        );
        assert_eq!(
            identity.tenant_id.as_str(),
            "22222222-2222-2222-2222-222222222222"
        );
        let own = world.facts.cluster.own.as_ref();
        assert_eq!(Ok(&identity.subject), own.map(|own| &own.subject));
        assert_eq!((mint.newer_than, mint.received_after), (None, None));
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
    world.configure(|settings| {
        settings.clouds = Clouds::from_iter([custom, Cloud::AzurePublicCloud.into()]);
    });
    let step = world.step();
    let servers = step.mints.iter().map(|mint| &mint.server);
    let asked: Vec<_> = servers
        .map(|to| (to.authority().host(), to.audience().as_str()))
        .collect();
    assert_eq!(
        asked,
        [
            ("login.cloud.private", "https://management.cloud.private"),
            ("login.microsoftonline.com", Audience::CONTAINER_REGISTRY)
        ]
    );
    world.look();
    let rows = world.status().registries.iter();
    let shown: Vec<_> = rows.map(|row| row.audience.as_deref()).collect();
    let expected = [
        "https://management.cloud.private",
        Audience::CONTAINER_REGISTRY,
    ];
    assert_eq!(shown, expected.map(Some));
}

#[test]
fn the_first_credential_creates_the_secret() {
    let mut world = World::of(&[CONTOSO]);
    let look = world.look();
    let [SecretCall::Create(write)] = &look.calls[..] else {
        panic!("{look:?}")
    };
    let secret = &write.secret;
    let metadata = &secret.metadata;
    assert_eq!(
        secret.type_.as_deref(),
        Some("kubernetes.io/dockerconfigjson")
    );
    assert_eq!(metadata.name.as_deref(), Some("acr"));
    assert_eq!(metadata.namespace.as_deref(), Some("demo"));
    assert_eq!((&metadata.uid, &metadata.resource_version), (&None, &None));
    let labels = [(MANAGED_BY_LABEL, "acrcred"), (VELERO_LABEL, "true")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(metadata.labels, Some(labels.into()));
    let annotations = [(OWNER_ANNOTATION.to_owned(), "acr".to_owned())];
    assert_eq!(metadata.annotations, Some(annotations.into()));
    assert_eq!(metadata.owner_references, Some(vec![owner(our_owner())]));
    assert_eq!((&metadata.finalizers, secret.immutable), (&None, None));
    let data = secret.data.as_ref().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), [".dockerconfigjson"]);
    let auth = &payload(secret)["auths"][CONTOSO];
    assert_eq!(auth["username"], "00000000-0000-0000-0000-000000000000");
    let token = write.entries[CONTOSO].credential.token.expose();
    assert_eq!(auth["password"], token);
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
    assert_eq!(annotation(world.secret(), OWNER_ANNOTATION), Some("acr"));
    let stated = world.status().secret.as_ref().unwrap();
    assert_eq!(stated.name, "pull");
}

#[test]
fn once_written_the_status_says_so_and_nothing_is_left_to_do() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look();
    let status = world.status().clone();
    let time = |at: Timestamp| Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
    assert_eq!(conditions(&status), READY);
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.conditions[0].observed_generation, Some(1));
    let stated = status.secret.clone().unwrap();
    let stored = &world.secret().metadata;
    assert_eq!(stated.name, "acr");
    assert_eq!(Some(&stated.uid), stored.uid.as_ref());
    assert_eq!(
        Some(&stated.resource_version),
        stored.resource_version.as_ref()
    );
    assert_eq!(status.expires_at, time(world.now + LIFE));
    assert_eq!(status.last_refresh_at, time(world.now));
    let refresh_at = status.refresh_at.clone().unwrap().0;
    assert!(
        refresh_at > world.now + LIFE * 4 / 10 - secs(1),
        "{refresh_at}"
    );
    assert!(refresh_at <= world.now + LIFE / 2, "{refresh_at}");
    let identity = status.identity.clone().unwrap();
    assert_eq!(identity.issuer.as_deref(), Some("https://issuer.example/"));
    assert_eq!(
        identity.subject,
        "system:serviceaccount:acrcred-system:acrcred"
    );
    assert_eq!(status.registries.len(), 2);
    for (row, server) in status.registries.iter().zip([CONTOSO, FABRIKAM]) {
        assert_eq!(
            (row.server.as_str(), row.reason.as_str()),
            (server, "Issued")
        );
        assert_eq!(row.audience.as_deref(), Some(Audience::CONTAINER_REGISTRY));
        assert_eq!(row.expires_at, time(world.now + LIFE));
        assert_eq!(row.issued_at, time(world.now));
        assert!(row.issued_for.as_ref().unwrap().starts_with("controller:"));
    }
    let again = world.look();
    assert!(again.is_idle() && again.calls.is_empty(), "{again:?}");
    assert_eq!(again.step.wake_at, look.step.wake_at);
}

#[test]
fn without_a_credential_there_is_no_secret() {
    let mut world = World::of(&[CONTOSO, FABRIKAM]);
    let look = world.look_failing(unavailable());
    assert!(look.calls.is_empty(), "{look:?}");
    assert_eq!(world.api.secret, None);
    assert_eq!(world.status().secret, None);
}

#[test]
fn a_controller_without_identity_mints_nothing_and_says_so() {
    let no_assertion = MintError::new(Hop::Assertion, Cause::NoAssertion);
    for has_client_id in [true, false] {
        let mut world = World::of(&[CONTOSO]);
        if has_client_id {
            world.learn(|cluster| cluster.own = Err(no_assertion));
        } else {
            world.configure(|settings| settings.controller = None);
        }
        let look = world.look();
        assert!(look.mints.is_empty() && look.calls.is_empty(), "{look:?}");
        let expected = [
            "Ready=False/InvalidIdentity",
            "Reconciling=True/InvalidIdentity",
        ];
        assert_eq!(conditions(world.status()), expected);
        // There is no event when the token file appears.
        let wait = look.step.wake_at.unwrap().duration_since(world.now);
        assert!(wait <= secs(15), "{wait}");
        let now = World::of(&[CONTOSO]);
        world.facts.settings = now.facts.settings.clone();
        world.facts.cluster = now.facts.cluster.clone();
        world.wake(&look, |_| Ok(LIFE));
        assert_eq!(conditions(world.status()), READY);
    }
}

#[test]
fn a_controller_that_loses_its_token_keeps_what_it_wrote() {
    let mut world = World::ready(&[CONTOSO]);
    let own = world.facts.cluster.own.clone();
    world.learn(|cluster| cluster.own = Err(MintError::new(Hop::Assertion, Cause::NoAssertion)));
    let look = world.look();
    assert!(look.mints.is_empty() && look.calls.is_empty(), "{look:?}");
    assert_eq!(conditions(world.status()), READY);
    world.advance(LIFE / 2);
    world.look();
    assert_eq!(hosts(world.secret()), [CONTOSO]);
    let expected = ["Ready=True/Issued", "RefreshFailing=True/InvalidIdentity"];
    assert_eq!(conditions(world.status()), expected);
    world.learn(|cluster| cluster.own = own);
    assert_eq!(world.look().minted(), [CONTOSO]);
    assert_eq!(conditions(world.status()), READY);
}

#[test]
fn a_token_that_cannot_be_read_for_a_moment_changes_no_status() {
    let mut world = World::ready(&[CONTOSO]);
    world.restart();
    world.learn(|cluster| cluster.own = Err(MintError::new(Hop::Assertion, Cause::NoAssertion)));
    let look = world.look();
    assert!(look.is_idle(), "{look:?}");
}

#[test]
fn one_rotation_leaves_the_other_token_alone() {
    let mut world = World::ready(&[CONTOSO, FABRIKAM]);
    world.advance(secs(60));
    let before = world.secret().clone();
    world.edit(|spec| spec.registries[1] = world::registry(LITWARE));
    let look = world.look();
    assert_eq!(look.minted(), [LITWARE], "only what changed is minted");
    let [first, last] = &look.writes()[..] else {
        panic!("{look:?}")
    };
    assert_eq!(hosts(&first.secret), [CONTOSO], "what must go goes first");
    assert_eq!(hosts(&last.secret), [CONTOSO, LITWARE]);
    let after = world.secret().clone();
    assert_eq!(entry(&after, CONTOSO), entry(&before, CONTOSO));
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(world.status().observed_generation, Some(2));

    let look = world.until_minted(|_| Ok(LIFE));
    assert_eq!(look.minted(), [CONTOSO], "the older of the two is due");
    assert_ne!(entry(world.secret(), CONTOSO), entry(&before, CONTOSO));
    assert_eq!(entry(world.secret(), LITWARE), entry(&after, LITWARE));
}

#[test]
fn another_identity_is_minted_for_at_once_and_nothing_else_is() {
    type Change = fn(&mut World);
    let cases: [(Change, bool); 7] = [
        (|w| w.ask_for("https://management.azure.com"), true),
        (
            |w| {
                let tenant = "contoso.onmicrosoft.com".parse().unwrap();
                w.configure(|s| s.controller.as_mut().unwrap().1 = tenant);
            },
            true,
        ),
        (
            |w| {
                own(w, |own| {
                    own.subject.name = "system:serviceaccount:a:b".into();
                });
            },
            true,
        ),
        (
            |w| own(w, |own| own.subject.service_account_uid = "new".into()),
            false,
        ),
        (
            |w| own(w, |own| own.issuer = "https://new.example/".into()),
            false,
        ),
        (
            |w| w.configure(|settings| settings.refresh_fraction = 0.6),
            false,
        ),
        (World::restart, false),
    ];
    for (case, (change, mints)) in cases.into_iter().enumerate() {
        let mut world = World::ready(&[CONTOSO]);
        world.advance(secs(60));
        change(&mut world);
        let look = world.look();
        assert_eq!(!look.mints.is_empty(), mints, "{case}");
        assert_eq!(conditions(world.status()), READY, "{case}");
    }
}

fn own(world: &mut World, change: fn(&mut crate::credential::AssertionClaims)) {
    world.learn(|cluster| change(cluster.own.as_mut().unwrap()));
}

#[test]
fn an_object_that_is_being_deleted_is_left_alone() {
    let mut world = World::ready(&[CONTOSO]);
    world.change(|object| {
        let at = object.metadata.creation_timestamp.clone();
        object.metadata.deletion_timestamp = at;
    });
    world.advance(LIFE);
    let look = world.look();
    assert!(look.is_idle() && look.calls.is_empty(), "{look:?}");
    assert_eq!(look.step.wake_at, None);
}
