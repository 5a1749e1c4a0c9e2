//! What users do: pods that pull with the Secret that acrcred keeps.

use anyhow::Context as _;
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use serde_json::json;

use crate::harness::manifest;
use crate::stage::run;

/// As the kubelet has it, a registry's refusal reads so.
fn is_refusal(message: &str) -> bool {
    ["401", "403", "authoriz", "denied"]
        .iter()
        .any(|word| message.to_lowercase().contains(word))
}

#[test]
fn a_pod_starts_from_a_private_image_with_the_secret_and_not_without() {
    run(async |stage| {
        let story = stage.story("starts").await?;
        story.pods.create("without", &story.image, None).await?;
        let said = story.pods.is_refused("without").await?;
        assert!(is_refusal(&said), "{said}");

        let object = manifest("acr", &[&story.registry]);
        story.objects.create_ready(&object).await?;
        story.starts("with").await
    });
}

#[test]
fn a_pod_created_before_the_secret_starts_by_itself_once_there_is_one() {
    run(async |stage| {
        let story = stage.story("early").await?;
        story
            .pods
            .create("early", &story.image, Some("acr"))
            .await?;
        let said = story.pods.is_refused("early").await?;
        assert!(is_refusal(&said), "{said}");
        let object = manifest("acr", &[&story.registry]);
        story.objects.create_ready(&object).await?;
        assert_eq!(story.pods.runs("early").await?, story.image.pinned);
        Ok(())
    });
}

#[test]
fn pods_pull_with_each_new_token_and_the_secret_stays_the_same_object() {
    run(async |stage| {
        let story = stage.story("rotates").await?;
        let object = manifest("acr", &[&story.registry]);
        story.objects.create_ready(&object).await?;
        let secret = story.objects.secret("acr").await?;
        let token = story.objects.token("acr", &story.registry).await?;
        let token = token.context("a token")?;
        story.starts("first").await?;

        // Objects that get the same value within 30 s are served by one token, so each story has its own.
        let refresh = json!({"metadata": {"annotations": {"acrcred.dev/refresh": "rotates"}}});
        story.objects.change("acr", refresh).await?;
        story
            .objects
            .another_token("acr", &story.registry, &token)
            .await?;
        // The kubelet remembers by UID which Secrets an image was pulled with.
        let uid = story.objects.secret("acr").await?.metadata.uid;
        assert_eq!(uid, secret.metadata.uid);
        story.starts("second").await?;
        Ok(())
    });
}

#[test]
fn pods_start_while_azure_mints_nothing_and_the_token_lives() {
    run(async |stage| {
        let story = stage.story("outage").await?;
        let object = manifest("acr", &[&story.registry]);
        story.objects.create_ready(&object).await?;
        story.starts("before").await?;
        // Others on this stage have their Entra token by now, as this object does.
        let emulator = &stage.scene.emulator;
        let tenant = Match::tenant(&stage.scene.tenant_id);
        let faults = [
            Fault::new(Endpoint::Login, tenant, Kind::status(503)),
            Fault::new(
                Endpoint::Exchange,
                Match::registry(&story.registry.server),
                Kind::status(503),
            ),
        ]
        .map(|fault| emulator.add_fault(fault));
        let refresh = json!({"metadata": {"annotations": {"acrcred.dev/refresh": "outage"}}});
        story.objects.change("acr", refresh).await?;
        story
            .objects
            .status("acr", "the refresh fails", |object| {
                crate::harness::condition(object, "RefreshFailing")
                    .is_some_and(|condition| condition.status == "True")
            })
            .await?;
        let starts = story.starts("during").await;
        for fault in faults {
            emulator.remove_fault(fault);
        }
        starts
    });
}

#[test]
fn no_pod_pulls_after_the_object_is_deleted() {
    run(async |stage| {
        let story = stage.story("deleted").await?;
        let object = manifest("acr", &[&story.registry]);
        story.objects.create_ready(&object).await?;
        story.starts("before").await?;

        story.objects.delete("acr").await?;
        story.objects.collected("acr").await?;
        // The image is on the node, and is asked for all the same.
        story
            .pods
            .create("after", &story.image, Some("acr"))
            .await?;
        let said = story.pods.is_refused("after").await?;
        assert!(is_refusal(&said), "{said}");
        Ok(())
    });
}

#[test]
fn a_pod_takes_over_the_secret_of_its_service_account() {
    run(async |stage| {
        let story = stage.story("account").await?;
        let object = manifest("acr", &[&story.registry]);
        story.objects.create_ready(&object).await?;
        story.pods.name_in_service_account("acr").await?;
        story.pods.create("plain", &story.image, None).await?;
        assert_eq!(story.pods.runs("plain").await?, story.image.pinned);
        Ok(())
    });
}
