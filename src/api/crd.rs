//! The `CustomResourceDefinition`s as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::AcrCredential;

/// What `config/crd` holds.
///
/// Differs from the derived schema in two ways: no field is `nullable`, so that the API server drops a
/// `null` instead of storing what looks like a value; and `status` starts with `observedGeneration: -1`,
/// so that a new object counts as in progress before its first status. Conditions, whose schema is not ours, get
/// limits like every other field of the status.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![adjusted(AcrCredential::crd())]
}

fn adjusted(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = &mut version.schema else {
            continue;
        };
        let mut value = json!(schema);
        drop_null(&mut value);
        let status = &mut value["openAPIV3Schema"]["properties"]["status"];
        status["default"] = json!({"observedGeneration": -1});
        let condition = &mut status["properties"]["conditions"]["items"]["properties"];
        for (field, limit) in [
            ("type", 64),
            ("status", 16),
            ("reason", 64),
            ("message", 32_768),
        ] {
            condition[field]["maxLength"] = json!(limit);
        }
        if let Ok(adjusted) = serde_json::from_value(value) {
            *schema = adjusted;
        }
    }
    crd
}

fn drop_null(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            map.values_mut().for_each(drop_null);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        _ => {}
    }
}
