//! Everything that the schema refuses, by its message, asked of the real API server.

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::{Scene, run};

fn objects(scene: &Scene) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<acrcred::api::AcrCredential>(&());
    Api::namespaced_with(scene.control_plane.admin(), &scene.namespace, &resource)
}

fn object(spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "acrcred.dev/v1alpha1",
        "kind": "AcrCredential",
        "metadata": {"name": "acr"},
        "spec": spec,
    }))
    .expect("an object")
}

fn server(server: &str) -> Value {
    json!({"registries": [{"server": server}]})
}

fn with(field: &str, value: &Value) -> Value {
    let mut spec = server("contoso.azurecr.io");
    spec[field] = value.clone();
    spec
}

fn repositories(repositories: &Value) -> Value {
    json!({"registries": [{"server": "contoso.azurecr.io", "repositories": repositories}]})
}

fn many(count: usize, of: impl Fn(usize) -> Value) -> Value {
    (0..count).map(of).collect()
}

fn refused() -> Vec<(Value, &'static str)> {
    let account = |extra: Value| {
        let mut identity = json!({"serviceAccountName": "puller"});
        identity
            .as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        with("identity", &identity)
    };
    vec![
        (json!({}), "spec.registries: Required value"),
        (json!({"registries": []}), "should have at least 1 items"),
        (
            json!({"registries": many(17, |n| json!({"server": format!("r{n}.azurecr.io")}))}),
            "must have at most 16 items",
        ),
        (
            json!({"registries": [{}]}),
            "spec.registries[0].server: Required value",
        ),
        (
            json!({"registries": [{"server": "a.azurecr.io"}, {"server": "a.azurecr.io"}]}),
            "Duplicate value",
        ),
        (
            server("https://contoso.azurecr.io"),
            "type it without https://",
        ),
        (server("contoso.azurecr.io/team"), "type it without a path"),
        (server("contoso.azurecr.io:443"), "type it without a port"),
        (server("me@contoso.azurecr.io"), "type it without a user"),
        (server("Contoso.azurecr.io"), "must be lower case"),
        (server("contoso.azurecr.io."), "must not end with a dot"),
        (server(".azurecr.io"), "must be a login server"),
        (server("contoso"), "must be a login server"),
        (server("contoso.azurecr.io\n"), "must be a login server"),
        (server(""), "should be at least 1 chars long"),
        (
            server(&format!("{}.azurecr.io", "a".repeat(250))),
            "may not be more than 253",
        ),
        (repositories(&json!([])), "should have at least 1 items"),
        (
            repositories(&json!(["team/*"])),
            "a wildcard is not possible",
        ),
        (
            repositories(&json!(["team/app:v1"])),
            "without tag or digest",
        ),
        (
            repositories(&json!(["Team/App"])),
            "must look like team/app",
        ),
        (repositories(&json!(["a", "a"])), "Duplicate value"),
        (
            repositories(&many(65, |n| json!(format!("r{n}")))),
            "must have at most 64 items",
        ),
        (
            with("identity", &json!({})),
            "spec.identity.serviceAccountName: Required value",
        ),
        (
            with(
                "identity",
                &json!({"clientId": "22222222-0000-4000-8000-000000000001"}),
            ),
            "spec.identity.serviceAccountName: Required value",
        ),
        (
            account(json!({"clientId": "../x"})),
            "clientId must be a GUID",
        ),
        (
            account(json!({"tenantId": "../x"})),
            "tenantId must be a GUID",
        ),
        (
            with("secret", &json!({"name": "Acr"})),
            "secret.name must be a DNS name",
        ),
        (
            with("attach", &json!({})),
            "spec.attach.serviceAccounts: Required value",
        ),
        (
            with("attach", &json!({"serviceAccounts": []})),
            "should have at least 1 items",
        ),
    ]
}

#[test]
fn each_refusal_says_what_to_type() {
    run(async {
        let scene = Scene::new("schema").await?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        for (spec, message) in refused() {
            match objects(&scene).create(&dry_run, &object(&spec)).await {
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    assert!(
                        status.message.contains(message),
                        "{spec}: {}",
                        status.message
                    );
                }
                other => panic!("{spec} should be refused with {message:?}: {other:?}"),
            }
        }
        Ok(())
    });
}

#[test]
fn the_three_manifests_that_users_write_are_taken() {
    run(async {
        let scene = Scene::new("taken").await?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        for spec in [
            server("contoso.azurecr.io"),
            json!({
                "identity": {"serviceAccountName": "puller"},
                "registries": [
                    {"server": "contoso-a1b2.azurecr.io", "repositories": ["payments/api"]},
                    {"server": "fabrikam.eastus.geo.azurecr.io"},
                ],
                "attach": {"serviceAccounts": ["default", "api"]},
            }),
            // A null is a field that was left out, here as everywhere in Kubernetes.
            with("identity", &Value::Null),
            with(
                "secret",
                &json!({"name": "pull", "labels": {"a.example/b": "c"}}),
            ),
        ] {
            let created = objects(&scene).create(&dry_run, &object(&spec)).await?;
            assert_eq!(created.data["status"], json!({"observedGeneration": -1}));
        }
        Ok(())
    });
}

#[test]
fn the_name_of_the_secret_never_changes() {
    run(async {
        let scene = Scene::new("rename").await?;
        let api = objects(&scene);
        api.create(
            &PostParams::default(),
            &object(&server("contoso.azurecr.io")),
        )
        .await?;
        let named = object(&with("secret", &json!({"name": "other"})));
        let mut named = named;
        named.metadata.name = Some("named".into());
        api.create(&PostParams::default(), &named).await?;
        for (name, secret, taken) in [
            ("acr", json!({"name": "other"}), false),
            ("acr", json!({"name": "acr"}), true),
            ("named", json!({"name": "another"}), false),
            ("named", Value::Null, false),
            ("named", json!({"name": null}), false),
            ("named", json!({"labels": {"a.example/b": "c"}}), true),
        ] {
            let params = PatchParams {
                dry_run: true,
                ..PatchParams::default()
            };
            let patch = Patch::Merge(json!({"spec": {"secret": secret}}));
            let result = api.patch(name, &params, &patch).await;
            assert_eq!(result.is_ok(), taken, "{name} {secret}: {result:?}");
            if let Err(kube::Error::Api(status)) = result {
                assert!(status.message.contains("immutable"), "{}", status.message);
            }
        }
        Ok(())
    });
}

#[test]
fn every_field_is_explained() {
    run(async {
        let scene = Scene::new("explain").await?;
        for path in [
            "acrcredential.spec.registries.server",
            "acrcredential.status.identity",
            "acrcred.spec.suspend",
        ] {
            let output = scene
                .control_plane
                .kubectl()
                .args(["explain", path])
                .output()
                .await?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success() && text.contains("DESCRIPTION"),
                "{path}: {text}"
            );
            assert!(!text.contains("<empty>"), "{path}: {text}");
        }
        Ok(())
    });
}
