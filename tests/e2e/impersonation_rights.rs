//! What acrcred's own token can do with other `ServiceAccount`s when somebody steals it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use azure_emulator::jwt::Parsed;
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenReview, TokenReviewSpec, TokenReviewStatus,
};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchParams};
use serde_json::json;

use crate::harness::{CONTROLLER, Scene, allow_impersonation_in, config, run, token_request};

/// The audience that `config/impersonation` allows.
const AUDIENCE: &str = "api://AzureCRTokenExchange";
const TEN_MINUTES: Option<i64> = Some(600);

/// The words by which the policy refuses.
const ONE: &str = "exactly one audience";
const LISTED: &str = "one of the allowed audiences";
const SHORT: &str = "at most 600 s";
const OTHERS: &str = "no token of its own ServiceAccount";
const UNBOUND: &str = "bound to no object";

/// Whoever holds acrcred's token for the API server.
struct Thief(Client);

impl Thief {
    async fn of(scene: &Scene) -> Result<Self> {
        let (namespace, name) = CONTROLLER;
        let control_plane = scene.control_plane;
        let client = control_plane
            .service_account_client(namespace, name)
            .await?;
        Ok(Self(client))
    }

    fn accounts(&self, namespace: &str) -> Api<ServiceAccount> {
        Api::namespaced(self.0.clone(), namespace)
    }

    async fn token(
        &self,
        (namespace, name): (&str, &str),
        audiences: &[&str],
        seconds: Option<i64>,
    ) -> kube::Result<TokenRequest> {
        let request = token_request(audiences, seconds);
        self.ask((namespace, name), &request).await
    }

    async fn ask(
        &self,
        (namespace, name): (&str, &str),
        request: &TokenRequest,
    ) -> kube::Result<TokenRequest> {
        self.accounts(namespace)
            .create_token_request(name, &PostParams::default(), request)
            .await
    }
}

/// Fails unless the answer is 403 with these words in it. Without any, RBAC must have said it.
fn forbidden<T>(what: &str, words: &str, result: kube::Result<T>) {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let by_policy = status.message.contains("acrcred-impersonation");
            assert_eq!(by_policy, !words.is_empty(), "{what}: {}", status.message);
            assert!(status.message.contains(words), "{what}: {}", status.message);
        }
        Err(error) => panic!("{what} should be forbidden: {error}"),
        Ok(_) => panic!("{what} should be forbidden"),
    }
}

fn token_of(answer: TokenRequest) -> Result<String> {
    Ok(answer
        .status
        .context("a TokenRequest without status")?
        .token)
}

/// Whether the API server takes a token, for these audiences; without any, for its own.
async fn review(scene: &Scene, token: &str, audiences: &[&str]) -> Result<TokenReviewStatus> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(audiences.iter().map(|&a| a.to_owned()).collect()),
        },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(scene.control_plane.admin());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    answer.status.context("a TokenReview without status")
}

#[test]
fn a_stolen_token_makes_only_short_tokens_for_an_allowed_audience() {
    run(async {
        let scene = Scene::new("impersonation").await?;
        scene.allow_impersonation().await?;
        let thief = Thief::of(&scene).await?;
        let own = scene.control_plane.issuer();
        let default = "https://kubernetes.default.svc.cluster.local";
        let (webhook, other) = ("api://AzureADTokenExchange", "https://vault.example");
        let hour = Some(3600);
        for (what, words, audiences, seconds) in [
            ("none", LISTED, &[][..], TEN_MINUTES),
            ("two", ONE, &[AUDIENCE, webhook], TEN_MINUTES),
            ("the same twice", ONE, &[AUDIENCE, AUDIENCE], TEN_MINUTES),
            ("another", LISTED, &[other], TEN_MINUTES),
            ("one not listed", LISTED, &[webhook], TEN_MINUTES),
            ("an empty one", LISTED, &[""], TEN_MINUTES),
            (
                "a longer one",
                LISTED,
                &["api://AzureCRTokenExchange/"],
                TEN_MINUTES,
            ),
            ("the API server", LISTED, &[own], TEN_MINUTES),
            ("its service", LISTED, &[default], TEN_MINUTES),
            ("601 s", SHORT, &[AUDIENCE], Some(601)),
            ("an hour", SHORT, &[AUDIENCE], hour),
            ("no time", SHORT, &[AUDIENCE], None),
        ] {
            let account = (scene.namespace.as_str(), "default");
            forbidden(what, words, thief.token(account, audiences, seconds).await);
        }

        // The positive control, after which the rest is worth something.
        let account = (scene.namespace.as_str(), "default");
        let token = token_of(thief.token(account, &[AUDIENCE], TEN_MINUTES).await?)?;
        let claims = Parsed::read(&token)?;
        let subject = format!("system:serviceaccount:{}:default", scene.namespace);
        assert_eq!(claims.text("sub"), Some(subject.as_str()));
        assert_eq!(claims.text("iss"), Some(own));
        assert_eq!(claims.audiences(), [AUDIENCE]);
        let life = claims.seconds("exp").context("exp")? - claims.seconds("iat").context("iat")?;
        assert_eq!(life, 600);

        // Good for whom it names, and for nothing in this cluster.
        let named = review(&scene, &token, &[AUDIENCE]).await?;
        assert_eq!(named.authenticated, Some(true), "{named:?}");
        let here = review(&scene, &token, &[]).await?;
        assert_ne!(here.authenticated, Some(true), "{here:?}");
        Ok(())
    });
}

/// The token would carry the UID of the object, and a refusal would say whether it exists.
#[test]
fn a_stolen_token_makes_no_token_that_is_bound_to_a_secret() {
    run(async {
        let scene = Scene::new("bound-object").await?;
        scene.allow_impersonation().await?;
        let thief = Thief::of(&scene).await?;
        let mut secret = Secret::default();
        secret.metadata.name = Some("present".into());
        let params = PostParams::default();
        let secret = scene.objects().secrets.create(&params, &secret).await?;
        let account = (scene.namespace.as_str(), "default");
        let mut request = token_request(&[AUDIENCE], TEN_MINUTES);
        for (kind, name, uid) in [
            ("Secret", "present", None),
            ("Secret", "present", secret.metadata.uid),
            ("Secret", "absent", None),
            ("Pod", "absent", None),
            ("Node", "absent", None),
        ] {
            request.spec.bound_object_ref = Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some(kind.into()),
                name: Some(name.into()),
                uid,
            });
            let answer = thief.ask(account, &request).await;
            forbidden(&format!("{kind} {name}"), UNBOUND, answer);
        }
        // The positive controls: the same request without the reference, and with it by an administrator.
        request.spec.bound_object_ref = None;
        thief.ask(account, &request).await?;
        request.spec.bound_object_ref = Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            name: Some("present".into()),
            uid: None,
        });
        let admin = Thief(scene.control_plane.admin());
        admin.ask(account, &request).await?;
        Ok(())
    });
}

#[test]
fn a_stolen_token_impersonates_nobody_where_the_role_is_not_bound() {
    run(async {
        let scene = Scene::new("bound").await?;
        let elsewhere = scene.control_plane.create_namespace("unbound").await?;
        scene.allow_impersonation().await?;
        let thief = Thief::of(&scene).await?;
        for namespace in ["kube-system", &elsewhere] {
            let account = (namespace, "default");
            let answer = thief.token(account, &[AUDIENCE], TEN_MINUTES).await;
            forbidden(namespace, "", answer);
            forbidden(
                namespace,
                "",
                thief.accounts(namespace).get("default").await,
            );
        }
        let account = (scene.namespace.as_str(), "default");
        thief.token(account, &[AUDIENCE], TEN_MINUTES).await?;
        thief.accounts(&scene.namespace).get("default").await?;
        Ok(())
    });
}

#[test]
fn the_role_reads_service_accounts_by_name_and_changes_none() {
    run(async {
        let scene = Scene::new("accounts").await?;
        scene.allow_impersonation().await?;
        let thief = Thief::of(&scene).await?;
        let accounts = thief.accounts(&scene.namespace);
        let everywhere: Api<ServiceAccount> = Api::all(thief.0.clone());
        forbidden("list", "", accounts.list(&ListParams::default()).await);
        forbidden(
            "list all",
            "",
            everywhere.list(&ListParams::default()).await,
        );
        forbidden(
            "watch",
            "",
            accounts.watch(&WatchParams::default(), "0").await,
        );

        let mut account = accounts.get("default").await?;
        let client_id =
            json!({"metadata": {"annotations": {"azure.workload.identity/client-id": "x"}}});
        let params = PatchParams::default();
        let answer = accounts
            .patch("default", &params, &Patch::Merge(client_id))
            .await;
        forbidden("patch", "", answer);
        account.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        let params = PostParams::default();
        forbidden(
            "update",
            "",
            accounts.replace("default", &params, &account).await,
        );
        account.metadata = kube::api::ObjectMeta {
            name: Some("mine".into()),
            ..kube::api::ObjectMeta::default()
        };
        forbidden("create", "", accounts.create(&params, &account).await);
        forbidden(
            "delete",
            "",
            accounts
                .delete("default", &kube::api::DeleteParams::default())
                .await,
        );
        Ok(())
    });
}

/// Where the role is bound for everybody, so it is for acrcred's own `ServiceAccount`.
#[test]
fn a_stolen_token_makes_no_token_of_acrcred_itself() {
    run(async {
        let scene = Scene::new("itself").await?;
        allow_impersonation_in(scene.control_plane, CONTROLLER.0).await?;
        let thief = Thief::of(&scene).await?;
        let answer = thief.token(CONTROLLER, &[AUDIENCE], TEN_MINUTES).await;
        forbidden("its own", OTHERS, answer);
        let neighbour = (CONTROLLER.0, "default");
        thief.token(neighbour, &[AUDIENCE], TEN_MINUTES).await?;
        scene.allow_impersonation().await?;
        scene
            .control_plane
            .create_service_account(&scene.namespace, CONTROLLER.1, &[])
            .await?;
        let namesake = (scene.namespace.as_str(), CONTROLLER.1);
        thief.token(namesake, &[AUDIENCE], TEN_MINUTES).await?;
        Ok(())
    });
}

#[test]
fn nobody_else_is_held_to_the_policy() {
    run(async {
        let scene = Scene::new("others").await?;
        let accounts: Api<ServiceAccount> =
            Api::namespaced(scene.control_plane.admin(), &scene.namespace);
        for (audiences, seconds) in [(&[][..], None), (&["a", "b"], Some(3600))] {
            let request = token_request(audiences, seconds);
            accounts
                .create_token_request("default", &PostParams::default(), &request)
                .await?;
        }
        Ok(())
    });
}

#[test]
fn the_documented_patch_changes_the_list_of_audiences_and_nothing_else() {
    run(async {
        let scene = Scene::new("patch").await?;
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
        let page = fs::read_to_string(page)?;
        let patch = page
            .split("```yaml\n")
            .find(|block| block.starts_with("apiVersion: kustomize"))
            .and_then(|block| block.split("```").next())
            .context("a kustomization in docs/security.md")?;
        let base = scene.dir.path().join("config/impersonation");
        let own = scene.dir.path().join("own");
        fs::create_dir_all(&base)?;
        fs::create_dir_all(&own)?;
        for file in ["kustomization.yaml", "policy.yaml", "role.yaml"] {
            fs::copy(config("impersonation").join(file), base.join(file))?;
        }
        fs::write(own.join("kustomization.yaml"), patch)?;

        // As YAML writes a quote within quotes.
        let list = "[''api://AzureCRTokenExchange'']";
        let longer = "[''api://AzureCRTokenExchange'', ''api://AzureADTokenExchange'']";
        let shipped = scene.control_plane.render(&base).await?;
        assert_eq!(shipped.matches(list).count(), 1, "{shipped}");
        let patched = scene.control_plane.render(&own).await?;
        assert_eq!(patched, shipped.replace(list, longer));
        Ok(())
    });
}
