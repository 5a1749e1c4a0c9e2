//! `config/` and the chart yield the same objects.

use std::collections::BTreeMap;

use anyhow::Result;
use controlplane::Tool;
use serde_json::{Value, json};

use super::objects::by_name;
use crate::harness::{Helm, config, control_plane, run};

/// What the chart renders for these values, beyond what it renders for none.
async fn chart(values: &Value) -> Result<BTreeMap<String, Value>> {
    let helm = Helm::new(Tool::Helm)?;
    let text = helm.template("acrcred", "acrcred-system", values).await?;
    by_name(&text)
}

async fn kustomization(folders: &[&str]) -> Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    for folder in folders {
        let text = control_plane().await?.render(&config(folder)).await?;
        objects.extend(by_name(&text)?);
    }
    // A chart does not make the namespace that it is installed in.
    objects.remove("Namespace /acrcred-system");
    Ok(objects)
}

#[test]
fn the_kustomization_yields_the_objects_of_the_chart() {
    run(async {
        let chart = chart(&json!({})).await?;
        let kustomization = kustomization(&["default"]).await?;
        assert_eq!(
            chart.keys().collect::<Vec<_>>(),
            kustomization.keys().collect::<Vec<_>>()
        );
        for (name, object) in &chart {
            assert_eq!(object, &kustomization[name], "{name}");
        }
        Ok(())
    });
}

#[test]
fn what_is_optional_is_the_same_in_both_too() {
    run(async {
        let plain = chart(&json!({})).await?;
        for (values, folders) in [
            (
                json!({"watchSecrets": {"names": ["acr"]}}),
                &["watch-secrets"][..],
            ),
            (
                json!({"impersonation": {"enabled": true}}),
                &["impersonation", "impersonation/cluster"],
            ),
            (
                json!({"rbac": {"aggregateToView": true, "aggregateToEdit": true}}),
                &["tenant-roles"],
            ),
        ] {
            let mut further = chart(&values).await?;
            further.retain(|name, _| !plain.contains_key(name));
            assert!(!further.is_empty());
            let kustomization = kustomization(folders).await?;
            assert_eq!(further, kustomization, "{folders:?}");
        }
        Ok(())
    });
}
