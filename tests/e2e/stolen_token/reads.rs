//! Requests that acrcred's rights do not allow: patches, reads, and those of subresources.

use hyper::Method;
use serde_json::{Value, json};

use super::bodies::{OWNER, plain};
use super::secrets::Target;
use super::shapes::{
    ACCEPTED, APPLY_PATCH, JSON, JSON_PATCH, List, MERGE_PATCH, STRATEGIC_PATCH, Shape, collection,
    stored,
};

impl List<'_> {
    pub(super) fn patches(&mut self) {
        let target = self.target;
        let plain = plain(target);
        let apply = |edit: Value| {
            let mut body = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": target.name},
            });
            for (key, value) in edit.as_object().into_iter().flatten() {
                body[key] = value.clone();
            }
            body
        };
        let to_label = json!({"op": "copy", "from": "/data", "path": "/metadata/labels"});
        let guess = json!({"op": "test", "path": "/data/password", "value": "MQ=="});
        let patches: Vec<(&str, &'static str, Value)> = vec![
            ("nothing", JSON_PATCH, json!([])),
            (
                "malformed",
                JSON_PATCH,
                json!([{"op": "add", "path": "/immutable", "value": "x"}]),
            ),
            ("copy of data to labels", JSON_PATCH, json!([to_label])),
            ("a guess", JSON_PATCH, json!([guess])),
            (
                "no data",
                JSON_PATCH,
                json!([{"op": "remove", "path": "/data"}]),
            ),
            (
                "unknown operation",
                JSON_PATCH,
                json!([{"op": "read", "path": "/data"}]),
            ),
            ("no patch", JSON_PATCH, json!({})),
            ("nothing", MERGE_PATCH, json!({})),
            ("malformed", MERGE_PATCH, json!({"immutable": "x"})),
            ("malformed data", MERGE_PATCH, json!({"data": {"a": 1}})),
            (
                "malformed labels",
                MERGE_PATCH,
                json!({"metadata": {"labels": {"a": 1}}}),
            ),
            ("another type", MERGE_PATCH, json!({"type": "Opaque"})),
            (
                "an owner",
                MERGE_PATCH,
                json!({"metadata": {"annotations": {"acrcred.dev/owner": OWNER}}}),
            ),
            ("an unknown field", MERGE_PATCH, json!({"unknown": 1})),
            ("no patch", MERGE_PATCH, json!([])),
            ("nothing", STRATEGIC_PATCH, json!({})),
            ("malformed", STRATEGIC_PATCH, json!({"immutable": "x"})),
            ("replace", STRATEGIC_PATCH, json!({"$patch": "replace"})),
            (
                "retain keys",
                STRATEGIC_PATCH,
                json!({"$retainKeys": ["type"], "type": 1}),
            ),
            ("nothing", APPLY_PATCH, apply(json!({}))),
            ("malformed", APPLY_PATCH, apply(json!({"immutable": "x"}))),
            (
                "another type",
                APPLY_PATCH,
                apply(json!({"type": "Opaque"})),
            ),
            (
                "an unknown field",
                APPLY_PATCH,
                apply(json!({"unknown": 1})),
            ),
            ("as acrcred writes it", APPLY_PATCH, plain),
        ];
        for (what, content_type, patch) in patches {
            for query in [
                "?fieldManager=acrcred",
                "?fieldManager=acrcred&dryRun=All",
                "?fieldManager=acrcred&force=true&fieldValidation=Strict",
            ] {
                self.shapes.push(Shape {
                    what: format!("PATCH{query}, {content_type}, {what}"),
                    method: Method::PATCH,
                    path: format!("{}{query}", stored(target)),
                    accept: JSON,
                    content_type,
                    body: patch.to_string().into(),
                });
            }
        }
    }

    pub(super) fn reads(&mut self) {
        let (stored, collection) = (stored(self.target), collection(self.target));
        let Target {
            namespace, name, ..
        } = self.target;
        let watch = "?watch=true&timeoutSeconds=1";
        let by_name = format!("fieldSelector=metadata.name%3D{name}");
        let paths = [
            stored.clone(),
            format!("{stored}?resourceVersion=0"),
            format!("{stored}{watch}"),
            collection.clone(),
            format!("{collection}?limit=1"),
            format!("{collection}?{by_name}"),
            format!("{collection}?labelSelector=example.com%2Flabel"),
            format!("{collection}{watch}"),
            format!("{collection}{watch}&{by_name}"),
            format!("{collection}{watch}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
            "/api/v1/secrets".into(),
            format!("/api/v1/secrets?{by_name}"),
            format!("/api/v1/secrets{watch}"),
            format!("/api/v1/watch/namespaces/{namespace}/secrets"),
            format!("/api/v1/watch/namespaces/{namespace}/secrets/{name}"),
            format!("/api/v1/watch/secrets?{by_name}"),
        ];
        for path in paths {
            self.bare(Method::GET, &path, JSON);
        }
        for accept in ACCEPTED {
            self.bare(Method::GET, &stored, accept);
            self.bare(Method::GET, &collection, accept);
        }
        for method in [Method::HEAD, Method::OPTIONS, Method::DELETE] {
            self.bare(method.clone(), &stored, JSON);
            self.bare(method, &collection, JSON);
        }
        self.bare(Method::DELETE, &format!("{stored}?dryRun=All"), JSON);
        self.bare(
            Method::DELETE,
            &format!("{collection}?{by_name}&dryRun=All"),
            JSON,
        );
        let orphan = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"], "preconditions": {"uid": "x"}});
        self.shapes.push(Shape {
            what: "DELETE with options".into(),
            method: Method::DELETE,
            path: stored,
            accept: JSON,
            content_type: JSON,
            body: orphan.to_string().into(),
        });
    }

    /// A request without a body.
    fn bare(&mut self, method: Method, path: &str, accept: &'static str) {
        self.shapes.push(Shape {
            // The paths of all Secrets differ in their names alone.
            what: format!(
                "{method} {}, {accept}",
                path.replace(&*self.target.name, "NAME")
            ),
            method,
            path: path.to_owned(),
            accept,
            content_type: "",
            body: Vec::new(),
        });
    }

    pub(super) fn subresources(&mut self) {
        let plain = plain(self.target).to_string();
        for name in [
            "status", "scale", "token", "proxy", "log", "finalize", "binding",
        ] {
            for method in [
                Method::GET,
                Method::PUT,
                Method::POST,
                Method::PATCH,
                Method::DELETE,
            ] {
                let (content_type, body) = match method {
                    Method::PUT | Method::POST => (JSON, plain.clone().into()),
                    Method::PATCH => (MERGE_PATCH, br#"{"immutable":"x"}"#.to_vec()),
                    _ => ("", Vec::new()),
                };
                self.shapes.push(Shape {
                    what: format!("{method} of {name}"),
                    path: format!("{}/{name}", stored(self.target)),
                    method,
                    accept: JSON,
                    content_type,
                    body,
                });
            }
        }
    }
}
