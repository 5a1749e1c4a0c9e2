//! Which Secrets acrcred may write. Each clause of the admission policy refuses what no other clause refuses.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::harness::{CONTROLLER, Scene, run};

/// What the policy says of each refusal.
const NOT_OWNED: &str =
    "the stored Secret is not owned by this AcrCredential (annotation acrcred.dev/owner)";
const NO_OWNER: &str = "the written Secret has no annotation acrcred.dev/owner";
const TYPE: &str = "the written Secret is not of type kubernetes.io/dockerconfigjson";
const KEYS: &str = "the written Secret has another data key than .dockerconfigjson";
const IMMUTABLE: &str = "the written Secret is immutable";
const FINALIZER: &str = "the written Secret has a finalizer";
const REFERENCE: &str =
    "the written Secret has another owner reference than its AcrCredential, or blockOwnerDeletion";

/// A Secret as acrcred writes it.
fn honest(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {"acrcred.dev/owner": "acr"}},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": "{\"auths\":{}}"},
    })
}

/// The same with one field changed.
fn with(name: &str, pointer: &str, value: Value) -> Value {
    let mut secret = honest(name);
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    secret.pointer_mut(parent).expect("an object")[key] = value;
    secret
}

/// The owner reference of acrcred, changed.
fn reference(change: &Value) -> Value {
    let mut reference = json!({
        "apiVersion": "acrcred.dev/v1alpha1",
        "kind": "AcrCredential",
        "name": "acr",
        "uid": "00000000-0000-4000-8000-000000000001",
    });
    for (key, value) in change.as_object().into_iter().flatten() {
        reference[key] = value.clone();
    }
    reference
}

/// What may not be written, be the Secret new or not, and by which clause.
fn refused() -> Vec<(&'static str, &'static str, Value)> {
    let references = "/metadata/ownerReferences";
    let owner = |change| json!([reference(&change)]);
    let second = json!({"uid": "00000000-0000-4000-8000-000000000002"});
    vec![
        ("another key", KEYS, {
            let mut secret = honest("acr");
            secret["stringData"]["password"] = "hunter2".into();
            secret
        }),
        (
            "immutable",
            IMMUTABLE,
            with("acr", "/immutable", true.into()),
        ),
        (
            "a finalizer",
            FINALIZER,
            with("acr", "/metadata/finalizers", json!(["example.com/hold"])),
        ),
        (
            "two owners",
            REFERENCE,
            with(
                "acr",
                references,
                json!([reference(&json!({})), reference(&second)]),
            ),
        ),
        (
            "an owner of another kind",
            REFERENCE,
            with(
                "acr",
                references,
                owner(json!({"kind": "AcrCredentialSet"})),
            ),
        ),
        (
            "an owner of another group",
            REFERENCE,
            with(
                "acr",
                references,
                owner(json!({"apiVersion": "acrcred.dev.example/v1"})),
            ),
        ),
        (
            "an owner of the core group",
            REFERENCE,
            with("acr", references, owner(json!({"apiVersion": "v1"}))),
        ),
        (
            "an owner of another name",
            REFERENCE,
            with("acr", references, owner(json!({"name": "another"}))),
        ),
        (
            "blockOwnerDeletion",
            REFERENCE,
            with(
                "acr",
                references,
                owner(json!({"blockOwnerDeletion": true})),
            ),
        ),
    ]
}

/// What may be written.
fn accepted() -> Vec<(&'static str, Value)> {
    let references = "/metadata/ownerReferences";
    let owner = |change| json!([reference(&change)]);
    vec![
        ("as it is", honest("acr")),
        ("its owner", with("acr", references, owner(json!({})))),
        (
            "its owner as controller",
            with("acr", references, owner(json!({"controller": true}))),
        ),
        (
            "its owner without blockOwnerDeletion",
            with(
                "acr",
                references,
                owner(json!({"blockOwnerDeletion": false})),
            ),
        ),
        ("no owner", with("acr", references, json!([]))),
        (
            "no finalizer",
            with("acr", "/metadata/finalizers", json!([])),
        ),
        ("not immutable", with("acr", "/immutable", false.into())),
        (
            "labels",
            with(
                "acr",
                "/metadata/labels",
                json!({"velero.io/exclude-from-backup": "true"}),
            ),
        ),
    ]
}

/// Secrets of the test's namespace, as acrcred and as the administrator.
struct Bench {
    acrcred: Api<Secret>,
    admin: Api<Secret>,
}

impl Bench {
    async fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name).await?;
        let (namespace, account) = CONTROLLER;
        let client = scene
            .control_plane
            .service_account_client(namespace, account)
            .await?;
        Ok(Self {
            acrcred: Api::namespaced(client, &scene.namespace),
            admin: scene.objects().secrets,
        })
    }

    /// Creates one as administrator.
    async fn store(&self, secret: &Value) -> Result<Secret> {
        let secret = serde_json::from_value(secret.clone())?;
        Ok(self.admin.create(&PostParams::default(), &secret).await?)
    }
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

async fn create(secrets: &Api<Secret>, secret: &Value) -> kube::Result<Secret> {
    let secret = serde_json::from_value(secret.clone()).expect("a Secret");
    secrets.create(&dry_run(), &secret).await
}

async fn update(secrets: &Api<Secret>, secret: &Value) -> kube::Result<Secret> {
    let name = secret["metadata"]["name"].as_str().expect("a name");
    let secret = serde_json::from_value(secret.clone()).expect("a Secret");
    secrets.replace(name, &dry_run(), &secret).await
}

/// Fails unless the answer is the 403 of this clause.
fn refused_by(what: &str, sentence: &str, answer: kube::Result<Secret>) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let by = status.message.contains("'acrcred-secrets'");
            let by = by && status.message.ends_with(&format!(": {sentence}"));
            assert!(by, "{what}: {}", status.message);
            // The program reads the causes.
            let causes = status.details.map(|details| details.causes);
            let causes = causes.unwrap_or_default();
            let named = causes.iter().any(|cause| cause.message.contains(sentence));
            assert!(named, "{what}: {causes:?}");
        }
        other => panic!("{what} should be refused: {other:?}"),
    }
}

#[test]
fn a_new_secret_is_refused_by_each_clause_alone() {
    run(async {
        let bench = Bench::new("create").await?;
        let annotations = "/metadata/annotations";
        let account =
            json!({"acrcred.dev/owner": "acr", "kubernetes.io/service-account.name": "default"});
        let mut token = with("acr", annotations, account);
        token["type"] = "kubernetes.io/service-account-token".into();
        let mut cases = refused();
        cases.extend([
            (
                "no annotations",
                NO_OWNER,
                with("acr", annotations, Value::Null),
            ),
            (
                "other annotations",
                NO_OWNER,
                with("acr", annotations, json!({"acrcred.dev/refresh": "acr"})),
            ),
            (
                "an empty owner",
                NO_OWNER,
                with("acr", annotations, json!({"acrcred.dev/owner": ""})),
            ),
            ("Opaque", TYPE, with("acr", "/type", "Opaque".into())),
            ("no type", TYPE, with("acr", "/type", Value::Null)),
            (
                "a bootstrap token",
                TYPE,
                with("acr", "/type", "bootstrap.kubernetes.io/token".into()),
            ),
            ("a token Secret", TYPE, token),
        ]);
        for (what, sentence, secret) in cases {
            refused_by(what, sentence, create(&bench.acrcred, &secret).await);
            // The policy binds no other user.
            create(&bench.admin, &secret).await.context(what)?;
        }
        for (what, secret) in accepted() {
            create(&bench.acrcred, &secret).await.context(what)?;
        }
        Ok(())
    });
}

#[test]
fn an_update_of_its_own_secret_is_refused_by_each_clause_alone() {
    run(async {
        let bench = Bench::new("update").await?;
        bench.store(&honest("acr")).await?;
        let mut opaque = with("opaque", "/type", "Opaque".into());
        bench.store(&opaque).await?;
        opaque["metadata"]["labels"] = json!({"a": "b"});
        let mut another = honest("acr");
        another["metadata"]["annotations"]["acrcred.dev/owner"] = "another".into();
        let mut cases = refused();
        cases.extend([
            // A user handed over a Secret of another type.
            ("Opaque", TYPE, opaque),
            ("another owner", NOT_OWNED, another),
            (
                "no owner",
                NOT_OWNED,
                with("acr", "/metadata/annotations", Value::Null),
            ),
        ]);
        for (what, sentence, secret) in cases {
            refused_by(what, sentence, update(&bench.acrcred, &secret).await);
            update(&bench.admin, &secret).await.context(what)?;
        }
        for (what, secret) in accepted() {
            update(&bench.acrcred, &secret).await.context(what)?;
        }
        Ok(())
    });
}

#[test]
fn an_update_of_a_foreign_secret_is_refused_whatever_is_written() {
    run(async {
        let bench = Bench::new("foreign").await?;
        let annotations = "/metadata/annotations";
        let no_owner = with("no-owner", annotations, Value::Null);
        let mut other_owner = honest("other-owner");
        other_owner["metadata"]["annotations"]["acrcred.dev/owner"] = "another".into();
        let empty_owner = with("empty-owner", annotations, json!({"acrcred.dev/owner": ""}));
        for (stored, without) in [
            (no_owner, NO_OWNER),
            (other_owner, NOT_OWNED),
            (empty_owner, NO_OWNER),
        ] {
            let before = bench.store(&stored).await?;
            let name = stored["metadata"]["name"].as_str().context("a name")?;
            refused_by(name, NOT_OWNED, update(&bench.acrcred, &honest(name)).await);
            let bare = with(name, annotations, Value::Null);
            refused_by(name, without, update(&bench.acrcred, &bare).await);
            // An owner reference makes it no Secret of the AcrCredential's.
            let mut owned = honest(name);
            owned["metadata"]["ownerReferences"] = json!([reference(&json!({}))]);
            refused_by(name, NOT_OWNED, update(&bench.acrcred, &owned).await);
            update(&bench.admin, &owned).await?;
            assert_eq!(bench.admin.get(name).await?, before);
        }
        Ok(())
    });
}

#[test]
fn acrcred_creates_its_secret_updates_it_and_leaves_it_as_it_is() {
    run(async {
        let bench = Bench::new("honest").await?;
        let params = PostParams::default();
        let secret: Secret = serde_json::from_value(honest("acr"))?;
        let created = bench.acrcred.create(&params, &secret).await?;
        let version = |secret: &Secret| secret.metadata.resource_version.clone();

        let mut same = secret.clone();
        for known in [false, true] {
            if known {
                same.metadata.uid.clone_from(&created.metadata.uid);
                same.metadata.resource_version = version(&created);
            }
            let answer = bench.acrcred.replace("acr", &params, &same).await?;
            assert_eq!(version(&answer), version(&created), "{known}");
        }
        let mut changed = same;
        let config = "{\"auths\":{\"contoso.azurecr.io\":{}}}".to_owned();
        changed.string_data = Some([(".dockerconfigjson".to_owned(), config)].into());
        let answer = bench.acrcred.replace("acr", &params, &changed).await?;
        assert_ne!(version(&answer), version(&created));
        assert_eq!(answer.metadata.uid, created.metadata.uid);

        // Another client's finalizer and owner go with the next update.
        let mut claimed = answer;
        claimed.metadata.finalizers = Some(vec!["example.com/hold".into()]);
        bench.admin.replace("acr", &params, &claimed).await?;
        let answer = bench.acrcred.replace("acr", &params, &secret).await?;
        assert_eq!(answer.metadata.finalizers, None);
        Ok(())
    });
}
