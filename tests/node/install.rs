//! acrcred as the chart installs it.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result};
use controlplane::Tool;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use crate::harness::{CONTROLLER, Helm};
use crate::stage::Stage;

const READY_WITHIN: Duration = Duration::from_secs(90);
const CA_CONFIG_MAP: &str = "trusted-ca";
/// Where Debian has them, and so the image.
const CA_KEY: &str = "ca-certificates.crt";

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
            "data": {CA_KEY: stage.scene.emulator.ca_pem()},
        }))?;
        maps.create(&PostParams::default(), &map).await?;
    }
    let helm = Helm::on(stage.scene.control_plane, Tool::Helm)?;
    helm.upgrade(installation.name, namespace, &values(stage, installation)?)
        .await?;

    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let mine =
        ListParams::default().labels(&format!("app.kubernetes.io/instance={}", installation.name));
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

/// What an operator would set for a node without network plugin, `kube-proxy` and public certificates.
fn values(stage: &Stage, installation: &Installation) -> Result<Value> {
    let (_, account) = CONTROLLER;
    let api_server = stage.scene.control_plane.url();
    let address = api_server.trim_start_matches("https://");
    let (host, port) = address.rsplit_once(':').context("a port")?;
    let mut values = json!({
        "fullnameOverride": installation.name,
        "image": {"repository": stage.acrcred.repository()?, "tag": stage.acrcred.tag()?},
        "replicaCount": 1,
        "clientId": stage.scene.client_id,
        "tenantId": stage.scene.tenant_id,
        "allowControllerIdentity": ["*/*"],
        "proxy": {"httpsProxy": installation.https_proxy},
        "extraArgs": [format!("--selector={}", installation.selector)],
        "extraEnv": [
            {"name": "KUBERNETES_SERVICE_HOST", "value": host},
            {"name": "KUBERNETES_SERVICE_PORT", "value": port},
        ],
        "adminPort": TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        "hostNetwork": true,
        "tolerations": [{"operator": "Exists"}],
        // Tests have nodes that come and go.
        "nodeSelector": {"kubernetes.io/hostname": stage.node.name()},
    });
    if installation.name != account {
        // Beside the first, which brought what a cluster has once.
        values["serviceAccount"] = json!({"create": false, "name": account});
        values["crds"] = json!({"install": false});
        values["policies"] = json!({"install": false});
    }
    match installation.trust {
        Trust::Image => {}
        Trust::Variable => {
            values["caBundle"] = json!({"configMap": CA_CONFIG_MAP, "key": CA_KEY});
        }
        Trust::Mounted => {
            values["extraVolumes"] = json!([{"name": "ca", "configMap": {"name": CA_CONFIG_MAP}}]);
            values["extraVolumeMounts"] =
                json!([{"name": "ca", "mountPath": "/etc/ssl/certs", "readOnly": true}]);
        }
    }
    match &installation.name_server {
        Some(address) => {
            values["dnsPolicy"] = "None".into();
            values["dnsConfig"] = json!({"nameservers": [address]});
        }
        None => values["dnsPolicy"] = "Default".into(),
    }
    Ok(values)
}
