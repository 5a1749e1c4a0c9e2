//! `GET|POST /oauth2/token` of a registry: a credential for an access token.

use anyhow::Context as _;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::core::Core;
use crate::exchange::{ISSUER, rights};
use crate::journal::Entry;
use crate::jwt::Parsed;
use crate::keys::KeyName;
use crate::oauth::OauthRequest;
use crate::random::guid;
use crate::reply::{Reply, acr_error, challenge, json as json_reply, unauthorized, with_type};
use crate::roles::Rights;
use crate::scope::Access;
use crate::state::{ACCESS_TOKEN_LIFETIME, BodyStyle, PasswordGrant, Registry};

/// User name beside which a token counts as the password.
const ZERO_GUID: &str = "00000000-0000-0000-0000-000000000000";

/// Who asks, and what bounds the answer.
struct Holder {
    subject: String,
    object_id: Option<String>,
    rights: Rights,
    /// End of the presented token, in emulator seconds.
    ends: Option<i64>,
    /// List of the presented access token.
    limit: Option<Vec<Access>>,
}

impl Holder {
    fn without_token(subject: &str, rights: Rights) -> Self {
        Self {
            subject: subject.to_owned(),
            object_id: None,
            rights,
            ends: None,
            limit: None,
        }
    }
}

/// Answers a token request.
pub fn answer(
    core: &Core,
    registry: &Registry,
    entry: &mut Entry,
    request: &OauthRequest,
) -> anyhow::Result<Reply> {
    let service = request.form.get("service");
    if service.map_or(request.post, |service| !registry.serves(service)) {
        let status = StatusCode::BAD_REQUEST;
        return Ok(acr_error(
            entry,
            status,
            "BAD_REQUEST",
            "service is not this registry",
        ));
    }
    let by_password = request.form.get("grant_type") == Some("password");
    if request.post && by_password && registry.password_grant == PasswordGrant::Legacy400 {
        return Ok(with_type(StatusCode::BAD_REQUEST, "text/plain", ""));
    }
    match holder(core, registry, request) {
        Ok(holder) => grant(core, registry, entry, request, &holder),
        Err(why) => refuse(entry, why),
    }
}

fn refuse(entry: &mut Entry, why: &str) -> anyhow::Result<Reply> {
    let realm = format!(
        r#"Bearer realm="https://{0}/oauth2/token",service="{0}",error="invalid_token""#,
        entry.host
    );
    challenge(unauthorized(entry, why), &realm)
}

fn holder(
    core: &Core,
    registry: &Registry,
    request: &OauthRequest,
) -> Result<Holder, &'static str> {
    let form = &request.form;
    let (user, password) = match (request.post, form.get("grant_type")) {
        (true, Some("refresh_token")) => {
            let token = form
                .get("refresh_token")
                .ok_or("refresh_token is missing")?;
            return refresh_holder(core, registry, token);
        }
        (true, Some("password")) => (form.get("username"), form.get("password")),
        (true, _) => return Err("unsupported grant_type"),
        (false, _) => match &request.basic {
            Some((user, password)) => (Some(user.as_str()), Some(password.as_str())),
            None => (None, None),
        },
    };
    match (user, password) {
        (Some(ZERO_GUID), Some(token)) => refresh_holder(core, registry, token)
            .or_else(|refresh| access_holder(core, registry, token).map_err(|_| refresh)),
        (Some(user), Some(password)) => admin(registry, user, password),
        (None, None) if registry.anonymous_pull => {
            Ok(Holder::without_token("anonymous", Rights::PullOnly))
        }
        _ => Err("authentication required"),
    }
}

fn admin(registry: &Registry, user: &str, password: &str) -> Result<Holder, &'static str> {
    let admin = registry.admin_user.as_ref();
    admin
        .filter(|admin| admin.username == user && admin.password == password)
        .map(|admin| Holder::without_token(&admin.username, Rights::All))
        .ok_or("application not registered with AAD")
}

fn refresh_holder(core: &Core, registry: &Registry, token: &str) -> Result<Holder, &'static str> {
    token_holder(core, registry, KeyName::Refresh, "refresh_token", token)
}

fn access_holder(core: &Core, registry: &Registry, token: &str) -> Result<Holder, &'static str> {
    let mut holder = token_holder(core, registry, KeyName::Access, "access_token", token)?;
    let access = Parsed::read(token).map(|parsed| parsed.claims["access"].clone());
    let list = serde_json::from_value(access.unwrap_or_default()).unwrap_or_default();
    holder.limit = Some(list);
    Ok(holder)
}

fn token_holder(
    core: &Core,
    registry: &Registry,
    key: KeyName,
    grant: &str,
    token: &str,
) -> Result<Holder, &'static str> {
    let parsed = core.keys.verify(key, token).map_err(|_| "invalid token")?;
    if parsed.text("grant_type") != Some(grant) {
        return Err("invalid token");
    }
    judge(core, registry, &parsed)?;
    let subject = parsed.text("sub").unwrap_or_default();
    let rights = match parsed.text("holder") {
        Some("admin") => Rights::All,
        Some("anonymous") => Rights::PullOnly,
        _ => {
            let state = core.state.read().unwrap();
            let identity = state.identity(subject).filter(|i| i.enabled).cloned();
            drop(state);
            rights(
                core,
                registry,
                &identity.ok_or("the principal is unknown or disabled")?,
            )
        }
    };
    Ok(Holder {
        subject: subject.to_owned(),
        object_id: parsed.text("oid").map(str::to_owned),
        rights,
        ends: parsed.seconds("exp"),
        limit: None,
    })
}

/// Whether a token that we signed still counts at this registry.
pub fn judge(core: &Core, registry: &Registry, token: &Parsed) -> Result<(), &'static str> {
    if token
        .seconds("exp")
        .is_none_or(|exp| exp < core.clock.now())
    {
        return Err("token has expired");
    }
    if !token
        .text("aud")
        .is_some_and(|audience| registry.serves(audience))
    {
        return Err("token is for another registry");
    }
    if token.claims["epoch"].as_u64() != Some(registry.credential_epoch) {
        return Err("token was issued before the registry's credentials were invalidated");
    }
    Ok(())
}

fn grant(
    core: &Core,
    registry: &Registry,
    entry: &mut Entry,
    request: &OauthRequest,
    holder: &Holder,
) -> anyhow::Result<Reply> {
    let scopes = request.form.scopes();
    let asked: Vec<Access> = scopes
        .iter()
        .filter_map(|scope| Access::read(scope))
        .collect();
    if holder.rights.refuses_wildcards() && asked.iter().any(Access::is_wildcard) {
        return refuse(entry, "wildcards are not allowed");
    }
    let limit = holder.limit.as_deref();
    let granted: Vec<Access> = asked
        .iter()
        .filter_map(|access| access.granted(&holder.rights, limit))
        .collect();
    if granted.is_empty() && !scopes.is_empty() && registry.body == BodyStyle::Acr {
        return refuse(entry, "insufficient scope");
    }
    let (token, lifetime) = mint(core, registry, entry, holder, &granted);
    entry.issues(&token);
    let mut body = json!({"access_token": token});
    if let Some(refresh) = offline(request) {
        body["refresh_token"] = json!(refresh);
    }
    if registry.body == BodyStyle::Compat {
        body["token"] = json!(token);
        body["expires_in"] = json!(lifetime);
        body["issued_at"] = json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    Ok(json_reply(StatusCode::OK, &body))
}

/// Where the client wants a refresh token and presented one, it gets that one back.
fn offline(request: &OauthRequest) -> Option<&str> {
    let form = &request.form;
    let wanted =
        form.get("offline_token") == Some("true") || form.get("access_type") == Some("offline");
    let presented = form
        .get("refresh_token")
        .or(form.get("password"))
        .or(request
            .basic
            .as_ref()
            .map(|(_, password)| password.as_str()))?;
    let refresh =
        Parsed::read(presented).is_ok_and(|t| t.text("grant_type") == Some("refresh_token"));
    (wanted && refresh).then_some(presented)
}

/// The access token and its life in seconds, which ends no later than that of the token it came from.
fn mint(
    core: &Core,
    registry: &Registry,
    entry: &Entry,
    holder: &Holder,
    access: &[Access],
) -> (String, i64) {
    let lifetime = registry
        .access_token_lifetime_s
        .unwrap_or(ACCESS_TOKEN_LIFETIME);
    let validity = core.clock.validity(lifetime);
    let ends = holder.ends.unwrap_or(i64::MAX).min(validity.expires_at);
    let holder_kind = match holder.rights {
        Rights::All => Some("admin"),
        Rights::PullOnly => Some("anonymous"),
        Rights::Roles { .. } => None,
    };
    let claims = json!({
        "jti": guid(),
        "sub": holder.subject,
        "nbf": validity.not_before,
        "exp": ends,
        "iat": validity.issued_at,
        "iss": ISSUER,
        "aud": entry.host,
        "version": "1.0",
        "grant_type": "access_token",
        "tenant": registry.tenant_id,
        "access": access,
        "roles": [],
        "oid": holder.object_id,
        "epoch": registry.credential_epoch,
        "fed_sub": entry.subject,
        "holder": holder_kind,
    });
    (
        core.keys.sign(KeyName::Access, &claims),
        ends - validity.issued_at,
    )
}

/// What a token of ours says, if one of our keys signed it and it has not expired by the emulator's clock.
pub fn inspect(core: &Core, token: &str) -> anyhow::Result<Value> {
    let names = [KeyName::Access, KeyName::Refresh, KeyName::Entra];
    let parsed = names
        .iter()
        .find_map(|name| core.keys.verify(*name, token).ok());
    let parsed = parsed.context("no key of the emulator signed this token")?;
    let ends = parsed.seconds("exp").context("the token has no exp")?;
    anyhow::ensure!(ends >= core.clock.now(), "the token has expired");
    Ok(parsed.claims)
}
