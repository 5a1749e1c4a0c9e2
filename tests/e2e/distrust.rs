//! What the cluster says is believed no further than a token can last, and puts nobody else's at risk.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::{Scene, manifest, run};
use crate::ownership::{RESYNC, fingerprint};

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
fn a_forged_status_and_a_planted_token_are_put_right_after_the_start() {
    run(async {
        let scene = Scene::new("forged").await?;
        let contoso = scene.registry("contoso").await?;
        let objects = scene.objects();
        let acrcred = scene.start().await?;
        let object = objects
            .create_ready(&manifest("team-a", &[&contoso]))
            .await?;
        acrcred.stop().await?;

        let victim = json!({"metadata": {"name": "victim"}, "stringData": {"password": "hunter2"}});
        let victim = serde_json::from_value(victim)?;
        let victim = objects
            .secrets
            .create(&PostParams::default(), &victim)
            .await?;
        let far = "2099-01-01T00:00:00Z";
        let row = &object.status.context("a status")?.registries[0];
        let forged = json!({"status": {
            "expiresAt": far, "refreshAt": far, "lastRefreshAt": far,
            "secret": {
                "name": "victim", "uid": victim.metadata.uid,
                "resourceVersion": victim.metadata.resource_version,
            },
            "registries": [{
                "server": contoso.server, "issuedAt": far, "expiresAt": far,
                "issuedFor": row.issued_for, "reason": "Issued",
            }],
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
        let planted = self_made_token();
        let user = "00000000-0000-0000-0000-000000000000";
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{planted}"));
        let payload = json!({"auths": {&contoso.server: {"auth": auth, "password": planted, "username": user}}});
        let patch = Patch::Merge(json!({"stringData": {".dockerconfigjson": payload.to_string()}}));
        objects.secrets.patch("team-a", &params, &patch).await?;

        let _acrcred = scene.start().await?;
        // No token lasts that long, whatever the status says.
        let limit = scene.clock.now() + SignedDuration::from_mins(196);
        let object = objects.ready("team-a").await?;
        let status = object.status.context("a status")?;
        ensure!(status.expires_at.context("an expiry")?.0 < limit);
        ensure!(status.refresh_at.context("a refresh")?.0 < limit);
        assert_eq!(status.conditions.len(), 1, "{:?}", status.conditions);
        // The first verification shows that the Secret is another than the status says.
        scene.clock.advance(RESYNC);
        let token = objects.another_token("team-a", &contoso, &planted).await?;
        scene.emulator.verify_token(&token)?;
        let named = |object: &acrcred::api::AcrCredential| {
            let status = object.status.as_ref();
            status
                .and_then(|status| status.secret.as_ref())
                .is_some_and(|secret| secret.name == "team-a")
        };
        objects
            .status("team-a", "the status names its Secret", named)
            .await?;
        assert_eq!(
            fingerprint(&objects.secret("victim").await?),
            fingerprint(&victim)
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
