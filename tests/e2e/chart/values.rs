//! The schema, and what it refuses.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::readme;
use crate::harness::{Helm, chart, run};

/// The paths of the values that a schema knows, where `global` belongs to helm itself.
fn paths(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let reference = schema["$ref"]
        .as_str()
        .and_then(|name| name.strip_prefix('#'));
    let schema = reference.and_then(|at| root.pointer(at)).unwrap_or(schema);
    let Some(properties) = schema["properties"].as_object() else {
        found.insert(path.to_owned());
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{path}");
    for (key, schema) in properties {
        paths(root, schema, &format!("{path}.{key}"), found);
    }
}

#[test]
fn every_value_is_in_the_schema_and_in_a_template() -> Result<()> {
    let schema: Value = serde_json::from_str(&fs::read_to_string(chart("values.schema.json"))?)?;
    let mut known = BTreeSet::new();
    paths(&schema, &schema, "", &mut known);
    known.remove(".global");
    let entries = readme::entries(&fs::read_to_string(chart("values.yaml"))?);
    let documented = entries
        .iter()
        .map(|entry| format!(".{}", entry.path.join(".")));
    assert_eq!(documented.collect::<BTreeSet<_>>(), known);

    let mut templates = String::new();
    for file in fs::read_dir(chart("templates"))? {
        templates += &fs::read_to_string(file?.path())?;
    }
    for path in known {
        let (group, key) = path.rsplit_once('.').context("a dot")?;
        let used = templates.contains(&format!(".Values{path}"))
            || templates.contains(&format!(".Values{group} "))
                && templates.contains(&format!(".{key}"));
        assert!(used, "no template uses {path}");
    }
    Ok(())
}

#[test]
fn bad_values_are_refused_by_name() {
    run(async {
        let refused = [
            (json!({"replicas": 2}), "replicas"),
            (json!({"image": {"repo": "x"}}), "repo"),
            (json!({"image": {"digest": "latest"}}), "/image/digest"),
            (
                json!({"image": {"pullPolicy": "Sometimes"}}),
                "/image/pullPolicy",
            ),
            (json!({"replicaCount": "two"}), "/replicaCount"),
            (json!({"clientId": "acrcred"}), "/clientId"),
            (
                json!({"allowControllerIdentity": ["team-a"]}),
                "/allowControllerIdentity/0",
            ),
            (
                json!({"allowControllerIdentity": "team-a/*"}),
                "/allowControllerIdentity",
            ),
            (json!({"clouds": ["AzureGermanCloud"]}), "/clouds/0"),
            (
                json!({"authorityHost": "http://login.example"}),
                "/authorityHost",
            ),
            (
                json!({"federatedToken": {"expirationSeconds": 60}}),
                "/federatedToken/expirationSeconds",
            ),
            (
                json!({"impersonationAudiences": []}),
                "/impersonationAudiences",
            ),
            (
                json!({"impersonationAudiences": ["a','b"]}),
                "/impersonationAudiences/0",
            ),
            (json!({"watchNamespaces": ["Team A"]}), "/watchNamespaces/0"),
            (json!({"watchSecrets": {"enabled": true}}), "enabled"),
            (
                json!({"watchSecrets": {"names": ["acr,*"]}}),
                "/watchSecrets/names/0",
            ),
            (
                json!({"watchSecrets": {"names": [""]}}),
                "/watchSecrets/names/0",
            ),
            (json!({"rbac": {"scope": "none"}}), "/rbac/scope"),
            (json!({"crds": {"install": "yes"}}), "/crds/install"),
            (json!({"adminPort": 0}), "/adminPort"),
            (json!({"extraArgs": ["watch-secrets"]}), "/extraArgs/0"),
            (
                json!({"serviceMonitor": {"interval": "often"}}),
                "/serviceMonitor/interval",
            ),
        ];
        for version in Helm::VERSIONS {
            let helm = Helm::new(version)?;
            for (values, named) in &refused {
                let answer = helm.template("acrcred", "default", values).await;
                let error = answer
                    .err()
                    .with_context(|| format!("{values} was taken"))?;
                let error = format!("{error:#}");
                assert!(
                    error.contains("values don't meet"),
                    "{version} {values}: {error}"
                );
                assert!(error.contains(named), "{version} {values}: {error}");
            }
        }
        Ok(())
    });
}

#[test]
fn values_that_contradict_each_other_are_refused_with_what_to_set() {
    run(async {
        let own = json!(["team-a/*"]);
        let id = "22222222-0000-4000-8000-000000000001";
        for (values, sentence) in [
            (
                json!({"rbac": {"scope": "namespaces"}}),
                "watchNamespaces: name at least one namespace",
            ),
            (
                json!({"allowControllerIdentity": own}),
                "clientId: set the client id",
            ),
            (
                json!({"allowControllerIdentity": own, "clientId": id}),
                "tenantId: set the tenant",
            ),
            (
                json!({"impersonationAudiences": ["https://kubernetes.default.svc"]}),
                "is the audience of an API server",
            ),
            (
                json!({"environmentFile": {"content": "{}", "existingConfigMap": "a"}}),
                "environmentFile: set content or existingConfigMap",
            ),
            (
                json!({"serviceAccount": {"create": false}}),
                "serviceAccount.name: name the ServiceAccount",
            ),
        ] {
            for version in Helm::VERSIONS {
                let answer = Helm::new(version)?
                    .template("acrcred", "default", &values)
                    .await;
                let error = answer
                    .err()
                    .with_context(|| format!("{values} was taken"))?;
                assert!(
                    format!("{error:#}").contains(sentence),
                    "{version} {values}: {error:#}"
                );
            }
        }
        Ok(())
    });
}
