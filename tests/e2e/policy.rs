//! Who may use the controller's identity.

use anyhow::Context as _;

use crate::harness::{Scene, Tuning, condition, manifest, run, soon};

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

#[test]
fn a_policy_that_is_taken_back_takes_the_credential_back_without_azure() {
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
        let kept = objects.token("acr", &fabrikam).await?.context("a token")?;
        let uid = objects.secret("acr").await?.metadata.uid;
        acrcred.stop().await?;
        let calls = scene.upstream_calls();

        let mut tuning = Tuning::of(&scene);
        tuning.policy = vec![(scene.namespace.clone(), fabrikam.server.clone())];
        let _acrcred = scene.start_tuned(tuning).await?;
        objects
            .has("acr", "Ready", "False", "ControllerIdentityNotAllowed")
            .await?;
        assert_eq!(objects.token("acr", &contoso).await?, None);
        assert_eq!(objects.token("acr", &fabrikam).await?, Some(kept));
        assert_eq!(objects.secret("acr").await?.metadata.uid, uid);
        assert_eq!(scene.upstream_calls(), calls);
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
