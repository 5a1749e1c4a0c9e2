//! The image by itself: what it needs to start, whom it trusts, and whether it can look up a name.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::manifest;
use crate::install::{Installation, Trust, install};
use crate::name_server::NameServer;
use crate::stage::{Stage, Story, run};

const PROXY: &str = "egress.example.test";

/// The emulator's proxy by a name that only our name server knows.
fn proxy(stage: &Stage) -> Result<String> {
    let url = stage.scene.emulator.proxy_url();
    let (_, port) = url.rsplit_once(':').context("a port")?;
    Ok(format!("http://{PROXY}:{}", port.trim_end_matches('/')))
}

/// Creates an object that the story's own acrcred serves.
async fn create(story: &Story, served_by: &str) -> Result<()> {
    let mut object = manifest("acr", &[&story.registry]);
    let labels = json!({"served-by": "another", "instance": served_by});
    object.metadata.labels = serde_json::from_value(labels)?;
    story.objects.create(&object).await?;
    Ok(())
}

#[test]
fn it_starts_without_ssl_cert_file_looks_up_names_and_trusts_only_public_authorities() {
    run(async |stage| {
        let story = stage.story("bare").await?;
        let names = NameServer::start().await?;
        let installation = |name, selector, trust| {
            anyhow::Ok(Installation {
                name,
                selector,
                https_proxy: proxy(stage)?,
                trust,
                name_server: Some(names.address.to_string()),
            })
        };
        let untold = installation("untold", "instance=untold", Trust::Image)?;
        let pod = install(stage, &untold).await?;
        create(&story, "untold").await?;
        let object = story
            .objects
            .status("acr", "the mint fails", |object| {
                crate::harness::condition(object, "Ready").is_some()
            })
            .await?;
        let logs = stage.node.logs("acrcred-system", &pod).join("\n");
        let ready = crate::harness::condition(&object, "Ready").context("Ready")?;
        assert_eq!(ready.status, "False", "{logs}");
        assert!(names.questions() > 0, "it asked for {PROXY}: {logs}");
        let (logins, _) = stage.scene.upstream_calls();

        // The positive control: with the emulator's authority where the system's are, the same works.
        story.objects.delete("acr").await?;
        install(
            stage,
            &installation("told", "instance=told", Trust::Mounted)?,
        )
        .await?;
        create(&story, "told").await?;
        story.objects.ready("acr").await?;
        assert!(stage.scene.upstream_calls().0 > logins);
        story
            .pods
            .create("pulls", &story.image, Some("acr"))
            .await?;
        assert_eq!(story.pods.runs("pulls").await?, story.image.pinned);
        Ok(())
    });
}
