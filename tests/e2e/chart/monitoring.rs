//! What the chart gives the Prometheus operator, where there is one.

use controlplane::{ControlPlane, Options, Tool};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

use crate::harness::{Helm, run};

/// The kinds that the operator brings.
pub const KINDS: [&str; 3] = ["ServiceMonitor", "PodMonitor", "PrometheusRule"];

/// The names of its definitions, with nothing in them: the operator's own have thousands of lines.
fn definition(kind: &str) -> String {
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
    .to_string()
}

async fn found(control_plane: &ControlPlane, kind: &str) -> bool {
    let kind = GroupVersionKind::gvk("monitoring.coreos.com", "v1", kind);
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::namespaced_with(control_plane.admin(), "default", &resource);
    api.get("acrcred").await.is_ok()
}

#[test]
fn monitors_come_with_the_next_upgrade_after_the_operator_and_go_with_the_release() {
    run(async {
        let control_plane = ControlPlane::start(Options::default()).await?;
        let values = json!({
            "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
            "podMonitor": {"enabled": true},
            "prometheusRule": {"enabled": true},
            "grafanaDashboard": {"enabled": true},
        });
        for version in Helm::VERSIONS {
            let helm = Helm::on(&control_plane, version)?;
            if version == Tool::Helm {
                // The operator is not there yet.
                helm.upgrade("acrcred", "default", &values).await?;
                for kind in KINDS {
                    control_plane.apply(definition(kind)).await?;
                }
            }
            helm.upgrade("acrcred", "default", &values).await?;
            for kind in KINDS {
                assert!(found(&control_plane, kind).await, "{kind}");
            }
            helm.run(&["uninstall", "acrcred", "--namespace", "default"])
                .await?;
            for kind in KINDS {
                assert!(!found(&control_plane, kind).await, "{kind}");
            }
        }
        Ok(())
    });
}
