//! Minting as the `ServiceAccount` that an object names.

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result};
use azure_emulator::journal::{Endpoint, Entry};
use jiff::{SignedDuration, Timestamp};

use crate::changes::Changes;
use crate::harness::{Puller, Scene, Tuning, manifest, run, soon};

const CLIENT_ID: &str = "azure.workload.identity/client-id";

/// The controller's identity is allowed to nobody.
fn for_nobody(scene: &Scene) -> Tuning {
    Tuning {
        policy: Vec::new(),
        ..Tuning::of(scene)
    }
}

fn logins_of(puller: &Puller<'_>) -> Vec<Entry> {
    let mut logins = puller.scene.journal(Endpoint::Login);
    logins.retain(|login| login.client_id.as_deref() == Some(&puller.client_id));
    logins
}

/// API calls since `begin` that reconciles made, as verb and resource; the watch and events left out.
async fn calls_since(scene: &Scene, begin: Timestamp) -> Result<Vec<String>> {
    let calls = scene.calls().await?.since(begin);
    let mut texts: Vec<String> = calls
        .iter()
        .filter(|call| !matches!(call.verb.as_str(), "watch" | "list") && call.resource != "events")
        .filter(|call| call.resource != "secrets" || call.is_write())
        .map(|call| {
            let resource = match &*call.subresource {
                "" => call.resource.clone(),
                sub => format!("{}/{sub}", call.resource),
            };
            format!("{} {resource}", call.verb)
        })
        .collect();
    texts.sort();
    // The regular write of what is there already: time that is turned brings it along.
    let update = "update secrets";
    let updates = texts.iter().filter(|text| *text == update).count();
    texts.retain(|text| text != update);
    texts.extend((updates > 0).then(|| update.to_owned()));
    Ok(texts)
}

#[test]
fn an_object_is_minted_for_as_the_service_account_it_names() {
    run(async {
        let scene = Scene::with_own_time("puller").await?;
        let puller = scene.puller().await?;
        let contoso = puller.registry("contoso").await?;
        let acrcred = scene.start_tuned(for_nobody(&scene)).await?;
        let objects = scene.objects();
        let begin = Timestamp::now();
        objects
            .create_ready(&puller.manifest("acr", &[&contoso]))
            .await?;
        let image = format!("{}/team/app:v1", contoso.server);
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane.pull(&image).await?;

        let logins = logins_of(&puller);
        let assertion = logins[0].assertion.as_ref().context("an assertion")?;
        assert_eq!(logins.len(), 1);
        assert_eq!(assertion.subject, puller.subject());
        assert_eq!(assertion.audience, ["api://AzureCRTokenExchange"]);
        assert_eq!(assertion.lifetime_s, 600);
        assert_eq!(
            calls_since(&scene, begin).await?,
            [
                "create secrets",
                "create serviceaccounts/token",
                "get serviceaccounts",
                "patch acrcredentials/status"
            ]
        );

        let begin = Timestamp::now();
        let changes = Changes::from_now(&scene).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        scene.advance(SignedDuration::from_mins(95));
        objects.another_token("acr", &contoso, &token).await?;
        let rotated = |object: &AcrCredential| {
            let status = object.status.as_ref();
            status.and_then(|s| s.last_refresh_at.as_ref())
                > Some(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                    scene.clock.now() - SignedDuration::from_mins(5),
                ))
        };
        objects
            .status("acr", "the rotation is told", rotated)
            .await?;
        assert_eq!(
            calls_since(&scene, begin).await?,
            [
                "create serviceaccounts/token",
                "get serviceaccounts",
                "patch acrcredentials/status",
                "update secrets"
            ]
        );
        assert_eq!(changes.of_secrets().await?["acr"], 1);
        assert_eq!(changes.of_objects().await?["acr"], 1);
        // The positive control: without an identity of its own, the same object gets nothing.
        objects.create(&manifest("own", &[&contoso])).await?;
        objects
            .has("own", "Stalled", "True", "ControllerIdentityNotAllowed")
            .await?;
        acrcred.stop().await
    });
}

#[test]
fn a_service_account_that_comes_later_is_waited_for() {
    run(async {
        let scene = Scene::new("later").await?;
        scene.allow_impersonation().await?;
        let puller = scene.absent_puller();
        puller.trust()?;
        let contoso = puller.registry("contoso").await?;
        let _acrcred = scene.start_tuned(for_nobody(&scene)).await?;
        let objects = scene.objects();
        objects.create(&puller.manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Reconciling", "True", "ServiceAccountNotFound")
            .await?;
        assert!(object.status.context("a status")?.identity.is_none());
        assert_eq!(scene.upstream_calls(), (0, 0));
        puller.create().await?;
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn a_service_account_that_is_deleted_loses_its_credential_at_the_resync() {
    run(async {
        let scene = Scene::with_own_time("deleted").await?;
        let puller = scene.puller().await?;
        let contoso = puller.registry("contoso").await?;
        let _acrcred = scene.start_tuned(for_nobody(&scene)).await?;
        let objects = scene.objects();
        objects
            .create_ready(&puller.manifest("acr", &[&contoso]))
            .await?;
        let uid = objects.secret("acr").await?.metadata.uid;
        puller.delete().await?;
        scene.advance(SignedDuration::from_mins(11));
        objects
            .has("acr", "Ready", "False", "ServiceAccountNotFound")
            .await?;
        assert_eq!(objects.token("acr", &contoso).await?, None);

        // Re-created: another UID, so nothing that its predecessor got is handed to it.
        let before = logins_of(&puller);
        let account = puller.create().await?;
        scene.advance(SignedDuration::from_mins(1));
        objects.ready("acr").await?;
        let logins = logins_of(&puller);
        assert_eq!(logins.len(), before.len() + 1);
        let assertion = logins.last().and_then(|login| login.assertion.clone());
        assert_eq!(
            assertion.context("an assertion")?.service_account_uid,
            account.metadata.uid
        );
        assert_eq!(
            objects.secret("acr").await?.metadata.uid,
            uid,
            "kept in place"
        );
        Ok(())
    });
}

#[test]
fn a_client_id_that_is_taken_away_takes_the_credential_along_at_the_next_mint() {
    run(async {
        let scene = Scene::with_own_time("taken").await?;
        let puller = scene.puller().await?;
        let (contoso, fabrikam) = (
            puller.registry("contoso").await?,
            puller.registry("fabrikam").await?,
        );
        let _acrcred = scene.start_tuned(for_nobody(&scene)).await?;
        let objects = scene.objects();
        objects
            .create_ready(&puller.manifest("acr", &[&contoso]))
            .await?;
        let before = scene.upstream_calls();
        puller.annotate(CLIENT_ID, None).await?;
        // Another registry: a mint, long before the resync. A ServiceAccount that was read in this second is not read again.
        scene.advance(SignedDuration::from_secs(2));
        objects
            .change(
                "acr",
                serde_json::json!({"spec": {"registries": [{"server": contoso.server}, {"server": fabrikam.server}]}}),
            )
            .await?;
        objects
            .has("acr", "Stalled", "True", "ClientIdMissing")
            .await?;
        assert_eq!(objects.token("acr", &contoso).await?, None);
        assert_eq!(scene.upstream_calls(), before);
        puller.annotate(CLIENT_ID, Some(&puller.client_id)).await?;
        scene.advance(SignedDuration::from_mins(1));
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn an_id_that_is_a_path_never_leaves_the_cluster() {
    run(async {
        for key in [CLIENT_ID, "azure.workload.identity/tenant-id"] {
            let scene = Scene::new("path").await?;
            let puller = scene.puller().await?;
            let contoso = puller.registry("contoso").await?;
            let _acrcred = scene.start_tuned(for_nobody(&scene)).await?;
            let objects = scene.objects();
            puller.annotate(key, Some("../x")).await?;
            objects.create(&puller.manifest("acr", &[&contoso])).await?;
            let object = objects
                .has("acr", "Stalled", "True", "InvalidIdentity")
                .await?;
            let told = format!("{:?}", object.status);
            assert!(told.contains(key) && !told.contains("../x"), "{told}");
            assert_eq!(scene.upstream_calls(), (0, 0));
            assert!(logins_of(&puller).is_empty());
            let good = if key == CLIENT_ID {
                &puller.client_id
            } else {
                &puller.tenant_id
            };
            puller.annotate(key, Some(good)).await?;
            objects.ready("acr").await?;
            assert_eq!(scene.upstream_calls(), (1, 1));
        }
        Ok(())
    });
}

#[test]
fn without_the_role_nothing_is_minted_and_the_message_names_it() {
    run(async {
        let scene = Scene::new("unbound").await?;
        let puller = scene.absent_puller();
        puller.create().await?;
        puller.trust()?;
        let contoso = puller.registry("contoso").await?;
        let _acrcred = scene.start_tuned(for_nobody(&scene)).await?;
        let objects = scene.objects();
        objects.create(&puller.manifest("acr", &[&contoso])).await?;
        let object = objects.has("acr", "Stalled", "True", "Forbidden").await?;
        let told = format!("{:?}", object.status);
        assert!(told.contains("acrcred-impersonation"), "{told}");
        assert_eq!(scene.upstream_calls(), (0, 0));
        scene.allow_impersonation().await?;
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn a_service_account_picks_among_the_operators_audiences() {
    run(async {
        let scene = Scene::new("audiences").await?;
        let puller = scene.puller().await?;
        let contoso = puller.registry("contoso").await?;
        let default = "api://not-in-the-policy";
        let tuning = Tuning {
            impersonation_audiences: vec![default.into(), "api://AzureCRTokenExchange".into()],
            ..for_nobody(&scene)
        };
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create(&puller.manifest("acr", &[&contoso])).await?;
        // The default, which the admission policy does not list: the flag alone opens nothing.
        let object = objects.has("acr", "Stalled", "True", "Forbidden").await?;
        let identity = object.status.and_then(|status| status.identity);
        assert_eq!(identity.context("the facts")?.audience, default);
        let audience = "acrcred.dev/audience";
        puller
            .annotate(audience, Some("https://kubernetes.default.svc"))
            .await?;
        objects
            .has("acr", "Stalled", "True", "InvalidIdentity")
            .await?;
        assert_eq!(scene.upstream_calls(), (0, 0));
        puller
            .annotate(audience, Some("api://AzureCRTokenExchange"))
            .await?;
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn two_service_accounts_with_one_client_id_share_no_token() {
    run(async {
        let scene = Scene::new("two-accounts").await?;
        let puller = scene.puller().await?;
        let other = Puller {
            name: "other".into(),
            ..scene.absent_puller()
        };
        other.create().await?;
        let contoso = puller.registry("contoso").await?;
        let _acrcred = scene.start_tuned(for_nobody(&scene)).await?;
        let objects = scene.objects();
        objects
            .create_ready(&puller.manifest("first", &[&contoso]))
            .await?;
        // The application does not trust the other one: what the first got is not for it, however warm.
        objects
            .create(&other.manifest("other", &[&contoso]))
            .await?;
        objects
            .has("other", "Reconciling", "True", "FederationMismatch")
            .await?;
        puller.trust_subjects(&[&puller.subject(), &other.subject()])?;
        objects.ready("other").await?;
        // The positive control: a second object of the first one costs nothing.
        let before = scene.upstream_calls();
        objects
            .create_ready(&puller.manifest("second", &[&contoso]))
            .await?;
        assert_eq!(scene.upstream_calls(), before);
        assert_ne!(
            objects.token("first", &contoso).await?,
            objects.token("other", &contoso).await?
        );
        Ok(())
    });
}

#[test]
fn an_impersonated_entra_token_is_shared_for_ten_minutes_only() {
    run(async {
        let scene = Scene::with_own_time("ten-minutes").await?;
        let puller = scene.puller().await?;
        let objects = scene.objects();
        let _acrcred = scene.start().await?;
        let mut logins = Vec::new();
        for (name, minutes) in [("one", 0), ("two", 8), ("three", 8)] {
            scene.advance(SignedDuration::from_mins(minutes));
            let registry = puller.registry(name).await?;
            scene.assign_role(&registry)?;
            objects
                .create_ready(&puller.manifest(name, &[&registry]))
                .await?;
            objects
                .create_ready(&manifest(&format!("own-{name}"), &[&registry]))
                .await?;
            let all = scene.upstream_calls().0;
            let theirs = logins_of(&puller).len();
            logins.push((theirs, all - theirs));
        }
        assert_eq!(
            logins,
            [(1, 1), (1, 1), (2, 1)],
            "theirs, and the controller's"
        );
        Ok(())
    });
}

#[test]
fn what_entra_must_trust_is_told_while_every_call_fails() {
    run(async {
        let scene = Scene::new("facts").await?;
        let puller = scene.puller().await?;
        puller.trust_subjects(&[])?;
        let contoso = puller.registry("contoso").await?;
        let _acrcred = scene.start_tuned(for_nobody(&scene)).await?;
        let objects = scene.objects();
        objects.create(&puller.manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Reconciling", "True", "FederationMismatch")
            .await?;
        let told = object
            .status
            .and_then(|s| s.identity)
            .context("the facts")?;
        let login = logins_of(&puller).pop().context("a sign-in")?;
        let presented = login.assertion.context("an assertion")?;
        assert_eq!(told.issuer, Some(presented.issuer));
        assert_eq!(told.subject, presented.subject);
        assert_eq!([told.audience], presented.audience[..]);
        assert_eq!(Some(told.client_id), login.client_id);
        assert_eq!(Some(told.tenant_id), login.tenant);
        puller.trust()?;
        objects.ready("acr").await?;
        soon("the facts stay", async || {
            let object = objects
                .credentials
                .get("acr")
                .await
                .map_err(|e| e.to_string())?;
            let identity = object.status.and_then(|status| status.identity);
            identity.map(|_| ()).ok_or_else(|| "gone".to_owned())
        })
        .await
    });
}
