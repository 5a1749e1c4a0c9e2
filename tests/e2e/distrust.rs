//! Nothing that is read from the cluster is believed.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::{Scene, manifest, run};

/// A JWT that anybody can make: well formed, good for 24 hours, and signed by nobody.
fn self_made_token() -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({"iat": now, "exp": now + 86_400, "grant_type": "refresh_token"});
    format!(
        "{}.{}.{}",
        part(json!({"alg": "RS256"})),
        part(claims),
        URL_SAFE_NO_PAD.encode("planted")
    )
}

#[test]
fn a_forged_status_and_a_planted_token_are_put_right_at_the_start() {
    run(async {
        let scene = Scene::new("forged").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        objects
            .create_ready(&manifest("team-a", &[&contoso]))
            .await?;
        acrcred.stop().await?;

        let far = "2099-01-01T00:00:00Z";
        let forged = json!({"status": {
            "secretName": "victim", "expiresAt": far, "refreshAt": far, "lastRefreshAt": far,
            "conditions": [{
                "type": "Stalled", "status": "True", "reason": "Forged", "message": "",
                "lastTransitionTime": far,
            }],
        }});
        let params = PatchParams::default();
        objects
            .credentials
            .patch_status("team-a", &params, &Patch::Merge(forged))
            .await?;
        let victim = json!({"metadata": {"name": "victim"}, "stringData": {"password": "hunter2"}});
        let victim = serde_json::from_value(victim)?;
        let victim = objects
            .secrets
            .create(&PostParams::default(), &victim)
            .await?;
        let planted = self_made_token();
        let user = "00000000-0000-0000-0000-000000000000";
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{planted}"));
        let payload = json!({"auths": {&contoso.server: {"auth": auth, "password": planted, "username": user}}});
        let patch = Patch::Merge(json!({"stringData": {".dockerconfigjson": payload.to_string()}}));
        objects.secrets.patch("team-a", &params, &patch).await?;

        let _acrcred = scene.start().await?;
        let token = objects.another_token("team-a", &contoso, &planted).await?;
        scene.emulator.verify_token(&token)?;
        let object = objects.ready("team-a").await?;
        let status = object.status.context("a status")?;
        assert_eq!(status.secret.as_ref().map(|secret| secret.name.as_str()), Some("team-a"));
        assert!(
            status
                .expires_at
                .context("an expiry")?
                .0
                .to_string()
                .as_str()
                < "2099"
        );
        assert_eq!(status.conditions.len(), 1, "{:?}", status.conditions);
        assert_eq!(
            objects.secret("victim").await?.metadata.resource_version,
            victim.metadata.resource_version
        );

        // Nothing of it went to anybody else.
        objects
            .create_ready(&manifest("team-b", &[&contoso]))
            .await?;
        let other = objects
            .token("team-b", &contoso)
            .await?
            .context("a token")?;
        scene.emulator.verify_token(&other)?;
        assert!(
            scene.emulator.verify_token(&planted).is_err(),
            "the check would take anything"
        );
        Ok(())
    });
}

#[test]
fn a_registry_that_leaves_the_spec_leaves_the_secret_while_azure_is_down() {
    run(async {
        let scene = Scene::with_own_time("shrinks").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("acr", &[&contoso, &fabrikam]))
            .await?;
        let (uid, kept) = (
            objects.secret("acr").await?.metadata.uid,
            objects.token("acr", &contoso).await?,
        );
        let calls = scene.upstream_calls();
        scene.emulator.update(|state| state.registries.clear())?;

        objects
            .change(
                "acr",
                json!({"spec": {"registries": [{"server": contoso.server}]}}),
            )
            .await?;
        objects.ready("acr").await?;
        assert_eq!(objects.token("acr", &fabrikam).await?, None);
        assert_eq!(objects.token("acr", &contoso).await?, kept);
        assert_eq!(objects.secret("acr").await?.metadata.uid, uid);
        assert_eq!(scene.upstream_calls(), calls);
        Ok(())
    });
}
