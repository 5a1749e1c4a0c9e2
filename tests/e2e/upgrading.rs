//! What an earlier version left in the cluster is kept, not minted anew. The form is written out here and takes nothing from
//! the code, so that a change of the code shows. One that must change it reads the old form too, and gets a test beside this.

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::harness::{Scene, TestRegistry, limited, manifest, run};

const USERNAME: &str = "00000000-0000-0000-0000-000000000000";

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

/// What an entry was minted for, as 0.1.0 says it: each part behind its length.
fn minted_for(scene: &Scene, client_id: &str, registry: &TestRegistry, scope: &[&str]) -> String {
    let parts = [
        "https://login.microsoftonline.com",
        &scene.tenant_id,
        client_id,
        "https://containerregistry.azure.net",
        "system:serviceaccount:acrcred-system:acrcred",
        &registry.server,
    ];
    let mut hasher = Sha256::new();
    for part in parts.iter().chain(scope) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize())
}

/// The Secret that 0.1.0 made for an object.
fn secret(
    object: &AcrCredential,
    registry: &TestRegistry,
    token: &str,
    minted_for: &str,
) -> Result<Secret> {
    let auth = STANDARD.encode(format!("{USERNAME}:{token}"));
    let (name, uid) = (&object.metadata.name, &object.metadata.uid);
    let payload = json!({"auths": {&registry.server: {
        "auth": auth, "password": token, "username": USERNAME,
    }}});
    let minted = json!({"registries": {&registry.server: {
        "for": minted_for, "token": hex(&Sha256::digest(token)),
    }}, "v": 1});
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "acrcred"},
            "annotations": {
                "acrcred.dev/owner-uid": uid,
                "acrcred.dev/minted": minted.to_string(),
            },
            "ownerReferences": [{
                "apiVersion": "acrcred.dev/v1alpha1", "kind": "AcrCredential",
                "name": name, "uid": uid, "controller": true,
            }],
        },
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": STANDARD.encode(payload.to_string())},
    }))?)
}

#[test]
fn what_0_1_0_wrote_is_kept_and_not_minted_anew() {
    run(async {
        let scene = Scene::new("upgrade").await?;
        let (contoso, fabrikam) = (
            scene.registry("contoso").await?,
            scene.registry("fabrikam").await?,
        );
        let objects = scene.objects();

        // Tokens that were minted once.
        let acrcred = scene.start().await?;
        let scope = ["team/app"];
        objects.create_ready(&manifest("a", &[&contoso])).await?;
        objects
            .create_ready(&limited("b", &fabrikam, &scope))
            .await?;
        let whole = objects.token("a", &contoso).await?.context("a token")?;
        let part = objects.token("b", &fabrikam).await?.context("a token")?;
        acrcred.stop().await?;

        let id = &*scene.client_id;
        let another = "33333333-0000-4000-8000-000000000001";
        let left = [
            (
                manifest("whole", &[&contoso]),
                &contoso,
                &whole,
                id,
                &[][..],
            ),
            (
                limited("part", &fabrikam, &scope),
                &fabrikam,
                &part,
                id,
                &scope,
            ),
            // The positive control: it holds what was minted for somebody else.
            (
                manifest("other", &[&contoso]),
                &contoso,
                &whole,
                another,
                &[],
            ),
        ];
        let mut before = Vec::new();
        for (object, registry, token, client_id, scope) in &left {
            let object = objects.create(object).await?;
            let minted_for = minted_for(&scene, client_id, registry, scope);
            let secret = secret(&object, registry, token, &minted_for)?;
            let parameters = PostParams::default();
            before.push(objects.secrets.create(&parameters, &secret).await?);
        }
        let [whole_before, part_before, other_before] = &before[..] else {
            anyhow::bail!("{} Secrets", before.len());
        };
        let calls = scene.upstream_calls();

        let _acrcred = scene.start().await?;
        for name in ["whole", "part"] {
            objects.ready(name).await?;
        }
        objects.another_token("other", &contoso, &whole).await?;
        assert_eq!(scene.upstream_calls(), (calls.0 + 1, calls.1 + 1));
        let uid = objects.secret("other").await?.metadata.uid;
        assert_eq!(uid, other_before.metadata.uid);
        assert_eq!(&objects.secret("whole").await?, whole_before);
        assert_eq!(&objects.secret("part").await?, part_before);
        Ok(())
    });
}
