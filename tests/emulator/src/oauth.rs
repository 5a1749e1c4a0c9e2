//! A registry's OAuth endpoints: what the exchange and the token endpoint have in common.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;

use crate::core::Core;
use crate::form::Form;
use crate::inject;
use crate::journal::{Endpoint, Entry};
use crate::jwt::Parsed;
use crate::reply::{Reply, acr_error, read};
use crate::state::Registry;
use crate::{exchange, token};

/// Length of the window in which OAuth requests are counted, in seconds.
const WINDOW: i64 = 60;

/// A request to one of the two endpoints.
pub struct OauthRequest {
    /// Query (GET) or form (POST).
    pub form: Form,
    /// Whether it is a POST.
    pub post: bool,
    /// User name and password of an `Authorization: Basic` header.
    pub basic: Option<(String, String)>,
}

/// Answers `/oauth2/exchange` and `/oauth2/token`.
pub async fn serve(
    core: &Core,
    registry: &Registry,
    endpoint: Endpoint,
    entry: &mut Entry,
    request: Request<Incoming>,
) -> anyhow::Result<Reply> {
    let request = take_apart(entry, endpoint, request).await?;
    let fault = core.faults.take(entry);
    if let Some(kind) = &fault
        && let Some(reply) = inject::instead(kind, entry, &request.form).await?
    {
        return Ok(reply);
    }
    let reply = match (front_door(core, registry, entry), endpoint) {
        (Some(refusal), _) => refusal,
        (None, Endpoint::Exchange) => exchange::answer(core, registry, entry, &request),
        (None, _) => token::answer(core, registry, entry, &request)?,
    };
    match &fault {
        Some(kind) => inject::after(kind, reply).await,
        None => Ok(reply),
    }
}

async fn take_apart(
    entry: &mut Entry,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> anyhow::Result<OauthRequest> {
    entry.endpoint = endpoint;
    let post = request.method() == Method::POST;
    let basic = request.headers().get(AUTHORIZATION).and_then(read_basic);
    let query = Form::read(request.uri().query().unwrap_or_default().as_bytes());
    let form = if post {
        let form = Form::read(&read(request.into_body()).await?);
        entry.form_keys = form.keys();
        form
    } else {
        query
    };
    entry.grant_type = form.get("grant_type").map(str::to_owned);
    let scopes = form.scopes();
    entry.scope = (!scopes.is_empty()).then(|| scopes.join(" "));
    let request = OauthRequest { form, post, basic };
    if let Some(token) = request.credential(endpoint) {
        note_token(entry, token);
    }
    Ok(request)
}

fn read_basic(header: &HeaderValue) -> Option<(String, String)> {
    let encoded = header.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

impl OauthRequest {
    fn credential(&self, endpoint: Endpoint) -> Option<&str> {
        if endpoint == Endpoint::Exchange {
            return self.form.get("access_token");
        }
        let password = self.basic.as_ref().map(|(_, password)| password.as_str());
        self.form
            .get("refresh_token")
            .or(self.form.get("password"))
            .or(password)
    }
}

/// Notes whose token was presented. The claims are taken as they stand, valid or not.
pub fn note_token(entry: &mut Entry, token: &str) {
    entry.presents(token);
    let Ok(parsed) = Parsed::read(token) else {
        return;
    };
    let text = |claim| parsed.text(claim).map(str::to_owned);
    entry.tenant = text("tid").or_else(|| text("tenant"));
    entry.client_id = text("appid").or_else(|| text("sub"));
    entry.identity = text("oid");
    entry.subject = text("fed_sub");
}

/// Firewall and rate limit.
fn front_door(core: &Core, registry: &Registry, entry: &mut Entry) -> Option<Reply> {
    if !registry.public_network_access {
        return Some(denied(entry));
    }
    let limit = registry.oauth_per_minute?;
    let (begin, count) = {
        let mut windows = core.oauth_windows.lock().unwrap();
        let now = core.clock.now();
        let name = registry.login_servers[0].clone();
        let window = windows.entry(name).or_insert((now, 0));
        if now >= window.0 + WINDOW {
            *window = (now, 0);
        }
        window.1 += 1;
        *window
    };
    if count <= limit {
        return None;
    }
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut reply = acr_error(entry, status, "TOOMANYREQUESTS", "too many requests");
    let left = HeaderValue::from((begin + WINDOW - core.clock.now()).max(1));
    reply.headers_mut().insert(RETRY_AFTER, left);
    Some(reply)
}

/// The firewall's refusal.
pub fn denied(entry: &mut Entry) -> Reply {
    let message = "client with IP '127.0.0.1' is not allowed access";
    acr_error(entry, StatusCode::FORBIDDEN, "DENIED", message)
}
