//! The requests that a thief may try, and those among them that write a whole Secret.

use anyhow::Result;
use hyper::{Method, Request};
use kube::client::Body;
use serde_json::Value;

use super::bodies::{edited, plain, raw, with};
use super::encodings::{IMMUTABLE, IMMUTABLE_TEXT, cbor, protobuf};
use super::secrets::Target;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CBOR: &str = "application/cbor";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";
pub(super) const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// The forms of an answer that may be asked for.
pub(super) const ACCEPTED: [&str; 12] = [
    PROTOBUF,
    YAML,
    CBOR,
    "application/cbor-seq",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
    "application/json;stream=watch",
    "text/html",
];

/// One request.
pub struct Shape {
    /// What is special about it. No two are the same.
    pub what: String,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) accept: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Shape {
    pub fn get(target: &Target, accept: &'static str) -> Self {
        Self {
            what: format!("GET, {accept}"),
            method: Method::GET,
            path: stored(target),
            accept,
            content_type: "",
            body: Vec::new(),
        }
    }

    pub fn put(target: &Target, query: &str, body: &Value) -> Self {
        Self {
            what: format!("PUT {query}"),
            method: Method::PUT,
            path: stored(target) + query,
            accept: JSON,
            content_type: JSON,
            body: body.to_string().into(),
        }
    }

    pub fn merge_patch(target: &Target, patch: &Value) -> Self {
        Self {
            what: "merge patch".into(),
            method: Method::PATCH,
            path: stored(target),
            accept: JSON,
            content_type: MERGE_PATCH,
            body: patch.to_string().into(),
        }
    }

    pub fn is_post(&self) -> bool {
        self.method == Method::POST
    }

    pub fn request(&self) -> Result<Request<Body>> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header("accept", self.accept);
        if !self.content_type.is_empty() {
            request = request.header("content-type", self.content_type);
        }
        Ok(request.body(self.body.clone().into())?)
    }
}

pub(super) fn collection(target: &Target) -> String {
    format!("/api/v1/namespaces/{}/secrets", target.namespace)
}

pub(super) fn stored(target: &Target) -> String {
    format!("{}/{}", collection(target), target.name)
}

/// Every request that is tried on a Secret.
pub fn shapes(target: &Target) -> Vec<Shape> {
    let mut list = List {
        target,
        shapes: Vec::new(),
    };
    list.bodies();
    list.queries();
    list.answers();
    list.encodings();
    list.patches();
    list.reads();
    list.subresources();
    list.shapes
}

/// The list, as far as it is made.
pub(super) struct List<'a> {
    pub(super) target: &'a Target,
    pub(super) shapes: Vec<Shape>,
}

impl List<'_> {
    /// PUT of the Secret and POST to its namespace, as JSON.
    fn writes(&mut self, what: &str, query: &str, body: impl Into<Vec<u8>>) {
        self.encoded(what, query, (JSON, JSON), body);
    }

    /// The same in another encoding: that of the request, and that of the answer.
    fn encoded(
        &mut self,
        what: &str,
        query: &str,
        (content_type, accept): (&'static str, &'static str),
        body: impl Into<Vec<u8>>,
    ) {
        let body = body.into();
        for (method, path) in [
            (Method::PUT, stored(self.target)),
            (Method::POST, collection(self.target)),
        ] {
            self.shapes.push(Shape {
                what: format!("{method}, {what}"),
                method,
                path: format!("{path}{query}"),
                accept,
                content_type,
                body: body.clone(),
            });
        }
    }

    fn bodies(&mut self) {
        for (what, body) in edited(self.target) {
            self.writes(what, "", body.to_string());
        }
        for (what, body) in raw(self.target) {
            self.writes(what, "", body);
        }
    }

    fn queries(&mut self) {
        let plain = plain(self.target).to_string();
        let mistaken = with(self.target, "/unknown", Some(1.into())).to_string();
        let twice = mistaken.replacen('{', "{\"kind\":\"Secret\",", 1);
        for query in [
            "?dryRun=All",
            "?dryRun=x",
            "?fieldValidation=x",
            "?pretty=true",
            "?fieldManager=acrcred-read",
            "?force=true",
            "?timeout=1s",
            "?watch=true&timeoutSeconds=1",
            "?resourceVersion=0",
            "?includeObject=Object",
            "?fieldSelector=metadata.name%3Dopaque",
            "?export=true",
        ] {
            self.writes(query, query, plain.clone());
        }
        for validation in ["Strict", "Warn", "Ignore"] {
            let query = format!("?fieldValidation={validation}");
            self.writes(&format!("unknown field, {query}"), &query, mistaken.clone());
            self.writes(&format!("twice, {query}"), &query, twice.clone());
            let query = format!("{query}&dryRun=All");
            self.writes(&format!("twice, {query}"), &query, twice.clone());
        }
    }

    fn answers(&mut self) {
        let plain = plain(self.target).to_string();
        let malformed = with(self.target, "/immutable", Some("x".into())).to_string();
        for accept in ACCEPTED {
            for (what, query, body) in [
                ("dry run", "?dryRun=All", &plain),
                ("whole object", "?dryRun=All&includeObject=Object", &plain),
                ("malformed", "", &malformed),
            ] {
                let what = format!("{what}, answer as {accept}");
                self.encoded(&what, query, (JSON, accept), body.clone());
            }
        }
    }

    fn encodings(&mut self) {
        let target = self.target;
        let plain = plain(target);
        let malformed = with(target, "/immutable", Some("x".into()));
        let yaml = |value: &Value| serde_saphyr::to_string(value).expect("YAML");
        let proto = protobuf(target, "Secret", &[]);
        let half = proto[..proto.len() / 2].to_vec();
        let bodies: Vec<(&str, &'static str, Vec<u8>)> = vec![
            ("YAML", YAML, yaml(&plain).into()),
            ("malformed YAML", YAML, yaml(&malformed).into()),
            ("no YAML", YAML, b"a: [".to_vec()),
            ("protobuf", PROTOBUF, proto),
            ("half of protobuf", PROTOBUF, half),
            (
                "immutable protobuf",
                PROTOBUF,
                protobuf(target, "Secret", &IMMUTABLE),
            ),
            (
                "malformed protobuf",
                PROTOBUF,
                protobuf(target, "Secret", &IMMUTABLE_TEXT),
            ),
            (
                "protobuf of another kind",
                PROTOBUF,
                protobuf(target, "Pod", &[]),
            ),
            ("no protobuf", PROTOBUF, b"k8s\0".to_vec()),
            ("CBOR", CBOR, cbor(&plain)),
            ("malformed CBOR", CBOR, cbor(&malformed)),
            ("JSON said to be CBOR", CBOR, plain.to_string().into()),
            (
                "JSON said to be protobuf",
                PROTOBUF,
                plain.to_string().into(),
            ),
            (
                "JSON said to be text",
                "text/plain",
                plain.to_string().into(),
            ),
            ("JSON of no type", "", plain.to_string().into()),
            ("JSON patch", JSON_PATCH, b"[]".to_vec()),
            ("merge patch", MERGE_PATCH, b"{}".to_vec()),
            ("strategic merge patch", STRATEGIC_PATCH, b"{}".to_vec()),
            ("apply", APPLY_PATCH, yaml(&plain).into()),
        ];
        for (what, content_type, body) in bodies {
            self.encoded(what, "", (content_type, JSON), body.clone());
            if matches!(content_type, YAML | PROTOBUF | CBOR) {
                let what = format!("{what}, answered alike");
                self.encoded(&what, "?dryRun=All", (content_type, content_type), body);
            }
        }
    }
}
