//! Table tests of the decisions, and the little world that they play in.

mod admission;
mod api_server;
mod basics;
mod clock;
mod events;
mod failures;
mod fresh;
mod identity;
mod memory;
mod metadata;
mod ownership;
mod policy;
mod properties;
mod races;
mod refresh;
mod repositories;
mod schedule;
mod sealed;
mod suspend;
mod tampering;
mod tokens;
mod world;
mod writes;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::*;
use crate::api::{
    AcrCredential, AcrCredentialStatus, ConditionType, KIND, MANAGED_BY_LABEL, OWNER_ANNOTATION,
    Reason, Registry, SecretTemplate,
};
use crate::credential::{
    Audience, Authority, Cause, Class, Cloud, Clouds, EnabledCloud, Failure, Hop, MintError,
    MintRequest, Scope, Token, When, catalogue,
};
use world::{Look, World};

const CONTOSO: &str = "contoso.azurecr.io";
const FABRIKAM: &str = "fabrikam.azurecr.io";
const LITWARE: &str = "litware.azurecr.io";
/// The life of a refresh token.
const LIFE: SignedDuration = SignedDuration::from_hours(3);

const READY: [&str; 1] = ["Ready=True/Issued"];

fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Clears up by itself.
fn unavailable() -> MintError {
    MintError::entra(503, &[], None)
}

/// May clear up once a role has spread.
fn no_role() -> MintError {
    MintError::registry(Hop::Exchange, 401, None)
}

/// A person must act.
fn unknown_tenant() -> MintError {
    MintError::entra(400, &[90_002], None)
}

fn throttled(wait: SignedDuration) -> MintError {
    MintError::entra(429, &[], Some(wait))
}

/// Conditions as `Type=Status/Reason`.
fn conditions(status: &AcrCredentialStatus) -> Vec<String> {
    let text = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        format!("{}={}/{}", c.type_, c.status, c.reason)
    };
    status.conditions.iter().map(text).collect()
}

fn message(status: &AcrCredentialStatus, kind: ConditionType) -> &str {
    let found = status.conditions.iter().find(|c| c.type_ == kind.as_str());
    found.map_or("", |condition| &condition.message)
}

/// The Docker configuration of a Secret as plain JSON.
fn payload(secret: &Secret) -> Value {
    let data = secret
        .data
        .as_ref()
        .and_then(|data| data.get(".dockerconfigjson"));
    data.and_then(|data| serde_json::from_slice(&data.0).ok())
        .unwrap_or_default()
}

/// The hosts that a Secret has entries for.
fn hosts(secret: &Secret) -> Vec<String> {
    let payload = payload(secret);
    let auths = payload["auths"].as_object();
    auths
        .into_iter()
        .flat_map(|auths| auths.keys().cloned())
        .collect()
}

/// The entry for `host`, byte for byte.
fn entry(secret: &Secret, host: &str) -> String {
    payload(secret)["auths"][host].to_string()
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret
        .metadata
        .annotations
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

fn annotate(secret: &mut Secret, key: &str, value: &str) {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
}

fn set_payload(secret: &mut Secret, payload: impl Into<Vec<u8>>) {
    let data = secret.data.get_or_insert_default();
    data.insert(
        ".dockerconfigjson".to_owned(),
        k8s_openapi::ByteString(payload.into()),
    );
}

fn owner(value: Value) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
    serde_json::from_value(value).unwrap()
}

fn our_owner() -> Value {
    json!({
        "apiVersion": "acrcred.dev/v1alpha1", "kind": KIND, "name": "acr", "uid": "uid-1",
        "controller": true,
    })
}

fn template(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> SecretTemplate {
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    SecretTemplate {
        name: None,
        labels: map(labels),
        annotations: map(annotations),
    }
}

/// The answer of an API server that is not well, or of a webhook.
fn refused() -> SecretAnswer {
    SecretAnswer::Failed {
        problem: Some(Problem {
            reason: Reason::SecretWriteFailed,
            message: "refused".into(),
            needs_action: true,
        }),
        retry_after: SignedDuration::ZERO,
    }
}
