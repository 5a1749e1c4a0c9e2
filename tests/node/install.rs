//! acrcred as a Deployment, with what a chart's values would say on a node without network plugin and kube-proxy.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use crate::harness::CONTROLLER;
use crate::stage::Stage;

const READY_WITHIN: Duration = Duration::from_secs(90);
const CA_CONFIG_MAP: &str = "trusted-ca";

/// What differs between two installations side by side.
pub struct Installation {
    pub name: &'static str,
    /// Which objects it serves.
    pub selector: &'static str,
    pub https_proxy: String,
    /// Where the pod finds the certificate authority of the emulator, if it is told at all.
    pub trust: Trust,
    /// The name server that the pod asks, if not the machine's.
    pub name_server: Option<String>,
}

#[derive(Clone, Copy)]
pub enum Trust {
    /// The authorities that the image holds.
    Image,
    /// Those of a mounted file that `SSL_CERT_FILE` names.
    Variable,
    /// Those of a file mounted over the image's own.
    Mounted,
}

impl Installation {
    /// The one that serves every story.
    pub fn shared(stage: &Stage) -> Self {
        Self {
            name: "acrcred",
            selector: "served-by!=another",
            https_proxy: stage.scene.emulator.proxy_url(),
            trust: Trust::Variable,
            name_server: None,
        }
    }
}

/// Installs it and waits until a pod of it is ready; returns the pod's name.
pub async fn install(stage: &Stage, installation: &Installation) -> Result<String> {
    let (namespace, _) = CONTROLLER;
    let client = stage.scene.control_plane.admin();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    if maps.get_opt(CA_CONFIG_MAP).await?.is_none() {
        let map = serde_json::from_value(json!({
            "metadata": {"name": CA_CONFIG_MAP},
            "data": {"ca.pem": stage.scene.emulator.ca_pem()},
        }))?;
        maps.create(&PostParams::default(), &map).await?;
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment = serde_json::from_value(manifest(stage, installation)?)?;
    deployments
        .create(&PostParams::default(), &deployment)
        .await?;

    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let mine = ListParams::default().labels(&format!("app={}", installation.name));
    controlplane::eventually(READY_WITHIN, "acrcred's pod is ready", async || {
        let pods = pods.list(&mine).await.map_err(|error| error.to_string())?;
        let ready = pods.items.iter().find(|pod| is_ready(pod));
        let name = ready.and_then(|pod| pod.metadata.name.clone());
        name.ok_or_else(|| {
            let pods = pods.items.iter().map(|pod| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                (&pod.status, stage.node.logs(namespace, name))
            });
            format!("{:?}", pods.collect::<Vec<_>>())
        })
    })
    .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .any(|condition| condition.status == "True")
}

fn manifest(stage: &Stage, installation: &Installation) -> Result<Value> {
    let (namespace, account) = CONTROLLER;
    let api_server = stage.scene.control_plane.url();
    let address = api_server.trim_start_matches("https://");
    let (host, port) = address.rsplit_once(':').context("a port")?;
    let admin_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut env = vec![
        ("KUBERNETES_SERVICE_HOST", host.to_owned()),
        ("KUBERNETES_SERVICE_PORT", port.to_owned()),
        ("AZURE_CLIENT_ID", stage.scene.client_id.clone()),
        ("AZURE_TENANT_ID", stage.scene.tenant_id.clone()),
        (
            "AZURE_FEDERATED_TOKEN_FILE",
            "/var/run/secrets/azure/tokens/azure-identity-token".into(),
        ),
        ("HTTPS_PROXY", installation.https_proxy.clone()),
    ];
    let mut mounts = vec![json!({
        "name": "azure-identity-token", "mountPath": "/var/run/secrets/azure/tokens", "readOnly": true,
    })];
    match installation.trust {
        Trust::Image => {}
        Trust::Variable => {
            env.push((
                "SSL_CERT_FILE",
                "/etc/trusted-ca/ca-certificates.crt".into(),
            ));
            mounts.push(json!({"name": "ca", "mountPath": "/etc/trusted-ca", "readOnly": true}));
        }
        Trust::Mounted => mounts.push(json!({
            "name": "ca", "mountPath": "/etc/ssl/certs", "readOnly": true,
        })),
    }
    let env: Vec<Value> = env
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let (policy, config) = match &installation.name_server {
        Some(address) => ("None", json!({"nameservers": [address]})),
        None => ("Default", json!({})),
    };
    let labels = json!({"app": installation.name});
    Ok(json!({
        "metadata": {"name": installation.name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": account,
                "hostNetwork": true,
                "dnsPolicy": policy,
                "dnsConfig": config,
                "tolerations": [{"operator": "Exists"}],
                // Tests have nodes that come and go.
                "nodeSelector": {"kubernetes.io/hostname": stage.node.name()},
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "acrcred",
                    "image": stage.acrcred.reference,
                    "args": [
                        "--allow-controller-identity=*/*",
                        format!("--selector={}", installation.selector),
                        format!("--admin-listen=127.0.0.1:{admin_port}"),
                    ],
                    "env": env,
                    "readinessProbe": {
                        "httpGet": {"path": "/readyz", "port": admin_port, "host": "127.0.0.1"},
                        "periodSeconds": 1,
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": mounts,
                }],
                "volumes": [
                    {"name": "azure-identity-token", "projected": {"sources": [{"serviceAccountToken": {
                        "audience": "api://AzureADTokenExchange", "expirationSeconds": 3600, "path": "azure-identity-token",
                    }}]}},
                    {"name": "ca", "configMap": {"name": CA_CONFIG_MAP, "items": [{"key": "ca.pem", "path": "ca-certificates.crt"}]}},
                ],
            }},
        },
    }))
}
