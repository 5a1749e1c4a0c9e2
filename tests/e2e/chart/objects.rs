//! Rendered objects, and what of them counts when two ways to install are compared.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

/// What tells who installed an object, and says nothing about what it does.
const MARKS: [&str; 6] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
    "helm.sh/resource-policy",
    "kubectl.kubernetes.io/default-container",
];

/// The documents of a YAML text.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context(yaml.to_owned())?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// The object of a kind, of which there is one.
pub fn only(yaml: &str, kind: &str) -> Result<Value> {
    let mut objects = documents(yaml)?;
    objects.retain(|object| object["kind"] == kind);
    ensure!(objects.len() == 1, "{} of {kind}: {yaml}", objects.len());
    Ok(objects.remove(0))
}

/// `KIND NAMESPACE/NAME` of each object.
pub fn names(yaml: &str) -> Result<Vec<String>> {
    Ok(by_name(yaml)?.into_keys().collect())
}

/// Each object under `KIND NAMESPACE/NAME`, without the marks of its installer.
pub fn by_name(yaml: &str) -> Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    for mut object in documents(yaml)? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let name = format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"])
        );
        strip(&mut object);
        if object["kind"] == "CustomResourceDefinition" {
            // Generated, and so without a label.
            strip_labels(&mut object);
        }
        ensure!(
            objects.insert(name.clone(), object).is_none(),
            "{name} is there twice"
        );
    }
    Ok(objects)
}

fn strip_labels(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("labels");
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => strip_fields(fields),
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn strip_fields(fields: &mut Map<String, Value>) {
    fields.retain(|key, _| !MARKS.contains(&key.as_str()));
    fields.values_mut().for_each(strip);
    fields.retain(|key, value| {
        !matches!(key.as_str(), "labels" | "annotations")
            || value.as_object().is_none_or(|map| !map.is_empty())
    });
}
