//! What the chart renders is accepted by the API server, to the letter, for every kind of installation.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use controlplane::Tool;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::monitoring::KINDS;
use super::objects::{documents, names, only};
use crate::harness::{Helm, control_plane, run};

const CLIENT_ID: &str = "22222222-0000-4000-8000-000000000001";
const TENANT_ID: &str = "11111111-0000-4000-8000-000000000001";
const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Values of every kind of installation; `namespace` is one that exists.
// A list.
#[allow(clippy::too_many_lines)]
fn matrix(namespace: &str) -> Vec<Value> {
    let identity = |mut more: Value| {
        more["clientId"] = CLIENT_ID.into();
        more["tenantId"] = TENANT_ID.into();
        more["allowControllerIdentity"] = json!(["team-a/contoso.azurecr.io", "*/*.azurecr.io"]);
        more
    };
    vec![
        json!({}),
        identity(json!({})),
        identity(
            json!({"workloadIdentityWebhook": {"enabled": true}, "serviceAccount": {"annotations": {"a.example/b": "c"}}}),
        ),
        identity(
            json!({"clouds": ["AzurePublicCloud", "AzureChinaCloud"], "authorityHost": "https://login.microsoftonline.com/"}),
        ),
        identity(
            json!({"environmentFile": {"content": "{\n  \"containerRegistryDNSSuffix\": \"azurecr.private\"\n}\n"}}),
        ),
        identity(json!({"environmentFile": {"existingConfigMap": "clouds", "key": "cloud.json"}})),
        json!({"proxy": {"httpsProxy": "http://proxy.example:3128", "noProxy": ".internal,10.0.0.0/8"}, "caBundle": {"configMap": "trusted", "key": "bundle.pem"}}),
        json!({"extraArgs": ["--log-format=text"], "extraEnv": [{"name": "RUST_LOG", "value": "debug"}, {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}]}),
        json!({"image": {"repository": "registry.example:5000/acrcred", "digest": DIGEST}, "imagePullSecrets": [{"name": "bootstrap"}]}),
        json!({"image": {"tag": "0.2.0", "pullPolicy": "Always"}, "replicaCount": 1}),
        json!({"replicaCount": 3, "leaderElection": {"enabled": false}}),
        json!({"hostNetwork": true, "adminPort": 18080, "replicaCount": 1, "tolerations": [{"operator": "Exists"}], "nodeSelector": {"pool": "system"}}),
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["system"]}]}]}}}, "priorityClassName": "system-cluster-critical"}),
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}}}]}),
        json!({"podLabels": {"team": "platform"}, "podAnnotations": {"a.example/b": "1"}, "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}, "podDisruptionBudget": {"maxUnavailable": "50%"}}),
        json!({"topologySpreadConstraints": [], "nodeSelector": null, "resources": null, "podSecurityContext": null, "securityContext": null, "podDisruptionBudget": {"enabled": false}}),
        json!({"impersonation": {"enabled": true}, "impersonationAudiences": ["api://AzureCRTokenExchange", "api://AzureADTokenExchange"]}),
        json!({"impersonation": {"enabled": true, "namespaces": [namespace]}}),
        json!({"watchSecrets": {"names": ["acr"]}}),
        json!({"watchSecrets": {"names": ["acr", "acr.pull-2"]}, "watchNamespaces": [namespace]}),
        json!({"rbac": {"scope": "namespaces"}, "watchNamespaces": [namespace, "default"]}),
        json!({"rbac": {"scope": "namespaces"}, "watchNamespaces": [namespace], "watchSecrets": {"names": ["acr"]}, "impersonation": {"enabled": true}, "crds": {"install": false}, "policies": {"install": false}}),
        json!({"rbac": {"aggregateToView": true, "aggregateToEdit": true}}),
        json!({"serviceAccount": {"create": false, "name": "another"}}),
        json!({"networkPolicy": {"enabled": true}}),
        json!({"networkPolicy": {"enabled": true, "egressPorts": [443, 6443, 3128], "ingressFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}, "metricsService": {"enabled": true}}),
        json!({"serviceMonitor": {"enabled": true}, "podMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "grafanaDashboard": {"enabled": true}}),
        json!({"fullnameOverride": "a-name-that-is-as-long-as-a-name-may-become-in-this-chart", "nameOverride": "other"}),
    ]
}

/// Lets the API server judge a text as it would when it is applied.
async fn judge(text: &str) -> Result<()> {
    let mut kubectl = control_plane().await?.kubectl();
    let mut child = kubectl
        .args([
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
        ])
        .args(["--force-conflicts", "--filename", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(text.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}\n{text}");
    ensure!(!errors.contains("Warning"), "{errors}\n{text}");
    Ok(())
}

#[test]
fn every_kind_of_installation_is_accepted_by_the_api_server() {
    run(async {
        let namespace = control_plane().await?.create_namespace("rendering").await?;
        let helm = Helm::new(Tool::Helm)?;
        let matrix = matrix(&namespace);
        // Side by side, but not all at once.
        for some in matrix.chunks(4) {
            try_join_all(some.iter().map(async |values| {
                let text = helm.template("matrix", &namespace, values).await?;
                judge(&text).await.with_context(|| values.to_string())
            }))
            .await?;
        }

        // The positive control: the judge reads what it is given.
        let text = helm.template("matrix", &namespace, &json!({})).await?;
        let typo = text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem");
        let error = judge(&typo).await.err().context("a typo passed")?;
        assert!(
            format!("{error:#}").contains("readOnlyRootFileSystem"),
            "{error:#}"
        );
        Ok(())
    });
}

#[test]
fn lint_finds_nothing_with_either_version() {
    run(async {
        for version in Helm::VERSIONS {
            let helm = Helm::new(version)?;
            for values in matrix("team-a") {
                let output = helm.chart(&["lint", "--strict"], &values).await?;
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{version} {values}: {text}");
                assert!(!text.contains("[WARNING]"), "{version} {values}: {text}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_cluster_that_is_too_old_is_refused_and_newer_ones_get_the_same() {
    run(async {
        for version in Helm::VERSIONS {
            let helm = Helm::new(version)?;
            let render = async |kubernetes: &str| {
                let arguments = ["--kube-version", kubernetes];
                helm.template_with("acrcred", "default", &json!({}), &arguments)
                    .await
            };
            let error = render("v1.32.9").await.err().context("it was taken")?;
            assert!(format!("{error:#}").contains(">=1.33.0-0"), "{error:#}");
            let oldest = render("v1.33.0").await?;
            for kubernetes in ["v1.33.4-gke.1000", "v1.34.2", "v1.36.1", "v1.40.0"] {
                assert_eq!(render(kubernetes).await?, oldest, "{kubernetes}");
            }
        }
        Ok(())
    });
}

#[test]
fn what_a_cluster_does_not_know_is_left_out() {
    run(async {
        let values = json!({
            "serviceMonitor": {"enabled": true},
            "podMonitor": {"enabled": true},
            "prometheusRule": {"enabled": true},
        });
        for version in Helm::VERSIONS {
            let helm = Helm::new(version)?;
            let without = helm.template("acrcred", "default", &values).await?;
            let known = KINDS.map(|kind| format!("--api-versions=monitoring.coreos.com/v1/{kind}"));
            let known = known.each_ref().map(String::as_str);
            let with = helm
                .template_with("acrcred", "default", &values, &known)
                .await?;
            for kind in KINDS {
                assert!(only(&without, kind).is_err(), "{kind}");
                only(&with, kind)?;
            }
            let plain = helm
                .template_with("acrcred", "default", &json!({}), &known)
                .await?;
            assert!(KINDS.iter().all(|kind| only(&plain, kind).is_err()));
        }
        Ok(())
    });
}

#[test]
fn without_the_lease_there_is_one_replica_and_no_right_to_it() {
    run(async {
        let helm = Helm::new(Tool::Helm)?;
        let values = json!({"replicaCount": 3, "leaderElection": {"enabled": false}});
        let one = helm.template("acrcred", "acrcred-system", &values).await?;
        assert_eq!(only(&one, "Deployment")?["spec"]["replicas"], 1);
        assert!(!one.contains("lease"), "{one}");
        assert!(only(&one, "PodDisruptionBudget").is_err());

        let three = helm
            .template("acrcred", "acrcred-system", &json!({"replicaCount": 3}))
            .await?;
        assert_eq!(only(&three, "Deployment")?["spec"]["replicas"], 3);
        assert!(names(&three)?.contains(&"Role acrcred-system/acrcred-lease".to_owned()));
        only(&three, "PodDisruptionBudget")?;
        Ok(())
    });
}

#[test]
fn rights_in_namespaces_come_without_a_cluster_role() {
    run(async {
        let helm = Helm::new(Tool::Helm)?;
        let values = json!({
            "rbac": {"scope": "namespaces"},
            "watchNamespaces": ["team-a", "team-b"],
            "watchSecrets": {"names": ["acr"]},
            "impersonation": {"enabled": true, "namespaces": ["team-b"]},
            "crds": {"install": false},
            "policies": {"install": false},
        });
        let text = helm.template("acrcred", "acrcred-system", &values).await?;
        let expected = [
            "Deployment acrcred-system/acrcred",
            "PodDisruptionBudget acrcred-system/acrcred",
            "Role acrcred-system/acrcred-lease",
            "Role team-a/acrcred",
            "Role team-a/acrcred-watch-secrets",
            "Role team-b/acrcred",
            "Role team-b/acrcred-impersonation",
            "Role team-b/acrcred-watch-secrets",
            "RoleBinding acrcred-system/acrcred-lease",
            "RoleBinding team-a/acrcred",
            "RoleBinding team-a/acrcred-watch-secrets",
            "RoleBinding team-b/acrcred",
            "RoleBinding team-b/acrcred-impersonation",
            "RoleBinding team-b/acrcred-watch-secrets",
            "ServiceAccount acrcred-system/acrcred",
        ];
        assert_eq!(names(&text)?, expected);
        Ok(())
    });
}

/// The verbs that the rules of a rendered text grant on a resource, each with the names that limit it.
fn granted(text: &str, group: &str, resource: &str) -> Result<Vec<(String, Vec<String>)>> {
    let has = |rule: &Value, key: &str, what: &str| {
        let listed = rule[key].as_array();
        listed.is_some_and(|listed| listed.iter().any(|each| each == what || each == "*"))
    };
    let texts = |value: &Value| -> Vec<String> {
        let listed = value.as_array().into_iter().flatten();
        listed
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let objects = documents(text)?;
    let rules = objects
        .iter()
        .flat_map(|object| object["rules"].as_array().into_iter().flatten())
        .filter(|rule| has(rule, "apiGroups", group) && has(rule, "resources", resource));
    let granted = rules.flat_map(|rule| {
        let names = texts(&rule["resourceNames"]);
        texts(&rule["verbs"])
            .into_iter()
            .map(move |verb| (verb, names.clone()))
    });
    Ok(granted.collect())
}

#[test]
fn no_installation_reads_secrets_but_those_of_the_listed_names() {
    run(async {
        let helm = Helm::new(Tool::Helm)?;
        for values in matrix("team-a") {
            let text = helm.template("matrix", "default", &values).await?;
            let listed: Vec<String> =
                serde_json::from_value(values["watchSecrets"]["names"].clone()).unwrap_or_default();
            let on_secrets = granted(&text, "", "secrets")?;
            assert!(on_secrets.len() >= 2, "{values}: {on_secrets:?}");
            for (verb, names) in on_secrets {
                let fine = match &*verb {
                    "create" | "update" => names.is_empty(),
                    "list" | "watch" => !names.is_empty() && names == listed,
                    _ => false,
                };
                assert!(fine, "{values}: {verb} {names:?}");
            }
            for (verb, _) in granted(&text, "events.k8s.io", "events")? {
                assert_eq!(verb, "create", "{values}");
            }
            let flag = format!("--watch-secrets={}", listed.join(","));
            let flags = &only(&text, "Deployment")?["spec"]["template"]["spec"]["containers"][0];
            let flags = flags["args"].as_array().context("flags")?;
            let named = |flag: &&Value| {
                let flag = flag.as_str().unwrap_or_default();
                flag.starts_with("--watch-secrets")
            };
            let expected = if listed.is_empty() {
                Vec::new()
            } else {
                vec![Value::from(flag)]
            };
            let found: Vec<Value> = flags.iter().filter(named).cloned().collect();
            assert_eq!(found, expected, "{values}");
        }
        Ok(())
    });
}
