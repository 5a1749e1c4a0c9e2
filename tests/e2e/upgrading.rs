//! What this version writes is kept by the next, and not issued again. The form is written out here and takes nothing from the
//! code, so that a change of the code shows. A version that must change it reads the old form too, and gets a test beside this.

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Scene, TestRegistry, limited, manifest, run, soon};
use crate::ownership::RESYNC;

const USERNAME: &str = "00000000-0000-0000-0000-000000000000";

/// What an earlier process left for one object.
struct Left<'a> {
    object: AcrCredential,
    registry: &'a TestRegistry,
    token: &'a str,
    client_id: &'a str,
    scope: &'a [&'a str],
}

/// The first half of a SHA-256 over the parts, each behind its length.
fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let digits = hasher.finalize().into_iter().take(16);
    digits.fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

impl Left<'_> {
    fn issued_for(&self, scene: &Scene) -> String {
        let identity = hash(&[
            "https://login.microsoftonline.com",
            &scene.tenant_id,
            self.client_id,
            "https://containerregistry.azure.net",
            "system:serviceaccount:acrcred-system:acrcred",
            &self.registry.server,
        ]);
        format!("controller:{identity}:{}", hash(self.scope))
    }

    fn secret(&self, uid: Option<&String>) -> Result<Secret> {
        let auth = STANDARD.encode(format!("{USERNAME}:{}", self.token));
        let name = &self.object.metadata.name;
        let payload = json!({"auths": {&self.registry.server: {
            "auth": auth, "password": self.token, "username": USERNAME,
        }}});
        Ok(serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {
                    "app.kubernetes.io/managed-by": "acrcred",
                    "velero.io/exclude-from-backup": "true",
                },
                "annotations": {"acrcred.dev/owner": name},
                "ownerReferences": [{
                    "apiVersion": "acrcred.dev/v1alpha1", "kind": "AcrCredential",
                    "name": name, "uid": uid, "controller": true,
                }],
            },
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode(payload.to_string())},
        }))?)
    }

    fn status(&self, scene: &Scene, secret: &Secret) -> Value {
        let now = scene.clock.now().as_second();
        let at = |second: i64| Timestamp::from_second(second).map(|at| at.to_string()).ok();
        let (issued_at, refresh_at, expires_at) = (at(now), at(now + 4_800), at(now + 10_800));
        json!({"status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Issued", "observedGeneration": 1,
                "message": "It worked.", "lastTransitionTime": issued_at,
            }],
            "secret": {
                "name": secret.metadata.name, "uid": secret.metadata.uid,
                "resourceVersion": secret.metadata.resource_version,
            },
            "expiresAt": expires_at, "refreshAt": refresh_at, "lastRefreshAt": issued_at,
            "registries": [{
                "server": self.registry.server,
                "audience": "https://containerregistry.azure.net",
                "issuedAt": issued_at, "expiresAt": expires_at,
                "issuedFor": self.issued_for(scene), "reason": "Issued",
            }],
        }})
    }
}

#[test]
fn what_this_version_writes_is_kept_by_a_new_process() {
    run(async {
        let scene = Scene::new("upgrade").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let objects = scene.objects();

        // Tokens that were issued once.
        let acrcred = scene.start().await?;
        let scope = ["team/app"];
        objects.create_ready(&manifest("a", &[&contoso])).await?;
        objects
            .create_ready(&limited("b", &fabrikam, &scope))
            .await?;
        let whole = objects.token("a", &contoso).await?.context("a token")?;
        let part = objects.token("b", &fabrikam).await?.context("a token")?;
        acrcred.stop().await?;

        let left = |object, registry, token, client_id, scope| Left {
            object,
            registry,
            token,
            client_id,
            scope,
        };
        let id = &*scene.client_id;
        let another = "33333333-0000-4000-8000-000000000001";
        let all = [
            left(
                manifest("whole", &[&contoso]),
                &contoso,
                &whole,
                id,
                &[][..],
            ),
            left(
                limited("part", &fabrikam, &scope),
                &fabrikam,
                &part,
                id,
                &scope,
            ),
            // The positive control: it holds what was issued for somebody else.
            left(
                manifest("other", &[&contoso]),
                &contoso,
                &whole,
                another,
                &[],
            ),
        ];
        let mut before = Vec::new();
        for left in &all {
            let object = objects.create(&left.object).await?;
            let secret = left.secret(object.metadata.uid.as_ref())?;
            let secret = objects
                .secrets
                .create(&PostParams::default(), &secret)
                .await?;
            let name = left.object.metadata.name.as_deref().context("a name")?;
            let status = Patch::Merge(left.status(&scene, &secret));
            let params = PatchParams::default();
            objects
                .credentials
                .patch_status(name, &params, &status)
                .await?;
            before.push(secret);
        }
        let [whole_before, part_before, other_before] = &before[..] else {
            anyhow::bail!("{} Secrets", before.len());
        };
        let calls = scene.upstream_calls();

        let _acrcred = scene.start().await?;
        objects.another_token("other", &contoso, &whole).await?;
        assert_eq!(scene.upstream_calls(), (calls.0 + 1, calls.1 + 1));
        let uid = objects.secret("other").await?.metadata.uid;
        assert_eq!(uid, other_before.metadata.uid);
        // Nor does the verification find anything that is another than it should be.
        scene.clock.advance(RESYNC);
        soon("both are verified", async || {
            let calls = scene.calls().await.map_err(|error| error.to_string())?;
            let calls = calls
                .on("secrets")
                .matching(|call| call.dry_run && call.code == 200);
            let is_verified = |name: &str| calls.count(|call| call.name == name) > 0;
            (is_verified("whole") && is_verified("part"))
                .then_some(())
                .ok_or_else(|| calls.to_string())
        })
        .await?;
        for name in ["whole", "part"] {
            let object = objects.ready(name).await?;
            let row = &object.status.context("a status")?.registries[0];
            ensure!(row.issued_for.is_some(), "{row:?}");
        }
        assert_eq!(scene.upstream_calls(), (calls.0 + 1, calls.1 + 1));
        assert_eq!(&objects.secret("whole").await?, whole_before);
        assert_eq!(&objects.secret("part").await?, part_before);

        // What is due is refreshed in the same Secret.
        scene.clock.advance(SignedDuration::from_mins(80));
        objects.another_token("whole", &contoso, &whole).await?;
        let uid = objects.secret("whole").await?.metadata.uid;
        assert_eq!(uid, whole_before.metadata.uid);
        Ok(())
    });
}
