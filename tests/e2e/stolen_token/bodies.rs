//! What a thief may send as a Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::secrets::Target;

/// The `AcrCredential` that the thief names as the owner.
pub const OWNER: &str = "acr";
/// The type of acrcred's Secrets.
pub const TYPE: &str = "kubernetes.io/dockerconfigjson";
/// A Docker configuration without credentials.
pub const EMPTY_CONFIG: &str = r#"{"auths":{}}"#;

/// What acrcred itself would send.
pub fn plain(target: &Target) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": target.name,
            "namespace": target.namespace,
            "annotations": {"acrcred.dev/owner": OWNER},
        },
        "type": TYPE,
        "data": {".dockerconfigjson": STANDARD.encode(EMPTY_CONFIG)},
    })
}

/// The same with one field changed.
pub fn with(target: &Target, pointer: &str, value: Option<Value>) -> Value {
    let mut body = plain(target);
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let key = key.replace("~1", "/");
    if body.pointer(parent).is_none() {
        let (grandparent, name) = parent.rsplit_once('/').expect("a pointer");
        body.pointer_mut(grandparent).expect("an object")[name] = json!({});
    }
    let parent = body.pointer_mut(parent).and_then(Value::as_object_mut);
    let parent = parent.expect("an object");
    match value {
        Some(value) => parent.insert(key, value),
        None => parent.remove(&key),
    };
    body
}

fn owner(edit: impl Fn(&mut Value)) -> Value {
    let mut reference = json!({
        "apiVersion": "acrcred.dev/v1alpha1",
        "kind": "AcrCredential",
        "name": OWNER,
        "uid": "00000000-0000-4000-8000-000000000001",
    });
    edit(&mut reference);
    reference
}

/// What is special, and the whole body.
// A list.
#[allow(clippy::too_many_lines)]
pub fn edited(target: &Target) -> Vec<(&'static str, Value)> {
    let large = "A".repeat(1_400_000);
    let forged = json!([{
        "manager": "acrcred", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:.dockerconfigjson": {}, "f:password": {}}},
    }]);
    let references = "/metadata/ownerReferences";
    let version = "/metadata/resourceVersion";
    let annotations = "/metadata/annotations";
    let mark = "/metadata/annotations/acrcred.dev~1owner";
    let edits: Vec<(&'static str, &str, Option<Value>)> = vec![
        ("no type", "/type", None),
        ("type Opaque", "/type", Some("Opaque".into())),
        ("type tls", "/type", Some("kubernetes.io/tls".into())),
        (
            "a token Secret",
            "/type",
            Some("kubernetes.io/service-account-token".into()),
        ),
        ("a type that is a number", "/type", Some(1.into())),
        ("no data", "/data", None),
        ("null data", "/data", Some(Value::Null)),
        ("data that is a list", "/data", Some(json!([]))),
        ("another key", "/data/password", Some("MQ==".into())),
        ("a null key", "/data/password", Some(Value::Null)),
        ("a key that no key may be", "/data/a b", Some("MQ==".into())),
        (
            "data that is not base64",
            "/data/.dockerconfigjson",
            Some("%".into()),
        ),
        (
            "data that is not JSON",
            "/data/.dockerconfigjson",
            Some("eA==".into()),
        ),
        (
            "more data than a Secret holds",
            "/data/large",
            Some(large.into()),
        ),
        ("stringData", "/stringData", Some(json!({"a": "1"}))),
        ("immutable", "/immutable", Some(true.into())),
        ("not immutable", "/immutable", Some(false.into())),
        ("immutable that is a text", "/immutable", Some("x".into())),
        ("an unknown field", "/unknown", Some(1.into())),
        (
            "an unknown field of metadata",
            "/metadata/unknown",
            Some(json!({})),
        ),
        (
            "the UID of another",
            "/metadata/uid",
            Some("00000000-0000-4000-8000-000000000002".into()),
        ),
        ("its UID", "/metadata/uid", Some(target.uid.clone().into())),
        ("a UID that is a number", "/metadata/uid", Some(1.into())),
        ("resource version 0", version, Some("0".into())),
        ("resource version 1", version, Some("1".into())),
        (
            "its resource version",
            version,
            Some(target.resource_version.clone().into()),
        ),
        ("resource version x", version, Some("x".into())),
        ("resource version -1", version, Some("-1".into())),
        (
            "a resource version that is a number",
            version,
            Some(1.into()),
        ),
        ("a generation", "/metadata/generation", Some(7.into())),
        ("another name", "/metadata/name", Some("another".into())),
        ("no name", "/metadata/name", None),
        ("a name that is a number", "/metadata/name", Some(1.into())),
        (
            "generateName",
            "/metadata/generateName",
            Some("made-".into()),
        ),
        (
            "another namespace",
            "/metadata/namespace",
            Some("kube-system".into()),
        ),
        ("no namespace", "/metadata/namespace", None),
        ("kind ConfigMap", "/kind", Some("ConfigMap".into())),
        ("kind SecretList", "/kind", Some("SecretList".into())),
        ("kind Table", "/kind", Some("Table".into())),
        ("no kind", "/kind", None),
        ("version v2", "/apiVersion", Some("v2".into())),
        ("no version", "/apiVersion", None),
        ("null annotations", annotations, Some(Value::Null)),
        ("no annotations", annotations, None),
        ("an empty owner", mark, Some("".into())),
        ("an owner that is a number", mark, Some(1.into())),
        ("another owner", mark, Some("third".into())),
        (
            "an annotation that none may be",
            "/metadata/annotations/a b",
            Some("1".into()),
        ),
        (
            "a label that none may be",
            "/metadata/labels/a",
            Some("a b".into()),
        ),
        (
            "an owner reference",
            references,
            Some(json!([owner(|_| {})])),
        ),
        (
            "an owner reference without UID",
            references,
            Some(json!([owner(|o| o["uid"] = Value::Null)])),
        ),
        (
            "an owner of another kind",
            references,
            Some(json!([owner(|o| o["kind"] = "ConfigMap".into())])),
        ),
        (
            "blockOwnerDeletion",
            references,
            Some(json!([owner(|o| o["blockOwnerDeletion"] = true.into())])),
        ),
        (
            "two controllers",
            references,
            Some(json!([
                owner(|o| o["controller"] = true.into()),
                owner(|o| {
                    o["controller"] = true.into();
                    o["uid"] = "00000000-0000-4000-8000-000000000003".into();
                }),
            ])),
        ),
        (
            "a finalizer",
            "/metadata/finalizers",
            Some(json!(["example.com/a"])),
        ),
        ("no finalizers", "/metadata/finalizers", Some(json!([]))),
        (
            "a finalizer that none may be",
            "/metadata/finalizers",
            Some(json!(["a b"])),
        ),
        (
            "empty managedFields",
            "/metadata/managedFields",
            Some(json!([{}])),
        ),
        (
            "forged managedFields",
            "/metadata/managedFields",
            Some(forged),
        ),
        (
            "a deletion timestamp",
            "/metadata/deletionTimestamp",
            Some("2020-01-01T00:00:00Z".into()),
        ),
        (
            "a creation timestamp",
            "/metadata/creationTimestamp",
            Some("2020-01-01T00:00:00Z".into()),
        ),
        (
            "a bad creation timestamp",
            "/metadata/creationTimestamp",
            Some("x".into()),
        ),
    ];
    let mut bodies: Vec<_> = edits
        .into_iter()
        .map(|(what, pointer, value)| (what, with(target, pointer, value)))
        .collect();
    bodies.push(("as acrcred writes it", plain(target)));
    bodies.extend(several(target));
    bodies
}

/// Bodies with more than one change.
fn several(target: &Target) -> Vec<(&'static str, Value)> {
    let mut opaque = with(target, "/type", Some("Opaque".into()));
    let mut immutable = opaque.clone();
    immutable["immutable"] = true.into();
    let mut known = opaque.clone();
    known["metadata"]["uid"] = target.uid.clone().into();
    known["metadata"]["resourceVersion"] = target.resource_version.clone().into();
    opaque["metadata"]["annotations"] = Value::Null;
    let mut unnamed = with(target, "/metadata/name", None);
    unnamed["metadata"]["generateName"] = "made-".into();
    vec![
        ("type Opaque without annotations", opaque),
        ("type Opaque and immutable", immutable),
        ("type Opaque with its UID and resource version", known),
        ("a generated name", unnamed),
    ]
}

/// Texts that are no Secret, or not only one.
pub fn raw(target: &Target) -> Vec<(&'static str, String)> {
    let plain = plain(target).to_string();
    let inside = plain.strip_suffix('}').expect("an object");
    vec![
        ("nothing", String::new()),
        ("an empty object", "{}".into()),
        ("null", "null".into()),
        ("a list", "[]".into()),
        ("a text", "\"Secret\"".into()),
        ("no JSON", "\u{1}Secret".into()),
        ("half of a Secret", plain[..plain.len() / 2].into()),
        ("two Secrets", format!("{plain}{plain}")),
        ("11,000 lists", "[".repeat(11_000)),
        (
            "a field twice",
            format!("{inside},\"immutable\":true,\"immutable\":\"x\"}}"),
        ),
        (
            "annotations twice",
            format!("{inside},\"metadata\":{{\"name\":\"{}\"}}}}", target.name),
        ),
        (
            "keys in another case",
            plain
                .replace("\"data\"", "\"Data\"")
                .replace("\"type\"", "\"TYPE\""),
        ),
    ]
}
