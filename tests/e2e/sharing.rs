//! Many objects, few calls.

use crate::harness::{Scene, manifest, run};

#[test]
fn fifty_objects_with_one_identity_and_registry_cost_one_call_each() {
    run(async {
        let scene = Scene::new("fifty").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        for number in 0..50 {
            objects
                .create(&manifest(&format!("acr-{number}"), &[&contoso]))
                .await?;
        }
        for number in 0..50 {
            objects.ready(&format!("acr-{number}")).await?;
        }
        assert_eq!(scene.upstream_calls(), (1, 1));
        let calls = scene.calls().await?;
        assert_eq!(calls.writes().len(), 100, "{:?}", texts(&calls.writes()));
        assert_eq!(
            calls.on("secrets").len(),
            50,
            "no reads: {:?}",
            texts(&calls.on("secrets"))
        );
        assert!(
            calls.forbidden().is_empty(),
            "{:?}",
            texts(&calls.forbidden())
        );
        Ok(())
    });
}

#[test]
fn another_registry_costs_one_exchange_more() {
    run(async {
        let scene = Scene::new("two-registries").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let _acrcred = scene.start().await?;
        scene
            .objects()
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        assert_eq!(scene.upstream_calls(), (1, 2));
        Ok(())
    });
}

fn texts(calls: &controlplane::Calls) -> Vec<String> {
    calls.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_asked_for_twice_while_nothing_changes() {
    run(async {
        let scene = Scene::new("quiet").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        for number in 0..5 {
            // Each is an event, and none a reason to do anything.
            let label =
                serde_json::json!({"metadata": {"labels": {"touched": number.to_string()}}});
            objects.change("acr", label).await?;
        }
        objects
            .create_ready(&manifest("later", &[&contoso]))
            .await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        assert_eq!(scene.calls().await?.writes().len(), 4);
        Ok(())
    });
}
