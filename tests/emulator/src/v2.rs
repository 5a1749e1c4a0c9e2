//! `/v2/`: the real registry process behind the login server, and the refusals that Azure puts in front of it.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, EXPECT, HOST, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use crate::core::Core;
use crate::form::Form;
use crate::inject;
use crate::journal::{Endpoint, Entry};
use crate::keys::KeyName;
use crate::oauth::{denied, note_token};
use crate::reply::{Reply, acr_error, challenge, json as json_reply, unauthorized};
use crate::state::Registry;
use crate::token::judge;

/// Longest wait for the registry process's headers; bodies may take as long as they need.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// Answers anything below `/v2/`.
pub async fn serve(
    core: &Core,
    registry: &Registry,
    entry: &mut Entry,
    request: Request<Incoming>,
) -> anyhow::Result<Reply> {
    entry.endpoint = Endpoint::V2;
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let bearer = authorization.strip_prefix("Bearer ").map(str::to_owned);
    let basic = authorization.starts_with("Basic ");
    let scope = needed_scope(&request);
    entry.scope.clone_from(&scope);
    if let Some(token) = &bearer {
        note_token(entry, token);
    }
    let fault = core.faults.take(entry);
    if let Some(kind) = &fault
        && let Some(reply) = inject::instead(kind, entry, &Form::default()).await?
    {
        return Ok(reply);
    }
    let reply = match bearer {
        _ if !registry.public_network_access => denied(entry),
        Some(token) => match outdated(core, registry, &token) {
            Some(why) => refuse(entry, why, scope.as_deref(), Some("invalid_token"))?,
            None => forward(core, entry, request).await?,
        },
        None if basic => challenge(
            unauthorized(entry, "authentication required"),
            r#"Basic realm="Azure Container Registry""#,
        )?,
        None => refuse(entry, "authentication required", scope.as_deref(), None)?,
    };
    match &fault {
        Some(kind) => inject::after(kind, reply).await,
        None => Ok(reply),
    }
}

/// Why an access token of ours no longer counts. The registry process cannot know: it judges by real time. All other tokens are its to refuse.
fn outdated(core: &Core, registry: &Registry, token: &str) -> Option<&'static str> {
    let parsed = core.keys.verify(KeyName::Access, token).ok()?;
    judge(core, registry, &parsed).err()
}

/// The scope that a request needs, as a challenge names it; nothing for `/v2/` itself.
fn needed_scope(request: &Request<Incoming>) -> Option<String> {
    let path = request.uri().path().strip_prefix("/v2/")?;
    if path == "_catalog" {
        return Some("registry:catalog:*".into());
    }
    let end = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
        .iter()
        .filter_map(|part| path.rfind(part))
        .max()?;
    let actions = match *request.method() {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "delete",
        _ => "pull,push",
    };
    Some(format!("repository:{}:{actions}", &path[..end]))
}

fn refuse(
    entry: &mut Entry,
    why: &str,
    scope: Option<&str>,
    error: Option<&str>,
) -> anyhow::Result<Reply> {
    let mut realm = format!(
        r#"Bearer realm="https://{0}/oauth2/token",service="{0}""#,
        entry.host
    );
    for (name, value) in [("scope", scope), ("error", error)] {
        if let Some(value) = value {
            realm.extend([",", name, "=\"", value, "\""]);
        }
    }
    entry.error = Some("UNAUTHORIZED".into());
    let message = format!("{why}, visit https://aka.ms/acr/authorization for more information.");
    let mut parts = scope.unwrap_or_default().splitn(3, ':');
    let detail = match (parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(name), Some(action)) => {
            json!([{"Type": kind, "Name": name, "Action": action}])
        }
        _ => json!(null),
    };
    let errors =
        json!({"errors": [{"code": "UNAUTHORIZED", "message": message, "detail": detail}]});
    let mut reply = challenge(json_reply(StatusCode::UNAUTHORIZED, &errors), &realm)?;
    let version = HeaderValue::from_static("registry/2.0");
    reply
        .headers_mut()
        .insert("docker-distribution-api-version", version);
    Ok(reply)
}

/// Hands the request to the registry process, and its answer back, both as streams.
async fn forward(
    core: &Core,
    entry: &mut Entry,
    mut request: Request<Incoming>,
) -> anyhow::Result<Reply> {
    let address = match core.distributions.address(core, &entry.host).await {
        Ok(address) => address,
        Err(error) => return Ok(unavailable(entry, &error)),
    };
    let path = request
        .uri()
        .path_and_query()
        .map_or("/v2/", |path| path.as_str());
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query(path)
        .build()?;
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(EXPECT);
    headers.insert(HOST, HeaderValue::from_str(&entry.host)?);
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    let answer =
        tokio::time::timeout(ANSWER_LIMIT, core.distributions.client().request(request)).await;
    match answer {
        Ok(Ok(mut reply)) => {
            reply.headers_mut().remove(CONNECTION);
            if reply.status() == StatusCode::UNAUTHORIZED
                && reply.headers().contains_key(WWW_AUTHENTICATE)
            {
                entry.error = Some("UNAUTHORIZED".into());
            }
            Ok(reply.map(|content| content.map_err(anyhow::Error::from).boxed()))
        }
        Ok(Err(error)) => Ok(unavailable(entry, &error.into())),
        Err(late) => Ok(unavailable(entry, &late.into())),
    }
}

fn unavailable(entry: &mut Entry, error: &anyhow::Error) -> Reply {
    tracing::warn!(host = entry.host, "registry process: {error:#}");
    acr_error(
        entry,
        StatusCode::BAD_GATEWAY,
        "UNAVAILABLE",
        "the registry process does not answer",
    )
}
