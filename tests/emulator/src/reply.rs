//! Answers: their body type, and the error bodies of Entra and of a registry.

use anyhow::Context as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};

use crate::journal::Entry;
use crate::random::guid;

/// Largest form, in bytes.
const LARGEST_FORM: usize = 1 << 20;

/// A body, whole or streamed.
pub type Body = BoxBody<Bytes, anyhow::Error>;
/// An answer.
pub type Reply = Response<Body>;

/// A whole body.
pub fn body(content: impl Into<Bytes>) -> Body {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed()
}

/// An answer with the given content type.
pub fn with_type(
    status: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(body(content));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A JSON answer that must not be stored.
pub fn json(status: StatusCode, content: &Value) -> Reply {
    let mut reply = with_type(
        status,
        "application/json; charset=utf-8",
        content.to_string(),
    );
    let no_store = HeaderValue::from_static("no-store, no-cache");
    reply.headers_mut().insert(CACHE_CONTROL, no_store);
    reply
}

/// A registry's refusal in its own shape, noted in the journal.
pub fn acr_error(entry: &mut Entry, status: StatusCode, code: &str, message: &str) -> Reply {
    entry.error = Some(code.to_owned());
    json(
        status,
        &json!({"errors": [{"code": code, "message": message}]}),
    )
}

/// 401 with the message that the registry gives for nearly everything.
pub fn unauthorized(entry: &mut Entry, message: &str) -> Reply {
    let message =
        format!("{message}, visit https://aka.ms/acr/authorization for more information.");
    acr_error(entry, StatusCode::UNAUTHORIZED, "UNAUTHORIZED", &message)
}

/// Adds a challenge header.
pub fn challenge(mut reply: Reply, challenge: &str) -> anyhow::Result<Reply> {
    let value = HeaderValue::from_str(challenge).context("a challenge is printable")?;
    reply.headers_mut().insert(WWW_AUTHENTICATE, value);
    Ok(reply)
}

/// Adds the header by which Microsoft's support finds a request, unless a fault has set it.
pub fn correlate(reply: &mut Reply, header: &'static str) {
    let id = HeaderValue::from_str(&guid()).expect("a GUID is printable");
    reply.headers_mut().entry(header).or_insert(id);
}

/// Reads a form's bytes.
pub async fn read(body: Incoming) -> anyhow::Result<Bytes> {
    let collected = Limited::new(body, LARGEST_FORM).collect().await;
    Ok(collected.map_err(anyhow::Error::from_boxed)?.to_bytes())
}
