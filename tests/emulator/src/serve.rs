//! One request inside a tunnel: which endpoint answers it, and its line in the journal and the log.

use std::time::Instant;

use anyhow::Context as _;
use http::header::{HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;

use crate::cloud::Cloud;
use crate::core::Core;
use crate::entra;
use crate::form::Form;
use crate::journal::{Endpoint, Entry, Listener};
use crate::oauth;
use crate::reply::{Reply, acr_error, correlate, with_type};
use crate::v2;

/// Answers a request to `host`, the name that the client asked the proxy for. `Err` closes the connection without an answer.
pub async fn answer(core: &Core, host: &str, request: Request<Incoming>) -> anyhow::Result<Reply> {
    let begin = Instant::now();
    let cloud = core.state.read().unwrap().cloud_of_authority(host).cloned();
    let listener = if cloud.is_some() {
        Listener::Login
    } else {
        Listener::Registry
    };
    let mut entry = Entry::new(
        listener,
        host,
        request.method().as_str(),
        request.uri().path(),
    );
    entry.tap.clone_from(&core.tap);
    entry.query_keys = Form::read(request.uri().query().unwrap_or_default().as_bytes()).keys();
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
    entry.user_agent = header(USER_AGENT).map(str::to_owned);
    let asked = header(HOST).unwrap_or_default();
    let answer = if asked.trim_end_matches(":443").eq_ignore_ascii_case(host) {
        route(core, cloud.as_ref(), &mut entry, request).await
    } else {
        Ok(with_type(
            StatusCode::MISDIRECTED_REQUEST,
            "text/plain",
            "misdirected",
        ))
    };
    let answer = answer.map(|mut reply| {
        let ids = if cloud.is_some() {
            "x-ms-request-id"
        } else {
            "x-ms-correlation-request-id"
        };
        correlate(&mut reply, ids);
        reply
    });
    entry.status = answer.as_ref().map_or(0, |reply| reply.status().as_u16());
    finish(core, entry, begin);
    answer
}

async fn route(
    core: &Core,
    cloud: Option<&Cloud>,
    entry: &mut Entry,
    request: Request<Incoming>,
) -> anyhow::Result<Reply> {
    if let Some(cloud) = cloud {
        return entra::serve(core, cloud, entry, request).await;
    }
    let registry = core.state.read().unwrap().registry(&entry.host).cloned();
    let registry = registry.context("the registry was removed")?;
    match (request.uri().path(), request.method()) {
        ("/oauth2/exchange", &Method::GET | &Method::POST) => {
            oauth::serve(core, &registry, Endpoint::Exchange, entry, request).await
        }
        ("/oauth2/token", &Method::GET | &Method::POST) => {
            oauth::serve(core, &registry, Endpoint::Token, entry, request).await
        }
        (path, _) if path == "/v2" || path.starts_with("/v2/") => {
            v2::serve(core, &registry, entry, request).await
        }
        _ => Ok(acr_error(
            entry,
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "404 page not found",
        )),
    }
}

/// Adds the journal's entry, before the client can see the answer, and the one line in the log.
pub fn finish(core: &Core, mut entry: Entry, begin: Instant) {
    entry.tap = None;
    entry.time = Timestamp::now();
    entry.clock_offset_s = core.clock.offset().as_secs();
    entry.millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        host = entry.host,
        method = entry.method,
        path = entry.path,
        status = entry.status,
        error = entry.error,
        fault = entry.fault,
        tenant = entry.tenant,
        client = entry.client_id,
        subject = entry.subject,
        scope = entry.scope,
        millis = entry.millis,
        "request"
    );
    core.journal.add(entry);
}
