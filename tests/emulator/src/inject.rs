//! Carrying out a fault: the answer given instead of the right one, or the right one spoilt.

use std::time::Duration;

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use futures::{StreamExt as _, stream};
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::ext::ReasonPhrase;
use jiff::{Timestamp, ToSpan as _, fmt::rfc2822};
use serde_json::{Value, json};

use crate::entra_error::EntraError;
use crate::fault::{BodyKind, CANARY, Kind, Spoil};
use crate::form::Form;
use crate::journal::{Endpoint, Entry};
use crate::jwt::Parsed;
use crate::reply::{
    Body, Reply, acr_error, body, challenge, json as json_reply, unauthorized, with_type,
};

/// The answer in place of the right one, for the kinds that do no work. `Err` closes the connection.
pub async fn instead(kind: &Kind, entry: &mut Entry, form: &Form) -> anyhow::Result<Option<Reply>> {
    Ok(Some(match kind {
        Kind::Status { .. } => status(kind, entry, form)?,
        Kind::Throttle {
            retry_after,
            http_date,
            json,
        } => throttle(entry, *retry_after, *http_date, *json)?,
        Kind::Reset {
            after_headers: false,
        } => bail!("reset by a fault"),
        Kind::Reset {
            after_headers: true,
        } => {
            let broken =
                stream::iter([Ok(Bytes::from_static(b"{")), Err(anyhow::anyhow!("reset"))]);
            Response::new(streamed(broken))
        }
        Kind::Huge { bytes } => Response::new(huge(*bytes)),
        Kind::Redirect { status, location } => {
            let mut reply = with_type(StatusCode::from_u16(*status)?, "text/plain", "");
            reply
                .headers_mut()
                .insert(LOCATION, HeaderValue::from_str(location)?);
            reply
        }
        Kind::BadRealm => {
            let realm =
                format!(r#"Bearer realm="https://{CANARY}/oauth2/token",service="{CANARY}""#);
            challenge(unauthorized(entry, "authentication required"), &realm)?
        }
        Kind::Slow { headers_ms, .. } => {
            tokio::time::sleep(Duration::from_millis(*headers_ms)).await;
            return Ok(None);
        }
        Kind::Malformed { .. } => return Ok(None),
    }))
}

/// The right answer, spoilt or delayed.
pub async fn after(kind: &Kind, reply: Reply) -> anyhow::Result<Reply> {
    match kind {
        Kind::Malformed { how } => spoil(*how, reply).await,
        Kind::Slow { body_ms, .. } if *body_ms > 0 => {
            let (parts, content) = reply.into_parts();
            let pause = Duration::from_millis(*body_ms);
            let whole = content.collect().await?.to_bytes();
            let late = stream::once(async move {
                tokio::time::sleep(pause).await;
                Ok(whole)
            });
            Ok(Response::from_parts(parts, streamed(late)))
        }
        _ => Ok(reply),
    }
}

fn streamed(
    chunks: impl futures::Stream<Item = anyhow::Result<Bytes>> + Send + Sync + 'static,
) -> Body {
    BoxBody::new(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))))
}

fn huge(bytes: usize) -> Body {
    const CHUNK: usize = 1 << 16;
    let chunk = Bytes::from(vec![b' '; CHUNK]);
    let chunks = std::iter::repeat_n(chunk, bytes.div_ceil(CHUNK));
    streamed(stream::iter(chunks.map(Ok)))
}

fn status(kind: &Kind, entry: &mut Entry, form: &Form) -> anyhow::Result<Reply> {
    let Kind::Status {
        status,
        body: shape,
        code,
        text,
        reason,
        retry_after,
    } = kind
    else {
        bail!("not a status fault");
    };
    let status = StatusCode::from_u16(*status)?;
    let words = text.as_deref().unwrap_or("an injected fault");
    let mut reply = match (shape, entry.endpoint) {
        (BodyKind::EntraJson, _) | (BodyKind::Native, Endpoint::Login) => {
            let number = code.as_deref().and_then(|code| code.parse().ok());
            EntraError::injected(number.unwrap_or(50_000), status, words).reply(entry)
        }
        (BodyKind::AcrJson | BodyKind::Native, _) => {
            acr_error(entry, status, code.as_deref().unwrap_or("UNKNOWN"), words)
        }
        (BodyKind::Text, _) => with_type(status, "text/plain", words.to_owned()),
        (BodyKind::Html, _) => {
            let page = format!("<html><head><title>{words}</title></head></html>");
            with_type(status, "text/html", page)
        }
        (BodyKind::Empty, _) => with_type(status, "text/plain", ""),
        (BodyKind::Echo, _) => echo(status, words, form)?,
    };
    if let Some(reason) = reason {
        let reason = ReasonPhrase::try_from(reason.as_bytes())?;
        reply.extensions_mut().insert(reason);
    }
    if let Some(value) = retry_after {
        reply
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_str(value)?);
    }
    Ok(reply)
}

fn echo(status: StatusCode, words: &str, form: &Form) -> anyhow::Result<Reply> {
    let text = format!("{words}\n{}", form.raw());
    let mut reply = with_type(status, "text/plain", text);
    let tokens = ["client_assertion", "access_token", "refresh_token"];
    for token in tokens.iter().filter_map(|name| form.get(name)) {
        let reason = ReasonPhrase::try_from(token.as_bytes())?;
        reply.extensions_mut().insert(reason);
        let headers = reply.headers_mut();
        for name in [
            "retry-after",
            "x-ms-request-id",
            "x-ms-correlation-request-id",
        ] {
            headers.insert(name, HeaderValue::from_str(token)?);
        }
        headers.append("x-ms-diagnostics", HeaderValue::from_str(token)?);
        let location = format!("https://{CANARY}/leak?token={token}");
        headers.insert(LOCATION, HeaderValue::from_str(&location)?);
    }
    Ok(reply)
}

fn throttle(
    entry: &mut Entry,
    seconds: Option<u32>,
    date: bool,
    json: bool,
) -> anyhow::Result<Reply> {
    const STATUS: StatusCode = StatusCode::TOO_MANY_REQUESTS;
    let mut reply = match (entry.endpoint, json) {
        (Endpoint::Login, false) => with_type(STATUS, "text/plain", "Too Many Requests"),
        (Endpoint::Login, true) => {
            EntraError::injected(90_055, STATUS, "Tenant throttled").reply(entry)
        }
        _ => acr_error(entry, STATUS, "TOOMANYREQUESTS", "too many requests"),
    };
    if let Some(seconds) = seconds {
        let value = if date {
            let at = Timestamp::now() + i64::from(seconds).seconds();
            rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at)?
        } else {
            seconds.to_string()
        };
        reply
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_str(&value)?);
    }
    Ok(reply)
}

async fn spoil(how: Spoil, reply: Reply) -> anyhow::Result<Reply> {
    if !reply.status().is_success() {
        return Ok(reply);
    }
    let bytes = reply.into_body().collect().await?.to_bytes();
    let mut answer: Value = serde_json::from_slice(&bytes)?;
    let raw = match how {
        Spoil::Truncated => bytes.slice(..bytes.len() / 2),
        Spoil::Bom => [b"\xef\xbb\xbf".as_slice(), &bytes].concat().into(),
        Spoil::Array => json!([answer]).to_string().into(),
        _ => {
            spoil_fields(how, &mut answer)?;
            answer.to_string().into()
        }
    };
    let mut reply = json_reply(StatusCode::OK, &Value::Null);
    *reply.body_mut() = body(raw);
    Ok(reply)
}

fn spoil_fields(how: Spoil, answer: &mut Value) -> anyhow::Result<()> {
    let Some(fields) = answer.as_object_mut() else {
        bail!("the answer to spoil is no object");
    };
    let field = ["refresh_token", "access_token"]
        .into_iter()
        .find(|name| fields.contains_key(*name))
        .unwrap_or("access_token");
    let token = fields
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    match how {
        Spoil::ExpiresAsText => drop(fields.insert("expires_in".into(), json!("3599"))),
        Spoil::ExpiresZero => drop(fields.insert("expires_in".into(), json!(0))),
        Spoil::ExpiresNegative => drop(fields.insert("expires_in".into(), json!(-60))),
        Spoil::MissingToken => drop(fields.remove(field)),
        Spoil::ExtraFields => drop(fields.insert("x-new".into(), json!({"a": [1, null]}))),
        _ => drop(fields.insert(field.into(), spoil_token(how, &token)?)),
    }
    Ok(())
}

fn spoil_token(how: Spoil, token: &str) -> anyhow::Result<Value> {
    Ok(match how {
        Spoil::EmptyToken => json!(""),
        Spoil::TokenAsNumber => json!(4711),
        Spoil::NotJwt => json!("not-a-jwt"),
        Spoil::Padded => json!(with_claims(token, |claims| URL_SAFE.encode(claims))?),
        Spoil::NoExp
        | Spoil::FarExp
        | Spoil::ExtraRepository
        | Spoil::ExtraAction
        | Spoil::NoAccess => {
            let change = |claims: &[u8]| {
                let mut claims: Value = serde_json::from_slice(claims).unwrap_or_default();
                spoil_claims(how, &mut claims);
                URL_SAFE_NO_PAD.encode(claims.to_string())
            };
            json!(with_claims(token, change)?)
        }
        _ => json!(token),
    })
}

fn spoil_claims(how: Spoil, claims: &mut Value) {
    let Some(fields) = claims.as_object_mut() else {
        return;
    };
    let access = fields.get_mut("access").and_then(Value::as_array_mut);
    match (how, access) {
        (Spoil::NoExp, _) => drop(fields.remove("exp")),
        (Spoil::FarExp, _) => drop(fields.insert("exp".into(), json!(32_503_680_000_i64))),
        (Spoil::NoAccess, _) => drop(fields.remove("access")),
        (Spoil::ExtraRepository, Some(access)) => {
            access.push(json!({"type": "repository", "name": "more", "actions": ["pull"]}));
        }
        (Spoil::ExtraAction, Some(access)) => {
            for actions in access
                .iter_mut()
                .filter_map(|a| a["actions"].as_array_mut())
            {
                actions.push(json!("push"));
            }
        }
        _ => {}
    }
}

/// The token with another middle part; its signature no longer fits.
fn with_claims(token: &str, write: impl Fn(&[u8]) -> String) -> anyhow::Result<String> {
    let mut claims = Parsed::read(token)?.claims.to_string();
    // A length of 3n + 1 bytes, so that padding is really needed.
    while claims.len() % 3 != 1 {
        claims.insert(1, ' ');
    }
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[1] = write(claims.as_bytes());
    Ok(parts.join("."))
}
