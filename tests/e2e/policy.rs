//! Who may use the controller's identity.

use anyhow::Context as _;
use azure_emulator::fault::{BodyKind, Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use jiff::SignedDuration;

use crate::changes::Changes;
use crate::harness::{Acrcred, Scene, TestRegistry, Tuning, condition, manifest, run, soon};

#[test]
fn a_namespace_that_the_policy_does_not_name_gets_nothing_and_nothing_is_asked() {
    run(async {
        let scene = Scene::new("allowed").await?;
        let contoso = scene.registry("contoso").await?;
        let other = scene.control_plane.create_namespace("not-allowed").await?;
        let mut tuning = Tuning::of(&scene);
        tuning.watch_namespaces.push(other.clone());
        let _acrcred = scene.start_tuned(tuning).await?;
        let outside = crate::harness::Objects::new(scene.control_plane.admin(), &other);
        let connects = scene.connects_to(&contoso.server);

        // With a cold cache.
        outside.create(&manifest("acr", &[&contoso])).await?;
        let object = outside
            .has("acr", "Ready", "False", "ControllerIdentityNotAllowed")
            .await?;
        assert!(condition(&object, "Stalled").is_some());
        assert_eq!(scene.upstream_calls(), (0, 0));
        assert_eq!(scene.connects_to(&contoso.server), connects);
        assert!(outside.secrets.get_opt("acr").await?.is_none());

        // With a hot one, which the positive control heats.
        scene
            .objects()
            .create_ready(&manifest("acr", &[&contoso]))
            .await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        outside.create(&manifest("late", &[&contoso])).await?;
        outside
            .has("late", "Ready", "False", "ControllerIdentityNotAllowed")
            .await?;
        assert!(outside.secrets.get_opt("late").await?.is_none());
        assert_eq!(scene.upstream_calls(), (1, 1));
        Ok(())
    });
}

#[test]
fn a_refusal_is_told_by_one_event() {
    run(async {
        let scene = Scene::new("event").await?;
        let contoso = scene.registry("contoso").await?;
        let mut tuning = Tuning::of(&scene);
        tuning.policy.clear();
        let _acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&contoso])).await?;
        objects
            .has("acr", "Stalled", "True", "ControllerIdentityNotAllowed")
            .await?;
        let events: kube::Api<k8s_openapi::api::events::v1::Event> =
            kube::Api::namespaced(scene.control_plane.admin(), &scene.namespace);
        let event = soon("there is an event", async || {
            let list = events.list(&kube::api::ListParams::default()).await;
            let mut items = list.map_err(|error| error.to_string())?.items;
            let count = items.len();
            items
                .pop()
                .filter(|_| count == 1)
                .ok_or_else(|| format!("{count} events"))
        })
        .await?;
        assert_eq!(
            event.reason.as_deref(),
            Some("ControllerIdentityNotAllowed")
        );
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(
            event.regarding.and_then(|object| object.name).as_deref(),
            Some("acr")
        );
        Ok(())
    });
}

/// Restarts acrcred with a policy that allows just these servers.
async fn allows(scene: &Scene, servers: &[&TestRegistry]) -> anyhow::Result<Acrcred> {
    let rule = |registry: &&TestRegistry| (scene.namespace.clone(), registry.server.clone());
    let mut tuning = Tuning::of(scene);
    tuning.policy = servers.iter().map(rule).collect();
    scene.start_tuned(tuning).await
}

#[test]
fn a_policy_that_is_taken_back_takes_the_credential_back() {
    run(async {
        let scene = Scene::new("revoked").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let uid = objects.secret("acr").await?.metadata.uid;
        acrcred.stop().await?;
        let count = |server: &str| {
            let exchanges = scene.journal(Endpoint::Exchange);
            exchanges
                .iter()
                .filter(|entry| entry.host == server)
                .count()
        };

        // The other one's token is not known after the restart: it is issued again, and both are one write.
        let changes = Changes::from_now(&scene).await?;
        let acrcred = allows(&scene, &[&fabrikam]).await?;
        objects
            .has("acr", "Ready", "False", "ControllerIdentityNotAllowed")
            .await?;
        soon("the entry is gone", async || {
            match objects.token("acr", &contoso).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("still there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        let kept = objects.token("acr", &fabrikam).await?.context("a token")?;
        scene.emulator.verify_token(&kept)?;
        assert_eq!(objects.secret("acr").await?.metadata.uid, uid);
        assert_eq!((count(&contoso.server), count(&fabrikam.server)), (1, 2));
        assert_eq!(changes.of_secrets().await?["acr"], 1);
        acrcred.stop().await?;

        // Where nothing stays, nothing is waited for.
        let calls = scene.upstream_calls();
        let _acrcred = allows(&scene, &[]).await?;
        soon("no entry is left", async || {
            match objects.token("acr", &fabrikam).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("still there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        assert_eq!(objects.secret("acr").await?.metadata.uid, uid);
        assert_eq!(scene.upstream_calls(), calls);
        Ok(())
    });
}

#[test]
fn a_policy_that_is_taken_back_while_azure_is_down_takes_effect_in_a_minute() {
    run(async {
        let scene = Scene::with_own_time("revoked-down").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let before = objects.secret("acr").await?;
        acrcred.stop().await?;
        let down = Kind::Status {
            status: 503,
            body: BodyKind::Text,
            code: None,
            text: None,
            reason: None,
            retry_after: None,
        };
        let matching = Match::registry(&fabrikam.server);
        scene
            .emulator
            .add_fault(Fault::new(Endpoint::Exchange, matching, down));
        let acrcred = allows(&scene, &[&fabrikam]).await?;
        // The credential that stays cannot be issued again, and nothing is lost meanwhile.
        soon("Azure was asked, and again", async || {
            let exchanges = scene.journal(Endpoint::Exchange);
            let failed = exchanges
                .iter()
                .filter(|entry| entry.fault.is_some())
                .count();
            (failed > 1).then_some(()).ok_or_else(|| "not yet".into())
        })
        .await?;
        scene.advance(SignedDuration::from_secs(40));
        acrcred.catches_up().await?;
        let now = objects.secret("acr").await?;
        assert_eq!(
            now.metadata.resource_version,
            before.metadata.resource_version
        );
        scene.advance(SignedDuration::from_secs(25));
        soon("the entry is gone", async || {
            match objects.token("acr", &contoso).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("still there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        let now = objects.secret("acr").await?;
        assert_eq!(now.metadata.uid, before.metadata.uid);
        Ok(())
    });
}

#[test]
fn a_field_that_is_not_served_never_widens() {
    run(async {
        let scene = Scene::new("not-served").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let mut object = manifest("attach", &[&contoso]);
        object.spec.attach = Some(acrcred::api::Attach {
            service_accounts: vec!["default".into()],
        });
        objects.create(&object).await?;
        objects
            .has("attach", "Stalled", "True", "FieldNotSupported")
            .await?;
        assert!(objects.secrets.get_opt("attach").await?.is_none());
        assert_eq!(scene.upstream_calls(), (0, 0));
        // The positive control: without the field it is served.
        objects
            .create_ready(&manifest("plain", &[&contoso]))
            .await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        Ok(())
    });
}
